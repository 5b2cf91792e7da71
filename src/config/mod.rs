//! Configuration: file, environment and command line become one immutable, validated [`Config`].
//!
//! Everything after `config` is handed the resolved values it needs, and reads neither the environment nor the file
//! again. Units are in the types: `Duration`, or bytes where the field is a size.
//!
//! ```
//! use laneway::config::{self, Options};
//!
//! let mut options = Options::default();
//! options.folder = Some("/nonexistent".into()); // Without a file, the defaults apply.
//! options.set = vec!["workers.count=2".into(), "timeouts.keep_alive=5s".into()];
//! let loaded = config::load(&options).expect("valid");
//! assert_eq!(loaded.config.workers.count, config::Count::Fixed(2));
//! assert_eq!(loaded.config.timeouts.keep_alive.as_secs(), 5);
//!
//! options.set = vec!["workers.cuont=2".into()];
//! let errors = config::load(&options).expect_err("no such key");
//! assert!(errors.to_string().contains("did you mean `count`?"));
//! ```
//!
//! `source` takes the texts apart, `merge` checks each key alone and puts the later over the earlier, `resolve`
//! checks what one key can't know of another; `value` is how people write values, `settings` what becomes of them.

mod command_socket;
mod diagnostic;
mod load;
mod merge;
mod options;
mod resolve;
mod settings;
mod source;
mod value;

pub(crate) use command_socket::{
    SocketPath, SocketPaths, command_socket_links, command_socket_path, command_socket_paths,
};
pub(crate) use diagnostic::ERRORS_MAX;
pub use diagnostic::{Errors, Warning, Warnings};
pub use load::load;
pub(crate) use load::reload;
pub use merge::Loaded;
pub use options::Options;
pub(crate) use options::{absolute, are_same, file_path, found_file, start_folder};
#[cfg(feature = "_schema")]
pub(crate) use resolve::schema::schema;
pub(crate) use settings::OPEN_FILE_BYTES;
pub(crate) use settings::{Abilities, SocketAccess};
pub use settings::{
    Accept, Access, AccessFormat, AccessLog, Admin, Config, Content, Driver, Engine, FileRoute,
    Files, Limits, Log, LogFormat, LogLevel, Mode, ProxyProtocol, Route, RoutePath, Server,
    Supervisor, Symlinks, Timeouts, Workers,
};
pub(crate) use source::variables::takes_colour;
pub use value::{Count, ListenAddress, Networks};
pub(crate) use value::{HOST_BYTES_MAX, LANES_MAX};

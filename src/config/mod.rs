//! Configuration: file, environment and command line become one immutable, validated [`Config`].
//!
//! Everything after `config` is handed the resolved values it needs, and reads neither the environment nor the file again.
//! Units are in the types: `Duration`, or bytes where the field is a size.
//!
//! `source` takes the texts apart, `merge` checks each key alone and puts the later over the earlier, `resolve` checks what
//! one key can't know of another; `value` is how people write values, `settings` what becomes of them.

mod diagnostic;
mod load;
mod merge;
mod options;
mod places;
mod resolve;
mod settings;
mod source;
mod value;

pub use diagnostic::{ERRORS_MAX, Errors, Warning, Warnings};
pub use load::{load, reload};
pub use merge::Loaded;
pub use options::{Options, absolute, are_same, file_path, start_folder};
pub use places::{Place, Places, control_links, control_socket, control_sockets};
pub use settings::{
    Abilities, Accept, Config, Content, Driver, Engine, HOST_BYTES_MAX, Limits, Log, LogFormat,
    LogLevel, Mode, Responses, Route, RoutePath, Server, Supervisor, Timeouts, Workers,
};
pub use source::variables::takes_colour;
pub use value::{Count, LANES_MAX, ListenAddress};

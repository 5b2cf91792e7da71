//! `[files]`, and what a route that serves files is resolved to.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::value::{As, Size, Time};

/// What an open file weighs in a lane's memory, in bytes: no more are kept than would fit there at that size.
pub(crate) const OPEN_FILE_BYTES: u64 = 64 * 1024;

/// `[files]`: what each lane keeps of the files that routes serve.
///
/// ```
/// use laneway::config::{Files, Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec!["files.cache_ttl=5s".into()];
/// let Files { cache_bytes, cached_file_bytes, cache_ttl, .. } = load(&options).expect("valid").config.files;
/// assert_eq!((cache_bytes, cached_file_bytes), (64 << 20, 64 << 10));
/// assert_eq!(cache_ttl.as_secs(), 5);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Files {
    /// How much a lane keeps in memory, in bytes.
    #[serde(with = "As::<Size<0, { 1 << 40 }>>")]
    pub cache_bytes: u64,
    /// The largest file that is kept in memory, in bytes; of a larger one its descriptor is.
    #[serde(with = "As::<Size<0, { 16 << 20 }>>")]
    pub cached_file_bytes: u64,
    /// How long a lane takes what it has looked up for true, that there is nothing included.
    #[serde(with = "As::<Time<0>>")]
    pub cache_ttl: Duration,
}

impl Default for Files {
    fn default() -> Files {
        Files {
            cache_bytes: 64 << 20,
            cached_file_bytes: 64 << 10,
            cache_ttl: Duration::from_secs(1),
        }
    }
}

impl Files {
    /// How many open files a lane keeps at most.
    pub(crate) fn open_files(&self) -> u64 {
        self.cache_bytes / OPEN_FILE_BYTES
    }
}

/// `symlinks` of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Symlinks {
    /// Those are followed that are relative and never rise above the folder.
    #[default]
    Inside,
    /// None is.
    Never,
}

/// What a route with `files` serves.
///
/// ```
/// use laneway::config::{Content, FileRoute, Options, Symlinks, load};
///
/// let mut options = Options::default();
/// options.set = vec![r#"route=[{ path = "/*", files = "/usr", index = [], listing = true }]"#.into()];
/// let mut config = load(&options).expect("valid").config;
/// let Content::Files(FileRoute { root, symlinks, index, .. }) = config.routes.remove(0).content else {
///     panic!("it serves files");
/// };
/// assert_eq!((root.to_str(), symlinks, index.len()), (Some("/usr"), Symlinks::Inside, 0));
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileRoute {
    /// The folder that they are below, absolute.
    pub root: PathBuf,
    /// Which symbolic links below it are followed.
    pub symlinks: Symlinks,
    /// The files that answer for a folder, the first that is there.
    pub index: Vec<String>,
    /// Whether a folder without one is answered with what is in it.
    pub listing: bool,
    /// The file that answers a navigation to what is not there.
    pub fallback: Option<String>,
    /// The file that is the content of a 404.
    pub not_found: Option<String>,
    /// Whether `/about` is answered with `about.html`.
    pub clean_urls: bool,
    /// Whether names that begin with a dot are served.
    pub dotfiles: bool,
    /// Whether `.zst`, `.br` and `.gz` beside a file are sent to clients that take them.
    pub precompressed: bool,
    /// Patterns with the Cache-Control of what they match; the first that matches counts.
    pub cache_control: Vec<(String, String)>,
}

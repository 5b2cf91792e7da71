//! What a configuration is made from, and the names that its user gave: of the folder that the server was started in,
//! and of the file.
//!
//! A name is kept as it was given. A release may be a folder that a symbolic link leads to, `current/`, so that the
//! name stays right when the link moves and the folder that was meant is gone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The file that is read when none is named.
pub(super) const DEFAULT_FILE: &str = "config.toml";

/// What a configuration is made from. The default reads `./config.toml`, if there is one, and no environment.
///
/// ```
/// use laneway::config::{Options, load};
///
/// let folder = std::env::temp_dir().join(format!("laneway-options-{}", std::process::id()));
/// std::fs::create_dir(&folder)?;
/// std::fs::write(folder.join("config.toml"), "limits.body = \"2 MiB\"\ntimeouts.body = \"5 s\"")?;
/// let mut options = Options::default();
/// options.folder = Some(folder.clone());
/// options.environment = vec![("LANEWAY_TIMEOUTS__BODY".into(), "6s".into())];
/// let loaded = load(&options);
/// std::fs::remove_dir_all(&folder)?;
/// let config = loaded.expect("valid").config;
/// assert_eq!(config.limits.body, 2 << 20);
/// assert_eq!(config.timeouts.body.as_secs(), 6); // The environment wins over the file.
/// assert_eq!(config.file, Some(folder.join("config.toml")));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// `--config`; without it `./config.toml`, if there is one.
    pub file: Option<PathBuf>,
    /// `--set`, in order: `KEY=VALUE`.
    pub set: Vec<String>,
    /// Names and values of environment variables: `std::env::vars()`, where they are to count.
    pub environment: Vec<(String, String)>,
    /// The folder that `./config.toml` is looked for in; `None`: the working directory.
    pub folder: Option<PathBuf>,
    /// `--socket`: where the command socket is.
    pub socket: Option<PathBuf>,
    /// Whether the file has to have a table or a key: a reload's, if the one that is served had.
    pub(crate) must_be_written: bool,
    /// Whether no configuration file tells it from other servers, so that it takes commands at `--socket` alone.
    pub(crate) is_nameless: bool,
}

impl Options {
    /// The same, naming the file that was read, so that it is missed when it is gone: its absence means the defaults
    /// only where there never was one.
    pub(crate) fn reading(self, file: Option<&Path>) -> Options {
        let folder = self.folder.as_deref().unwrap_or(Path::new(""));
        let found = file.map(|file| absolute(file, folder));
        Options { file: self.file.or(found), ..self }
    }

    /// The configuration file, if there is one.
    pub(super) fn file(&self) -> Option<PathBuf> {
        let folder = self.folder.as_deref().unwrap_or(Path::new(""));
        let default = || Some(folder.join(DEFAULT_FILE)).filter(|file| file.exists());
        self.file.clone().or_else(default)
    }
}

/// The folder that this process was started in, by the name that the shell knows, `PWD`, if that leads there.
///
/// # Errors
/// If it is unknown.
pub fn start_folder() -> io::Result<PathBuf> {
    let named = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    match named.filter(|path| are_same(path, Path::new("."))) {
        Some(path) => Ok(path),
        None => std::env::current_dir(),
    }
}

/// Whether two paths lead to one file.
pub fn are_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(one).is_some_and(|found| Some(found) == identity(other))
}

/// `path`, from `folder` on; without `.`, and without `..` except behind a symbolic link, where it leads elsewhere.
pub fn absolute(path: &Path, folder: &Path) -> PathBuf {
    let mut absolute = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if !absolute.is_symlink() => {
                absolute.pop();
            }
            part => absolute.push(part),
        }
    }
    absolute
}

/// The configuration file, by an absolute path, if there is one.
pub fn found_file(options: &Options) -> Option<PathBuf> {
    options.file().and_then(|file| std::path::absolute(file).ok())
}

/// The configuration file; without one, the path that it would have.
pub fn file_path(options: &Options) -> Option<PathBuf> {
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => start_folder().ok()?,
    };
    let file = options.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    Some(absolute(file, &folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_without_dots() {
        let absolute = |path| absolute(Path::new(path), Path::new("/a/b"));
        assert_eq!(absolute("c/./d"), Path::new("/a/b/c/d"));
        assert_eq!(absolute("../c"), Path::new("/a/c"));
        assert_eq!(absolute("/c/d"), Path::new("/c/d"));
        assert_eq!(absolute("../../../c"), Path::new("/c"));
    }

    #[test]
    fn two_dots_behind_a_link_stay() {
        // On every Linux, and a symbolic link.
        assert_eq!(
            absolute(Path::new("/proc/self/../x"), Path::new("/")),
            Path::new("/proc/self/../x")
        );
    }
}

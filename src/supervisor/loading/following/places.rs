//! Where the change of a file can be seen: in each folder that leads to it. It only looks; what is done about a change is for
//! `following`.
//!
//! ```text
//! /etc/laneway/config.toml      a ConfigMap's folder: the name is a link, which leads over another one
//! └───┬──────┘ │
//!     │        └▶ ..data/config.toml ─▶ ..2026_11_30/config.toml, the file
//!     └ watched for config.toml and ..data; the folder behind for config.toml; the file itself, which may be mounted;
//!       and /, /etc for being moved away
//! ```

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::file::watch::{Happened, Interest, Watch, What};

/// Most symbolic links on the way to a file: those that the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Places {
    /// The numbers of folders, and of the file itself.
    numbers: Vec<i32>,
    /// The names that matter, each with the number of the folder that it is in; the file itself has none.
    names: Vec<(i32, Vec<u8>)>,
}

impl Places {
    /// Whether this has to do with the file.
    pub(super) fn concern(&self, happened: Happened<'_>) -> bool {
        let Happened { number, what, name } = happened;
        match what {
            What::Lost => true,
            What::Gone => self.numbers.contains(&number),
            What::Written | What::Changed => {
                self.names.iter().any(|(of, own)| *of == number && *own == name.as_bytes())
            }
        }
    }

    /// The numbers that others have, and these have not.
    pub(super) fn leave(&self, others: &Places) -> Vec<i32> {
        let left = others.numbers.iter().filter(|number| !self.numbers.contains(number));
        left.copied().collect()
    }

    fn have_names_in(&self, number: i32) -> bool {
        self.names.iter().any(|(of, _)| *of == number)
    }

    fn add(&mut self, number: i32, name: &OsStr) {
        self.numbers.push(number);
        self.names.push((number, name.as_bytes().to_owned()));
    }
}

/// Watches everything on the way to `file`, by its absolute path, as far as there is a way: a change that comes after this
/// is told of.
///
/// # Errors
/// If it can't be watched, or isn't a regular file.
pub(super) fn watch_way_to(file: &Path, watch: &Watch) -> io::Result<Places> {
    let mut places = Places::default();
    let mut folder = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = parts(file).collect();
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match part.as_bytes() {
            b"/" => folder = PathBuf::from("/"),
            // No part of the folder is a link.
            b".." => drop(folder.pop()),
            _ => {
                let path = folder.join(&part);
                // Watched before it is looked at, so that no change between the two is missed.
                let number = watch.add(&folder, Interest::Names);
                let found = fs::symlink_metadata(&path);
                if !ahead.is_empty() && found.as_ref().is_ok_and(fs::Metadata::is_dir) {
                    // One that can't be read can be passed all the same.
                    if let Ok(number) = number {
                        places.numbers.push(number);
                        if !places.have_names_in(number) {
                            watch.add(&folder, Interest::Folder)?;
                        }
                    }
                    folder = path;
                    continue;
                }
                places.add(number?, &part);
                match found {
                    Ok(found) if found.is_symlink() => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(io::Error::other("too many symbolic links lead on"));
                        }
                        parts(&fs::read_link(&path)?).rev().for_each(|part| ahead.push_front(part));
                    }
                    Ok(found) if ahead.is_empty() && !found.is_file() => {
                        return Err(io::Error::other("it is not a regular file"));
                    }
                    Ok(_) => {
                        let number = watch.add(&path, Interest::File)?;
                        places.add(number, OsStr::new(""));
                        break;
                    }
                    // What isn't there may come.
                    Err(_) => break,
                }
            }
        }
    }
    Ok(places)
}

/// The parts of a path: `/`, `..` and names.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whether a change of `file` is told of after `change`, and nothing before it.
    fn is_told(file: &Path, change: impl FnOnce()) -> bool {
        let watch = Watch::new().expect("inotify");
        let places = watch_way_to(file, &watch).expect("watched");
        let is_told = || {
            let mut is_told = false;
            watch.read(|it| is_told |= places.concern(it)).expect("read");
            is_told
        };
        assert!(!is_told(), "told of nothing");
        change();
        is_told()
    }

    fn write(path: impl AsRef<Path>) {
        fs::write(path, "text").expect("written");
    }

    #[test]
    fn a_change_is_told_of_wherever_on_the_way_to_the_file_it_comes() {
        let scratch = tempfile::tempdir().expect("a folder");
        let at = |path: &str| scratch.path().canonicalize().expect("a folder").join(path);
        fs::create_dir_all(at("site/releases/1/etc")).expect("folders");
        fs::create_dir_all(at("site/releases/2/etc")).expect("folders");
        write(at("site/releases/1/etc/config.toml"));
        write(at("site/releases/2/etc/config.toml"));
        symlink("releases/1", at("site/current")).expect("a link");
        let file = at("site/current/etc/config.toml");
        assert!(
            is_told(&file, || write(at("site/releases/1/etc/config.toml"))),
            "written in place"
        );
        assert!(!is_told(&file, || write(at("site/releases/1/etc/other"))), "another file");
        assert!(!is_told(&file, || write(at("site/other"))), "another file beside a link");
        let swap = || {
            symlink("../site/releases/2", at("site/next")).expect("a link");
            fs::rename(at("site/next"), at("site/current")).expect("swapped");
        };
        assert!(is_told(&file, swap), "the link leads elsewhere");
        assert!(
            !is_told(&file, || write(at("site/releases/1/etc/config.toml"))),
            "no longer on the way"
        );
        let replace = || {
            write(at("site/releases/2/etc/config.toml~"));
            fs::rename(
                at("site/releases/2/etc/config.toml~"),
                at("site/releases/2/etc/config.toml"),
            )
            .expect("renamed");
        };
        assert!(is_told(&file, replace), "renamed over");
        assert!(is_told(&file, || fs::remove_file(&file).expect("removed")), "removed");
        assert!(is_told(&file, || write(&file)), "made anew");
        assert!(
            is_told(&file, || fs::rename(at("site"), at("gone")).expect("moved")),
            "an ancestor is moved"
        );
        assert!(
            is_told(&file, || fs::rename(at("gone"), at("site")).expect("moved")),
            "and comes back"
        );
    }

    #[test]
    fn what_leads_to_no_file_for_ever_is_an_error() {
        let scratch = tempfile::tempdir().expect("a folder");
        let link = scratch.path().join("link");
        symlink("link", &link).expect("a link");
        let fails = |path| watch_way_to(path, &Watch::new().expect("inotify")).is_err();
        assert!(fails(&link), "a circle");
        assert!(fails(Path::new("/dev/null")), "a device");
        assert!(fails(scratch.path()), "a folder");
    }
}

//! As whom a process runs: users and groups, and what a process gives up for good.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use crate::sys::cvt;

/// The user and the groups that a process runs as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    uid: u32,
    gid: u32,
    /// The user's name, for its further groups.
    name: Option<CString>,
}

impl Identity {
    /// Looks a user and a group up, each by name or number.
    ///
    /// # Errors
    /// Each that is unknown or can't be looked up; that this process may not become them.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, Vec<String>> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let mut errors = Vec::new();
        let (mut uid, mut gid, mut known) = (Uid::effective(), Gid::effective(), None);
        match user.map(find_user).transpose() {
            Ok(Some(found)) => (uid, gid, known) = found,
            Ok(None) => {}
            Err(reason) => errors.push(format!("cannot use supervisor.user: {reason}")),
        }
        match group.map(find_group).transpose() {
            Ok(found) => gid = found.unwrap_or(gid),
            Err(reason) => errors.push(format!("cannot use supervisor.group: {reason}")),
        }
        let is_other = uid != Uid::effective() || gid != Gid::effective();
        if errors.is_empty() && is_other && !Uid::effective().is_root() {
            let text = "cannot use supervisor.user and supervisor.group: only root can start workers as another user";
            errors.push(text.into());
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        Ok(is_other.then_some(Identity { uid, gid, name: known }))
    }

    /// Makes this process, which must have one thread, run as this, for good.
    pub(super) fn assume(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        match &self.name {
            Some(name) => initgroups(name, gid)?,
            None => setgroups(&[gid])?,
        }
        setresgid(gid, gid, gid)?;
        empty_bounding_set()?;
        setresuid(uid, uid, uid)?;
        Ok(nix::sys::prctl::set_no_new_privs()?)
    }
}

/// A user by name or number, with its group and its name.
fn find_user(name: &str) -> Result<(Uid, Gid, Option<CString>), String> {
    let number = name.parse().ok();
    let found = match number {
        Some(number) => User::from_uid(Uid::from_raw(number)),
        None => User::from_name(name),
    };
    match (known(found)?, number) {
        (Some(user), _) => Ok((user.uid, user.gid, CString::new(user.name).ok())),
        // A container may have users without names.
        (None, Some(number)) => Ok((Uid::from_raw(number), Gid::from_raw(number), None)),
        (None, None) => Err(unknown("user", name, "/etc/passwd")),
    }
}

/// A group by name or number.
fn find_group(name: &str) -> Result<Gid, String> {
    match (known(Group::from_name(name))?, name.parse()) {
        (Some(group), _) => Ok(group.gid),
        (None, Ok(number)) => Ok(Gid::from_raw(number)),
        (None, Err(_)) => Err(unknown("group", name, "/etc/group")),
    }
}

/// What was found, if anything. Without a file to look into there is no entry, too (getpwnam(3)).
fn known<T>(found: nix::Result<Option<T>>) -> Result<Option<T>, String> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        found => found.map_err(|error| error.to_string()),
    }
}

/// That a name isn't known, and what does without names where no file has any.
fn unknown(kind: &str, name: &str, file: &str) -> String {
    let unknown = format!("there is no {kind} {name:?}");
    if Path::new(file).exists() {
        return unknown;
    }
    format!(
        "{unknown}: it can't be looked up, because there is no {file} here; state the {kind}'s number"
    )
}

/// The number of a user, by name or number.
pub fn user_id(name: &str) -> Result<u32, String> {
    find_user(name).map(|(uid, ..)| uid.as_raw())
}

/// The number of a group, by name or number.
pub fn group_id(name: &str) -> Result<u32, String> {
    find_group(name).map(Gid::as_raw)
}

/// A user's name, or its number where it has none.
pub fn user_in_words(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The user as whom this process acts.
pub fn effective_user() -> u32 {
    Uid::effective().as_raw()
}

/// The group as which this process acts.
pub fn effective_group() -> u32 {
    Gid::effective().as_raw()
}

/// Takes every capability out of the bounding set, so that no file that is executed could give one (capabilities(7)).
fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..=u64::BITS {
        // SAFETY: integers alone.
        match cvt(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // The kernel has no more of them.
                Some(libc::EINVAL) => break,
                // It takes CAP_SETPCAP, which a container may have taken away: then no_new_privs alone has to do.
                Some(libc::EPERM) => break,
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

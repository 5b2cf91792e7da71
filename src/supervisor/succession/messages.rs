//! What one supervisor tells the next, and what that answers. How it gets there is not for this file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::Role;
use crate::observe::metrics::Reloads;
use crate::supervisor::commands::status::Happening;
use crate::supervisor::commands::waiting::Change;
use crate::supervisor::listeners::RequestedAddress;
use crate::supervisor::presence::socket_file::Identity;
use crate::supervisor::processes::sizing::PreviousSize;
use crate::supervisor::processes::totals::Totals;

/// What one packet from the predecessor to the heir holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHeir {
    /// Sockets of a group, which come with the packet, in order.
    Group {
        #[serde(rename = "asked")]
        requested: RequestedAddress,
        is_activated: bool,
        #[serde(default)]
        is_admin: bool,
        /// How many; fewer arrive where the heir may not open as many (unix(7)).
        #[serde(default)]
        files: usize,
        /// Device and inode of the file of a Unix socket.
        #[serde(default)]
        file: Option<Identity>,
    },
    /// Something that happened.
    Happening(Box<Happening>),
    /// How the lanes came to be that there are.
    Lanes {
        #[serde(flatten)]
        size: PreviousSize,
        /// What came of reloads. It has no message of its own, which a version before it would take for the end of the
        /// conversation, and could not be gone back to.
        #[serde(default)]
        reloads: Reloads,
        /// What was counted for auxiliary workers, by the names of their roles, which that version may not know.
        #[serde(default)]
        auxiliary: BTreeMap<String, Totals>,
    },
    /// What was counted so far for those that serve, by the predecessor and those before it. Comes again, with what it
    /// counts while it drains.
    Totals(Vec<(Role, Totals)>),
    /// The predecessor has a command socket.
    HasCommandSocket,
    /// That is all that the heir needs to start.
    End,
    /// Changes that the predecessor was asked for, and that are the heir's to make.
    Changes(Vec<Change>),
    /// The predecessor drains.
    HandedOver,
}

/// What one packet from the heir to the predecessor holds.
#[derive(Serialize, Deserialize)]
pub(crate) enum FromHeir {
    /// Its workers serve.
    Ready,
    /// It can't be, and why.
    Failed(String),
}

/// Most lanes whose totals one message holds: with every count as long as it can be.
const TOTALS_MAX: usize = 6;

/// What was counted for those that serve, in as many messages as it takes.
pub(crate) fn totals_messages(totals: &BTreeMap<Role, Totals>) -> Vec<ToHeir> {
    let serving = totals.iter().filter(|(role, _)| role.serves());
    let totals: Vec<_> = serving.map(|(role, totals)| (*role, *totals)).collect();
    totals.chunks(TOTALS_MAX).map(|totals| ToHeir::Totals(totals.to_vec())).collect()
}

/// What was counted for the others, by their names.
pub(super) fn auxiliary(totals: &BTreeMap<Role, Totals>) -> BTreeMap<String, Totals> {
    let others = totals.iter().filter(|(role, _)| !role.serves());
    others.filter_map(|(role, totals)| Some((role.log_name()?.to_owned(), *totals))).collect()
}

/// The same by the roles that are known here.
pub(super) fn auxiliary_roles(
    told: &BTreeMap<String, Totals>,
) -> impl Iterator<Item = (Role, Totals)> {
    let roles = [Role::Admin, Role::AccessLog].into_iter();
    roles.filter_map(|role| Some((role, *told.get(role.log_name()?)?)))
}

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
use crate::supervisor::processes::totals::{Account, Accounts};

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
    /// How the lanes came to be that there are. Comes again, for the auxiliary workers.
    Lanes {
        #[serde(flatten)]
        size: PreviousSize,
        /// What came of reloads. It has no message of its own, which a version before it would take for the end of the
        /// conversation, and could not be gone back to.
        #[serde(default)]
        reloads: Reloads,
        /// The accounts of auxiliary workers, by the names of their roles, which that version may not know.
        #[serde(default)]
        auxiliary: BTreeMap<String, Account>,
    },
    /// The accounts of those that serve: what the predecessor and those before it have counted so far, and have now. Comes
    /// again, with what it counts while it drains.
    Totals(Vec<(Role, Account)>),
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

/// Most roles whose accounts one message holds: with every count as long as it can be.
const ACCOUNTS_MAX: usize = 6;

/// What tells of these accounts, in as many messages as it takes.
pub(crate) fn telling(
    accounts: &Accounts,
    size: Option<PreviousSize>,
    reloads: Reloads,
) -> impl Iterator<Item = ToHeir> {
    let (serving, others): (Vec<_>, Vec<_>) = accounts.iter().partition(|(role, _)| role.serves());
    let others = others.into_iter();
    let others = others.filter_map(|(role, account)| Some((role.log_name()?.to_owned(), account)));
    let auxiliary = others.collect();
    let lanes = size.map(|size| ToHeir::Lanes { size, reloads, auxiliary });
    let served = serving.chunks(ACCOUNTS_MAX).map(|accounts| ToHeir::Totals(accounts.to_vec()));
    lanes.into_iter().chain(served.collect::<Vec<_>>())
}

/// The accounts of auxiliary workers, by the roles that are known here.
pub(crate) fn auxiliary_roles(
    told: &BTreeMap<String, Account>,
) -> impl Iterator<Item = (Role, Account)> {
    let roles = [Role::Admin, Role::AccessLog].into_iter();
    roles.filter_map(|role| Some((role, *told.get(role.log_name()?)?)))
}

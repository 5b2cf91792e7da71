//! What an heir is sent, as it takes it: a socket holds less than all of what it needs to start, and less than what many lanes
//! count. What is sent, and when, is not for this file.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use super::messages::{ToHeir, telling};
use crate::control::{Control, Delivery};
use crate::observe::metrics::Reloads;
use crate::supervisor::commands::status::History;
use crate::supervisor::listeners::{Listeners, Purpose, RequestedAddress};
use crate::supervisor::processes::sizing::PreviousSize;
use crate::supervisor::processes::totals::Accounts;
use crate::sys::socket::PACKET_FILES_MAX;

/// What an heir is still to be sent, in order.
#[derive(Default)]
pub(super) struct Unsent(pub(super) VecDeque<Part>);

/// One packet of it.
pub(super) enum Part {
    /// The sockets of a group, from this lane on, as many as a packet carries. They are looked up when they are sent: copies
    /// of all would take as many descriptors again.
    Sockets(Purpose, RequestedAddress, usize),
    Message(ToHeir),
}

/// What an heir is sent before it starts.
pub(crate) struct Handover<'s> {
    pub(crate) listeners: AllListeners<'s>,
    pub(crate) history: &'s History,
    pub(crate) lanes: Option<PreviousSize>,
    pub(crate) accounts: Accounts,
    pub(crate) reloads: Reloads,
    pub(crate) has_command_socket: bool,
}

/// Those of the lanes, and the admin addresses'.
pub(super) type AllListeners<'s> = (&'s Listeners, &'s Listeners);

impl Unsent {
    /// All of it.
    pub(super) fn of(handover: Handover<'_>) -> Unsent {
        let Handover { listeners, history, lanes, accounts, reloads, has_command_socket } =
            handover;
        let of_lanes = listeners.0.groups().iter().map(|group| (Purpose::Serve, group));
        let of_admin = listeners.1.groups().iter().map(|group| (Purpose::Admin, group));
        let sockets = of_lanes.chain(of_admin).flat_map(|(purpose, group)| {
            let starts = (0..group.listeners.len()).step_by(PACKET_FILES_MAX);
            starts.map(move |from| Part::Sockets(purpose, group.requested.clone(), from))
        });
        let happenings = history.0.iter().map(|of| ToHeir::Happening(Box::new(of.clone())));
        let messages = happenings
            .chain(telling(&accounts, lanes, reloads))
            .chain(has_command_socket.then_some(ToHeir::HasCommandSocket))
            .chain([ToHeir::End]);
        Unsent(sockets.chain(messages.map(Part::Message)).collect())
    }

    /// Sends as much as there is room for, and returns why the first of the others was not sent.
    pub(super) fn flush(&mut self, control: &Control, listeners: AllListeners<'_>) -> Delivery {
        while let Some(part) = self.0.front() {
            let delivery = match part {
                Part::Sockets(purpose, requested, from) => {
                    let is_admin = *purpose == Purpose::Admin;
                    let listeners = if is_admin { listeners.1 } else { listeners.0 };
                    send_sockets(control, listeners, is_admin, requested, *from)
                }
                Part::Message(message) => control.send(message, &[]),
            };
            match delivery {
                Delivery::Done => drop(self.0.pop_front()),
                other => return other,
            }
        }
        Delivery::Done
    }
}

fn send_sockets(
    control: &Control,
    listeners: &Listeners,
    is_admin: bool,
    requested: &RequestedAddress,
    from: usize,
) -> Delivery {
    let Some(group) = listeners.groups().iter().find(|group| group.requested == *requested) else {
        return Delivery::Done;
    };
    let listeners = group.listeners.iter().skip(from).take(PACKET_FILES_MAX);
    let files: Vec<BorrowedFd<'_>> = listeners.map(AsFd::as_fd).collect();
    let (requested, is_activated) = (requested.clone(), group.is_activated);
    let (count, file) = (files.len(), group.file_identity());
    let group = ToHeir::Group { requested, is_activated, is_admin, files: count, file };
    control.send(&group, &files)
}

//! The sockets of a configuration: opened, and told of. Which worker accepts from them is not decided here.

use std::net::SocketAddr;
use std::time::Duration;

use super::warned::Warned;
use crate::config::{Accept, Config, Engine, Mode};
use crate::control::{GenerationNumber, Role};
use crate::supervisor::listeners::{
    Accesses, Error, Group, Listeners, PortHolders, Purpose, RequestedAddress, Resolved, Wanted,
    clashes,
};
use crate::supervisor::presence::socket_file::LOCK_PATIENCE;
use crate::sys::socket::{self, Address};

/// What the addresses of a configuration stand for.
pub(super) struct Asked {
    /// Those of `server.listen`, by its entries.
    pub(super) addresses: Vec<Resolved>,
    /// Those of `admin.listen`.
    pub(super) admin_addresses: Vec<Resolved>,
    /// Which other processes listen on their ports.
    pub(super) holders: PortHolders,
    /// Whose the Unix sockets are to be.
    pub(super) accesses: Accesses,
}

/// Opens the sockets that aren't open yet, and tells of them. Returns the addresses of the lanes and the admin addresses, as
/// they were asked for.
pub(super) fn open(
    number: GenerationNumber,
    config: &Config,
    asked: &Asked,
    lanes: usize,
    (listeners, admin_listeners): (&mut Listeners, &mut Listeners),
    warned: &mut Warned,
) -> Result<(Vec<RequestedAddress>, Vec<RequestedAddress>), String> {
    // Workers that run must not wait for another server.
    let is_first = number == GenerationNumber::FIRST;
    let lock_patience = if is_first { LOCK_PATIENCE } else { Duration::ZERO };
    let wanted = Wanted {
        listen: &config.server.listen,
        resolved: &asked.addresses,
        backlog: config.server.backlog,
        sockets: config.workers.accept.sockets(lanes),
        engine: config.workers.engine,
        holders: &asked.holders,
        accesses: asked.accesses,
        lock_patience,
    };
    let Asked { addresses, admin_addresses, .. } = asked;
    let opened = listeners.open(&wanted).map_err(|error| {
        explained(error, addresses, admin_listeners.groups(), admin_addresses).to_string()
    })?;
    let admin = Wanted {
        listen: &config.admin.listen,
        resolved: &asked.admin_addresses,
        backlog: ADMIN_BACKLOG,
        sockets: 1,
        engine: Engine::Native,
        ..wanted
    };
    let admin = admin_listeners.open(&admin).map_err(|error| {
        explained(error, admin_addresses, listeners.groups(), addresses).to_string()
    })?;
    for error in opened.left_out.iter().chain(&admin.left_out) {
        let reason = error.to_string();
        if warned.is_new("address left out", &reason) {
            tracing::warn!(reason, "address left out");
        }
    }
    check_address_count(opened.requested.len(), Purpose::Serve)?;
    check_address_count(admin.requested.len(), Purpose::Admin)?;
    let is_told =
        |group: &Group, new: &[RequestedAddress]| is_first || new.contains(&group.requested);
    for group in listeners.groups().iter().filter(|group| is_told(group, &opened.new)) {
        log_listening(group, config, lanes);
    }
    for group in admin_listeners.groups().iter().filter(|group| is_told(group, &admin.new)) {
        let (address, role) = (&group.address, Role::Admin.log_name());
        tracing::info!(%address, role, url = address.internet().map(url), "listening");
    }
    Ok((opened.requested, admin.requested))
}

/// Why an address can't be had that is `asked` for: also where the configuration that is served has it, in these `groups`,
/// for another purpose, for which it is asked no more.
fn explained(error: Error, asked: &[Resolved], groups: &[Group], of_groups: &[Resolved]) -> Error {
    let is_kept = |group: &Group| each(of_groups).any(|address| clashes(address, &group.address));
    let is_going = |address: &Address| {
        let mut clashing = groups.iter().filter(|group| clashes(&group.address, address));
        clashing.any(|group| !is_kept(group))
    };
    let is_moved = each(asked).any(|address| error.is_at(address) && is_going(address));
    if is_moved { error.moved() } else { error }
}

/// Every address that these entries stand for.
fn each(resolved: &[Resolved]) -> impl Iterator<Item = &Address> {
    resolved.iter().flatten().flatten()
}

/// The accept queue of an admin address, in connections: probes and scrapers are few.
pub(crate) const ADMIN_BACKLOG: u32 = 256;

/// Most addresses: one packet passes a worker its lane's sockets on all of them.
const ADDRESSES_MAX: usize = socket::PACKET_FILES_MAX;

/// An error if a configuration has more addresses than a server can.
pub(super) fn check_address_count(count: usize, purpose: Purpose) -> Result<(), String> {
    if count > ADDRESSES_MAX {
        let key = purpose.key();
        return Err(format!("{key} names {count} addresses; at most {ADDRESSES_MAX}"));
    }
    Ok(())
}

fn log_listening(group: &Group, config: &Config, lanes: usize) {
    let mode = match config.workers.mode {
        Mode::Threads => "threads",
        Mode::Processes => "processes",
    };
    let asked = config.server.backlog;
    let accept = match config.workers.accept {
        Accept::Reuseport if group.is_shared() => Accept::Shared,
        accept => accept,
    };
    tracing::info!(
        address = %group.address,
        lanes,
        mode,
        accept = accept.name(),
        engine = config.workers.engine.other(),
        backlog = asked,
        backlog_effective = group.backlog,
        url = group.address.internet().map(url),
        "listening"
    );
    if group.backlog < asked && !group.is_held {
        let (reason, remedy) = why_clamped(group, asked);
        tracing::warn!(
            address = %group.address,
            backlog = asked,
            backlog_effective = group.backlog,
            reason,
            remedy,
            "backlog clamped"
        );
    }
}

/// Why an accept queue is shorter than what is asked for, and what to do about it.
fn why_clamped(group: &Group, asked: u32) -> (&'static str, String) {
    // The length of a queue whose address is in `server.listen`, too, is this server's to say.
    if group.is_activated && group.backlog < socket::backlog_max() {
        let remedy = format!("Backlog={asked} in its unit (systemd.socket(5))");
        return ("the service manager gave the socket a shorter accept queue", remedy);
    }
    ("net.core.somaxconn limits the accept queue", format!("sysctl -w net.core.somaxconn={asked}"))
}

/// What to put into a browser on this machine.
fn url(address: SocketAddr) -> String {
    let port = address.port();
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("http://127.0.0.1:{port}/"),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("http://[::1]:{port}/"),
        _ => format!("http://{address}/"),
    }
}

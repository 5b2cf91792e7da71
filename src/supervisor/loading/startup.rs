//! From a configuration to a generation that is ready to be started: sizing, descriptors, sockets, content.

use crate::control::{GenerationNumber, Role};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::file_limit::{FileLimit, check_file_limit};
use super::loader::Loaded;
use crate::config::{Config, Engine, Mode, Warning};
use crate::observe::ledger::Ledger;
use crate::supervisor::listeners::{Group, Listeners, Purpose, RequestedAddress, Wanted};
use crate::supervisor::policy::{Plan, Settings};
use crate::supervisor::processes::{PreparedGeneration, sizing};
use crate::sys::socket;
use crate::worker::Generation;

/// The warnings about the configuration in effect, so that a reload repeats none of them.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    before: HashSet<String>,
    now: HashSet<String>,
}

impl Warned {
    /// Whether the warning `event` about `what` is to be given: not if the configuration before had it, too.
    pub(crate) fn is_new(&mut self, event: &str, what: &str) -> bool {
        let key = format!("{event}: {what}");
        let is_new = !self.before.contains(&key);
        self.now.insert(key) && is_new
    }

    /// A configuration has given all its warnings: one that it doesn't have is given again when it comes back.
    fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// Makes everything of a generation that exists before its first fork, and tells of it.
pub(crate) fn prepare(
    number: GenerationNumber,
    loaded: Loaded,
    before: Option<sizing::PreviousSize>,
    (listeners, admin_listeners): (&mut Listeners, &mut Listeners),
    ledger: &Arc<Ledger>,
    warned: &mut Warned,
) -> Result<(PreparedGeneration, Plan), String> {
    let Loaded { config, addresses, admin_addresses, holders, identity } = loaded;
    for Warning { place, reason, remedy } in &config.warnings {
        if warned.is_new("configuration warning", reason) {
            tracing::warn!(place, reason, remedy, "configuration warning");
        }
    }
    let machine =
        if number == GenerationNumber::FIRST { sizing::machine() } else { sizing::measure_again() };
    let size = sizing::size_after(before, config.workers.count, &machine);
    log_size(&size, &machine, warned);
    let lanes = size.lanes;
    let identity = identity?;
    if let Some(FileLimit { limit, needed, reason, remedy }) = check_file_limit(&config, lanes)?
        && warned.is_new("file limit too small", &format!("{reason} {needed} {limit}"))
    {
        tracing::warn!(limit, needed, reason, remedy, "file limit too small");
    }
    let engine = config.workers.engine;
    if let Some((reason, remedy)) = engine.abilities().warning
        && warned.is_new("engine for comparison", reason)
    {
        tracing::warn!(engine = engine.other(), reason, remedy, "engine for comparison");
    }
    let wanted = Wanted {
        listen: &config.server.listen,
        resolved: &addresses,
        backlog: config.server.backlog,
        sockets: config.workers.accept.sockets(lanes),
        engine,
        holders: &holders,
    };
    let opened = listeners.open(&wanted).map_err(|error| error.to_string())?;
    let admin = Wanted {
        listen: &config.admin.listen,
        resolved: &admin_addresses,
        backlog: ADMIN_BACKLOG,
        sockets: 1,
        engine: Engine::Native,
        holders: &holders,
    };
    let admin = admin_listeners.open(&admin).map_err(|error| error.to_string())?;
    for error in opened.left_out.iter().chain(&admin.left_out) {
        let reason = error.to_string();
        if warned.is_new("address left out", &reason) {
            tracing::warn!(reason, "address left out");
        }
    }
    check_address_count(opened.requested.len(), Purpose::Serve)?;
    check_address_count(admin.requested.len(), Purpose::Admin)?;
    let is_told = |group: &Group, new: &[RequestedAddress]| {
        number == GenerationNumber::FIRST || new.contains(&group.requested)
    };
    for group in listeners.groups().iter().filter(|group| is_told(group, &opened.new)) {
        log_listening(group, &config, lanes);
    }
    for group in admin_listeners.groups().iter().filter(|group| is_told(group, &admin.new)) {
        let (address, role) = (group.address, Role::Admin.log_name());
        tracing::info!(%address, role, url = url(address), "listening");
    }
    let plan = Plan {
        settings: settings(&config.supervisor),
        lanes,
        mode: config.workers.mode,
        accept: config.workers.accept,
        sockets: listeners.lanes(),
        attendants: attendants(&config),
        takes_early: !listeners.are_lent(),
    };
    let cpus = if config.workers.pin { machine.cpus } else { Vec::new() };
    let addresses = listeners.addresses(&opened.requested);
    warned.turn();
    let generation = Generation::new(number, config, addresses, Arc::clone(ledger));
    let addresses = opened.requested;
    let admin_addresses = admin.requested;
    let prepared =
        PreparedGeneration { generation, addresses, admin_addresses, size, cpus, identity };
    Ok((prepared, plan))
}

/// Why lanes beyond the number of CPUs are warned of.
pub(crate) const LANES_SHARE_CPUS: &str =
    "lanes will share CPUs, which costs more than it gives; workers.count = \"auto\" fits";

/// The roles of the workers that `config` asks for and through which no clients are served.
fn attendants(config: &Config) -> Vec<Role> {
    let admin = (!config.admin.listen.is_empty()).then_some(Role::Admin);
    admin.into_iter().collect()
}

/// The accept queue of an admin address, in connections: as many as the admin worker has at most.
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

fn settings(supervisor: &crate::config::Supervisor) -> Settings {
    Settings {
        drain_timeout_ms: supervisor.drain_timeout.as_millis() as u64,
        drain_delay_ms: supervisor.drain_delay.as_millis() as u64,
        ready_timeout_ms: supervisor.ready_timeout.as_millis() as u64,
        restart_delay_ms: supervisor.restart_delay.as_millis() as u64,
        restart_delay_max_ms: supervisor.restart_delay_max.as_millis() as u64,
        max_restarts: supervisor.max_restarts,
        restart_window_ms: supervisor.restart_window.as_millis() as u64,
        watchdog_ms: supervisor.watchdog.as_millis() as u64,
    }
}

/// Tells how many lanes there are to be on `machine`, and why.
pub(crate) fn log_size(size: &sizing::Size, machine: &sizing::Machine, warned: &mut Warned) {
    let allowed = machine.cpus.len();
    tracing::info!(
        lanes = size.lanes,
        affinity = allowed,
        quota = machine.quota,
        num_cpus = machine.counted,
        decided_by = size.decided_by,
        reason = size.reason,
        "sized"
    );
    let what = format!("{} on {allowed}", size.lanes);
    if size.lanes > allowed.max(1) && warned.is_new("more lanes than CPUs", &what) {
        tracing::warn!(
            lanes = size.lanes,
            cpus = allowed,
            reason = LANES_SHARE_CPUS,
            "more lanes than CPUs"
        );
    }
}

fn log_listening(group: &Group, config: &Config, lanes: usize) {
    let mode = match config.workers.mode {
        Mode::Threads => "threads",
        Mode::Processes => "processes",
    };
    let asked = config.server.backlog;
    tracing::info!(
        address = %group.address,
        lanes,
        mode,
        accept = config.workers.accept.name(),
        engine = config.workers.engine.other(),
        backlog = asked,
        backlog_effective = group.backlog,
        url = url(group.address),
        "listening"
    );
    if group.backlog < asked && !group.is_held {
        tracing::warn!(
            address = %group.address,
            backlog = asked,
            backlog_effective = group.backlog,
            reason = "net.core.somaxconn limits the accept queue",
            remedy = format!("sysctl -w net.core.somaxconn={asked}"),
            "backlog clamped"
        );
    }
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

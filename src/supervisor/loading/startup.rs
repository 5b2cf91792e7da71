//! From a configuration to a generation that is ready to be started: sizing, descriptors, sockets, content.

use crate::control::{GenerationNumber, Role};
use std::io;
use std::sync::Arc;

use super::file_limit::{FileLimit, check_file_limit};
use super::loader::Loaded;
use super::sockets::{self, Asked};
use super::warned::Warned;
use crate::config::{AccessLog, Config, Log, Warning};
use crate::observe::access::ring::Rings;
use crate::observe::ledger::Ledger;
use crate::supervisor::listeners::Listeners;
use crate::supervisor::policy::{Plan, Settings};
use crate::supervisor::processes::{PreparedGeneration, sizing};
use crate::worker::Generation;

/// Makes everything of a generation that exists before its first fork, and tells of it.
pub(crate) fn prepare(
    number: GenerationNumber,
    loaded: Loaded,
    before: Option<sizing::PreviousSize>,
    (listeners, admin_listeners): (&mut Listeners, &mut Listeners),
    ledger: &Arc<Ledger>,
    warned: &mut Warned,
) -> Result<(PreparedGeneration, Plan), String> {
    let Loaded { config, addresses, admin_addresses, holders, identity, accesses } = loaded;
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
    let (identity, accesses) = (identity?, accesses?);
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
    let asked = Asked { addresses, admin_addresses, holders, accesses };
    let (addresses, admin_addresses) =
        sockets::open(number, &config, &asked, lanes, (listeners, admin_listeners), warned)?;
    let access_log = rings(&config.log, ledger.blocks());
    let access_log = access_log.map_err(|error| format!("cannot map the access log: {error}"))?;
    let plan = Plan {
        settings: settings(&config),
        lanes,
        mode: config.workers.mode,
        accept: config.workers.accept,
        sockets: listeners.lanes(),
        auxiliary: auxiliary(&config),
        takes_early: !listeners.are_lent(),
    };
    let cpus = if config.workers.pin { machine.cpus } else { Vec::new() };
    let real = listeners.addresses(&addresses);
    warned.turn();
    let generation = Generation::new(number, config, real, Arc::clone(ledger), access_log);
    let prepared = PreparedGeneration {
        generation,
        addresses,
        admin_addresses,
        size,
        cpus,
        identity,
        accesses,
    };
    Ok((prepared, plan))
}

/// Where workers with so many blocks of the ledger put the lines of the access log, if there is one.
fn rings(log: &Log, blocks: usize) -> io::Result<Option<Arc<Rings>>> {
    let is_on = log.access != AccessLog::Off;
    is_on.then(|| Rings::new(blocks).map(Arc::new)).transpose()
}

/// Why lanes beyond the number of CPUs are warned of.
pub(crate) const LANES_SHARE_CPUS: &str =
    "lanes will share CPUs, which costs more than it gives; workers.count = \"auto\" fits";

/// The roles of the workers that `config` asks for and through which no clients are served.
fn auxiliary(config: &Config) -> Vec<Role> {
    let admin = (!config.admin.listen.is_empty()).then_some(Role::Admin);
    let access_log = (config.log.access != AccessLog::Off).then_some(Role::AccessLog);
    admin.into_iter().chain(access_log).collect()
}

fn settings(config: &Config) -> Settings {
    let supervisor = &config.supervisor;
    Settings {
        drain_timeout_ms: supervisor.drain_timeout.as_millis() as u64,
        drain_delay_ms: supervisor.drain_delay.as_millis() as u64,
        ready_timeout_ms: supervisor.ready_timeout.as_millis() as u64,
        restart_delay_ms: supervisor.restart_delay.as_millis() as u64,
        restart_delay_max_ms: supervisor.restart_delay_max.as_millis() as u64,
        max_restarts: supervisor.max_restarts,
        restart_window_ms: supervisor.restart_window.as_millis() as u64,
        hung_ms: config.hung_after().unwrap_or_default().as_millis() as u64,
        ends_hung: !supervisor.watchdog.is_zero(),
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

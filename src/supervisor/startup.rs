//! From a configuration to lanes that are ready to be driven: sizing, descriptors, sockets, content.

use std::net::SocketAddr;

use super::policy::Settings;
use super::processes::{Processes, lanes};
use super::{doing, listeners, sizing};
use crate::config::{Config, Mode};
use crate::observe::ledger::Ledger;
use crate::sys::cpu;
use crate::worker::Generation;
use crate::worker::event_loop::LISTENERS_MAX;

/// The settings of the policy.
pub(super) fn settings(supervisor: &crate::config::Supervisor) -> Settings {
    Settings {
        drain_timeout_ms: supervisor.drain_timeout.as_millis() as u64,
        ready_timeout_ms: supervisor.ready_timeout.as_millis() as u64,
        restart_delay_ms: supervisor.restart_delay.as_millis() as u64,
        restart_delay_max_ms: supervisor.restart_delay_max.as_millis() as u64,
        max_restarts: supervisor.max_restarts,
        restart_window_ms: supervisor.restart_window.as_millis() as u64,
    }
}

/// Makes everything that exists before the first fork, and tells of it.
pub(super) fn prepare(config: Config) -> Result<Processes, String> {
    let machine = sizing::machine();
    let size = sizing::size(config.workers.count, &machine);
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
    if size.lanes > allowed.max(1) {
        tracing::warn!(
            lanes = size.lanes,
            cpus = allowed,
            reason = "lanes will share CPUs, which costs more than it gives; workers.count = \"auto\" fits",
            "more lanes than CPUs"
        );
    }
    check_file_limit(&config, size.lanes)?;
    let (groups, left_out) =
        listeners::bind(&config.server, size.lanes).map_err(|error| error.to_string())?;
    for error in left_out {
        tracing::warn!(reason = %error, "address left out");
    }
    if groups.len() > LISTENERS_MAX {
        return Err(format!(
            "server.listen names {} addresses; at most {LISTENERS_MAX}",
            groups.len()
        ));
    }
    for group in &groups {
        tell_listening(group, &config, size.lanes);
    }
    let ledger = Ledger::new(size.lanes).map_err(doing("cannot map the ledger"))?;
    let lanes = lanes(&groups, &machine.cpus, size.lanes, config.workers.pin);
    let generation = Generation::new(1, config, ledger);
    Ok(Processes::new(generation, lanes))
}

fn tell_listening(group: &listeners::Group, config: &Config, lanes: usize) {
    let mode = match config.workers.mode {
        Mode::Threads => "threads",
        Mode::Processes => "processes",
    };
    let asked = config.server.backlog;
    tracing::info!(
        address = %group.address,
        lanes,
        mode,
        backlog = asked,
        backlog_effective = group.backlog,
        url = url(group.address),
        "listening"
    );
    if group.backlog < asked {
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

/// Descriptors that a worker process needs besides its connections and its lanes' sockets.
const OTHER_FILES: u64 = 32;

/// Raises the limit on descriptors, and warns if it is less than the connections that are allowed.
fn check_file_limit(config: &Config, lanes: usize) -> Result<(), String> {
    let limit = cpu::raise_file_limit().map_err(doing("cannot raise the limit on open files"))?;
    let lanes = lanes as u64;
    let of_process = match config.workers.mode {
        Mode::Threads => lanes,
        Mode::Processes => 1,
    };
    let connections = u64::from(config.workers.max_connections) * of_process;
    let listeners = lanes * config.server.listen.len() as u64;
    let needed = connections + listeners + OTHER_FILES;
    if limit < needed {
        tracing::warn!(
            limit,
            needed,
            reason = "a worker process may open fewer files than workers.max_connections needs",
            remedy = format!(
                "ulimit -Hn {needed} (systemd: LimitNOFILE={needed}), or workers.max_connections = {}",
                limit.saturating_sub(listeners + OTHER_FILES) / of_process
            ),
            "file limit too small"
        );
    }
    Ok(())
}

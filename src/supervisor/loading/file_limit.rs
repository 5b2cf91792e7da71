//! Whether this process and its workers may open as many files as the configuration could need, and what to do where they
//! may not. It raises the limit as far as it can, and opens nothing.

use crate::config::{Accept, AccessLog, Config, Mode};
use crate::sys::cpu::{self, OTHER_FILES};

/// That fewer files may be open than could have to be.
pub(crate) struct FileLimit {
    pub(crate) limit: u64,
    pub(crate) needed: u64,
    pub(crate) reason: &'static str,
    pub(crate) remedy: String,
}

/// Refuses a limit that connections could reach, if the engine accepts for ever there, and serves none.
fn check_engine_file_limit(config: &Config, limit: u64) -> Result<(), String> {
    let engine = config.workers.engine.abilities();
    let Some(files_of_address) = engine.files_of_address else {
        return Ok(());
    };
    let others = files_of_address * config.server.listen.len() as u64 + OTHER_FILES;
    let needed = u64::from(config.workers.max_connections) + others;
    if needed <= limit {
        return Ok(());
    }
    let name = engine.name;
    let or_fewer = match limit.saturating_sub(others) {
        0 => String::new(),
        affordable => format!(", or workers.max_connections = {affordable}"),
    };
    Err(format!(
        "a worker of the engine \"{name}\" could need {needed} open files for workers.max_connections, and would serve \
         nobody any more at the limit, which is {limit}; ulimit -Hn {needed} (systemd: LimitNOFILE={needed}){or_fewer}"
    ))
}

/// Raises the limit on descriptors, and warns if it is less than what could be needed: by a worker process
/// for the connections that are allowed, by the supervisor for its sockets and workers.
///
/// # Errors
/// If it can't be raised, or the engine can't do with it.
pub(crate) fn check_file_limit(config: &Config, lanes: usize) -> Result<Option<FileLimit>, String> {
    let limit = cpu::raise_file_limit()
        .map_err(|error| format!("cannot raise the limit on open files: {error}"))?;
    check_engine_file_limit(config, limit)?;
    let lanes = lanes as u64;
    let (lanes_of_process, processes) = match config.workers.mode {
        Mode::Threads => (lanes, 1),
        Mode::Processes => (1, lanes),
    };
    let connections = u64::from(config.workers.max_connections) * lanes_of_process;
    let accept = config.workers.accept;
    let listeners = accept.sockets(lanes as usize) as u64 * config.server.listen.len() as u64;
    // A process of its own for the acceptor, and a pair of sockets for each lane.
    let (acceptors, conduits) = match accept {
        Accept::Handoff => (1, 2 * lanes),
        Accept::Reuseport | Accept::Shared => (0, 0),
    };
    let admin = config.admin.listen.len() as u64;
    let auxiliary = u64::from(admin > 0) + u64::from(config.log.access != AccessLog::Off);
    // A file for each connection that one is sent on, and those that lanes keep open.
    let files = match config.serves_files() {
        true => connections + config.files.open_files() * lanes_of_process,
        false => 0,
    };
    let of_worker = connections + files + listeners + OTHER_FILES;
    // Twice the processes, because a reload has two generations at a time; a pidfd and a socket for each.
    let processes = processes + acceptors + auxiliary;
    let of_supervisor = listeners + admin + 4 * processes + 2 * conduits + OTHER_FILES;
    let needed = of_worker.max(of_supervisor);
    if needed <= limit {
        return Ok(None);
    }
    let mut remedy = format!("ulimit -Hn {needed} (systemd: LimitNOFILE={needed})");
    let others = listeners + OTHER_FILES + files.saturating_sub(connections);
    let of_each = if files > 0 { 2 } else { 1 };
    let affordable = limit.saturating_sub(others) / lanes_of_process / of_each;
    let reason = if of_supervisor > limit {
        remedy.push_str(", or fewer lanes");
        "the supervisor may open fewer files than so many lanes need"
    } else {
        if affordable > 0 {
            remedy.push_str(&format!(", or workers.max_connections = {affordable}"));
        }
        "a worker process may open fewer files than workers.max_connections needs"
    };
    Ok(Some(FileLimit { limit, needed, reason, remedy }))
}

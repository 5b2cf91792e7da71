//! A worker drives one lane: one event loop, in a thread or as the only thread of a process.
//!
//! [`process`] hosts the workers of one process, [`run`] is one worker, [`event_loop`] its loop, and
//! [`connection`] what happens to a connection. A lane shares nothing with another on the request path, and
//! nothing here locks. Some workers drive no lane: in accept mode handoff the acceptor ([`accepting`]), and `auxiliary`.

pub mod accepting;
mod auxiliary;
pub mod connection;
pub mod context;
pub mod driver;
mod engines;
pub mod event_loop;
pub(crate) mod fault;
pub mod process;

use std::io;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

#[cfg(feature = "may")]
use crate::config::Engine;
use crate::config::{self, Config, ProxyProtocol};
use crate::content::Site;
use crate::control::{Assignment, Control, GenerationNumber, Role, WorkerEvent};
use crate::http::Limits;
use crate::observe::access::Access;
use crate::observe::access::ring::Rings;
use crate::observe::ledger::Ledger;
use crate::observe::panics;
use crate::sys::cpu;
use accepting::acceptor::Acceptor;
use accepting::channels::Channels;
use context::Context;

use driver::{Driver, epoll, io_uring};
use event_loop::EventLoop;

/// What all workers of one generation share.
#[derive(Clone)]
pub struct Generation {
    /// Counted from 1.
    pub number: GenerationNumber,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where it is served, with real ports.
    #[cfg_attr(not(feature = "may"), allow(dead_code, reason = "for that engine alone"))]
    pub addresses: Arc<[SocketAddr]>,
    /// What is served.
    pub site: Arc<Site>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Where its lanes put the lines of the access log, if there is one.
    pub access_log: Option<Arc<Rings>>,
}

impl Generation {
    /// Renders what `config` serves, for all workers at once.
    pub fn new(
        number: GenerationNumber,
        config: Config,
        addresses: Arc<[SocketAddr]>,
        ledger: Arc<Ledger>,
        access_log: Option<Arc<Rings>>,
    ) -> Generation {
        let site = Arc::new(Site::new(&config.routes, &config.files));
        Generation { number, site, config: Arc::new(config), addresses, ledger, access_log }
    }
}

/// Does what `assignment` says in this thread until a drain is over. What goes wrong is reported to the supervisor;
/// false says that something did. Threads share `channels` with the others of their process.
pub fn run(
    assignment: &Assignment,
    generation: &Generation,
    control: &Control,
    channels: Option<&Channels>,
) -> bool {
    panics::keep();
    let work = || work(assignment, generation, control, channels);
    let attempt = panic::catch_unwind(AssertUnwindSafe(work));
    let event = match attempt {
        Ok(Ok(())) => WorkerEvent::Drained,
        Ok(Err(error)) => WorkerEvent::Failed(error),
        Err(payload) => {
            std::mem::forget(payload);
            WorkerEvent::Panicked(panics::take())
        }
    };
    let is_good = event == WorkerEvent::Drained;
    control.report(assignment.worker, event);
    is_good
}

fn work(
    assignment: &Assignment,
    generation: &Generation,
    control: &Control,
    channels: Option<&Channels>,
) -> Result<(), String> {
    let Assignment { worker, role, cpu, .. } = *assignment;
    if role.serves() {
        fault::on_start()?;
    }
    if let Some(cpu) = cpu
        && !cpu::pin(cpu)
    {
        // The process may not use that CPU any more. A worker that isn't pinned is slower, but serves.
        control.report(worker, WorkerEvent::NotPinned(cpu));
    }
    match role {
        Role::Acceptor => accept(assignment, generation, control, channels),
        Role::Lane(_) => drive(assignment, generation, control, channels),
        Role::Admin => auxiliary::admin::run(assignment, generation, control),
        Role::AccessLog => auxiliary::access_log::run(assignment, generation, control),
    }
}

/// The acceptor's work.
fn accept(
    assignment: &Assignment,
    generation: &Generation,
    control: &Control,
    channels: Option<&Channels>,
) -> Result<(), String> {
    let Assignment { worker, block, .. } = *assignment;
    let (config, ledger) = (&generation.config, &generation.ledger);
    let mut acceptor = Acceptor::new(worker, block, config, control, ledger, channels)
        .map_err(|error| format!("cannot set up the acceptor: {error}"))?;
    control.report(worker, WorkerEvent::Ready { driver: None, reason: None });
    let result = acceptor.run();
    control.report(worker, WorkerEvent::StoppedAccepting);
    result.map_err(|error| format!("the acceptor failed: {error}"))
}

/// The work of a lane's worker.
fn drive(
    assignment: &Assignment,
    generation: &Generation,
    control: &Control,
    channels: Option<&Channels>,
) -> Result<(), String> {
    let Assignment { worker, role, block, .. } = *assignment;
    let config = &generation.config;
    let limits = limits(config);
    #[cfg(feature = "may")]
    if config.workers.engine == Engine::May {
        return engines::may::run(assignment, generation, limits, control);
    }
    let access = access(assignment, generation);
    let mut context = Context::new(&generation.site, &limits, config, &generation.ledger, block);
    context.are_introduced = config.server.proxy_protocol == ProxyProtocol::Required;
    if let Some(access) = &access {
        context.log_to(access, config.access.send_request_id);
    }
    let (driver, reason) = open_driver(&config.workers)
        .map_err(|error| format!("cannot set up the driver of {role}: {error}"))?;
    let name = Some(driver.name().to_owned());
    let mut event_loop = EventLoop::new(worker, config, driver, control, context, channels)
        .map_err(|error| format!("cannot set up the event loop of {role}: {error}"))?;
    control.report(worker, WorkerEvent::Ready { driver: name, reason });
    event_loop.run().map_err(|error| format!("the event loop of {role} failed: {error}"))
}

/// The access log of a lane's worker, if there is one.
fn access(assignment: &Assignment, generation: &Generation) -> Option<Access> {
    let Assignment { role, block, .. } = *assignment;
    let rings = generation.access_log.as_ref()?;
    let format = generation.config.log.access_format;
    Some(Access::new(rings, format, role.lane()?, &generation.ledger, block))
}

/// What a request may be like, by `config`.
pub fn limits(config: &Config) -> Limits {
    Limits {
        request_line: config.limits.request_line,
        header_bytes: config.limits.header_bytes,
        headers: config.limits.headers,
        body: config.limits.body,
        merge_slashes: config.server.merge_slashes,
    }
}

/// How many turns a loop makes, at least, in the time after which the supervisor takes it for hung.
const TURNS_WITHIN: u64 = 4;

/// The longest wait of a loop, so that the supervisor sees a turn often enough, if it looks for one.
fn patience_max_ms(config: &Config) -> Option<u64> {
    let hung_ms = config.hung_after()?.as_millis() as u64;
    Some((hung_ms / TURNS_WITHIN).max(1))
}

/// The driver that `workers.driver` asks for. With "auto" that is epoll where there is no io_uring, and the reason
/// comes with it.
///
/// # Errors
/// If the kernel has no memory or descriptor for it, or, of io_uring asked for by name, forbids it.
pub fn open_driver(workers: &config::Workers) -> io::Result<(Driver, Option<String>)> {
    let epoll = || epoll::Driver::new().map(Driver::Epoll);
    if workers.driver == config::Driver::Epoll {
        return Ok((epoll()?, None));
    }
    match io_uring::Driver::new() {
        Ok(driver) => Ok((Driver::IoUring(Box::new(driver)), None)),
        Err(error) if workers.driver == config::Driver::Auto => {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
                    ": the seccomp profile of a container, or the sysctl kernel.io_uring_disabled"
                }
                _ => "",
            };
            Ok((epoll()?, Some(format!("{error}{hint}"))))
        }
        Err(error) => {
            let remedy = "workers.driver = \"auto\" goes on without it";
            Err(io::Error::new(error.kind(), format!("no io_uring: {error}; {remedy}")))
        }
    }
}

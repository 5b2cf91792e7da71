//! A worker drives one lane: one event loop, in a thread or as the only thread of a process.
//!
//! [`process`] hosts the workers of one process, [`run`] is one worker, [`event_loop`] its loop, and
//! [`connection`] what happens to a connection. A lane shares nothing with another on the request path, and
//! nothing here locks.

pub mod connection;
pub mod context;
pub mod control;
pub mod driver;
pub mod event_loop;
mod fault;
pub mod process;
pub mod slab;
pub mod timers;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crate::config::Config;
use crate::content::Site;
use crate::http::Limits;
use crate::observe::ledger::Ledger;
use crate::observe::panics;
use crate::sys::cpu;
use crate::sys::socket::Listener;
use context::Context;
use control::{Control, News};
use event_loop::EventLoop;

/// A lane: its number, its CPU, and the listening sockets that belong to it.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Counted from 0.
    pub index: usize,
    /// The CPU that its worker is pinned to, if it is.
    pub cpu: Option<usize>,
    /// One for each address.
    pub listeners: Vec<Arc<Listener>>,
}

/// What all workers of one generation share.
#[derive(Clone)]
pub struct Generation {
    /// Counted from 1.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// What is served.
    pub site: Arc<Site>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
}

impl Generation {
    /// Renders what `config` serves, for all workers at once.
    pub fn new(number: u64, config: Config, ledger: Ledger) -> Generation {
        Generation {
            number,
            site: Arc::new(Site::new(&config.routes)),
            config: Arc::new(config),
            ledger: Arc::new(ledger),
        }
    }
}

/// Drives `lane` in this thread until a drain is over. What goes wrong is told to the supervisor; false
/// says that something did.
pub fn run(lane: &Lane, generation: &Generation, control: &Control) -> bool {
    panics::keep();
    let attempt = panic::catch_unwind(AssertUnwindSafe(|| drive(lane, generation, control)));
    let news = match attempt {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => News::Failed(error),
        Err(payload) => {
            std::mem::forget(payload);
            News::Panicked(panics::take())
        }
    };
    control.report(lane.index, news);
    false
}

fn drive(lane: &Lane, generation: &Generation, control: &Control) -> Result<(), String> {
    fault::on_start()?;
    let config = &generation.config;
    if let Some(cpu) = lane.cpu
        && !cpu::pin(cpu)
    {
        return Err(format!("cannot pin lane {} to CPU {cpu}", lane.index));
    }
    let limits = Limits {
        request_line: config.limits.request_line,
        header_bytes: config.limits.header_bytes,
        headers: config.limits.headers,
        body: config.limits.body,
    };
    let counters = generation.ledger.lane(lane.index);
    counters.worker_started();
    let context = Context::new(&generation.site, &limits, config, counters);
    let connections_max = config.workers.max_connections as usize;
    let mut event_loop =
        EventLoop::new(lane.index, &lane.listeners, connections_max, control, context).map_err(
            |error| format!("cannot set up the event loop of lane {}: {error}", lane.index),
        )?;
    control.report(lane.index, News::Ready);
    event_loop
        .run()
        .map_err(|error| format!("the event loop of lane {} failed: {error}", lane.index))
}

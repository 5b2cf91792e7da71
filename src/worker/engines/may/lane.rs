//! What the coroutines of one lane share: its configuration, its counters and its open connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::PATIENCE;
use crate::control::{Control, WorkerNumber};
use crate::http::Limits;
use crate::observe::ledger::Counters;
use crate::sys::coroutine::Handle;
use crate::sys::wake::Wake;
use crate::worker::{Generation, patience_max_ms};

/// What all coroutines share.
pub(super) struct Lane {
    pub(super) worker: WorkerNumber,
    pub(super) counters: Counters<'static>,
    pub(super) control: Control,
    pub(super) generation: &'static Generation,
    pub(super) limits: Limits,
    pub(super) is_draining: AtomicBool,
    /// The open connections. Locked when one begins and ends, and in a drain; never for a request.
    pub(super) connections: Mutex<BTreeMap<u64, Arc<OpenConnection>>>,
    /// How many there ever were.
    pub(super) accepted: AtomicU64,
    /// Those that are to end, on their way to the main thread, which `wake` tells of them.
    pub(super) ending: Mutex<Vec<Arc<OpenConnection>>>,
    pub(super) wake: Wake,
}

/// An open connection.
pub(super) struct OpenConnection {
    pub(super) handle: Handle,
    /// A request is being answered: what comes of it is not written yet.
    pub(super) is_busy: AtomicBool,
    /// It is to end.
    pub(super) is_ending: AtomicBool,
}

impl Lane {
    pub(super) fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OpenConnection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ending(&self) -> MutexGuard<'_, Vec<Arc<OpenConnection>>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection end when all that was written to it has left.
    pub(super) fn end_when_sent(&self, open: &Arc<OpenConnection>) {
        if !open.is_ending.swap(true, Ordering::Relaxed) {
            self.ending().push(Arc::clone(open));
            self.wake.notify();
        }
    }

    /// Stamps the ledger for as long as the scheduler runs coroutines.
    pub(super) fn show_life(&'static self) {
        let every = patience_max_ms(&self.generation.config).map(Duration::from_millis);
        self.counters.begin_turns(&self.generation.ledger, every.unwrap_or(PATIENCE));
    }
}

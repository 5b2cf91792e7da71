//! The folder that a route serves, found again after a while: deployments swap a link to it, and what it was is then gone.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::file::beneath::Root;

/// Finds the folder. Waits for its file system, so no lane asks it.
pub(super) struct Roots {
    path: PathBuf,
    found: Mutex<Option<(Instant, Arc<Root>)>>,
    /// How long one that was found is taken for true.
    ttl: Duration,
}

impl Roots {
    pub(super) fn new(path: PathBuf, ttl: Duration) -> Roots {
        Roots { path, found: Mutex::new(None), ttl }
    }

    /// The folder as it is now, or was `ttl` ago.
    ///
    /// # Errors
    /// If there is none, or it can't be opened.
    pub(super) fn find(&self) -> io::Result<Arc<Root>> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((at, root)) if at.elapsed() < self.ttl => return Ok(Arc::clone(root)),
            _ => *found = None,
        }
        // Held meanwhile: all wait for the same.
        let root = Arc::new(Root::open(&self.path)?);
        *found = Some((Instant::now(), Arc::clone(&root)));
        Ok(root)
    }
}

//! Following the configuration file: what tells of its changes, and when it is looked at. Looking is for a child that reads
//! it (`loader`), which also watches it anew: the supervisor touches no file system, and reads what the kernel tells it.
//!
//! ```text
//! loader:     watches ── reads ── hands both over ─▶
//! supervisor:                                         waits for a change ── quiet ─▶ forks a loader
//! ```

mod pace;
mod places;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use pace::Pace;
pub(crate) use places::Places;
use places::watch_way_to;

use crate::config;
use crate::supervisor::token::Token;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::file::watch::{Watch, What, reached_limit};

/// How long it is not asked again what has happened after it was: a folder may be busy with other files.
const REST_MS: u64 = 50;

/// What a loader watches: with what the supervisor has for that, or with something new.
pub(crate) struct Watched {
    pub(crate) places: Places,
    pub(crate) new: Option<Watch>,
}

/// Watches the configuration's file, if it has one, with `watch` if there is that.
///
/// # Errors
/// Why it can't be watched.
pub(crate) fn watch_file(
    options: &config::Options,
    watch: Option<&Watch>,
) -> Result<Option<Watched>, String> {
    let Some(file) = config::found_file(options) else { return Ok(None) };
    let watched = match watch {
        Some(watch) => watch_way_to(&file, watch).map(|places| Watched { places, new: None }),
        None => Watch::new().and_then(|watch| {
            Ok(Watched { places: watch_way_to(&file, &watch)?, new: Some(watch) })
        }),
    };
    watched.map(Some).map_err(|error| match reached_limit(&error) {
        Some(limit) => format!("{error}; raise {limit}"),
        None => error.to_string(),
    })
}

/// The file as it was read last, and what has happened to it since.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// Kept once there is one, because to close it may wait.
    watch: Option<Watch>,
    /// Whether it wakes the loop.
    is_heard: bool,
    places: Places,
    /// Why the file isn't watched as it is now.
    problem: Option<String>,
    /// Whether it is followed, as was made known.
    is_on: bool,
    pace: Pace,
    /// What tells the content that was read last from another.
    seen: u64,
    /// Until when nothing is heard, so that a busy folder doesn't wake the loop all the time.
    rests_until_ms: Option<u64>,
}

impl Following {
    /// A copy of what it watches with, for a loader.
    pub(crate) fn copy(&self) -> io::Result<Option<Watch>> {
        self.watch.as_ref().map(Watch::try_clone).transpose()
    }

    /// The file was read with this outcome, and was watched from before that on, if it could be.
    pub(crate) fn read(&mut self, seen: u64, watched: Result<Option<Watched>, String>) {
        self.seen = seen;
        match watched {
            Ok(watched) => {
                let (places, new) = watched.map(|of| (of.places, of.new)).unwrap_or_default();
                self.watch = self.watch.take().or(new);
                self.watch_only(places);
                self.problem = None;
            }
            Err(reason) => self.problem = Some(reason),
        }
    }

    /// Follows it from here on, or no more, and says so.
    pub(crate) fn set(&mut self, is_wanted: bool, file: Option<&Path>, epoll: &Epoll) {
        let path = file.map(|file| file.display().to_string());
        if !is_wanted {
            self.hear_nothing(epoll);
            self.watch_only(Places::default());
            self.rests_until_ms = None;
            self.pace.forget();
        } else if let Err(error) = self.hear(epoll) {
            self.problem = Some(error.to_string());
        }
        let is_on = is_wanted && self.places != Places::default();
        if is_wanted && let Some(reason) = self.problem.take() {
            let remedy = "after a change of the file, send SIGHUP or run `server reload`";
            tracing::warn!(path, reason, remedy, "configuration not followed");
        } else if is_on && !self.is_on {
            tracing::info!(path, "configuration followed");
        }
        self.is_on = is_on;
    }

    /// Watches these places, and no others any more.
    fn watch_only(&mut self, places: Places) {
        if let Some(watch) = &self.watch {
            for number in places.leave(&self.places) {
                // What is gone already isn't watched.
                let _ = watch.remove(number);
            }
        }
        self.places = places;
    }

    /// Has changes wake the loop from here on.
    fn hear(&mut self, epoll: &Epoll) -> io::Result<()> {
        if let Some(watch) = self.watch.as_ref().filter(|_| !self.is_heard) {
            epoll.add(watch, Token::Configuration.to_bits(), Interest::Readable)?;
            self.is_heard = true;
        }
        Ok(())
    }

    /// Has changes wake the loop no more.
    fn hear_nothing(&mut self, epoll: &Epoll) {
        if let Some(watch) = self.watch.as_ref().filter(|_| self.is_heard) {
            let _ = epoll.remove(watch.as_fd());
            self.is_heard = false;
        }
    }

    /// What tells the content that was read last from another.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes note of what has happened, and then hears nothing for a moment.
    pub(crate) fn collect(&mut self, now_ms: u64, epoll: &Epoll) {
        let Some(watch) = &self.watch else { return };
        let (pace, places) = (&mut self.pace, &self.places);
        let told = watch.read(|it| {
            if places.concern(it) {
                pace.note(it.what, now_ms);
            }
        });
        if told.is_err() {
            // What has happened can't be told.
            pace.note(What::Lost, now_ms);
        }
        self.hear_nothing(epoll);
        self.rests_until_ms = Some(now_ms + REST_MS);
    }

    /// Hears again, if it has rested for long enough.
    pub(crate) fn resume(&mut self, now_ms: u64, epoll: &Epoll) {
        let is_over = self.rests_until_ms.take_if(|until_ms| *until_ms <= now_ms).is_some();
        if is_over && self.hear(epoll).is_err() {
            // The kernel has no memory for it now.
            self.rests_until_ms = Some(now_ms + REST_MS);
        }
    }

    /// When it hears again.
    pub(crate) fn resume_ms(&self) -> Option<u64> {
        self.rests_until_ms
    }

    /// The file may be another one than was read: it is looked at soon.
    pub(crate) fn doubt(&mut self, now_ms: u64) {
        self.pace.note(What::Lost, now_ms);
    }

    /// When the file is to be looked at, if it has changed.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.pace.due_ms()
    }

    /// Whether something has begun to write to the file since it was looked at, so that half of it may have been read.
    pub(crate) fn is_spoilt(&mut self, now_ms: u64, epoll: &Epoll) -> bool {
        self.collect(now_ms, epoll);
        self.pace.is_spoilt()
    }

    /// It is looked at.
    pub(crate) fn look(&mut self, now_ms: u64) {
        self.pace.look(now_ms);
    }
}

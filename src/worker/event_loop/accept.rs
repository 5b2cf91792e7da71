//! How a lane's loop accepts: a batch at a time, while it has room. It decides when; from where, and what to do about
//! failures, is [`Sources`](crate::worker::accepting::sources::Sources)'.

use std::io;

use super::EventLoop;
use crate::control::WorkerEvent;
use crate::worker::accepting::sources::{ACCEPTS_PER_TURN, Pause};
use crate::worker::context::Drain;
use crate::worker::driver::token::Key;

/// After so long a little room is worth a report, too.
const ROOM_MS: u64 = 20;

impl EventLoop<'_> {
    /// Accepts a batch from one source.
    pub(super) fn accept_from(&mut self, source: u32) -> io::Result<()> {
        for count in 0.. {
            // No other worker can serve the other connections of a packet that was received, so this one takes them
            // all.
            if !self.sources.has_begun_batch(source) {
                if self.connections.len() >= self.connections_max {
                    return self.sources.pause(Pause::Full, &mut self.driver);
                }
                if count >= ACCEPTS_PER_TURN {
                    break;
                }
            }
            let emptying_since_ms = self.context.drain.and_then(Drain::emptying_since_ms);
            let now_ms = self.context.now_ms;
            match self.sources.next(source, now_ms, emptying_since_ms, &mut self.driver)? {
                Some(socket) => self.adopt(socket),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Watches the sources again if there is room, and accepts from all of them without an event: in a drain, after
    /// descriptors had run out, and where another worker may have got the event.
    pub(super) fn accept_without_event(&mut self) -> io::Result<()> {
        self.close_idlest();
        let has_room = self.connections.len() < self.connections_max;
        let now_ms = self.context.now_ms;
        self.sources.resume(has_room, now_ms, &mut self.driver)?;
        let is_to_be_emptied = self.is_emptying() && self.sources.are_to_be_emptied(now_ms);
        if is_to_be_emptied || self.sources.is_retry_due() {
            self.accept_waiting(None)?;
        } else if self.sources.is_recheck_due(now_ms) {
            let before = self.context.counters.accepted();
            for source in self.sources.shared_numbers() {
                self.accept_from(source)?;
            }
            let found = self.context.counters.accepted() > before;
            self.sources.rechecked(found, now_ms);
        }
        Ok(())
    }

    /// Closes the connection whose client has sent nothing for the longest time, if a place is to be kept and none is free.
    fn close_idlest(&mut self) {
        if !self.makes_room || self.connections.len() < self.connections_max {
            return;
        }
        let keys: Vec<Key> = self.connections.keys().collect();
        let waiting = keys.into_iter().filter_map(|key| {
            let deadline_ms = self.timers.deadline_ms(key.index);
            let connection = self.connections.find(key)?;
            Some((connection.waits_since_ms(deadline_ms, &self.context)?, key))
        });
        if let Some((_, key)) = waiting.min_by_key(|(since_ms, _)| *since_ms) {
            self.close(key);
        }
    }

    /// Reports to the supervisor when the lane has become full, so that other lanes take what comes, and when it has
    /// room again: much, or for a while. A single place would be reported with every connection.
    pub(super) fn report_room(&mut self) {
        let (now_ms, open, max) =
            (self.context.now_ms, self.connections.len(), self.connections_max);
        self.room_since_ms =
            (self.is_full_reported && open < max).then(|| self.room_since_ms.unwrap_or(now_ms));
        let is_full = match self.room_since_ms {
            None => self.is_full_reported || self.sources.is_full(),
            Some(since_ms) => open > max - max.div_ceil(8) && now_ms < since_ms + ROOM_MS,
        };
        if is_full != self.is_full_reported {
            match self.control.try_report(self.worker, WorkerEvent::Full(is_full)) {
                true => self.is_full_reported = is_full,
                false => self.room_since_ms = self.room_since_ms.map(|_| now_ms),
            }
        }
    }

    /// Accepts what waits in the sources of a lane, or in all: a batch from each.
    pub(super) fn accept_waiting(&mut self, lane: Option<usize>) -> io::Result<()> {
        self.sources.numbers(lane).into_iter().try_for_each(|source| self.accept_from(source))
    }

    /// When a little room has been there for long enough to report it.
    pub(super) fn room_due_ms(&self) -> Option<u64> {
        self.room_since_ms.map(|since_ms| since_ms + ROOM_MS)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::tests::{next_report, with_loop};
    use super::*;
    use crate::config::Accept;

    #[test]
    fn a_full_lane_has_room_again_when_an_eighth_is_free_or_any_was_for_a_while() {
        with_loop(Accept::Reuseport, |event_loop, supervisor, _| {
            let fill_and_free = |event_loop: &mut EventLoop<'_>, places: usize| {
                event_loop.connections_max = 16;
                while event_loop.connections.len() < 16 {
                    event_loop.adopt(UnixStream::pair().expect("a pair").0.into());
                }
                event_loop.sources.pause(Pause::Full, &mut event_loop.driver).expect("a pause");
                event_loop.report_room();
                assert_eq!(next_report(supervisor), Some(WorkerEvent::Full(true)));
                let keys: Vec<_> = event_loop.connections.keys().take(places).collect();
                keys.into_iter().for_each(|key| event_loop.close(key));
                event_loop.accept_without_event().expect("it goes on");
                event_loop.report_room();
            };
            fill_and_free(event_loop, 2);
            assert_eq!(next_report(supervisor), Some(WorkerEvent::Full(false)));
            fill_and_free(event_loop, 1);
            let due_ms = event_loop.context.now_ms + ROOM_MS;
            assert_eq!(event_loop.room_due_ms(), Some(due_ms));
            event_loop.context.now_ms = due_ms - 1;
            event_loop.report_room();
            assert_eq!(next_report(supervisor), None);
            event_loop.context.now_ms = due_ms;
            event_loop.report_room();
            assert_eq!(next_report(supervisor), Some(WorkerEvent::Full(false)));
        });
    }
}

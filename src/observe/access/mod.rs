//! The access log, as a lane sees it: the line of a request is begun when its head is whole, kept in memory of the lane
//! until its record closes, and then ended and put into the lane's ring. A lane never waits: a line that there is no room
//! for is dropped, and counted.
//!
//! ```text
//! a head ─▶ open ─▶ kept, by a Ticket ── its record closes ─▶ close ─▶ a line ─▶ ring ─▶ the writer's process
//! ```

pub mod ring;

mod escape;
mod line;
mod number;
mod request_id;

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use line::{CLIENT_GONE, Seen, Told};

use self::line::{Line, Renderer};
use self::request_id::{RequestIds, is_sane};
use self::ring::{Producer, Rings};
use super::ledger::Ledger;
use crate::config::AccessFormat;
use crate::sys::process;

/// Most memory that a lane keeps for requests under way, in bytes. A request that there is none left for has no line, which
/// is counted as dropped.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// So much of it is kept for the next requests when it isn't used any more.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// What is kept of a request under way. Its own request alone has it: once its line is made, it stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    index: u32,
    generation: u32,
}

impl Ticket {
    /// Of a request of which nothing is kept.
    pub const NONE: Ticket = Ticket { index: u32::MAX, generation: 0 };
}

/// The access log of one lane.
pub struct Access(RefCell<Lane>);

struct Lane {
    producer: Producer,
    ledger: Arc<Ledger>,
    /// Of the ledger.
    block: usize,
    renderer: Renderer,
    ids: RequestIds,
    /// When the lane's time was 0, by either clock.
    start: Instant,
    epoch: Duration,
    requests: Vec<Kept>,
    /// Those that no request has.
    free: Vec<u32>,
    /// Memory of all of them, in bytes.
    kept_bytes: usize,
    /// What was opened last for the connection at work.
    last: Ticket,
}

#[derive(Default)]
struct Kept {
    generation: u32,
    line: Line,
}

impl Access {
    /// That of a worker that drives this lane, and has this block of the ledger.
    pub fn new(
        rings: &Arc<Rings>,
        format: AccessFormat,
        lane: usize,
        ledger: &Arc<Ledger>,
        block: usize,
    ) -> Access {
        let process = process::id();
        // The keys of it are random, but may be those of the process that this one was forked from.
        let seed = RandomState::new().hash_one((process, block, SystemTime::now()));
        Access(RefCell::new(Lane {
            producer: rings.produce(block, process),
            ledger: Arc::clone(ledger),
            block,
            renderer: Renderer::new(format, lane),
            ids: RequestIds::new(seed),
            start: Instant::now(),
            epoch: Duration::ZERO,
            requests: Vec::new(),
            free: Vec::new(),
            kept_bytes: 0,
            last: Ticket::NONE,
        }))
    }

    /// The lane's time was 0 at `start`.
    pub fn begin(&self, start: Instant) {
        self.0.borrow_mut().start = start;
        self.set_clock(SystemTime::now());
    }

    /// It is `now`: to be said every second, since the machine's clock may be set.
    pub fn set_clock(&self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut lane = self.0.borrow_mut();
        lane.epoch = since.saturating_sub(lane.start.elapsed());
    }

    /// The time, in microseconds of the lane.
    pub fn now_us(&self) -> u64 {
        self.0.borrow().start.elapsed().as_micros() as u64
    }

    /// Keeps what is known of a request until [`Access::close`].
    pub fn open(&self, seen: &Seen<'_>) -> Ticket {
        self.0.borrow_mut().open(seen)
    }

    /// What was opened last since [`Access::forget_last`]: of a request that fails before its record is anywhere.
    pub fn last(&self) -> Ticket {
        self.0.borrow().last
    }

    /// Another connection is worked on: what was opened last is no request of it.
    pub fn forget_last(&self) {
        self.0.borrow_mut().last = Ticket::NONE;
    }

    /// Adds the id of a request.
    pub fn put_id(&self, ticket: Ticket, out: &mut Vec<u8>) {
        if let Some(kept) = self.0.borrow().find(ticket) {
            out.extend_from_slice(kept.line.id());
        }
    }

    /// A request is over: makes its line.
    pub fn close(&self, ticket: Ticket, told: &Told, now_us: u64) {
        self.0.borrow_mut().close(ticket, told, now_us);
    }
}

impl Lane {
    fn find(&self, ticket: Ticket) -> Option<&Kept> {
        let kept = self.requests.get(ticket.index as usize);
        kept.filter(|kept| kept.generation == ticket.generation)
    }

    fn open(&mut self, seen: &Seen<'_>) -> Ticket {
        if self.kept_bytes >= KEPT_BYTES_MAX {
            return Ticket::NONE;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.requests.push(Kept::default());
            self.kept_bytes += size_of::<Kept>() + size_of::<u32>();
            (self.requests.len() - 1) as u32
        });
        let kept = &mut self.requests[index as usize];
        let before = kept.line.text.capacity();
        let id = if is_sane(seen.request_id) { seen.request_id } else { self.ids.next() };
        self.renderer.begin(&mut kept.line, seen, id);
        self.kept_bytes += kept.line.text.capacity() - before;
        self.last = Ticket { index, generation: kept.generation };
        self.last
    }

    fn close(&mut self, ticket: Ticket, told: &Told, now_us: u64) {
        if self.find(ticket).is_none() {
            self.producer.count_dropped();
            return self.count_dropped();
        }
        let kept = &mut self.requests[ticket.index as usize];
        let now = self.epoch + Duration::from_micros(now_us);
        self.renderer.end(&mut kept.line, told, now);
        let is_put = self.producer.push(&kept.line.text);
        kept.generation = kept.generation.wrapping_add(1);
        if self.kept_bytes > SPARE_BYTES_MAX {
            self.kept_bytes -= kept.line.text.capacity();
            kept.line.text = Vec::new();
        }
        self.free.push(ticket.index);
        if !is_put {
            self.count_dropped();
        }
    }

    fn count_dropped(&self) {
        self.ledger.block(self.block).cells().access_log_dropped.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_under_way_take_no_more_memory_than_they_may_whatever_came_before_them() {
        let rings = Arc::new(Rings::new(1).expect("rings"));
        let ledger = Arc::new(Ledger::new(1).expect("a ledger"));
        let access = Access::new(&rings, AccessFormat::Combined, 0, &ledger, 0);
        let told = Told { status: 200, body_bytes: 0, bytes: 1, duration_us: 1, is_aborted: false };
        let text_bytes = || {
            let lane = access.0.borrow();
            lane.requests.iter().map(|kept| kept.line.text.capacity()).sum::<usize>()
        };
        // Each of these characters takes four bytes of a line.
        let long = "\u{7f}".repeat(512);
        for agent in ["", &long, "", &long] {
            let seen = Seen { agent: agent.as_bytes(), ..Seen::default() };
            let opened = std::iter::repeat_with(|| access.open(&seen));
            let tickets: Vec<_> = opened.take_while(|ticket| *ticket != Ticket::NONE).collect();
            assert!(tickets.len() > 1_000, "{}", tickets.len());
            assert!(text_bytes() <= KEPT_BYTES_MAX + ring::LINE_BYTES_MAX, "{}", text_bytes());
            tickets.into_iter().for_each(|ticket| access.close(ticket, &told, 0));
            assert!(text_bytes() <= SPARE_BYTES_MAX, "{}", text_bytes());
        }
    }
}

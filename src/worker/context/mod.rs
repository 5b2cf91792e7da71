//! What a lane lends to the connection it works on: its configuration, its time, and its output buffer.

mod access;
pub mod clients;
pub mod inquiries;
pub mod jobs;
pub(in crate::worker) mod labels;
pub mod output;

use std::io::Write;
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use httpdate::HttpDate;

use self::clients::Clients;
use self::jobs::Jobs;
use self::output::Output;
use crate::config::{Config, Timeouts};
use crate::content::{self, Kept, Site};
use crate::control::DrainKind;
use crate::http::h1::DATE_LINE_BYTES;
use crate::http::{Fields, Limits};
use crate::observe::access::Access;
use crate::observe::ledger::{Counters, Ledger};
use crate::observe::record::{Closing, Ended};
use crate::sys::cpu;

/// Most bytes of memory that a lane holds for its connections: request and response bodies, responses that wait for
/// their client, and what came too early. Each is within its limit, and this bounds their sum. Bodies of the site's own
/// are not counted.
pub(super) const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most bytes that a lane throws away in one turn, of what clients send after their last response: some tens of
/// microseconds, since they aren't copied. Those that send more wait for the next turn, and TCP makes them.
pub(super) const DISCARDS_PER_TURN: usize = 256 * 1024;

/// So much of files is sent to one client in one turn: what it reads fast must not keep a lane from its others.
pub(super) const FILE_BYTES_PER_TURN: usize = 512 * 1024;

/// Shared by all connections of one lane, one after the other.
pub struct Context<'s> {
    /// What is served.
    pub site: &'s Site,
    /// What the lane keeps of the files that it serves.
    pub kept: Kept,
    /// Limits of a request.
    pub limits: &'s Limits,
    /// `limits.requests_per_connection`
    pub requests_per_connection: u32,
    /// `limits.body_rate`, in bytes a second; 0 is no limit.
    pub body_rate: u64,
    /// Timeouts in milliseconds.
    pub timeouts: TimeoutsMs,
    /// The lane's block of the ledger.
    pub counters: Counters<'s>,
    /// Time of this turn, in milliseconds since the loop began.
    pub now_ms: u64,
    /// The same in microseconds.
    pub now_us: u64,
    /// The current `Date` line.
    pub date: [u8; DATE_LINE_BYTES],
    /// Responses to the connection at work.
    pub output: Output<'s>,
    /// Requests that were answered in this turn.
    pub ended: Ended,
    /// The lane's drain, if it drains: then it finishes what is in flight, and takes nothing new.
    pub drain: Option<Drain>,
    /// Memory held for connections, in bytes.
    pub held_bytes: usize,
    /// The same without the connection at work.
    pub held_elsewhere: usize,
    /// How much of what clients send after their last response this turn still throws away.
    pub discards_left: usize,
    /// How much of files this turn still sends to the connection at work.
    pub file_bytes_left: usize,
    /// What is done elsewhere for connections of the lane.
    pub jobs: Jobs,
    /// Where its clients are, if something asks for that.
    pub clients: Option<Clients>,
    /// Whether each connection begins with a header of the PROXY protocol, by which a proxy says whose it is.
    pub are_introduced: bool,
    /// The access log, if there is one.
    pub access: Option<&'s Access>,
    clock: Clock,
}

/// `[timeouts]` in milliseconds.
pub struct TimeoutsMs {
    /// For a whole head.
    pub header_ms: u64,
    /// Between two pieces of a body.
    pub body_ms: u64,
    /// Between two requests.
    pub keep_alive_ms: u64,
    /// Between two pieces of a response.
    pub write_ms: u64,
}

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Why, which says how long connections are kept. It only becomes more urgent.
    pub kind: DrainKind,
    /// How far it is.
    pub stage: DrainStage,
    /// When connections that are still open are closed, if the supervisor has set a time for this worker.
    pub until_ms: Option<u64>,
}

/// How far a drain is. It goes on from each stage to the next, or begins with the second; never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStage {
    /// The acceptor may still hand over connections, and they are taken, until the supervisor seals the process.
    Unsealed,
    /// What waits in the sources is taken, and each source is closed once it is empty: since this time.
    Emptying {
        /// In milliseconds since the loop began.
        since_ms: u64,
    },
    /// There is no source any more, and the supervisor was told so. Connections finish what is in flight.
    Finishing,
}

impl Drain {
    /// Goes on to `stage` if a seal was waited for: any other stage ends by itself.
    pub fn advance(&mut self, stage: DrainStage) {
        if self.stage == DrainStage::Unsealed {
            self.stage = stage;
        }
    }

    /// Since when each source is closed once it is empty, if that is so.
    pub fn emptying_since_ms(self) -> Option<u64> {
        match self.stage {
            DrainStage::Emptying { since_ms } => Some(since_ms),
            DrainStage::Unsealed | DrainStage::Finishing => None,
        }
    }
}

struct Clock {
    start: Instant,
    /// Time of the ledger at the start.
    before_ms: u64,
    /// When the `Date` line is out of date.
    date_until_ms: u64,
    /// How long the loop had been busy when its time on a CPU was read last, in microseconds.
    busy_us: u64,
}

impl<'s> Context<'s> {
    /// The context of a lane that serves `site`.
    pub fn new(
        site: &'s Site,
        limits: &'s Limits,
        config: &Config,
        ledger: &'s Ledger,
        block: usize,
    ) -> Self {
        let counters = ledger.block(block);
        let mut context = Context {
            site,
            kept: content::kept(config),
            limits,
            requests_per_connection: config.limits.requests_per_connection,
            body_rate: config.limits.body_rate,
            timeouts: TimeoutsMs::from(&config.timeouts),
            counters,
            now_ms: 0,
            now_us: 0,
            date: [0; DATE_LINE_BYTES],
            output: Output::default(),
            ended: Ended::default(),
            drain: None,
            held_bytes: 0,
            held_elsewhere: 0,
            discards_left: 0,
            file_bytes_left: FILE_BYTES_PER_TURN,
            jobs: Jobs::default(),
            clients: config
                .shows_clients()
                .then(|| Clients::new(config.access.trusted_proxies.clone())),
            are_introduced: false,
            access: None,
            clock: Clock {
                start: Instant::now(),
                before_ms: ledger.now_ms(),
                date_until_ms: 0,
                busy_us: 0,
            },
        };
        context.begin_turn();
        context
    }

    /// Reads the clock, once for the whole turn, leaves the time of the turn where the supervisor sees it,
    /// and renders the `Date` line when its second is over.
    pub fn begin_turn(&mut self) {
        let elapsed = self.clock.start.elapsed();
        self.now_us = elapsed.as_micros() as u64;
        self.now_ms = self.now_us / 1000;
        self.kept.begin_turn(self.now_ms);
        self.counters.begin_turn(self.clock.before_ms + self.now_ms);
        self.discards_left = DISCARDS_PER_TURN;
        if self.now_ms >= self.clock.date_until_ms {
            let now = SystemTime::now();
            self.date = date_line(now);
            let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let rest_ms = 1000 - u64::from(since_epoch.subsec_millis());
            self.clock.date_until_ms = self.now_ms + rest_ms;
            if let Some(access) = self.access {
                access.set_clock(now);
            }
            self.count_cpu_time();
        }
    }

    /// Reads the clock once more, and counts by it: how long the turn took, and the requests that were answered in it.
    ///
    /// With epoll everything is sent by then. With io_uring the sends of the turn are queued, and leave with the call that
    /// follows; how long the kernel takes for them can't be told from how long it then waits.
    pub fn end_turn(&mut self) {
        let end_us = self.count_ended();
        let (cells, turn_us) = (self.counters.cells(), end_us - self.now_us);
        cells.turns.add(1);
        cells.busy_us.add(turn_us);
        cells.note_turn(turn_us, self.clock.before_ms + end_us / 1000);
    }

    /// The same without a turn: connections were closed after the last one. Says when that is, in microseconds of the lane.
    pub fn count_ended(&mut self) -> u64 {
        let now_us = self.clock.start.elapsed().as_micros() as u64;
        self.ended.count(now_us, self.counters.cells());
        now_us
    }

    /// Counts how long this thread has been on a CPU: once a second, since it takes a system call.
    ///
    /// Of that second the loop was busy for as long at least, which with io_uring is more than its turns: what the kernel does
    /// is done in the call that also waits.
    pub fn count_cpu_time(&mut self) {
        let Some(time) = cpu::thread_time() else { return };
        let (cells, cpu_us) = (self.counters.cells(), time.as_micros() as u64);
        let on_cpu_us = cpu_us.saturating_sub(cells.cpu_us.get());
        let in_turns_us = cells.busy_us.get() - self.clock.busy_us;
        cells.busy_us.add(on_cpu_us.saturating_sub(in_turns_us));
        cells.cpu_us.set(cpu_us);
        self.clock.busy_us = cells.busy_us.get();
    }

    /// Has a line be logged for each request from here on, and its id sent back if that is wanted.
    pub fn log_to(&mut self, access: &'s Access, sends_ids: bool) {
        access.begin(self.clock.start);
        self.access = Some(access);
        self.output.ids = sends_ids.then_some(access);
    }

    /// Why the lane drains, if it does.
    pub fn draining(&self) -> Option<DrainKind> {
        self.drain.map(|drain| drain.kind)
    }

    /// Where the records of requests are closed.
    #[inline]
    pub fn closing(&self) -> Closing<'s> {
        Closing { counters: self.counters, access: self.access }
    }

    /// Where a request with these fields comes from that the connection at work has brought; `None` if that isn't kept, or
    /// not known.
    pub fn client(&self, fields: Fields<'_>) -> Option<IpAddr> {
        let clients = self.clients.as_ref()?;
        clients.behind(self.jobs.at_work.index, fields)
    }

    /// Whether the connection at work may hold `bytes` in all.
    pub fn may_hold(&self, bytes: usize) -> bool {
        self.held_elsewhere.saturating_add(bytes) <= HELD_BYTES_MAX
    }
}

/// The `Date` line of `time`, with its line end.
fn date_line(time: SystemTime) -> [u8; DATE_LINE_BYTES] {
    let mut line = [0; DATE_LINE_BYTES];
    // The length of an IMF-fixdate never changes (RFC 9110 §5.6.7), so it always fits.
    let written = write!(&mut line[..], "Date: {}\r\n", HttpDate::from(time));
    debug_assert!(written.is_ok(), "a Date line of another length");
    line
}

impl From<&Timeouts> for TimeoutsMs {
    fn from(timeouts: &Timeouts) -> TimeoutsMs {
        TimeoutsMs {
            header_ms: timeouts.header.as_millis() as u64,
            body_ms: timeouts.body.as_millis() as u64,
            keep_alive_ms: timeouts.keep_alive.as_millis() as u64,
            write_ms: timeouts.write.as_millis() as u64,
        }
    }
}

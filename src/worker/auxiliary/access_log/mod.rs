//! The writer of the access log: takes the lines of its generation's lanes from their rings, and writes them. It may wait
//! for a disk or a reader; no lane ever waits for it.
//!
//! A line leaves its ring once it is written. So what a killed writer had not written yet, its successor writes; what was
//! written when it was killed, but not taken off, may be there twice, and a line that it had begun is ended before the next.

mod output;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::AccessLog;
use crate::control::{
    Assignment, Command, Control, Order, Received, TOLD_TO_END, WorkerEvent, WorkerNumber,
};
use crate::observe::access::ring::{Consumer, RING_BYTES, Rings};
use crate::observe::ledger::{Counters, Ledger};
use crate::sys::process;
use crate::sys::wait_within;
use crate::worker::{Generation, patience_max_ms};
use output::{FILE_WRITE_BYTES_MAX, Output};

/// A line is written so long after its request, at most.
const FLUSH: Duration = Duration::from_secs(1);
/// How soon a log is tried again that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often the same trouble is told of.
const TELL: Duration = Duration::from_secs(60);
/// How long nothing may have been written before what is left is given up, once the lanes have ended.
const GIVE_UP: Duration = Duration::from_secs(2);
/// A process that ends closes its sockets so long before its children have another parent, at most.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often it is looked whether the last lane of a server whose supervisor is gone has ended.
const LOOK: Duration = Duration::from_millis(50);
/// So much of each ring is written in a turn.
const TURN_BYTES: usize = RING_BYTES / 4;

/// Writes until all lanes have ended and all is written.
pub fn run(
    assignment: &Assignment,
    generation: &Generation,
    control: &Control,
) -> Result<(), String> {
    // There are none where the kernel had no addresses left for them, which was told.
    let none = || Rings::new(1).map(Arc::new);
    let rings = generation.access_log.clone().map_or_else(none, Ok);
    let rings = rings.map_err(|error| format!("cannot map the access log: {error}"))?;
    let patience = patience_max_ms(&generation.config).map(Duration::from_millis);
    let writer = Writer {
        worker: assignment.worker,
        counters: generation.ledger.block(assignment.block),
        control,
        consumer: rings.consume(),
        target: &generation.config.log.access,
        output: Err(Instant::now()),
        batch: Batch::new(),
        stage: Stage::Serving,
        trouble: None,
        told_dropped_at: None,
        progress_at: Instant::now(),
        patience: patience.map_or(FLUSH, |patience| patience.min(FLUSH)),
    };
    match writer.run(&generation.ledger) {
        // It was not told that it isn't needed any more, so another one is.
        Stage::Silent(_) => Err(TOLD_TO_END.to_owned()),
        Stage::Serving | Stage::Orphaned | Stage::Draining => Ok(()),
    }
}

struct Writer<'g> {
    worker: WorkerNumber,
    counters: Counters<'g>,
    control: &'g Control,
    consumer: Consumer<'g>,
    target: &'g AccessLog,
    /// The open log, or when it is to be tried again.
    output: Result<Output, Instant>,
    batch: Batch,
    stage: Stage,
    trouble: Option<Trouble>,
    /// When dropped lines were told of last.
    told_dropped_at: Option<Instant>,
    /// When something was written last, or there was nothing to write.
    progress_at: Instant,
    patience: Duration,
}

/// Lines of one ring on their way into the log.
struct Batch {
    room: Box<[u8]>,
    /// How much of the room they take.
    length: usize,
    /// How much of them is written.
    written: usize,
    ring: usize,
    /// How far the ring was read with them.
    read: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Lanes serve.
    Serving,
    /// Nothing more is said, since then: the supervisor is about to be gone, or this process was told to end.
    Silent(Instant),
    /// There is no supervisor any more: the lanes drain, and are looked after from here.
    Orphaned,
    /// All lanes have ended.
    Draining,
}

/// The log can't be written.
struct Trouble {
    reason: String,
    told_at: Instant,
}

/// What became of writing what there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrote {
    /// Everything.
    All,
    /// So much that others have their turn first.
    Some,
    /// The log has no room now, which it tells of.
    Full,
    /// It fails.
    Nothing,
}

impl Writer<'_> {
    /// Returns the stage in which it was over.
    fn run(mut self, ledger: &Ledger) -> Stage {
        self.open();
        self.control.report(self.worker, WorkerEvent::Ready { driver: None, reason: None });
        loop {
            self.counters.begin_turn(ledger.now_ms());
            // What a lane left behind is there once it has ended, and not before.
            let are_left = self.stage == Stage::Orphaned && !self.has_producers();
            let wrote = self.write();
            if self.is_over(wrote, are_left) {
                self.tell_dropped();
                return self.stage;
            }
            if self.told_dropped_at.is_none_or(|at| at.elapsed() >= TELL) {
                self.tell_dropped();
            }
            self.wait(wrote);
        }
    }

    /// Waits for something to do.
    fn wait(&mut self, wrote: Wrote) {
        let patience = match (wrote, self.stage) {
            (Wrote::Some, _) => Duration::ZERO,
            (_, Stage::Serving) => self.patience,
            _ => LOOK,
        };
        // Woken for lines that can't be written it would turn without end.
        let is_idle = wrote == Wrote::All;
        if is_idle {
            self.consumer.doze();
        }
        let room = self.output.as_ref().ok().filter(|_| wrote == Wrote::Full);
        let hears = matches!(self.stage, Stage::Serving | Stage::Draining);
        let inputs = [hears.then(|| self.control.as_fd()), is_idle.then(|| self.consumer.as_fd())];
        let [has_order, _] = wait_within(inputs, room.map(AsFd::as_fd), patience);
        // What can't be reset is readable still, and nothing is lost by that.
        let _ = self.consumer.awake();
        if has_order {
            self.hear();
        }
    }

    fn hear(&mut self) {
        match self.control.receive::<Command>() {
            Received::Message(Command::Drain(_), _) => self.stage = Stage::Draining,
            Received::Message(Command::To(_, Order::Reopen), _) => self.reopen(),
            Received::Message(..) | Received::Nothing | Received::Exhausted => {}
            Received::End => self.stage = Stage::Silent(Instant::now()),
        }
        if self.stage != Stage::Serving {
            self.progress_at = Instant::now();
        }
    }

    /// Whether a worker lives that may put lines into a ring.
    fn has_producers(&self) -> bool {
        let mut producers = (0..self.consumer.used()).filter_map(|of| self.consumer.producer(of));
        producers.any(process::lives)
    }

    /// Whether there is nothing left to do, after what was written now. Whether the rings `are_left` was looked at before.
    fn is_over(&mut self, wrote: Wrote, are_left: bool) -> bool {
        if matches!(wrote, Wrote::All | Wrote::Some) {
            self.progress_at = Instant::now();
        }
        match self.stage {
            Stage::Serving => false,
            Stage::Silent(_) if process::is_orphan() => {
                self.stage = Stage::Orphaned;
                false
            }
            // It was sent a signal to end, and its successor doesn't begin before it has ended.
            Stage::Silent(since) => since.elapsed() >= FAREWELL,
            Stage::Orphaned => wrote == Wrote::All && are_left,
            Stage::Draining if wrote == Wrote::All => true,
            Stage::Draining => {
                let is_stuck = self.progress_at.elapsed() >= GIVE_UP;
                if is_stuck {
                    self.give_up();
                }
                is_stuck
            }
        }
    }

    /// What is left can't be written: counts it, and tells how much that is.
    fn give_up(&mut self) {
        let taken = memchr::memchr_iter(b'\n', self.batch.left()).count() as u64;
        if taken > 0 {
            self.consumer.advance(self.batch.ring, self.batch.read);
        }
        let (left, untold) = self.consumer.give_up();
        self.counters.cells().access_log_dropped.add(taken + left);
        self.control.try_report(self.worker, WorkerEvent::AccessLogDropped(taken + untold));
    }

    /// Writes what there is in the rings.
    fn write(&mut self) -> Wrote {
        if self.output.as_ref().is_err_and(|retry_at| *retry_at <= Instant::now()) {
            self.open();
        }
        if self.output.is_err() {
            return Wrote::Nothing;
        }
        let mut wrote = Wrote::All;
        match self.write_batch() {
            Wrote::All => {}
            stopped => return stopped,
        }
        for ring in 0..self.consumer.used() {
            let mut left = TURN_BYTES;
            while !self.consumer.is_empty(ring) {
                if left == 0 {
                    wrote = Wrote::Some;
                    break;
                }
                left = left.saturating_sub(self.take(ring).max(1));
                match self.write_batch() {
                    Wrote::All => {}
                    stopped => return stopped,
                }
            }
        }
        wrote
    }

    /// Takes the next lines of a ring, and says how many bytes they have.
    fn take(&mut self, ring: usize) -> usize {
        let bytes_max = self.output.as_ref().map_or(0, Output::write_bytes_max);
        let batch = &mut self.batch;
        (batch.ring, batch.written) = (ring, 0);
        (batch.length, batch.read) = self.consumer.read(ring, &mut batch.room[..bytes_max]);
        if batch.length == 0 {
            // It holds nothing that is a line.
            self.consumer.advance(ring, batch.read);
        }
        batch.length
    }

    /// Writes what is left of the lines that were taken; then they are done with.
    fn write_batch(&mut self) -> Wrote {
        let Ok(output) = &mut self.output else {
            return Wrote::Nothing;
        };
        let batch = &mut self.batch;
        // Most lines leave at once.
        if !batch.left().is_empty() {
            batch.go_on(output);
        }
        while !batch.left().is_empty() {
            match output.write(batch.left()) {
                Ok(count) => batch.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Wrote::Full,
                Err(error) => {
                    self.fail(&error);
                    return Wrote::Nothing;
                }
            }
        }
        if batch.length > 0 {
            self.consumer.advance(batch.ring, batch.read);
            (batch.length, batch.written) = (0, 0);
            let resumed = WorkerEvent::AccessLogResumed;
            // Without room for it, it is told with the next lines.
            if self.trouble.is_some() && self.control.try_report(self.worker, resumed) {
                self.trouble = None;
            }
        }
        Wrote::All
    }

    /// Opens the log, or says when that is tried again.
    fn open(&mut self) {
        match Output::open(self.target) {
            Ok(Some(output)) => {
                self.batch.begin_anew();
                self.output = Ok(output);
            }
            Ok(None) => self.output = Err(Instant::now() + RETRY),
            Err(error) => self.fail(&error),
        }
    }

    /// Opens the log by its name once more. If that fails, the one that is open stays.
    fn reopen(&mut self) {
        match (Output::open(self.target), &self.output) {
            (Ok(Some(output)), _) => {
                self.batch.begin_anew();
                self.output = Ok(output);
                self.control.try_report(self.worker, WorkerEvent::AccessLogReopened);
                // Should this one fail as the one before did, that is news.
                if let Some(trouble) = &mut self.trouble {
                    trouble.reason.clear();
                }
            }
            (Err(error), Ok(_)) => {
                let target = self.target;
                let reason =
                    format!("{target} can't be reopened, so the file before stays: {error}");
                self.control.try_report(self.worker, WorkerEvent::AccessLogFailed(reason));
            }
            (Ok(None) | Err(_), _) => self.open(),
        }
    }

    /// The log can't be opened or written: it is tried again, and told of once a minute at most, and when the reason is
    /// another one. A disk that is full is tried with the same file, in which a line may have begun; any other file is
    /// opened by its name again.
    fn fail(&mut self, error: &io::Error) {
        let (reason, now) = (format!("{}: {error}", self.target), Instant::now());
        let is_told = |of: &Trouble| of.reason == reason && now - of.told_at < TELL;
        if !self.trouble.as_ref().is_some_and(is_told) {
            self.control.try_report(self.worker, WorkerEvent::AccessLogFailed(reason.clone()));
            self.trouble = Some(Trouble { reason, told_at: now });
        }
        use io::ErrorKind::{BrokenPipe, FileTooLarge, QuotaExceeded, StorageFull};
        let stays = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | BrokenPipe);
        if self.output.is_err() || !stays {
            self.output = Err(now + RETRY);
        }
    }

    /// Tells of lines that the lanes have dropped since that was told last.
    fn tell_dropped(&mut self) {
        let dropped = self.consumer.dropped();
        let lines = dropped.saturating_sub(self.consumer.told_dropped());
        if lines > 0 && self.control.try_report(self.worker, WorkerEvent::AccessLogDropped(lines)) {
            self.consumer.tell_dropped(dropped);
            self.told_dropped_at = Some(Instant::now());
        }
    }
}

impl Batch {
    fn new() -> Batch {
        let room = vec![0; FILE_WRITE_BYTES_MAX].into_boxed_slice();
        Batch { room, length: 0, written: 0, ring: 0, read: 0 }
    }

    /// What isn't written yet.
    fn left(&self) -> &[u8] {
        &self.room[self.written..self.length]
    }

    /// Goes on with what is left, behind what was written of it. A line that was cut there is written once more, as a whole
    /// and on a line of its own, if another writer has gone on since.
    fn go_on(&mut self, output: &mut Output) {
        let start = self.line_start();
        if start < self.written && !output.is_at_end() {
            // Where even that finds no room the line is still cut, and this is tried again.
            if output.write(b"\n").is_ok() {
                self.written = start;
            }
        }
    }

    /// Another file: a line that was cut is written once more.
    fn begin_anew(&mut self) {
        self.written = self.line_start();
    }

    /// Where the line begins of which a part is written, or the next one.
    fn line_start(&self) -> usize {
        memchr::memrchr(b'\n', &self.room[..self.written]).map_or(0, |end| end + 1)
    }
}

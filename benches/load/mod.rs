//! What the benches share: subjects under test, the client that loads them, and what they cost.
//!
//! - [`arguments`]: of the command line.
//! - [`subject`]: starts a server pinned to a CPU, waits until it is ready, and never leaves it behind.
//! - [`installed`]: how servers that a machine may have are set up to be compared with.
//! - [`client`]: keeps connections busy and checks every response; [`ring`] is its io_uring.
//! - [`churn`]: opens a connection for each request.
//! - [`idle`]: what connections cost that do nothing.
//! - [`open`]: asks at a fixed pace, for latencies; [`record`] is what becomes of the figures.
//! - [`usage`]: CPU time and memory of processes, as the kernel counts them.
//! - [`raw`]: the floor that servers are compared with.
//! - [`report`]: medians, and figures as people read them.
//!
//! Asserts nothing about time: whether a goal is met is for the bench to print.

#![allow(dead_code, reason = "each bench is a program of its own, and uses its part of this")]

pub(crate) mod arguments;
pub(crate) mod churn;
pub(crate) mod client;
pub(crate) mod idle;
pub(crate) mod installed;
pub(crate) mod open;
mod raw;
pub(crate) mod record;
pub(crate) mod report;
mod ring;
pub(crate) mod subject;
pub(crate) mod usage;

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use churn::Churn;
use client::{Client, Load};
use report::Spread;
use subject::Subject;
use usage::CpuTime;

/// A server that runs less than this share of the time was not saturated.
const SATURATED: f64 = 0.97;
/// A server that waits for its CPU for more than this share of the time had company.
const DISPLACED: f64 = 0.02;

/// An error ends the bench, with a sentence: there is nothing to recover.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// What every bench's `main` is: becomes a subject if that is what this process is for, else runs the bench.
pub(crate) fn main(bench: &str, run: impl FnOnce() -> Outcome<()>) -> ExitCode {
    match subject::become_subject_if_asked().and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{bench}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// One measurement of one subject under one load.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    responses: f64,
    wall: Duration,
    server: CpuTime,
    client: CpuTime,
}

impl Sample {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.responses / self.wall.as_secs_f64()
    }

    /// The server's CPU time for a request, user and system, in microseconds.
    pub(crate) fn server_us(&self) -> f64 {
        self.server.used.as_secs_f64() * 1e6 / self.responses
    }

    /// The client's CPU time for a request, user and system, in microseconds.
    pub(crate) fn client_us(&self) -> f64 {
        self.client.used.as_secs_f64() * 1e6 / self.responses
    }

    /// The share of the time in which the server ran: near 1 means that the client saturated it.
    pub(crate) fn busy(&self) -> f64 {
        self.server.used.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// The share of the time in which the server could have run but something else had its CPU.
    pub(crate) fn displaced(&self) -> f64 {
        // Processes of one server wait for each other too; that is no one else's time.
        let not_used = self.wall.saturating_sub(self.server.used);
        self.server.waited.min(not_used).as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// A client that keeps a subject busy.
pub(crate) trait Drive {
    /// Responses complete so far.
    fn responses(&self) -> u64;
    /// Keeps every connection busy for `duration`.
    fn run_for(&mut self, duration: Duration) -> Outcome<()>;
    /// Waits for every outstanding response, checks it, and closes.
    fn finish(self) -> Outcome<()>;
}

/// Loads a subject: connects, warms up, measures, and checks that every response arrived whole.
pub(crate) fn measure(
    subject: &Subject,
    response_bytes: usize,
    load: Load,
    warm_up: Duration,
    measured: Duration,
) -> Outcome<Sample> {
    sample(subject, Client::connect(subject.address(), response_bytes, load)?, warm_up, measured)
}

/// Loads a subject with a new connection for each request, `connections` of them at a time.
pub(crate) fn measure_churn(
    subject: &Subject,
    (response_bytes, server_closes): (usize, bool),
    connections: usize,
    warm_up: Duration,
    measured: Duration,
) -> Outcome<Sample> {
    let churn = Churn::connect(subject.address(), response_bytes, server_closes, connections)?;
    sample(subject, churn, warm_up, measured)
}

fn sample(
    subject: &Subject,
    mut client: impl Drive,
    warm_up: Duration,
    measured: Duration,
) -> Outcome<Sample> {
    client.run_for(warm_up)?;
    let own_pid = std::process::id();
    let start = Instant::now();
    let responses = client.responses();
    let (server, own) = (subject.cpu_time()?, usage::cpu_time(own_pid)?);
    client.run_for(measured)?;
    let sample = Sample {
        responses: (client.responses() - responses) as f64,
        wall: start.elapsed(),
        server: subject.cpu_time()? - server,
        client: usage::cpu_time(own_pid)? - own,
    };
    client.finish()?;
    if sample.responses == 0.0 {
        return Err("no batch of responses was completed while it was measured".into());
    }
    Ok(sample)
}

/// The spread of a figure over the rounds.
pub(crate) fn spread(samples: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    Spread::of(samples.iter().map(figure))
}

/// Says which figures of `name` under `load` are worth less than they look.
pub(crate) fn print_caveats(name: &str, load: impl Display, samples: &[Sample]) {
    let displaced = spread(samples, Sample::displaced).median;
    if displaced > DISPLACED {
        println!(
            "note: {name} at {load}: something else took {:.0} % of its CPU",
            displaced * 100.0
        );
    }
    if spread(samples, Sample::busy).median + displaced < SATURATED {
        println!(
            "note: {name} at {load} was not saturated: the client was too slow, or it had to wait"
        );
    }
}

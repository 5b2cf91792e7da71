//! What the benches share: subjects under test, the client that loads them, and what they cost.
//!
//! - [`subject`]: starts a server pinned to a CPU, waits until it is ready, and never leaves it behind.
//! - [`client`]: keeps connections busy and checks every response; [`ring`] is its io_uring.
//! - [`usage`]: CPU time and memory of processes, as the kernel counts them.
//! - [`raw`]: the floor that servers are compared with.
//! - [`report`]: medians, and figures as people read them.
//!
//! Asserts nothing about time: whether a goal is met is for the bench to print.

#![allow(dead_code, reason = "each bench is a program of its own, and uses its part of this")]

pub(crate) mod client;
mod raw;
pub(crate) mod report;
mod ring;
pub(crate) mod subject;
pub(crate) mod usage;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::{Client, Load};
use subject::Subject;
use usage::CpuTime;

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
        self.server.waited.as_secs_f64() / self.wall.as_secs_f64()
    }
}

/// Loads a subject: connects, warms up, measures, and checks that every response arrived whole.
pub(crate) fn measure(
    subject: &Subject,
    response_bytes: usize,
    load: Load,
    warm_up: Duration,
    measured: Duration,
) -> Outcome<Sample> {
    let mut client = Client::connect(subject.address(), response_bytes, load)?;
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

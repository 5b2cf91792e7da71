//! What do threads, processes, SO_REUSEPORT and hand-over cost, here? `cargo bench --bench modes`, about a quarter of an
//! hour; `-- --quick`, less than two minutes.
//!
//! Every mode runs with the same number of lanes on the same CPUs, in turns, loaded by a client on another CPU. What
//! is measured: CPU time and requests per second of a saturated server; latencies at a fixed pace, free of coordinated
//! omission; how evenly connections and requests fell on the lanes; memory; and what a SIGKILL of one worker costs.
//!
//! The story: start every mode, drive each with every load, stop them; start each again and kill a worker; repeat;
//! then the tables, and all of it as JSON, Markdown and a chart. Only a broken server is a failure.

#[path = "../load/mod.rs"]
mod load;

mod chart;
mod figures;
mod report;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use figures::{Blast, Figures, Rows, Share};
use load::arguments::{Common, OneServer};
use load::client::{self, Load};
use load::open::{OpenLoop, Pace};
use load::subject::{self, Kind, Subject};
use load::{Outcome, measure, measure_churn, record, usage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Compares the ways in which laneway can spread its work.
#[derive(Parser)]
#[command(name = "modes")]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: OneServer,
    /// How often every mode is measured under every load
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How many lanes every mode has
    #[arg(long, value_name = "N", default_value_t = 2)]
    lanes: usize,
    /// The CPUs of the server, as in `0,2,3`; the lanes are pinned to them in turn
    #[arg(long, value_name = "CPUS", default_value = "0", value_delimiter = ',')]
    server_cpus: Vec<usize>,
    /// Requests a second at which latencies are measured; a tenth of it where each has its own connection
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pace: u32,
}

/// A way to spread work.
struct Mode {
    name: &'static str,
    settings: &'static [&'static str],
}

const MODES: [Mode; 7] = [
    Mode {
        name: "threads, reuseport",
        settings: &["workers.mode=threads", "workers.accept=reuseport"],
    },
    Mode { name: "threads, shared", settings: &["workers.mode=threads", "workers.accept=shared"] },
    Mode {
        name: "threads, handoff",
        settings: &["workers.mode=threads", "workers.accept=handoff"],
    },
    Mode {
        name: "processes, reuseport",
        settings: &["workers.mode=processes", "workers.accept=reuseport"],
    },
    Mode {
        name: "processes, shared",
        settings: &["workers.mode=processes", "workers.accept=shared"],
    },
    Mode {
        name: "processes, handoff",
        settings: &["workers.mode=processes", "workers.accept=handoff"],
    },
    Mode { name: "processes, may", settings: &["workers.mode=processes", "workers.engine=may"] },
];

/// What every mode is loaded with.
#[derive(Clone, Copy)]
enum Work {
    KeepAlive(Load),
    /// A connection for each request, so many at a time.
    OneShot(usize),
}

const WORKS: [Work; 5] = [
    Work::KeepAlive(Load { connections: 16, pipeline: 1 }),
    Work::KeepAlive(Load { connections: 64, pipeline: 1 }),
    Work::KeepAlive(Load { connections: 512, pipeline: 1 }),
    Work::OneShot(64),
    Work::KeepAlive(Load { connections: 64, pipeline: 16 }),
];
/// Which of them the chart shows.
const CHARTED: usize = 1;
/// Idle connections at which memory is measured.
const IDLE: usize = 512;
/// What is asked of a server while one of its workers is killed.
const BLAST: Pace = Pace { connections: 64, pipeline: 1, per_second: 20_000 };
const BLAST_PATIENCE: Duration = Duration::from_secs(10);

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::KeepAlive(Load { connections, pipeline: 1 }) => {
                write!(f, "{connections} keep-alive connections")
            }
            Work::KeepAlive(Load { connections, pipeline }) => {
                write!(f, "{connections} keep-alive connections, {pipeline} requests at once")
            }
            Work::OneShot(_) => f.write_str("a connection for each request"),
        }
    }
}

impl Work {
    fn pace(self, per_second: u32) -> Pace {
        match self {
            Work::KeepAlive(Load { connections, pipeline }) => {
                Pace { connections, pipeline, per_second }
            }
            Work::OneShot(_) => Pace { connections: 0, pipeline: 1, per_second: per_second / 10 },
        }
    }
}

struct Plan<'o> {
    options: &'o Options,
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
}

/// A mode with what it takes to measure it.
struct Contender {
    mode: &'static Mode,
    kind: Kind,
    response_bytes: usize,
    /// Of the response to a connection's last request, which says so.
    last_response_bytes: usize,
}

fn main() -> ExitCode {
    load::main("modes", || run(&Options::parse()))
}

fn run(options: &Options) -> Outcome<()> {
    if !options.common.measures("modes") {
        return Ok(());
    }
    let (rounds, warm_up_ms, measured_ms) =
        if options.common.quick { (2, 50, 300) } else { (7, 300, 1_500) };
    let plan = Plan {
        options,
        rounds: options.rounds.unwrap_or(rounds).max(1),
        warm_up: Duration::from_millis(warm_up_ms),
        measured: Duration::from_millis(measured_ms),
    };
    subject::pin(options.common.client_cpu)?;
    let (_, fds_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, fds_max, fds_max)?;

    let contenders =
        MODES.iter().map(|mode| contender(mode, options)).collect::<Outcome<Vec<_>>>()?;
    let mut rows = Rows::new(&MODES.map(|mode| mode.name), WORKS.len());
    for round in 0..plan.rounds {
        drive_all(&contenders, &plan, round, &mut rows)?;
        for (index, contender) in contenders.iter().enumerate() {
            let blast = kill_one(contender, &plan)
                .map_err(|e| format!("{}, with a worker killed: {e}", contender.mode.name))?;
            eprintln!(
                "{}  SIGKILL of a worker  {:<20}  {blast}",
                of(round, &plan),
                contender.mode.name
            );
            rows.blasts[index].push(blast);
        }
    }
    let report = report::Report {
        machine: usage::machine(),
        commit: record::commit(),
        command: record::command("modes"),
        lanes: options.lanes,
        server_cpus: &options.server_cpus,
        rounds: plan.rounds,
        measured: plan.measured,
        pace: options.pace,
        works: WORKS.map(|work| work.to_string()).to_vec(),
        rows: &rows,
    };
    let markdown = report.markdown();
    println!("\n{markdown}");
    record::write(&record::file("modes.md"), &markdown)?;
    record::write(&record::file("modes.json"), format!("{:#}\n", report.json()))?;
    record::write(&record::file("modes.svg"), chart::draw(&report, CHARTED)?)?;
    println!("written: {}, .md and .svg", record::file("modes.json").display());
    Ok(())
}

/// Starts a mode once, to see how it answers.
fn contender(mode: &'static Mode, options: &Options) -> Outcome<Contender> {
    let count = format!("workers.count={}", options.lanes);
    let mut settings = vec![&*count.leak(), "supervisor.pid_file=server.pid"];
    settings.extend(mode.settings);
    let kind = Kind::Laneway { program: options.server.server.clone(), settings: settings.leak() };
    let subject = Subject::start_on(&kind, &options.server_cpus)?;
    let response = client::fetch(subject.address()).map_err(|e| format!("{}: {e}", mode.name))?;
    let (last, _) =
        client::fetch_and_close(subject.address()).map_err(|e| format!("{}: {e}", mode.name))?;
    let (response_bytes, last_response_bytes) = (response.len(), last.len());
    Ok(Contender { mode, kind, response_bytes, last_response_bytes })
}

/// One round: every load for every mode, the modes in turns.
fn drive_all(contenders: &[Contender], plan: &Plan, round: usize, rows: &mut Rows) -> Outcome<()> {
    // New processes each round: where memory happens to lie is part of the spread.
    let subjects = contenders
        .iter()
        .map(|contender| Subject::start_on(&contender.kind, &plan.options.server_cpus))
        .collect::<Outcome<Vec<_>>>()?;
    for (number, work) in WORKS.iter().enumerate() {
        let mut turns: Vec<usize> = (0..contenders.len()).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for index in turns {
            let (contender, subject) = (&contenders[index], &subjects[index]);
            let name = contender.mode.name;
            let figures = drive(contender, subject, *work, plan)
                .map_err(|e| format!("{name}, with {work}: {e}"))?;
            eprintln!("{}  {work}  {name:<20}  {figures}", of(round, plan));
            rows.figures[index][number].push(figures);
        }
    }
    for (index, (contender, subject)) in contenders.iter().zip(&subjects).enumerate() {
        let open = client::idle(subject.address(), IDLE)
            .map_err(|e| format!("{}: {e}", contender.mode.name))?;
        rows.memory_bytes[index].push(subject.memory_bytes()? as f64);
        drop(open);
    }
    Ok(())
}

fn of(round: usize, plan: &Plan) -> String {
    format!("round {}/{}", round + 1, plan.rounds)
}

/// One mode under one load: saturated, then at a fixed pace.
fn drive(contender: &Contender, subject: &Subject, work: Work, plan: &Plan) -> Outcome<Figures> {
    let program = &plan.options.server.server;
    let before = lanes(subject, program)?;
    let bytes = match work {
        Work::KeepAlive(_) => contender.response_bytes,
        Work::OneShot(_) => contender.last_response_bytes,
    };
    let sample = match work {
        Work::KeepAlive(load) => measure(subject, bytes, load, plan.warm_up, plan.measured)?,
        Work::OneShot(at_once) => {
            measure_churn(subject, (bytes, true), at_once, plan.warm_up, plan.measured)?
        }
    };
    let after = lanes(subject, program)?;
    let mut open = OpenLoop::connect(subject.address(), bytes, work.pace(plan.options.pace))?;
    open.run_for(plan.warm_up)?;
    open.forget();
    open.run_for(plan.measured)?;
    Ok(Figures {
        requests_per_second: sample.requests_per_second(),
        cpu_us: sample.server_us(),
        latencies: open.latencies(),
        connections: Share::between(&before, &after, "accepted"),
        requests: Share::between(&before, &after, "requests"),
    })
}

/// The lanes as `server status` tells of them.
fn lanes(subject: &Subject, program: &Path) -> Outcome<Vec<Value>> {
    let status = subject.status(program)?;
    Ok(status["lanes"].as_array().ok_or("status tells of no lanes")?.clone())
}

/// Kills the worker of the first lane while clients ask at a fixed pace.
fn kill_one(contender: &Contender, plan: &Plan) -> Outcome<Blast> {
    let subject = Subject::start_on(&contender.kind, &plan.options.server_cpus)?;
    let lanes = lanes(&subject, &plan.options.server.server)?;
    let worker = lanes[0]["pid"].as_i64().ok_or("the first lane has no worker")?;
    let mut clients = OpenLoop::connect(subject.address(), contender.response_bytes, BLAST)?;
    let patience = |since: Instant, time: Duration| move |_: &OpenLoop| since.elapsed() >= time;
    clients.run_until(patience(Instant::now(), plan.warm_up.max(Duration::from_millis(100))))?;
    let killed = Instant::now();
    kill(Pid::from_raw(worker as i32), Signal::SIGKILL)?;
    clients.run_until(|clients| {
        clients.all_answered_since(killed) || killed.elapsed() > BLAST_PATIENCE
    })?;
    let ms = killed.elapsed().as_secs_f64() * 1e3;
    if killed.elapsed() > BLAST_PATIENCE {
        return Err("it did not serve everybody again".into());
    }
    // Whatever comes late.
    clients.run_until(patience(Instant::now(), Duration::from_millis(100)))?;
    let failures = clients.failures();
    Ok(Blast {
        failed_requests: failures.requests as f64,
        full_service_ms: ms,
        noticed: failures.connections as f64 / BLAST.connections as f64,
    })
}

//! How far above the floor is a request? `cargo bench --bench floor`, about two minutes; `-- --quick`, 20 s.
//!
//! The floor is a bare epoll loop that answers without parsing. It and the server run on one CPU in turns,
//! each saturated by a client on another CPU, and what counts is their CPU time for a request: requests per
//! second would also measure the client. Rounds alternate the order, so a machine that drifts drifts for both.
//!
//! The story: start every subject, drive each under every load, stop them, repeat; then the memory of idle
//! connections; then the table. Goals are printed, never asserted: only a broken subject is a failure.

mod load;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use load::arguments::{Common, OneCpu, Servers};
use load::client::{self, Load};
use load::idle::IdleMemory;
use load::installed::Installed;
use load::report::{Spread, table, thousands, verdict};
use load::subject::{self, Kind, Subject};
use load::{Outcome, Sample, measure, measure_churn, print_caveats, spread, usage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const LOADS: [Demand; 5] = [
    Demand::Kept(Load { connections: 64, pipeline: 1 }),
    Demand::Kept(Load { connections: 512, pipeline: 1 }),
    Demand::Kept(Load { connections: 2_000, pipeline: 1 }),
    Demand::Kept(Load { connections: 64, pipeline: 16 }),
    Demand::OneShot { connections: 64 },
];

/// What the client asks of every contender.
#[derive(Clone, Copy)]
enum Demand {
    /// Connections that are kept.
    Kept(Load),
    /// A connection for each request, so many at a time; the server closes.
    OneShot { connections: usize },
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Demand::Kept(load) => f.pad(&load.to_string()),
            Demand::OneShot { connections } => f.pad(&format!("{connections} once")),
        }
    }
}
/// A request may cost this many times the floor, where [`has_goal`] says so.
const RATIO_GOAL: f64 = 1.15;
const IDLE_CONNECTIONS: usize = 5_000;
/// An idle keep-alive connection may take this much user-space memory.
const IDLE_BYTES_GOAL: f64 = 300.0;

/// Compares laneway's CPU time for a request with that of a bare epoll loop.
#[derive(Parser)]
#[command(name = "floor")]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    cpu: OneCpu,
    /// Another server to run in the same rounds
    #[arg(long, value_name = "NAME")]
    peer: Vec<Peer>,
    /// Run each server in the same rounds with its access log on, too, which goes to a file
    #[arg(long, value_name = "FORMAT")]
    access_log: Vec<AccessLog>,
}

#[derive(Clone, Copy, ValueEnum)]
enum AccessLog {
    Json,
    Combined,
}

impl AccessLog {
    /// What a server is told, and called.
    fn settings(self) -> (&'static [&'static str], &'static str) {
        match self {
            AccessLog::Json => (&["log.access=access.log"], "json log"),
            AccessLog::Combined => {
                (&["log.access=access.log", "log.access_format=combined"], "combined log")
            }
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Peer {
    Nginx,
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
    server_cpu: usize,
}

struct Contender {
    name: String,
    kind: Kind,
    response_bytes: usize,
    /// The bytes of a response after which the connection ends, and whether the server ends it.
    last: (usize, bool),
}

/// What a contender did under a load, round by round.
struct Row<'a> {
    load: Demand,
    contender: &'a Contender,
    samples: Vec<Sample>,
}

fn main() -> ExitCode {
    load::main("floor", || run(&Options::parse()))
}

fn run(options: &Options) -> Outcome<()> {
    if !options.common.measures("floor") {
        return Ok(());
    }
    let (rounds, warm_up_ms, measured_ms) =
        if options.common.quick { (3, 100, 400) } else { (5, 300, 1_500) };
    let plan = Plan {
        rounds: options.servers.rounds.unwrap_or(rounds).max(1),
        warm_up: Duration::from_millis(warm_up_ms),
        measured: Duration::from_millis(measured_ms),
        server_cpu: options.cpu.server_cpu,
    };
    subject::pin(options.common.client_cpu)?;
    let (_, fds_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, fds_max, fds_max)?;

    let contenders = contenders(options)?;
    print_header(options, &plan, &contenders);
    let rows = drive_in_turns(&contenders, &plan)?;
    let memory = contenders[1..]
        .iter()
        .map(|contender| {
            let Contender { name, kind, .. } = contender;
            let memory = IdleMemory::measure(name, kind, plan.server_cpu, IDLE_CONNECTIONS)?;
            Ok((contender, memory))
        })
        .collect::<Outcome<Vec<_>>>()?;
    print_costs(&rows);
    print_memory(&memory);
    for Row { load, contender, samples } in &rows {
        print_caveats(&contender.name, load, samples);
    }
    Ok(())
}

/// The floor first, for every ratio is to it. It answers with what the first server answers.
fn contenders(options: &Options) -> Outcome<Vec<Contender>> {
    let servers = options.servers.binaries();
    let mut kinds = Vec::new();
    for (n, path) in servers.iter().enumerate() {
        let name = if servers.len() == 1 { "laneway".into() } else { format!("laneway {}", n + 1) };
        let logs = options.access_log.iter().map(|log| log.settings());
        let logs = logs.map(|(settings, what)| (format!("{name}, {what}"), settings));
        for (name, settings) in [(name.clone(), &[][..])].into_iter().chain(logs) {
            kinds.push((name, Kind::Laneway { program: path.clone(), settings }));
        }
    }
    kinds.extend(options.peer.iter().map(|peer| match peer {
        Peer::Nginx => ("nginx".into(), Kind::Installed(Installed::Nginx)),
    }));
    let mut contenders = Vec::new();
    for (name, kind) in kinds {
        let subject = Subject::start(&kind, options.cpu.server_cpu)?;
        let response = client::fetch(subject.address()).map_err(|e| format!("{name}: {e}"))?;
        let response_bytes = response.len();
        if contenders.is_empty() {
            contenders.push(Contender {
                name: "floor".into(),
                kind: Kind::Floor(response),
                response_bytes,
                // It knows nothing of HTTP, and leaves the end to the client.
                last: (response_bytes, false),
            });
        }
        let (last, server_closes) =
            client::fetch_and_close(subject.address()).map_err(|e| format!("{name}: {e}"))?;
        let last = (last.len(), server_closes);
        contenders.push(Contender { name, kind, response_bytes, last });
    }
    Ok(contenders)
}

fn drive_in_turns<'a>(contenders: &'a [Contender], plan: &Plan) -> Outcome<Vec<Row<'a>>> {
    let mut rows: Vec<Row> = LOADS
        .iter()
        .flat_map(|&load| {
            contenders.iter().map(move |contender| Row { load, contender, samples: Vec::new() })
        })
        .collect();
    for round in 0..plan.rounds {
        // New processes each round: where memory happens to lie is part of the spread.
        let subjects = contenders
            .iter()
            .map(|contender| Subject::start(&contender.kind, plan.server_cpu))
            .collect::<Outcome<Vec<_>>>()?;
        for of_load in rows.chunks_mut(contenders.len()) {
            let mut turns: Vec<_> = of_load.iter_mut().zip(&subjects).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (row, subject) in turns {
                let sample = demand(subject, row, plan).map_err(|e| {
                    format!("{} at {} connections: {e}", row.contender.name, row.load)
                })?;
                let of = plan.rounds;
                let (load, name) = (row.load, &row.contender.name);
                let (us, busy) = (sample.server_us(), sample.busy() * 100.0);
                eprintln!(
                    "round {}/{of}  {load:>6}  {name:<10}  {us:5.2} µs/request, busy {busy:.0} %",
                    round + 1
                );
                row.samples.push(sample);
            }
        }
    }
    Ok(rows)
}

/// Puts the load of a row on its contender.
fn demand(subject: &Subject, row: &Row<'_>, plan: &Plan) -> Outcome<Sample> {
    let (warm_up, measured) = (plan.warm_up, plan.measured);
    match row.load {
        Demand::Kept(load) => {
            measure(subject, row.contender.response_bytes, load, warm_up, measured)
        }
        Demand::OneShot { connections } => {
            measure_churn(subject, row.contender.last, connections, warm_up, measured)
        }
    }
}

fn has_goal(load: Demand) -> bool {
    matches!(load, Demand::Kept(load) if load.pipeline == 1 && load.connections <= 512)
}

fn print_header(options: &Options, plan: &Plan, contenders: &[Contender]) {
    println!("CPU time of a request, compared with a bare epoll loop that answers without parsing");
    usage::print_machine(options.cpu.server_cpu, options.common.client_cpu);
    println!("{} rounds of {:?}, in turns, one worker each", plan.rounds, plan.measured);
    for Contender { name, kind, response_bytes, .. } in contenders {
        let what = match kind {
            Kind::Floor(_) => "epoll, edge-triggered, one recv and one send".into(),
            Kind::Laneway { program, .. } => program.display().to_string(),
            Kind::Installed(server) => format!("from the path, {}", server.method()),
            Kind::Rust { name, .. } => (*name).into(),
        };
        println!("  {name}: {what}; response of {response_bytes} bytes");
    }
    println!();
}

fn print_costs(rows: &[Row]) {
    let header = [
        "connections",
        "server",
        "requests/s",
        "CPU µs/request",
        "busy",
        "client µs/request",
        "÷ floor",
    ];
    let mut cells = vec![header.map(String::from).to_vec()];
    let mut floor: &[Sample] = &[];
    for Row { load, contender, samples } in rows {
        if matches!(contender.kind, Kind::Floor(_)) {
            floor = samples;
        }
        let server = spread(samples, Sample::server_us);
        // Each round's pair ran back to back: their ratio is steadier than the ratio of the medians.
        let ratio = Spread::of(
            samples.iter().zip(floor).map(|(it, floor)| it.server_us() / floor.server_us()),
        );
        let median = |figure| spread(samples, figure).median;
        cells.push(vec![
            load.to_string(),
            contender.name.clone(),
            thousands(median(Sample::requests_per_second)),
            format!("{server:.2}"),
            format!("{:.0} %", median(Sample::busy) * 100.0),
            format!("{:.2}", median(Sample::client_us)),
            match &contender.kind {
                Kind::Floor(_) => String::new(),
                Kind::Laneway { settings: [], .. } if has_goal(*load) => {
                    let met = verdict(ratio.median <= RATIO_GOAL);
                    format!("{ratio:.2}  goal ≤ {RATIO_GOAL}: {met}")
                }
                _ => format!("{ratio:.2}"),
            },
        ]);
    }
    println!("{}", table(&cells));
    println!(
        "Medians (min–max) over the rounds; ÷ floor is the median of the rounds' own ratios.\n"
    );
}

fn print_memory(memory: &[(&Contender, IdleMemory)]) {
    IdleMemory::print_title(IDLE_CONNECTIONS);
    for (contender, memory) in memory {
        let each = memory.each();
        let goal = match contender.kind {
            Kind::Laneway { .. } => {
                format!("; goal ≤ {IDLE_BYTES_GOAL} B: {}", verdict(each <= IDLE_BYTES_GOAL))
            }
            _ => String::new(),
        };
        memory.print(&contender.name, &goal);
    }
}

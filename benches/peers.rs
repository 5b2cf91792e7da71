//! What does a request cost laneway, and what others? `cargo bench --bench peers`, about seven minutes; `-- --quick`,
//! one.
//!
//! Every server answers with the same body from one worker on one CPU, each saturated in turns by a client on
//! another CPU, and what counts is the CPU time of the processes that serve. Ratios are laneway's to the other's
//! of the same round, so a machine that drifts drifts for both.
//!
//! The story: build the Rust servers of `benches/peers` and look for the others on the path; start every server,
//! drive each under every load, stop them, repeat; then the memory of idle connections; then the table, and all
//! figures as JSON. Goals are printed, never asserted: only a broken server is a failure.

mod load;

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use load::arguments::{Common, OneCpu, Servers};
use load::client::{self, Load};
use load::idle::IdleMemory;
use load::installed::Installed;
use load::report::{Spread, table, thousands, verdict};
use load::subject::{self, Kind, Subject};
use load::{Outcome, Sample, measure, measure_churn, print_caveats, record, spread, usage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

const WORKS: [Work; 4] = [
    Work::KeepAlive(Load { connections: 64, pipeline: 1 }),
    Work::KeepAlive(Load { connections: 512, pipeline: 1 }),
    Work::KeepAlive(Load { connections: 64, pipeline: 16 }),
    Work::Churn { connections: 64 },
];
/// What is driven until Node's compiler is done with the code that it finds hot.
const COMPILING: Load = Load { connections: 64, pipeline: 1 };
/// laneway's CPU time for a request may be this share of the peer's, at so many keep-alive connections.
const GOALS: [(Peer, usize, f64); 7] = [
    (Peer::Nginx, 512, 0.66),
    (Peer::Nginx, 64, 0.85),
    (Peer::Hyper, 512, 0.75),
    (Peer::MayMinihttp, 512, 0.65),
    (Peer::MayMinihttp, 64, 1.03),
    (Peer::Node, 512, 0.35),
    (Peer::Node, 64, 0.35),
];
const RUST_MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/Cargo.toml");
const RUST_LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/Cargo.lock");

/// Compares laneway's CPU time for a request with that of other servers.
#[derive(Parser)]
#[command(name = "peers")]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    servers: Servers,
    #[command(flatten)]
    cpu: OneCpu,
    /// Only this one, which must be there; several may be named
    #[arg(long, value_name = "NAME")]
    peer: Vec<Peer>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    #[value(name = "may_minihttp")]
    MayMinihttp,
    Hyper,
    Axum,
    ActixWeb,
    Nginx,
    H2o,
    Haproxy,
    Lighttpd,
    Node,
}

/// Where a peer comes from.
enum Origin {
    /// `benches/peers` has it; by its name there, which is its crate's.
    Rust(&'static str),
    Installed(Installed),
}

impl Peer {
    fn origin(self) -> Origin {
        match self {
            Peer::MayMinihttp => Origin::Rust("may_minihttp"),
            Peer::Hyper => Origin::Rust("hyper"),
            Peer::Axum => Origin::Rust("axum"),
            Peer::ActixWeb => Origin::Rust("actix-web"),
            Peer::Nginx => Origin::Installed(Installed::Nginx),
            Peer::H2o => Origin::Installed(Installed::H2o),
            Peer::Haproxy => Origin::Installed(Installed::Haproxy),
            Peer::Lighttpd => Origin::Installed(Installed::Lighttpd),
            Peer::Node => Origin::Installed(Installed::Node),
        }
    }
}

/// What a server is given to do.
#[derive(Clone, Copy)]
enum Work {
    KeepAlive(Load),
    /// A new connection for each request, so many at a time.
    Churn {
        connections: usize,
    },
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::KeepAlive(load) => load.fmt(f),
            Work::Churn { connections } => f.pad(&format!("{connections} new")),
        }
    }
}

struct Plan {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
    /// For [`COMPILING`].
    compile: Duration,
    idle_connections: usize,
    server_cpu: usize,
}

struct Contender {
    name: String,
    /// `None`: laneway.
    peer: Option<Peer>,
    kind: Kind,
    what: String,
    response_bytes: usize,
    /// Of the response to `Connection: close`.
    last_response_bytes: usize,
    /// Whether it heeds `Connection: close`.
    closes: bool,
}

/// What a contender did under a load, round by round.
struct Row<'a> {
    work: Work,
    contender: &'a Contender,
    samples: Vec<Sample>,
    /// laneway's CPU time for a request divided by this one's.
    ratios: Vec<f64>,
}

impl Row<'_> {
    fn ratio(&self) -> Option<Spread> {
        (!self.ratios.is_empty()).then(|| Spread::of(self.ratios.iter().copied()))
    }

    fn goal(&self) -> Option<f64> {
        let Work::KeepAlive(Load { connections, pipeline: 1 }) = self.work else {
            return None;
        };
        let mut goals = GOALS.iter();
        let goal = goals.find(|it| Some(it.0) == self.contender.peer && it.1 == connections);
        goal.map(|&(_, _, ratio)| ratio)
    }
}

fn main() -> ExitCode {
    load::main("peers", || run(&Options::parse()))
}

fn run(options: &Options) -> Outcome<()> {
    if !options.common.measures("peers") {
        return Ok(());
    }
    let (rounds, warm_up_ms, measured_ms, compile_ms, idle_connections) = if options.common.quick {
        (2, 100, 300, 1_000, 1_000)
    } else {
        (5, 300, 1_500, 3_000, 5_000)
    };
    let plan = Plan {
        rounds: options.servers.rounds.unwrap_or(rounds).max(1),
        warm_up: Duration::from_millis(warm_up_ms),
        measured: Duration::from_millis(measured_ms),
        compile: Duration::from_millis(compile_ms),
        idle_connections,
        server_cpu: options.cpu.server_cpu,
    };
    // Before this process pins itself, and with it what it starts.
    let kinds = kinds(options)?;
    subject::pin(options.common.client_cpu)?;
    let (_, fds_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, fds_max, fds_max)?;

    let contenders = contenders(kinds, options.cpu.server_cpu)?;
    print_header(options, &plan, &contenders);
    let rows = drive_in_turns(&contenders, &plan)?;
    let memory = contenders
        .iter()
        .map(|it| IdleMemory::measure(&it.name, &it.kind, plan.server_cpu, plan.idle_connections))
        .collect::<Outcome<Vec<_>>>()?;
    print_costs(&rows);
    print_memory(&contenders, &memory);
    for Row { work, contender, samples, .. } in &rows {
        print_caveats(&contender.name, work, samples);
    }
    let file = record::file("peers.json");
    let json = as_json(&plan, &rows, &contenders, &memory);
    record::write(&file, format!("{json:#}\n"))?;
    println!("All figures: {}", file.display());
    Ok(())
}

/// Name, peer, how to start it, and what it is: laneway first, for every ratio is of it.
type Named = (String, Option<Peer>, Kind, String);

fn kinds(options: &Options) -> Outcome<Vec<Named>> {
    let servers = options.servers.binaries();
    let mut kinds: Vec<Named> = Vec::new();
    for (n, program) in servers.into_iter().enumerate() {
        let name = if n == 0 { "laneway".into() } else { format!("laneway {}", n + 1) };
        let what = program.display().to_string();
        kinds.push((name, None, Kind::Laneway { program, settings: &[] }, what));
    }
    let wanted = if options.peer.is_empty() { Peer::value_variants() } else { &options.peer[..] };
    let has_rust = wanted.iter().any(|peer| matches!(peer.origin(), Origin::Rust(_)));
    let rust_program = if has_rust { build_rust_peers()? } else { PathBuf::new() };
    for &peer in wanted {
        match peer.origin() {
            Origin::Rust(name) => {
                let kind = Kind::Rust { program: rust_program.clone(), name };
                kinds.push((name.into(), Some(peer), kind, locked_version(name)?));
            }
            Origin::Installed(server) if server.is_on_path() => {
                let what = format!("{}, {}", server.version(), server.method());
                let name = server.program().into();
                kinds.push((name, Some(peer), Kind::Installed(server), what));
            }
            Origin::Installed(server) if options.peer.is_empty() => {
                println!("SKIPPED: {} is not on the path", server.program());
            }
            Origin::Installed(server) => {
                return Err(format!("{} is not on the path", server.program()).into());
            }
        }
    }
    Ok(kinds)
}

fn build_rust_peers() -> Outcome<PathBuf> {
    let folder = record::target_directory().join("peers");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building benches/peers");
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path", RUST_MANIFEST])
        .arg("--target-dir")
        .arg(&folder)
        .status()?;
    if !status.success() {
        return Err(format!("benches/peers does not build: {status}").into());
    }
    Ok(folder.join("release/peer"))
}

/// `NAME VERSION`, as `benches/peers` has it.
fn locked_version(name: &str) -> Outcome<String> {
    let lock = fs::read_to_string(RUST_LOCK)?;
    let package = format!("name = \"{name}\"\nversion = \"");
    let rest = lock.split_once(&package).map(|(_, rest)| rest);
    let version = rest.and_then(|rest| rest.split_once('"')).map(|(version, _)| version);
    Ok(format!("{name} {}", version.ok_or_else(|| format!("{RUST_LOCK} has no {name}"))?))
}

/// Asks each of them once, both ways. All must have one body.
fn contenders(kinds: Vec<Named>, cpu: usize) -> Outcome<Vec<Contender>> {
    let mut contenders = Vec::new();
    let mut body = Vec::new();
    for (name, peer, kind, what) in kinds {
        let subject = Subject::start(&kind, cpu)?;
        let response = client::fetch(subject.address()).map_err(|e| format!("{name}: {e}"))?;
        let (last_response, closes) =
            client::fetch_and_close(subject.address()).map_err(|e| format!("{name}: {e}"))?;
        if contenders.is_empty() {
            body = client::body(&response).to_vec();
        }
        if client::body(&response) != body || client::body(&last_response) != body {
            return Err(format!("{name} answers with a body that is not laneway's").into());
        }
        contenders.push(Contender {
            name,
            peer,
            kind,
            what,
            response_bytes: response.len(),
            last_response_bytes: last_response.len(),
            closes,
        });
    }
    Ok(contenders)
}

fn drive_in_turns<'a>(contenders: &'a [Contender], plan: &Plan) -> Outcome<Vec<Row<'a>>> {
    let mut rows = Vec::new();
    for work in WORKS {
        let of_work = contenders.iter();
        rows.extend(of_work.map(|contender| Row {
            work,
            contender,
            samples: Vec::new(),
            ratios: Vec::new(),
        }));
    }
    for round in 0..plan.rounds {
        // New processes each round: where memory happens to lie is part of the spread.
        let subjects = contenders
            .iter()
            .map(|contender| Subject::start(&contender.kind, plan.server_cpu))
            .collect::<Outcome<Vec<_>>>()?;
        for (contender, subject) in contenders.iter().zip(&subjects) {
            if contender.peer == Some(Peer::Node) {
                measure(
                    subject,
                    contender.response_bytes,
                    COMPILING,
                    Duration::ZERO,
                    plan.compile,
                )?;
            }
        }
        for of_work in rows.chunks_mut(contenders.len()) {
            let mut turns: Vec<_> = of_work.iter_mut().zip(&subjects).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (row, subject) in turns {
                let (work, name) = (row.work, &row.contender.name);
                let sample = drive(subject, row.contender, work, plan)
                    .map_err(|e| format!("{name} at {work} connections: {e}"))?;
                let (us, busy) = (sample.server_us(), sample.busy() * 100.0);
                eprintln!(
                    "round {}/{}  {work:>6}  {name:<12}  {us:6.2} µs/request, busy {busy:.0} %",
                    round + 1,
                    plan.rounds
                );
                row.samples.push(sample);
            }
            let laneway_us = of_work[0].samples[round].server_us();
            for row in &mut of_work[1..] {
                row.ratios.push(laneway_us / row.samples[round].server_us());
            }
        }
    }
    Ok(rows)
}

fn drive(subject: &Subject, contender: &Contender, work: Work, plan: &Plan) -> Outcome<Sample> {
    let Contender { response_bytes, last_response_bytes, closes, .. } = *contender;
    match work {
        Work::KeepAlive(load) => {
            measure(subject, response_bytes, load, plan.warm_up, plan.measured)
        }
        Work::Churn { connections } => measure_churn(
            subject,
            (last_response_bytes, closes),
            connections,
            plan.warm_up,
            plan.measured,
        ),
    }
}

fn print_header(options: &Options, plan: &Plan, contenders: &[Contender]) {
    println!("CPU time of a request, compared with other servers");
    usage::print_machine(options.cpu.server_cpu, options.common.client_cpu);
    println!("{} rounds of {:?}, in turns, one worker each", plan.rounds, plan.measured);
    for Contender { name, what, response_bytes, closes, .. } in contenders {
        let note = if *closes { "" } else { "; leaves `Connection: close` to the client" };
        println!("  {name}: {what}; response of {response_bytes} bytes{note}");
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
        "laneway ÷ it",
    ];
    let mut cells = vec![header.map(String::from).to_vec()];
    for row in rows {
        let rate = spread(&row.samples, Sample::requests_per_second);
        let rate = [rate.median, rate.min, rate.max].map(thousands);
        let ratio = match (row.ratio(), row.goal()) {
            (Some(ratio), Some(goal)) => {
                format!("{ratio:.2}  goal ≤ {goal}: {}", verdict(ratio.median <= goal))
            }
            (Some(ratio), None) => format!("{ratio:.2}"),
            (None, _) => String::new(),
        };
        cells.push(vec![
            row.work.to_string(),
            row.contender.name.clone(),
            format!("{} ({}–{})", rate[0], rate[1], rate[2]),
            format!("{:.2}", spread(&row.samples, Sample::server_us)),
            format!("{:.0} %", spread(&row.samples, Sample::busy).median * 100.0),
            format!("{:.2}", spread(&row.samples, Sample::client_us).median),
            ratio,
        ]);
    }
    println!("{}", table(&cells));
    println!(
        "Medians (min–max) over the rounds; laneway ÷ it is of CPU time, within a round. ×16: so many requests at \
         once.\nnew: a connection for each request.\n"
    );
}

fn print_memory(contenders: &[Contender], memory: &[IdleMemory]) {
    IdleMemory::print_title(memory[0].connections);
    for (Contender { name, .. }, memory) in contenders.iter().zip(memory) {
        memory.print(name, "");
    }
}

fn as_json(plan: &Plan, rows: &[Row], contenders: &[Contender], memory: &[IdleMemory]) -> Value {
    let each = |samples: &[Sample], figure: fn(&Sample) -> f64| -> Vec<f64> {
        samples.iter().map(figure).collect()
    };
    let costs = rows.iter().map(|row| {
        json!({
            "load": row.work.to_string(),
            "server": row.contender.name,
            "requests_per_second": each(&row.samples, Sample::requests_per_second),
            "cpu_us_per_request": each(&row.samples, Sample::server_us),
            "client_us_per_request": each(&row.samples, Sample::client_us),
            "busy": each(&row.samples, Sample::busy),
            "displaced": each(&row.samples, Sample::displaced),
            "laneway_ratio": row.ratios,
            "laneway_ratio_median": row.ratio().map(|ratio| ratio.median),
            "goal": row.goal(),
            "met": row.ratio().zip(row.goal()).map(|(ratio, goal)| ratio.median <= goal),
        })
    });
    let servers = contenders.iter().zip(memory).map(|(contender, memory)| {
        json!({
            "name": contender.name,
            "what": contender.what,
            "response_bytes": contender.response_bytes,
            "idle_connections": memory.connections,
            "idle_bytes_each": memory.each(),
            "memory_bytes": memory.before_bytes,
        })
    });
    json!({
        "machine": usage::machine(),
        "commit": record::commit(),
        "command": record::command("peers"),
        "rounds": plan.rounds,
        "measured_ms": plan.measured.as_millis() as u64,
        "servers": servers.collect::<Vec<_>>(),
        "costs": costs.collect::<Vec<_>>(),
    })
}

//! How long is a server gone when its worker is killed, and how long does a reload take? `cargo bench --bench
//! recover`; `-- --quick`, a few seconds.
//!
//! One round: SIGKILL for a worker, then at once new connections with a request each, as many as meet the dead
//! worker's queue for certain; what counts is the time from the signal to the last answer. Then SIGHUP, and
//! what counts is the time until every worker is another one. Servers alternate within a round. Goals are
//! printed, never asserted.

mod load;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use load::arguments::{Common, OneCpu, OneServer};
use load::installed::Installed;
use load::report::{Spread, table};
use load::subject::{self, Kind, Subject};
use load::{Outcome, usage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// From SIGKILL to serving again, at most.
const GOAL_MS: f64 = 50.0;
/// Connections after a kill: that none of so many meets one of two queues happens once in 65,536 rounds.
const CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// Measures how long a server needs to get over a kill, and to reload.
#[derive(Parser)]
#[command(name = "recover")]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: OneServer,
    #[command(flatten)]
    cpu: OneCpu,
}

struct Contender {
    name: &'static str,
    kind: Kind,
    subject: Subject,
    kills_ms: Vec<f64>,
    reloads_ms: Vec<f64>,
}

/// Every kill is the first one within the window, and followed by an immediate restart.
const ONE_LANE: &[&str] = &["supervisor.restart_window=1ms", "workers.mode=threads"];
const ONE_PROCESS: &[&str] = &["supervisor.restart_window=1ms", "workers.mode=processes"];
const TWO_PROCESSES: &[&str] =
    &["supervisor.restart_window=1ms", "workers.mode=processes", "workers.count=2"];

fn main() -> ExitCode {
    load::main("recover", || run(&Options::parse()))
}

fn run(options: &Options) -> Outcome<()> {
    if !options.common.measures("recover") {
        return Ok(());
    }
    let rounds = if options.common.quick { 5 } else { 50 };
    subject::pin(options.common.client_cpu)?;
    usage::print_machine(options.cpu.server_cpu, options.common.client_cpu);
    println!("{rounds} kills and {rounds} reloads of each\n");
    let laneway = |settings| Kind::Laneway { program: options.server.server.clone(), settings };
    let mut kinds = vec![
        ("laneway, threads, 1 lane", laneway(ONE_LANE)),
        ("laneway, processes, 1 lane", laneway(ONE_PROCESS)),
        ("laneway, processes, 2 lanes", laneway(TWO_PROCESSES)),
    ];
    if is_installed("nginx") {
        kinds.push(("nginx, 1 worker", Kind::Installed(Installed::Nginx)));
    }
    let start = |(name, kind): (&'static str, Kind)| -> Outcome<Contender> {
        let subject = Subject::start(&kind, options.cpu.server_cpu)?;
        Ok(Contender { name, kind, subject, kills_ms: Vec::new(), reloads_ms: Vec::new() })
    };
    let mut contenders = kinds.into_iter().map(start).collect::<Outcome<Vec<_>>>()?;
    for round in 0..rounds {
        for contender in &mut contenders {
            let ms =
                kill_one(&contender.subject).map_err(|e| format!("{}: {e}", contender.name))?;
            contender.kills_ms.push(ms);
            let ms = reload(&contender.subject).map_err(|e| format!("{}: {e}", contender.name))?;
            contender.reloads_ms.push(ms);
        }
        if (round + 1) % 10 == 0 {
            println!("round {}/{rounds}", round + 1);
        }
    }
    println!("\n{}", report(&contenders));
    println!("Medians; worst in brackets.");
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Kills one worker process, and measures until every client that connects then has an answer.
fn kill_one(subject: &Subject) -> Outcome<f64> {
    let workers = usage::children(subject.root())?;
    let worker = *workers.first().ok_or("it has no worker")?;
    let start = Instant::now();
    kill(Pid::from_raw(worker as i32), Signal::SIGKILL)?;
    let mut streams = Vec::new();
    while streams.len() < CONNECTIONS {
        match ask(subject.address()) {
            Ok(stream) => streams.push(stream),
            // Without a listener, one is refused until there is one again.
            Err(_) if start.elapsed() < PATIENCE => sleep(POLL_INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
    for mut stream in streams {
        let mut buffer = [0; 1024];
        // A client that the dying worker had accepted is reset, which is not what is measured: it asks again.
        while !stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            if start.elapsed() > PATIENCE {
                return Err("no answer after a kill".into());
            }
            stream = ask(subject.address())?;
        }
    }
    let ms = start.elapsed().as_secs_f64() * 1e3;
    // The next measurement begins with everything in place.
    let wanted = workers.len();
    wait(|| Ok(usage::children(subject.root())?.len() == wanted))?;
    Ok(ms)
}

fn ask(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// Reloads, and measures until no worker is one of those before.
fn reload(subject: &Subject) -> Outcome<f64> {
    let before: BTreeSet<u32> = usage::children(subject.root())?.into_iter().collect();
    let start = Instant::now();
    kill(Pid::from_raw(subject.root() as i32), Signal::SIGHUP)?;
    wait(|| {
        let after = usage::children(subject.root())?;
        Ok(after.len() == before.len() && after.iter().all(|pid| !before.contains(pid)))
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn wait(mut done: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            return Err("its workers did not come back".into());
        }
        sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn report(contenders: &[Contender]) -> String {
    let mut rows = vec![
        ["server", "SIGKILL to the last answer, ms", "", "SIGHUP to new workers alone, ms"]
            .map(String::from)
            .to_vec(),
    ];
    for contender in contenders {
        let kills = Spread::of(contender.kills_ms.iter().copied());
        let reloads = Spread::of(contender.reloads_ms.iter().copied());
        let goal = match contender.kind {
            Kind::Laneway { .. } if kills.max < GOAL_MS => format!("goal < {GOAL_MS}: met"),
            Kind::Laneway { .. } => format!("goal < {GOAL_MS}: NOT met"),
            _ => String::new(),
        };
        rows.push(vec![
            contender.name.into(),
            format!("{:.1} ({:.1})", kills.median, kills.max),
            goal,
            format!("{:.1} ({:.1})", reloads.median, reloads.max),
        ]);
    }
    table(&rows)
}

//! What this server costs beyond the floor, a bare epoll loop that answers without parsing:
//! CPU per request, at several numbers of connections, and memory per idle connection.
//!
//! `cargo bench --bench floor [-- --quick] [--server PATH]`. Both run on one core, in turns, and are loaded
//! from another. Nothing here fails because something is slow; it fails when something is wrong.

#![allow(
    unreachable_pub,
    reason = "load/ is shared by benchmarks, each of which is a crate of its own"
)]
#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on says where and ends")]

mod load;

use std::time::{Duration, Instant};

use laneway::sys::cpu;
use load::client::{Client, Load, fetch};
use load::subject::{CLIENT_CPU, FLOOR, Subject};
use load::{machine, median, raw};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// What is measured, and the most that CPU per request may be, as a multiple of the floor's.
const CASES: [(Load, Option<f64>); 4] = [
    (Load { connections: 64, depth: 1 }, Some(1.15)),
    (Load { connections: 512, depth: 1 }, Some(1.15)),
    (Load { connections: 2_000, depth: 1 }, None),
    (Load { connections: 64, depth: 16 }, None),
];
const IDLE_CONNECTIONS: usize = 5_000;
const IDLE_BYTES_GOAL: f64 = 300.0;

/// How long and how often.
struct Pace {
    rounds: usize,
    warm_up: Duration,
    measured: Duration,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Sample {
    requests_per_second: f64,
    cpu_us: f64,
    busy: f64,
    client_cpu_us: f64,
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Ok(file) = std::env::var(FLOOR) {
        let request_bytes = arguments[0].parse().unwrap();
        raw::serve(request_bytes, &std::fs::read(file).unwrap());
    }
    arguments.retain(|argument| argument != "--bench");
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let server = arguments.iter().position(|argument| argument == "--server");
    let server = server.map_or(env!("CARGO_BIN_EXE_server"), |at| &arguments[at + 1]);
    let pace = if quick {
        Pace {
            rounds: 1,
            warm_up: Duration::from_millis(100),
            measured: Duration::from_millis(400),
        }
    } else {
        Pace {
            rounds: 7,
            warm_up: Duration::from_millis(300),
            measured: Duration::from_millis(1_500),
        }
    };
    if cpu::allowed().len() < 2 {
        println!("skipped: the client needs a CPU of its own");
        return;
    }
    println!("{}; server on CPU 0, client on CPU 1", machine());
    println!("medians of {} rounds of {:?}, in turns\n", pace.rounds, pace.measured);
    cpu::raise_file_limit().unwrap();
    assert!(cpu::pin(CLIENT_CPU));
    println!(
        "connections  depth  server    requests/s   CPU µs/request (min–max)   busy   client µs   ÷ floor"
    );
    for (load, goal) in CASES {
        compare(server, load, goal, &pace);
    }
    idle_memory(server);
}

/// Measures floor and server in turns, and prints both with their ratio.
fn compare(server: &str, load: Load, goal: Option<f64>, pace: &Pace) {
    let mut of_floor = Vec::new();
    let mut of_server = Vec::new();
    for round in 0..pace.rounds {
        eprint!("\r{} × {}: round {} of {} ", load.connections, load.depth, round + 1, pace.rounds);
        let laneway = Subject::laneway(server);
        let response = fetch(laneway.address, REQUEST);
        let floor = Subject::floor(REQUEST.len(), &response);
        let mut subjects = [(&floor, &mut of_floor), (&laneway, &mut of_server)];
        if round % 2 == 1 {
            subjects.reverse();
        }
        for (subject, samples) in subjects {
            samples.push(measure(subject, load, response.len(), pace));
        }
    }
    eprint!("\r                                        \r");
    print_row("floor", load, &of_floor, String::new());
    let cpu =
        |samples: &[Sample]| median(&samples.iter().map(|one| one.cpu_us).collect::<Vec<_>>());
    let ratio = cpu(&of_server) / cpu(&of_floor);
    let verdict = match goal {
        None => String::new(),
        Some(goal) if ratio <= goal => format!("  (goal ≤ {goal}: met)"),
        Some(goal) => format!("  (goal ≤ {goal}: NOT met)"),
    };
    print_row("laneway", load, &of_server, format!("{ratio:>6.3}{verdict}"));
}

fn measure(subject: &Subject, load: Load, response_bytes: usize, pace: &Pace) -> Sample {
    let mut client = Client::connect(subject.address, load, REQUEST, response_bytes);
    client.start();
    client.run(pace.warm_up);
    let (start, cpu, client_cpu) = (Instant::now(), subject.cpu_time(), own_cpu_time());
    let responses = client.run(pace.measured) as f64;
    let wall = start.elapsed().as_secs_f64();
    let cpu = (subject.cpu_time() - cpu).as_secs_f64();
    let client_cpu = (own_cpu_time() - client_cpu).as_secs_f64();
    assert!(responses > 0.0, "no response came");
    Sample {
        requests_per_second: responses / wall,
        cpu_us: cpu * 1e6 / responses,
        busy: cpu / wall,
        client_cpu_us: client_cpu * 1e6 / responses,
    }
}

/// CPU time of this thread.
fn own_cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn print_row(name: &str, load: Load, samples: &[Sample], ratio: String) {
    let of = |field: fn(&Sample) -> f64| samples.iter().map(field).collect::<Vec<_>>();
    let cpu = of(|sample| sample.cpu_us);
    let least = cpu.iter().copied().fold(f64::INFINITY, f64::min);
    let most = cpu.iter().copied().fold(0.0, f64::max);
    println!(
        "{:>11}  {:>5}  {name:<8}  {:>10.0}   {:>6.2} ({least:.2}–{most:.2})            {:>5.1}%  {:>8.2}   {ratio}",
        load.connections,
        load.depth,
        median(&of(|sample| sample.requests_per_second)),
        median(&cpu),
        median(&of(|sample| sample.busy)) * 100.0,
        median(&of(|sample| sample.client_cpu_us)),
    );
}

/// Memory of idle keep-alive connections, after one request each.
fn idle_memory(server: &str) {
    let subject = Subject::laneway(server);
    let response_bytes = fetch(subject.address, REQUEST).len();
    let before = subject.memory_bytes();
    let load = Load { connections: IDLE_CONNECTIONS, depth: 1 };
    let clients = Client::connect(subject.address, load, REQUEST, response_bytes);
    let bytes = subject.memory_bytes().saturating_sub(before) as f64 / IDLE_CONNECTIONS as f64;
    let verdict = if bytes <= IDLE_BYTES_GOAL { "met" } else { "NOT met" };
    println!(
        "\n{IDLE_CONNECTIONS} idle connections: {bytes:.0} bytes each, user space (goal ≤ {IDLE_BYTES_GOAL}: {verdict})"
    );
    drop(clients);
}

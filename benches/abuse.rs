//! What do thousands of slow clients cost a good one? `cargo bench --bench abuse`; `-- --quick`, 20 s.
//!
//! One lane on one CPU serves a good client on another, alone, then beside connections that each send one
//! byte of a head, of a body or of a trailer a second, then beside connections that each read one byte of a response a
//! second. What counts is the good client's latency, and that the server's memory stays where it is. Then clients that
//! are installed upload more than the server takes, and what counts is that each gets its 413.
//!
//! Attackers and good client are one thread: what the attackers do is spread evenly over time, and a latency
//! is measured from the good request to its answer, so that it holds what the server does for attackers and
//! nothing of what they do themselves. Goals are printed, never asserted.

mod load;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use load::arguments::{Common, OneCpu, OneServer};
use load::report::{self, Spread, table, thousands};
use load::subject::{self, Kind, Subject};
use load::{Outcome, usage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const SETTINGS: &[&str] = &[
    r#"route=[{path="/",text="Hello from laneway\n"},{path="/large",bytes="1MiB"},{path="/echo",echo="body"}]"#,
    // So that bodies that trickle are found too slow within a round.
    "timeouts.body=3s",
];
const GOOD_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LARGE_REQUEST: &[u8] = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Good requests a second.
const GOOD_RATE: u32 = 2_000;
/// p99 beside attackers may be this many times what it is without.
const P99_GOAL: f64 = 2.0;
/// Memory may grow by this much while attackers are at work.
const GROWTH_GOAL_BYTES: f64 = 1024.0 * 1024.0;

/// Measures what thousands of slow clients cost a good one.
#[derive(Parser)]
#[command(name = "abuse")]
struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    server: OneServer,
    #[command(flatten)]
    cpu: OneCpu,
    /// Connections that attack
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    connections: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    None,
    Heads,
    Bodies,
    Trailers,
    Readers,
}

const ATTACKS: [Attack; 5] =
    [Attack::None, Attack::Heads, Attack::Bodies, Attack::Trailers, Attack::Readers];

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Attack::None => "none",
            Attack::Heads => "head bytes",
            Attack::Bodies => "body bytes",
            Attack::Trailers => "trailer bytes",
            Attack::Readers => "slow readers",
        }
    }

    /// What a connection sends at once.
    fn opening(self) -> &'static [u8] {
        match self {
            Attack::None | Attack::Heads => b"GET / HTTP/1.1\r\nX: ",
            Attack::Bodies => {
                b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
            }
            Attack::Trailers => {
                b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "
            }
            Attack::Readers => LARGE_REQUEST,
        }
    }
}

/// What one phase came to.
struct Sample {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    server_busy: f64,
    memory_before: f64,
    memory_after: f64,
    reconnected: usize,
}

fn main() -> ExitCode {
    load::main("abuse", || run(&Options::parse()))
}

fn run(options: &Options) -> Outcome<()> {
    if !options.common.measures("abuse") {
        return Ok(());
    }
    let (rounds, measured) = if options.common.quick {
        (1, Duration::from_secs(4))
    } else {
        (5, Duration::from_secs(15))
    };
    subject::pin(options.common.client_cpu)?;
    let (_, fds_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, fds_max, fds_max)?;
    usage::print_machine(options.cpu.server_cpu, options.common.client_cpu);
    println!(
        "{} attackers at a byte a second; a good client with {GOOD_RATE} requests a second; {rounds} rounds of {measured:?}\n",
        thousands(options.connections as f64)
    );
    let mut samples: Vec<Vec<Sample>> = ATTACKS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (attack, of_attack) in ATTACKS.into_iter().zip(&mut samples) {
            eprintln!("round {}/{rounds}: {}", round + 1, attack.name());
            of_attack.push(measure(options, attack, measured)?);
        }
    }
    print_table(&samples);
    print_uploads(options, if options.common.quick { 3 } else { 20 })
}

/// A client that may be installed, its arguments before those of the upload, and its script.
struct Uploader {
    name: &'static str,
    program: &'static str,
    script: Option<(&'static str, &'static str)>,
}

const UPLOADERS: [Uploader; 4] = [
    Uploader { name: "curl", program: "curl", script: None },
    Uploader {
        name: "Python, http.client",
        program: "python3",
        script: Some(("upload.py", include_str!("../tests/clients/upload.py"))),
    },
    Uploader {
        name: "Node, http",
        program: "node",
        script: Some(("upload.js", include_str!("../tests/clients/upload.js"))),
    },
    Uploader {
        name: "Java, HttpURLConnection",
        program: "java",
        script: Some(("Upload.java", include_str!("../tests/clients/Upload.java"))),
    },
];

/// Larger than what the server takes (1 MiB), and than what sockets buffer.
const UPLOAD_BYTES: usize = 30 << 20;

/// Uploads with each client that is installed, `times` times, and prints how many responses were a 413.
fn print_uploads(options: &Options, times: usize) -> Outcome<()> {
    let kind = Kind::Laneway { program: options.server.server.clone(), settings: SETTINGS };
    let subject = Subject::start(&kind, options.cpu.server_cpu)?;
    let url = format!("http://{}/echo", subject.address());
    let folder = std::env::temp_dir().join(format!("laneway-abuse-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut cells = vec![["client", "uploads refused", "of them 413"].map(String::from).to_vec()];
    for uploader in &UPLOADERS {
        let said = uploader.run(&folder, &url, times)?;
        let statuses = said.as_ref().map(|said| said.split_whitespace());
        let answered = statuses.map(|all| all.filter(|status| *status == "413").count());
        // Java uploads in two ways.
        let count = if uploader.program == "java" { 2 * times } else { times };
        cells.push(vec![
            uploader.name.into(),
            if said.is_some() { count.to_string() } else { "not installed".into() },
            answered.map_or_else(String::new, |answered| {
                format!("{answered}  goal {count}: {}", report::verdict(answered == count))
            }),
        ]);
    }
    std::fs::remove_dir_all(&folder)?;
    println!("{}", table(&cells));
    println!("Uploads of {} MiB to a server that takes 1 MiB.", UPLOAD_BYTES >> 20);
    Ok(())
}

impl Uploader {
    /// The statuses that it printed; `None` if it isn't installed. A failure of the client shows as a status too few.
    fn run(&self, folder: &Path, url: &str, times: usize) -> Outcome<Option<String>> {
        let mut command = Command::new(self.program);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        if let Some((name, text)) = self.script {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            command.arg(path).args([url, &UPLOAD_BYTES.to_string(), &times.to_string()]);
        } else {
            let body = folder.join("body");
            std::fs::write(&body, vec![b'x'; UPLOAD_BYTES])?;
            // Without leave to continue: it sends at once.
            command.args(["-s", "-X", "POST", "-H", "Expect:", "-w", "%{http_code}\n"]);
            for _ in 0..times {
                command.arg("-T").arg(&body).args(["-o", "/dev/null", url]);
            }
        }
        match command.output() {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{}: {e}", self.program).into()),
        }
    }
}

fn measure(options: &Options, attack: Attack, measured: Duration) -> Outcome<Sample> {
    let kind = Kind::Laneway { program: options.server.server.clone(), settings: SETTINGS };
    let subject = Subject::start(&kind, options.cpu.server_cpu)?;
    let count = if attack == Attack::None { 0 } else { options.connections };
    let mut attackers = (0..count)
        .map(|_| Attacker::connect(attack, subject.address()))
        .collect::<Outcome<Vec<_>>>()?;
    let mut good = Good::connect(subject.address())?;
    let warm_up = GOOD_RATE as usize / 2;
    for _ in 0..warm_up {
        good.request()?;
    }
    let memory_before = subject.memory_bytes()? as f64;
    let cpu = subject.cpu_time()?.used;
    let start = Instant::now();
    let mut latencies = Vec::new();
    let (mut turn, mut reconnected) = (0, 0);
    let pause = Duration::from_secs(1) / GOOD_RATE;
    while start.elapsed() < measured {
        // Attackers whose second is over since the last good request.
        let due = (start.elapsed().as_secs_f64() * count as f64) as usize;
        for attacker in turn..due {
            reconnected += usize::from(attackers[attacker % count].act()?);
        }
        turn = due.max(turn);
        latencies.push(good.request()?.as_secs_f64() * 1e6);
        let next = start + pause * latencies.len() as u32;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    latencies.sort_by(f64::total_cmp);
    let share = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(Sample {
        p50_us: share(0.5),
        p99_us: share(0.99),
        max_us: share(1.0),
        server_busy: (subject.cpu_time()?.used - cpu).as_secs_f64() / measured.as_secs_f64(),
        memory_before,
        memory_after: subject.memory_bytes()? as f64,
        reconnected,
    })
}

/// The client that should notice nothing.
struct Good(TcpStream, Vec<u8>);

impl Good {
    fn connect(address: SocketAddr) -> Outcome<Good> {
        let response = load::client::fetch(address)?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Good(socket, vec![0; response.len()]))
    }

    fn request(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        self.0.write_all(GOOD_REQUEST)?;
        self.0.read_exact(&mut self.1).map_err(|e| format!("the good client: {e}"))?;
        Ok(start.elapsed())
    }
}

/// A client that keeps a connection for as long as it is let.
struct Attacker {
    attack: Attack,
    address: SocketAddr,
    socket: Socket,
}

impl Attacker {
    fn connect(attack: Attack, address: SocketAddr) -> Outcome<Attacker> {
        let socket = Attacker::open(attack, address)?;
        Ok(Attacker { attack, address, socket })
    }

    fn open(attack: Attack, address: SocketAddr) -> Outcome<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if attack == Attack::Readers {
            socket.set_recv_buffer_size(4096)?;
        }
        socket.connect(&address.into()).map_err(|e| format!("an attacker: {e}"))?;
        socket.set_tcp_nodelay(true)?;
        (&socket).write_all(attack.opening())?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Does what is due each second. True if the server had closed, and it connected anew.
    fn act(&mut self) -> Outcome<bool> {
        let mut byte = [0];
        let closed = match (self.attack, (&self.socket).read(&mut byte)) {
            (_, Err(e)) if e.kind() == ErrorKind::WouldBlock => false,
            (Attack::Readers, Ok(1)) => false,
            // An answer to half a head or body is a 408.
            _ => true,
        };
        let gone =
            closed || (self.attack != Attack::Readers && (&self.socket).write(b"x").is_err());
        if gone {
            self.socket = Attacker::open(self.attack, self.address)?;
        }
        Ok(gone)
    }
}

fn print_table(samples: &[Vec<Sample>]) {
    let header = [
        "attack",
        "p50 µs",
        "p99 µs",
        "max µs",
        "p99 ÷ none",
        "server CPU",
        "memory KiB",
        "reconnected",
    ];
    let mut cells = vec![header.map(String::from).to_vec()];
    for (attack, of_attack) in ATTACKS.into_iter().zip(samples) {
        let of = |figure: fn(&Sample) -> f64| Spread::of(of_attack.iter().map(figure));
        let (p50, p99, max) = (of(|s| s.p50_us), of(|s| s.p99_us), of(|s| s.max_us));
        let pairs = of_attack.iter().zip(&samples[0]);
        let ratio = Spread::of(pairs.map(|(it, alone)| it.p99_us / alone.p99_us));
        let growth = of(|s| s.memory_after - s.memory_before).median;
        let verdict = |met: bool| if met { "met" } else { "NOT met" };
        let (ratio_goal, growth_goal) = match attack {
            Attack::None => (String::new(), String::new()),
            _ => (
                format!(" (goal ≤ {P99_GOAL}: {})", verdict(ratio.median <= P99_GOAL)),
                format!(" (flat: {})", verdict(growth <= GROWTH_GOAL_BYTES)),
            ),
        };
        cells.push(vec![
            attack.name().into(),
            format!("{:.0}", p50.median),
            format!("{:.0} ({:.0}–{:.0})", p99.median, p99.min, p99.max),
            format!("{:.0}", max.median),
            format!("{:.2} ({:.2}–{:.2}){ratio_goal}", ratio.median, ratio.min, ratio.max),
            format!("{:.1} %", of(|s| s.server_busy).median * 100.0),
            format!(
                "{} → {}{growth_goal}",
                thousands(of(|s| s.memory_before).median / 1024.0),
                thousands(of(|s| s.memory_after).median / 1024.0)
            ),
            thousands(of(|s| s.reconnected as f64).median),
        ]);
    }
    println!("{}", table(&cells));
    println!("Medians (min–max) over the rounds; ÷ none is the median of the rounds' own ratios.");
}

//! temp
use laneway::config::*;
use laneway::supervisor::{self, Outcome};
use std::time::Duration;
fn main() {
    let s = Duration::from_secs;
    let args: Vec<String> = std::env::args().collect();
    let fixed = |p: &str, n: usize, d: u64| Route {
        path: RoutePath::Exact(p.into()),
        host: None,
        content: Content::Fixed {
            content_type: Some("text/plain; charset=utf-8"),
            body: vec![b'x'; n].into(),
        },
        status: 200,
        headers: vec![],
        delay: Duration::from_millis(d),
    };
    let config = Config {
        file: None,
        server: Server {
            listen: vec![ListenAddress::Socket("127.0.0.1:8080".parse().unwrap())],
            backlog: 4096,
        },
        workers: Workers {
            mode: if args.get(1).is_some_and(|a| a == "p") {
                Mode::Processes
            } else {
                Mode::Threads
            },
            count: args.get(2).map_or(Count::Auto, |n| Count::Fixed(n.parse().unwrap())),
            pin: true,
            max_connections: 16384,
        },
        supervisor: Supervisor {
            drain_timeout: s(30),
            ready_timeout: s(10),
            restart_delay: Duration::from_millis(100),
            restart_delay_max: s(30),
            max_restarts: 10,
            restart_window: s(60),
        },
        limits: Limits {
            request_line: 8192,
            header_bytes: 32768,
            headers: 100,
            body: 1 << 20,
            requests_per_connection: 0,
        },
        timeouts: Timeouts { header: s(10), body: s(30), keep_alive: s(75), write: s(30) },
        log: Log { level: LogLevel::Debug, format: LogFormat::Pretty },
        routes: vec![
            fixed("/", 19, 0),
            fixed("/big", 16 << 20, 0),
            fixed("/slow", 10, 1000),
            Route {
                path: RoutePath::Exact("/echo".into()),
                host: None,
                content: Content::EchoBody,
                status: 200,
                headers: vec![],
                delay: Duration::ZERO,
            },
            Route {
                path: RoutePath::Prefix("/req/".into()),
                host: None,
                content: Content::EchoRequest,
                status: 200,
                headers: vec![],
                delay: Duration::ZERO,
            },
        ],
    };
    laneway::observe::panics::install();
    laneway::observe::log::start(config.log);
    std::process::exit(match supervisor::run(config) {
        Outcome::Exit(c) => c,
        Outcome::Worker(w) => w.run(),
    });
}

//! The commands that speak to a running server.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;

use super::layout::{self, wrap};
use super::{Task, USAGE, load_with, print};
use crate::config::{self, Mode, Options, SocketPath, SocketPaths};
use crate::supervisor::commands::status::{Happening, LaneStatus, Queue, Status, Totals};
use crate::supervisor::commands::{Answer, Request, ask, not_asked, status_at};
use crate::sys::file::columns_of_output;

/// Asks the server that was started with these options, and prints its answer.
pub(super) fn run(options: &Options, request: Request, json: bool) -> Task {
    let SocketPaths { paths, is_guess } = config::command_socket_paths(options);
    let begun = |text: &str| {
        print(format!("{text}\n").as_bytes());
    };
    match reach(&paths, options, |path| ask(path, request, begun)) {
        Some((_, Ok(answer))) => show(answer, json),
        Some((path, Err(error))) => failed(&not_asked(path, &error)),
        // It may state another place, if only it could be understood.
        None if is_guess => match load_with(options, config::reload) {
            Err(task) => task,
            Ok(_) => failed(&nowhere(&paths)),
        },
        None => failed(&nowhere(&paths)),
    }
}

/// What `ask` gets at the first of these places where a server of these options is, and which that is. None where no server
/// is.
pub(super) fn reach<'p, T>(
    places: &'p [SocketPath],
    options: &Options,
    ask: impl Fn(&Path) -> io::Result<T>,
) -> Option<(&'p Path, io::Result<T>)> {
    let is_own = |place: &&SocketPath| {
        !matches!(place, SocketPath::Link(_)) || leads_to_own(place.path(), options)
    };
    let mut asked = places.iter().filter(is_own).map(|place| (place.path(), ask(place.path())));
    asked.find(|(_, asked)| !asked.as_ref().is_err_and(is_absent))
}

fn show(answer: Answer, json: bool) -> Task {
    match answer {
        Answer::Status(status) if json => match serde_json::to_string_pretty(&status) {
            Ok(text) => print(format!("{text}\n").as_bytes()),
            Err(error) => failed(&error.to_string()),
        },
        Answer::Status(status) => print(table(&status, columns_of_output()).as_bytes()),
        Answer::Done(text) | Answer::Begun(text) => print(format!("{text}\n").as_bytes()),
        Answer::Health(_) => failed("the server answers another question"),
        Answer::Failed(reason) => failed(&reason),
        Answer::Invalid(reason) => failed_with(USAGE, &reason),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whether a link leads to a server of this configuration file: the socket that it led to may be another one's.
fn leads_to_own(link: &Path, options: &Options) -> bool {
    match status_at(link) {
        Ok(status) => {
            config::file_path(options).is_some_and(|file| status.is_of(&file) == Some(true))
        }
        // The user of this command may not ask it, which is to be told.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// No server was found at any of these.
fn nowhere(places: &[SocketPath]) -> String {
    if places.is_empty() {
        return "this configuration leaves no place for the server's command socket; set supervisor.pid_file or \
                --socket, for the server and for this command"
            .to_owned();
    }
    let places = in_words(places);
    format!(
        "no server runs with this configuration: none listens at {places}; one that was started with --socket or with \
         another supervisor.pid_file is found by --socket PATH"
    )
}

/// The places, for a sentence.
pub(super) fn in_words(places: &[SocketPath]) -> String {
    let places: Vec<String> =
        places.iter().map(|place| place.path().display().to_string()).collect();
    places.join(" or ")
}

pub(super) fn failed(reason: &str) -> Task {
    failed_with(1, reason)
}

fn failed_with(code: i32, reason: &str) -> Task {
    // Standard error is all there is to tell it on.
    let _ = writeln!(io::stderr(), "{reason}");
    Task::Done(code)
}

/// The columns of a lane.
const HEAD: [&str; 10] =
    ["lane", "state", "pid", "cpu", "driver", "up", "restarts", "connections", "requests", "queue"];

/// The status in lines of at most `width` columns.
fn table(status: &Status, width: Option<usize>) -> String {
    let mode = match status.mode {
        Mode::Threads => "threads",
        Mode::Processes => "processes",
    };
    let engine = status.engine.other().map(|engine| format!("engine {engine}"));
    let first = [
        format!("laneway {}", status.version),
        format!("pid {}", status.pid),
        format!("up {}", time(status.uptime_ms)),
        format!("generation {}", status.generation),
        format!("mode {mode}"),
        format!("accept {}", status.accept.name()),
        engine.unwrap_or_default(),
    ];
    let mut text = wrap(&first, width, 4);
    let addresses = status.addresses.iter().map(String::clone);
    let listening: Vec<_> = std::iter::once("listening on".to_owned()).chain(addresses).collect();
    text.push_str(&wrap(&listening, width, 4));
    text.push('\n');
    let rows: Vec<Vec<String>> = status.lanes.iter().map(row).collect();
    text.push_str(&layout::table(&HEAD, &rows, width));
    let Totals { counts, restarts, .. } = status.totals;
    let parts = [
        "since the server began, with lanes that are gone".to_owned(),
        format!("connections {}", counts.accepted()),
        format!("requests {}", counts.requests()),
        format!("restarts {restarts}"),
    ];
    text.push('\n');
    text.push_str(&wrap(&parts, width, 4));
    if let Some(acceptor) = &status.acceptor {
        let parts = [
            "acceptor".to_owned(),
            acceptor.state.clone(),
            format!("pid {}", or_dash(acceptor.pid)),
            format!("up {}", or_dash(acceptor.uptime_ms.map(time))),
            format!("restarts {}", acceptor.restarts),
        ];
        text.push('\n');
        text.push_str(&wrap(&parts, width, 4));
    }
    if let Some(admin) = &status.admin {
        let parts = [
            "admin".to_owned(),
            admin.state.clone(),
            format!("pid {}", or_dash(admin.pid)),
            format!("up {}", or_dash(admin.uptime_ms.map(time))),
            format!("restarts {}", admin.restarts),
        ];
        let addresses = admin.addresses.iter().map(|address| format!("on {address}"));
        let parts: Vec<String> = parts.into_iter().chain(addresses).collect();
        text.push('\n');
        text.push_str(&wrap(&parts, width, 4));
    }
    if let Some(shared) = status.shared_queue {
        text.push_str(&format!("\nqueue of all lanes  {}\n", queue(shared)));
    }
    if !status.history.is_empty() {
        text.push_str("\nlast events\n");
    }
    status.history.iter().for_each(|happening| text.push_str(&line(happening, width)));
    text
}

fn row(lane: &LaneStatus) -> Vec<String> {
    vec![
        lane.lane.to_string(),
        lane.state.clone(),
        or_dash(lane.pid),
        or_dash(lane.cpu),
        or_dash(lane.driver.as_ref()),
        or_dash(lane.uptime_ms.map(time)),
        lane.restarts.to_string(),
        lane.connections.to_string(),
        lane.requests.to_string(),
        or_dash(lane.queue.map(queue)),
    ]
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn queue(queue: Queue) -> String {
    format!("{}/{}", queue.queue, queue.backlog)
}

fn line(happening: &Happening, width: Option<usize>) -> String {
    let when = UNIX_EPOCH + Duration::from_millis(happening.time_ms);
    let mut parts =
        vec![humantime::format_rfc3339_seconds(when).to_string(), happening.event.clone()];
    let mut add = |name: &str, value: Option<String>| {
        parts.extend(value.map(|value| format!("{name}{value}")));
    };
    add("lane ", happening.lane.map(|lane| lane.to_string()));
    add("pid ", happening.pid.map(|pid| pid.to_string()));
    add("generation ", happening.generation.map(|generation| generation.to_string()));
    add("", happening.reason.clone());
    add("after ", happening.uptime_ms.map(time));
    add("last turn ", happening.turn_age_ms.map(|age_ms| format!("{age_ms} ms before")));
    add("connections ", happening.connections.map(|connections| connections.to_string()));
    add("peak memory ", happening.peak_rss.map(|bytes| ByteSize(bytes).to_string()));
    wrap(&parts, width, 4)
}

/// A length of time in its two largest units.
fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Accept, Engine};
    use crate::control::GenerationNumber;

    #[test]
    fn a_status_fits_a_terminal_of_60_columns() {
        let lane = |lane| LaneStatus {
            lane,
            state: "starting".into(),
            pid: Some(4_194_304),
            cpu: Some(127),
            driver: Some("io_uring".into()),
            uptime_ms: Some(100 * 24 * 3_600_000),
            restarts: 1_000,
            connections: 16_384,
            accepted: 1,
            requests: 123_456_789_012,
            queue: Some(Queue { queue: 4_096, backlog: 4_096 }),
        };
        let happening = Happening {
            time_ms: 1_700_000_000_000,
            event: "worker exited".into(),
            lane: Some(1_023),
            pid: Some(4_194_304),
            generation: Some(GenerationNumber(100)),
            reason: Some(
                "killed by SIGKILL, out of memory (the kernel's oom_kill count rose)".into(),
            ),
            uptime_ms: Some(1),
            connections: Some(16_384),
            peak_rss: Some(1 << 30),
            ..Happening::default()
        };
        let status = Status {
            version: "0.1.0".into(),
            pid: 4_194_304,
            uptime_ms: 1,
            configuration: "/etc/laneway/config.toml".into(),
            generation: GenerationNumber(100),
            mode: Mode::Processes,
            addresses: vec!["127.0.0.1:8080".into(), "[2001:db8:1:2:3:4:5:6]:8080".into()],
            accept: Accept::Reuseport,
            engine: Engine::Native,
            totals: Totals::default(),
            lanes: vec![lane(0), lane(1)],
            acceptor: None,
            admin: None,
            shared_queue: None,
            history: [happening].into(),
        };
        for width in [60, 80] {
            for line in table(&status, Some(width)).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert_eq!(table(&status, None).lines().count(), 11, "what goes elsewhere is not broken");
    }
}

//! The commands that speak to a running server.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;

use super::{Task, print};
use crate::config::{Loaded, Mode, Options};
use crate::supervisor::commands::{Answer, Request, ask};
use crate::supervisor::status::{Happening, LaneStatus, Queue, Status};

/// Asks the server of this configuration, and prints its answer.
pub(super) fn run(loaded: Result<(Loaded, Options), Task>, request: Request, json: bool) -> Task {
    let config = match loaded {
        Ok((loaded, _)) => loaded.config,
        Err(task) => return task,
    };
    let Some(path) = config.supervisor.control_socket else {
        return failed(
            "this configuration leaves no place for the server's command socket; set \
             supervisor.pid_file, for the server and for this command",
        );
    };
    match ask(&path, request) {
        Ok(Answer::Status(status)) if json => match serde_json::to_string_pretty(&status) {
            Ok(text) => print(format!("{text}\n").as_bytes()),
            Err(error) => failed(&error.to_string()),
        },
        Ok(Answer::Status(status)) => print(table(&status).as_bytes()),
        Ok(Answer::Done(text)) => print(format!("{text}\n").as_bytes()),
        Ok(Answer::Failed(reason)) => failed(&reason),
        Err(error) => failed(&not_reached(&path, &error)),
    }
}

fn not_reached(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no server runs with this configuration: nobody listens at {path}")
        }
        _ => format!("cannot ask the server at {path}: {error}"),
    }
}

fn failed(reason: &str) -> Task {
    // Standard error is all there is to tell it on.
    let _ = writeln!(io::stderr(), "{reason}");
    Task::Done(1)
}

fn table(status: &Status) -> String {
    let mode = match status.mode {
        Mode::Threads => "threads",
        Mode::Processes => "processes",
    };
    let accept = status.accept.name();
    let engine = status.engine.other().map(|engine| format!(", engine {engine}"));
    let engine = engine.unwrap_or_default();
    let mut text = format!(
        "laneway {}, pid {}, up {}, generation {}, mode {mode}, accept {accept}{engine}\nlistening on {}\n\n",
        status.version,
        status.pid,
        time(status.uptime_ms),
        status.generation,
        status.addresses.join(", "),
    );
    let head = [
        "lane",
        "state",
        "pid",
        "cpu",
        "driver",
        "up",
        "restarts",
        "connections",
        "requests",
        "queue",
    ];
    let rows: Vec<Vec<String>> = status.lanes.iter().map(row).collect();
    text.push_str(&columns(&head, &rows));
    if let Some(acceptor) = &status.acceptor {
        let pid = or_dash(acceptor.pid);
        let up = or_dash(acceptor.uptime_ms.map(time));
        let (state, restarts) = (&acceptor.state, acceptor.restarts);
        text.push_str(&format!("\nacceptor  {state}  pid {pid}  up {up}  restarts {restarts}\n"));
    }
    if let Some(shared) = status.shared_queue {
        text.push_str(&format!("\nqueue of all lanes  {}\n", queue(shared)));
    }
    if !status.history.is_empty() {
        text.push_str("\nlast events\n");
    }
    status.history.iter().for_each(|happening| text.push_str(&line(happening)));
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

/// The first two columns to the left, the others to the right.
fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].len()).max().unwrap_or_default();
    let mut text = String::new();
    for row in all() {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 | 1 => format!("{cell:<width$}", width = width(column)),
            _ => format!("{cell:>width$}", width = width(column)),
        });
        text.push_str(&cells.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    text
}

fn line(happening: &Happening) -> String {
    let when = UNIX_EPOCH + Duration::from_millis(happening.time_ms);
    let mut text = format!("{}  {}", humantime::format_rfc3339_seconds(when), happening.event);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("  {name}{value}"));
        }
    };
    add("lane ", happening.lane.map(|lane| lane.to_string()));
    add("pid ", happening.pid.map(|pid| pid.to_string()));
    add("generation ", happening.generation.map(|generation| generation.to_string()));
    add("", happening.reason.clone());
    add("after ", happening.uptime_ms.map(time));
    add("last turn ", happening.turn_age_ms.map(|age_ms| format!("{age_ms} ms before")));
    add("connections ", happening.connections.map(|connections| connections.to_string()));
    add("peak memory ", happening.peak_rss.map(|bytes| ByteSize(bytes).to_string()));
    text.push('\n');
    text
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

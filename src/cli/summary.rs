//! `server check`: what would run, and what would keep it from running.

use std::io::{self, IsTerminal, Write};

use super::{Task, counted, print};
use crate::config::{
    Accept, AccessFormat, AccessLog, Config, Content, Driver, FileRoute, Loaded, Mode, Options,
    ProxyProtocol, Route, RoutePath,
};
use crate::supervisor::loading::rehearsal::{Rehearsal, rehearse};

/// Says what would run, what it would warn of, and what would keep it from starting here.
pub(super) fn check(loaded: &Loaded, options: &Options) -> Task {
    let rehearsal = rehearse(&loaded.config, options);
    let printed = print(summary(loaded, &rehearsal).as_bytes());
    let mut told = Vec::new();
    if !loaded.warnings.is_empty() {
        let colour = loaded.config.colour && io::stderr().is_terminal();
        let warnings = &loaded.warnings;
        told.push(if colour { warnings.coloured() } else { warnings.to_string() });
    }
    let warnings = rehearsal.warnings.iter();
    told.extend(warnings.map(|(reason, remedy)| format!("warning: {reason}\n  = help: {remedy}")));
    told.extend(rehearsal.errors.iter().map(|error| format!("error: {error}")));
    if !told.is_empty() {
        // Standard error is all there is to tell it on.
        let _ = writeln!(io::stderr(), "{}\n", told.join("\n\n"));
    }
    // Last, where it is looked for.
    if rehearsal.errors.is_empty() {
        let verdict = format!("the configuration is valid: {}\n", source(&loaded.config));
        return if printed.is_done() { print(verdict.as_bytes()) } else { printed };
    }
    let count = counted(rehearsal.errors.len());
    let _ = writeln!(io::stderr(), "the server would not start here: {count}");
    Task::Done(1)
}

fn source(config: &Config) -> String {
    config.file.as_ref().map_or("built-in defaults".into(), |file| file.display().to_string())
}

/// What would run.
fn summary(loaded: &Loaded, rehearsal: &Rehearsal) -> String {
    let size = &rehearsal.size;
    let config = &loaded.config;
    let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
    let lanes = format!("{} ({})", size.lanes, size.reason);
    let mode = match config.workers.mode {
        Mode::Threads => "threads (of one worker process)",
        Mode::Processes => "processes (one for each lane)",
    };
    let accept = match config.workers.accept {
        Accept::Reuseport => "reuseport (each lane from its own sockets)",
        Accept::Shared => "shared (every lane from the same sockets)",
        Accept::Handoff => "handoff (from an acceptor)",
    };
    let abilities = config.workers.engine.abilities();
    let library = abilities.library.map(|library| format!(" ({library})"));
    let engine = format!("{}{}", abilities.name, library.unwrap_or_default());
    let driver = match config.workers.driver {
        _ if !abilities.has_driver => "the engine's own",
        Driver::Auto => "auto (io_uring where the kernel allows it, else epoll)",
        Driver::Epoll => "epoll",
        Driver::IoUring => "io_uring",
    };
    let introduced = match config.server.proxy_protocol {
        ProxyProtocol::Required => {
            " (from trusted proxies alone, with a header of the PROXY protocol)"
        }
        ProxyProtocol::Off => "",
    };
    let listen = format!("{}{introduced}", listen.join(", "));
    let log = match (&config.log.access, config.log.access_format) {
        (AccessLog::Off, _) => None,
        (target, AccessFormat::Json) => Some(format!("{target} (json)")),
        (target, AccessFormat::Combined) => Some(format!("{target} (combined)")),
    };
    let log = log.iter().map(|log| ("access", log.as_str()));
    let followed = config.file.as_ref().filter(|_| config.supervisor.reload_on_change);
    let followed = followed.map(|_| ("reload", "when the file has changed, and on SIGHUP"));
    let routes = config.routes.len();
    let mut text = String::new();
    let notes = rehearsal.notes.iter().map(|note| ("running", note.as_str()));
    let rows = [
        ("file", &*source(config)),
        ("listen", listen.as_str()),
        ("lanes", &lanes),
        ("mode", mode),
        ("accept", accept),
        ("engine", &engine),
        ("driver", driver),
    ];
    let routes_row = [("routes", &*routes.to_string())];
    for (name, value) in notes.chain(rows).chain(log).chain(followed).chain(routes_row) {
        text.push_str(&format!("  {name:<7} {value}\n"));
    }
    const SHOWN: usize = 100;
    for route in config.routes.iter().take(SHOWN) {
        text.push_str(&line(route));
    }
    if routes > SHOWN {
        text.push_str(&format!("    and {} more\n", routes - SHOWN));
    }
    text.push('\n');
    text
}

/// One route in one line.
fn line(route: &Route) -> String {
    let host = route.host.as_deref().unwrap_or_default();
    let path = match &route.path {
        RoutePath::Exact(path) => path.clone(),
        RoutePath::Prefix(path) => format!("{path}*"),
    };
    let content = match &route.content {
        Content::Fixed { body, .. } => format!("{} bytes", body.len()),
        Content::Files(files) => files_of(files),
        Content::Redirect(location) => format!("redirect to {location}"),
        Content::EchoBody => "echo of the body".into(),
        Content::EchoRequest => "echo of the request".into(),
    };
    let status = match &route.content {
        Content::Files(_) => String::new(),
        _ => format!("{} ", route.status),
    };
    let delay = match route.delay.as_millis() {
        0 => String::new(),
        ms => format!(" after {ms}ms"),
    };
    format!("    {:<24} {status}{content}{delay}\n", format!("{host}{path}"))
}

/// What a route of files serves.
fn files_of(files: &FileRoute) -> String {
    let folder = match (&files.index[..], files.listing) {
        ([], false) => "no folder".to_owned(),
        ([], true) => "a listing of each folder".to_owned(),
        (index, false) => format!("{} for a folder", index.join(" or ")),
        (index, true) => format!("{} or a listing for a folder", index.join(" or ")),
    };
    let named = |what, name: &Option<String>| {
        name.as_ref().map(|name| format!(", {name} {what}")).unwrap_or_default()
    };
    let fallback = named("for pages that aren't there", &files.fallback);
    let not_found = named("as the 404", &files.not_found);
    format!("files below {}: {folder}{fallback}{not_found}", files.root.display())
}

//! The command line: what was asked for, and the commands that only print.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

mod remote;

use crate::config::{
    self, Accept, Content, Driver, Engine, Loaded, Mode, Options, Route, RoutePath,
};
use crate::supervisor::commands::Request;
use crate::supervisor::rehearsal::rehearse;
use crate::supervisor::sizing::Size;

/// A multi-core HTTP server: one lane per CPU core.
#[derive(Debug, Parser)]
#[command(name = "server", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    given: Given,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration comes from. It may stand before the command and behind it: both count, which
/// clap's own global arguments would not do.
#[derive(Clone, Debug, Default, clap::Args)]
struct Given {
    /// Configuration file [default: ./config.toml if there is one, else built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, over file and environment, such as workers.count=4
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Run(Given),
    /// Validate the configuration, say what would run, and exit
    Check(Given),
    /// Print the configuration in effect as TOML
    ShowConfig(Given),
    /// Show the lanes of the running server, and what happened to their workers
    Status {
        #[command(flatten)]
        given: Given,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Have the running server read its configuration again, and wait until it serves or was rejected
    Reload(Given),
    /// Have the running server replace itself by the binary that now lies where it was started from, and wait
    /// until that serves or has failed
    Upgrade(Given),
    /// Have the running server finish what is in flight and exit, and wait until it has
    Stop(Given),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Manpage,
}

/// What is left to do after the command line was looked at.
pub enum Task {
    /// Serve this, and what these options say after a reload.
    Serve(Box<config::Config>, Options),
    /// Exit with this code: everything was printed.
    Done(i32),
}

/// Exit code of wrong usage and of a wrong configuration.
const USAGE: i32 = 2;

/// Reads the command line and the environment, and carries out what only prints.
pub fn parse() -> Task {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no error; clap knows which is which.
            let _ = error.print();
            return Task::Done(error.exit_code());
        }
    };
    let Arguments { given, command } = arguments;
    match command.unwrap_or(Command::Run(Given::default())) {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "server", &mut script);
            print(&script)
        }
        Command::Manpage => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
            rendered.map_or(Task::Done(1), |()| print(&page))
        }
        Command::Run(more) => match load(given, more) {
            Ok((loaded, options)) => Task::Serve(Box::new(loaded.config), options),
            Err(task) => task,
        },
        Command::Check(more) => {
            load(given, more).map_or_else(|task| task, |(loaded, _)| check(&loaded))
        }
        Command::Status { given: more, json } => {
            remote::run(load(given, more), Request::Status, json)
        }
        Command::Reload(more) => remote::run(load(given, more), Request::Reload, false),
        Command::Upgrade(more) => remote::run(load(given, more), Request::Upgrade, false),
        Command::Stop(more) => remote::run(load(given, more), Request::Stop, false),
        Command::ShowConfig(more) => load(given, more)
            .map_or_else(|task| task, |(loaded, _)| print(loaded.to_toml().as_bytes())),
    }
}

/// Loads what was given before the command and behind it, or tells what is wrong.
fn load(before: Given, behind: Given) -> Result<(Loaded, Options), Task> {
    let file = behind.config.or(before.config);
    let set = [before.set, behind.set].concat();
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        // A name that isn't UTF-8 is none of ours; a value that isn't is wrong wherever it goes.
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    let environment = std::env::vars_os().filter_map(text).collect();
    let options = Options { file, set, environment };
    let loaded = config::load(&options).map_err(|errors| {
        let colour = config::takes_colour(&options.environment) && io::stderr().is_terminal();
        let text = if colour { errors.coloured() } else { errors.to_string() };
        let count = counted(errors.count());
        // Standard error is all there is to tell it on.
        let _ = writeln!(io::stderr(), "{text}\n\nthe configuration is not valid: {count}");
        Task::Done(USAGE)
    })?;
    Ok((loaded, options))
}

/// Says what would run, what it would warn of, and what would keep it from starting here.
fn check(loaded: &Loaded) -> Task {
    let rehearsal = rehearse(&loaded.config);
    let printed = print(summary(loaded, &rehearsal.size).as_bytes());
    let mut told = Vec::new();
    if !loaded.warnings.is_empty() {
        let colour = loaded.config.log.colour && io::stderr().is_terminal();
        let warnings = &loaded.warnings;
        told.push(if colour { warnings.coloured() } else { warnings.to_string() });
    }
    let warnings = rehearsal.warnings.iter();
    told.extend(warnings.map(|(reason, remedy)| format!("warning: {reason}\n  = help: {remedy}")));
    told.extend(rehearsal.errors.iter().map(|error| format!("error: {error}")));
    if !told.is_empty() {
        // Standard error is all there is to tell it on.
        let _ = writeln!(io::stderr(), "{}", told.join("\n\n"));
    }
    if rehearsal.errors.is_empty() {
        return printed;
    }
    let count = counted(rehearsal.errors.len());
    let _ = writeln!(io::stderr(), "\nthe server would not start here: {count}");
    Task::Done(1)
}

fn counted(errors: usize) -> String {
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
fn print(bytes: &[u8]) -> Task {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Task::Done(1),
        _ => Task::Done(0),
    }
}

/// What would run.
fn summary(loaded: &Loaded, size: &Size) -> String {
    let config = &loaded.config;
    let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
    let source =
        config.file.as_ref().map_or("built-in defaults".into(), |file| file.display().to_string());
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
    let (engine, driver) = match (config.workers.engine, config.workers.driver) {
        (Engine::May, _) => ("may (may_minihttp)", "the engine's own"),
        (Engine::Native, Driver::Auto) => {
            ("native", "auto (io_uring where the kernel allows it, else epoll)")
        }
        (Engine::Native, Driver::Epoll) => ("native", "epoll"),
        (Engine::Native, Driver::IoUring) => ("native", "io_uring"),
    };
    let listen = listen.join(", ");
    let routes = config.routes.len();
    let mut text = format!("the configuration is valid: {source}\n");
    for (name, value) in [
        ("listen", listen.as_str()),
        ("lanes", &lanes),
        ("mode", mode),
        ("accept", accept),
        ("engine", engine),
        ("driver", driver),
        ("routes", &routes.to_string()),
    ] {
        text.push_str(&format!("  {name:<7} {value}\n"));
    }
    const SHOWN: usize = 100;
    for route in config.routes.iter().take(SHOWN) {
        text.push_str(&line(route));
    }
    if routes > SHOWN {
        text.push_str(&format!("    and {} more\n", routes - SHOWN));
    }
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
        Content::Redirect(location) => format!("redirect to {location}"),
        Content::EchoBody => "echo of the body".into(),
        Content::EchoRequest => "echo of the request".into(),
    };
    let delay = match route.delay.as_millis() {
        0 => String::new(),
        ms => format!(" after {ms}ms"),
    };
    format!("    {:<24} {} {content}{delay}\n", format!("{host}{path}"), route.status)
}

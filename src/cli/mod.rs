//! The command line: what was asked for, and the commands that only print.
//!
//! The whole of the command `server`, but for what the [root's example](crate) shows:
//!
//! ```no_run
//! use laneway::cli::{self, Task};
//! use laneway::{Outcome, Passed};
//!
//! let passed = Passed::claim();
//! match cli::parse() {
//!     Task::Serve(config, options) => drop(laneway::run(*config, *options, passed)),
//!     Task::Done(code) => std::process::exit(code),
//!     Task::Failed(code, reason) => {
//!         // Where an upgrade started this process, the server that runs says why it failed.
//!         passed.report_failure(&reason);
//!         std::process::exit(code)
//!     }
//! }
//! ```

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

mod healthcheck;
mod layout;
mod manual;
mod remote;
mod summary;

use crate::config::{self, Loaded, Options};
use crate::supervisor::commands::Request;

/// The program's name in this repository.
const NAME: &str = "server";

/// A multi-core HTTP server: one lane per CPU core.
#[derive(Debug, Parser)]
#[command(name = NAME, version, max_term_width = 100)]
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
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, such as 0.0.0.0:8080; may be given several times: server.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// How many lanes, each with a worker; "auto" is one for each CPU: workers.count
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Set one key, over file and environment, such as workers.count=4
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The server's command socket [default: beside supervisor.pid_file, else in the runtime directory]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Run(Given),
    /// Serve the files below a folder, with a listing of each folder without an index.html; no configuration file is read
    /// unless one is named
    Files {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        given: Given,
    },
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
    /// Exit with 0 if the running server works and with 1 if it does not: for the health check of a container. It asks at
    /// the command socket, else at admin.listen
    Healthcheck(Given),
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

/// What is left to do after the command line was looked at. Not `non_exhaustive`: a program that leaves one of them out
/// would not serve.
pub enum Task {
    /// Serve this, and what these options say after a reload.
    Serve(Box<config::Config>, Box<Options>),
    /// Exit with this code: the command was carried out and printed what it had to.
    Done(i32),
    /// Exit with this code, for this reason, which was printed.
    Failed(i32, String),
}

impl Task {
    /// Whether nothing failed so far.
    fn is_done(&self) -> bool {
        matches!(self, Task::Done(0))
    }
}

/// Exit code of wrong usage and of a wrong configuration.
const USAGE: i32 = 2;

/// Reads the command line and the environment of this process, and carries out every command but the one that serves.
pub fn parse() -> Task {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = with_hint(error);
            // Help and version go to standard output and are no error; clap knows which is which.
            let _ = error.print();
            return match error.exit_code() {
                0 => Task::Done(0),
                code => Task::Failed(code, error.to_string()),
            };
        }
    };
    let Arguments { given, command } = arguments;
    match command.unwrap_or(Command::Run(Given::default())) {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), program(), &mut script);
            print(&script)
        }
        Command::Manpage => manual::page(program()).map_or(Task::Done(1), |page| print(&page)),
        Command::Run(more) => serve(options(given, more)),
        Command::Files { folder, given: more } => {
            of_folder(&folder, options(given, more)).map_or_else(|task| task, serve)
        }
        Command::Check(more) => {
            let checked =
                load(given, more).map(|(loaded, options)| summary::check(&loaded, &options));
            checked.unwrap_or_else(|task| task)
        }
        Command::Status { given: more, json } => {
            remote::run(&options(given, more), Request::Status, json)
        }
        Command::Healthcheck(more) => healthcheck::run(&options(given, more)),
        Command::Reload(more) => remote::run(&options(given, more), Request::Reload, false),
        Command::Upgrade(more) => remote::run(&options(given, more), Request::Upgrade, false),
        Command::Stop(more) => remote::run(&options(given, more), Request::Stop, false),
        Command::ShowConfig(more) => load(given, more)
            .map_or_else(|task| task, |(loaded, _)| print(loaded.to_toml().as_bytes())),
    }
}

/// The name by which this program was called: packages install it as `laneway`, and its manual page and completions are
/// of the command that there is. Kept for ever, as clap wants it: the process ends with it.
fn program() -> &'static str {
    let path = std::env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
    let is_plain = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    name.filter(is_plain).map_or(NAME, |name| name.to_owned().leak())
}

/// What is left to do is to serve this, unless it is wrong.
fn serve(options: Options) -> Task {
    match load_with(&options, config::load) {
        Ok(loaded) => Task::Serve(Box::new(loaded.config), Box::new(with_whole_paths(options))),
        Err(task) => task,
    }
}

/// The same for the one route that serves a folder, in front of everything else that was given. No configuration file is
/// read unless one was named: what lies about where this is typed may be meant for anything.
fn of_folder(folder: &Path, options: Options) -> Result<Options, Task> {
    let whole = config::start_folder().map(|start| config::absolute(folder, &start));
    let named = whole.ok().and_then(|path| Some(toml::Value::from(path.to_str()?).to_string()));
    let Some(name) = named else {
        let reason = format!(
            "cannot serve {}: its path is unknown or isn't UTF-8; serve it through a link",
            folder.display()
        );
        let _ = writeln!(io::stderr(), "error: {reason}");
        return Err(Task::Failed(USAGE, reason));
    };
    let route = format!("route=[{{ path = \"/*\", files = {name}, listing = true }}]");
    let set = [vec![route], options.set].concat();
    let is_nameless = options.file.is_none();
    let file = options.file.or_else(|| Some("/dev/null".into()));
    Ok(Options { file, set, is_nameless, ..options })
}

/// The setting that `--listen` stands for, however many there are.
fn listen(addresses: &[String]) -> Option<String> {
    match addresses {
        [] => None,
        [one] => Some(format!("server.listen={one}")),
        several => {
            let quoted = several.iter().map(|one| toml::Value::from(one.as_str()).to_string());
            Some(format!("server.listen=[{}]", quoted.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// What people type who know other servers, and what it is here.
const ELSEWHERE: [(&[&str], &str); 11] = [
    (&["start", "server", "launch", "up"], "'server run' starts the server"),
    (&["serve"], "'server run' starts the server, 'server files DIR' serves a folder"),
    (
        &["restart"],
        "'server upgrade' starts a new process without a lost request, 'server reload' reads the file again",
    ),
    (
        &["test", "validate", "verify", "configtest", "-t"],
        "'server check' validates the configuration",
    ),
    (&["quit", "shutdown", "down", "kill"], "'server stop' ends the server"),
    (&["list", "ls", "ps", "info", "monit"], "'server status' shows the lanes"),
    (&["logs", "log"], "the log goes to standard error of the process"),
    (
        &["-p", "--port", "--bind", "-b", "--host", "-l"],
        "'--listen 127.0.0.1:8080' names address and port",
    ),
    (
        &["-w", "--threads", "--processes", "-i", "--instances"],
        "'--workers 4' says how many lanes there are",
    ),
    (&["-v", "-V", "version"], "'server --version' says the version"),
    (
        &["-d", "--daemon", "-D", "--daemonize"],
        "the server stays in the foreground; systemd or '&' puts it behind",
    ),
];

/// Says how to name a file, where a file stands in the place of a command, and what commands of other servers are here.
fn with_hint(mut error: clap::Error) -> clap::Error {
    let of_kind = |kind| match error.get(kind) {
        Some(ContextValue::String(given)) => Some(given.clone()),
        _ => None,
    };
    let Some(given) =
        of_kind(ContextKind::InvalidSubcommand).or_else(|| of_kind(ContextKind::InvalidArg))
    else {
        return error;
    };
    let known = ELSEWHERE.iter().find(|(names, _)| names.contains(&given.as_str()));
    let is_file =
        !given.starts_with('-') && (given.contains(['/', '.']) || PathBuf::from(&given).exists());
    let hint = match known {
        Some((_, hint)) => hint.replace("'server ", &format!("'{} ", program())),
        None if is_file => format!("a configuration file is named with '--config {given}'"),
        None => return error,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    error.remove(ContextKind::SuggestedSubcommand);
    error
}

/// What was given before the command and behind it.
fn options(before: Given, behind: Given) -> Options {
    let socket = behind.socket.clone().or(before.socket.clone());
    let file = behind.config.clone().or(before.config.clone());
    let short = |given: &Given| {
        let count = given.workers.iter().map(|count| format!("workers.count={count}"));
        count.chain(listen(&given.listen)).collect::<Vec<_>>()
    };
    let set = [&before, &behind].map(|given| [given.set.clone(), short(given)].concat()).concat();
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        // A name that isn't UTF-8 is none of ours; a value that isn't is wrong wherever it goes.
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    let environment = std::env::vars_os().filter_map(text).collect();
    Options { file, set, environment, folder: None, socket, ..Options::default() }
}

/// The same, for a server that may lose its working directory: a path that begins in it is named from the root on.
fn with_whole_paths(options: Options) -> Options {
    let folder = config::start_folder().ok();
    let whole = |file: PathBuf| match &folder {
        Some(folder) => config::absolute(&file, folder),
        None => file,
    };
    let file = options.file.map(whole);
    Options { file, folder, ..options }
}

/// Loads the configuration, or tells what is wrong.
fn load(before: Given, behind: Given) -> Result<(Loaded, Options), Task> {
    let options = options(before, behind);
    let loaded = load_with(&options, config::load)?;
    Ok((loaded, options))
}

fn load_with(
    options: &Options,
    load: fn(&Options) -> Result<Loaded, config::Errors>,
) -> Result<Loaded, Task> {
    load(options).map_err(|errors| {
        let colour = config::takes_colour(&options.environment) && io::stderr().is_terminal();
        let text = if colour { errors.coloured() } else { errors.to_string() };
        let count = counted(errors.count());
        // Standard error is all there is to tell it on.
        let _ = writeln!(io::stderr(), "{text}\n\nthe configuration is not valid: {count}");
        Task::Failed(USAGE, errors.to_string())
    })
}

fn counted(errors: usize) -> String {
    match errors {
        1 => "1 error".to_owned(),
        errors if errors > config::ERRORS_MAX => format!("more than {} errors", config::ERRORS_MAX),
        errors => format!("{errors} errors"),
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
fn print(bytes: &[u8]) -> Task {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Task::Done(1),
        _ => Task::Done(0),
    }
}

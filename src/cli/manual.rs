//! The manual page: what the help says, and what stands in no help: signals, exit codes, variables and files.

use std::io;

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::Arguments;

/// Terms and what they mean; a backquoted word of a meaning is bold.
type List = &'static [(&'static str, &'static str)];

const SIGNALS: List = &[
    (
        "SIGTERM, SIGINT, SIGQUIT",
        "Finish what is in flight, for `supervisor.drain_timeout` at most, and exit with 0. A second one kills the \
         workers and exits with 1. Signals of one kind that come at the same moment are one (signal(7)).",
    ),
    ("SIGHUP", "Read the configuration again. If it is not valid, the old one keeps serving."),
    ("SIGUSR1", "Opens the access log by its name once more, after it was moved away."),
    (
        "SIGUSR2",
        "Replace the running binary by the one that lies where it was started from. If that fails, the old one goes on.",
    ),
    ("SIGTTIN, SIGTTOU", "One lane more, one less."),
    (
        "to a worker",
        "SIGTERM has one worker finish what is in flight; another takes its place at once. SIGKILL costs its \
         connections.",
    ),
];

const EXIT_STATUS: List = &[
    ("0", "The server stopped as it was asked to, or the command succeeded."),
    (
        "1",
        "It could not start, had to give up on a worker, or was stopped by a second signal; a command failed, or found \
         no server.",
    ),
    ("2", "The command line or the configuration is wrong."),
];

const ENVIRONMENT: List = &[
    (
        "LANEWAY_TABLE__KEY",
        "A setting: LANEWAY_WORKERS__COUNT=4 is `--set workers.count=4`, which counts more. Variables that Kubernetes \
         makes of a service are ignored.",
    ),
    ("NO_COLOR, TERM=dumb", "No colours on a terminal."),
    (
        "RUNTIME_DIRECTORY, XDG_RUNTIME_DIR",
        "Where the command socket lies if the configuration names no pid file; else where a link to it lies, by which the \
         server is found after its file has come to name another one. For root also /run.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, LISTEN_PID",
        "systemd's, for readiness, its watchdog and socket activation.",
    ),
];

const FILES: List = &[
    ("./config.toml", "The configuration, if no other is named and this one exists."),
    (
        "supervisor.pid_file",
        "The supervisor's pid while it serves, and beside it the command socket, by which the commands find the \
         server. The socket is its owner's alone.",
    ),
];

/// The manual page of a program of this name, in roff.
pub(super) fn page(program: &'static str) -> io::Result<Vec<u8>> {
    let mut command = Arguments::command().name(program);
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut roff = Roff::new();
    commands(&mut roff, &command);
    let lists = [
        ("SIGNALS", SIGNALS),
        ("EXIT STATUS", EXIT_STATUS),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ];
    for (title, list) in lists {
        roff.control("SH", [title]);
        for (term, meaning) in list {
            item(&mut roff, vec![bold(*term)], meaning);
        }
    }
    roff.to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// The commands here, because none has a page of its own.
fn commands(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["COMMANDS"]);
    for of in command.get_subcommands().filter(|of| of.get_name() != "help") {
        let about = of.get_about().map(ToString::to_string).unwrap_or_default();
        // Those that every command has stand above.
        let is_own = |of: &&Arg| command.get_arguments().all(|known| known.get_id() != of.get_id());
        let own = of.get_arguments().filter(is_own).filter(|of| of.get_id() != "help");
        let own = own.map(|of| roman(format!(" {of}")));
        item(roff, [bold(of.get_name())].into_iter().chain(own).collect(), &about);
    }
}

fn item(roff: &mut Roff, term: Vec<Inline>, meaning: &str) {
    roff.control("TP", []);
    roff.text(term);
    let parts = meaning.split('`').enumerate();
    let parts = parts.map(|(index, part)| if index % 2 == 0 { roman(part) } else { bold(part) });
    roff.text(parts.collect::<Vec<_>>());
}

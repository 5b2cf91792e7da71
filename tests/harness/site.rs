//! A server whose configuration is all in one file, which a test writes again while it serves.

use super::{
    Client, Engine, Event, Mode, Scratch, Server, Setup, Traffic, eventually, private_loopback,
};
use nix::sys::signal::SIGHUP;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) const OLD: &str = "the old generation\n";
pub(crate) const NEW: &str = "the new generation\n";

/// A server whose configuration is all in a file, which a test may write again.
pub(crate) struct Site {
    pub(crate) scratch: Scratch,
    pub(crate) mode: Mode,
    pub(crate) lanes: usize,
    pub(crate) listen: Vec<SocketAddr>,
    /// The names of Unix sockets in its folder that it listens on, too.
    pub(crate) unix: Vec<&'static str>,
    pub(crate) text: &'static str,
    pub(crate) more: String,
}

impl Site {
    pub(crate) fn new(mode: Mode) -> Site {
        Site {
            scratch: Scratch::new(),
            mode,
            lanes: 2,
            listen: vec![private_loopback(8080)],
            unix: Vec::new(),
            text: OLD,
            more: String::new(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.path().join("site.toml")
    }

    pub(crate) fn write(&self) -> &Site {
        self.scratch.write("site.toml", self.toml());
        self
    }

    /// What it writes into its file.
    pub(crate) fn toml(&self) -> String {
        let internet = self.listen.iter().map(|address| format!("\"{address}\""));
        let unix = self.unix.iter().map(|name| format!("\"unix:{name}\""));
        let listen: Vec<String> = internet.chain(unix).collect();
        let Mode { workers, accept, engine, driver } = self.mode;
        let engine = if engine == Engine::May { "workers.engine = \"may\"\n" } else { "" };
        let mut toml = format!(
            "server.listen = [{}]\nworkers.mode = \"{workers}\"\nworkers.accept = \"{accept}\"\nworkers.driver = \"{driver}\"\n{engine}workers.count = {}\nlog.format = \"json\"\n\
             supervisor.pid_file = \"server.pid\"\n",
            listen.join(", "),
            self.lanes,
        );
        let _ = write!(toml, "{}\n[[route]]\npath = \"/\"\ntext = {:?}\n", self.more, self.text);
        toml.push_str("[[route]]\npath = \"/slow\"\ntext = \"slow\"\ndelay = \"700ms\"\n");
        toml
    }

    pub(crate) fn start(&self) -> Server {
        let server = self.setup().start();
        assert_eq!(server.address(), self.listen[0]);
        server
    }

    /// The same with a watchdog that a test can wait for. The others have the default, which a machine that is busy
    /// with other work doesn't reach.
    pub(crate) fn start_watched(&self, watchdog: &str) -> Server {
        self.setup().set("supervisor.watchdog", watchdog).start()
    }

    pub(crate) fn setup(&self) -> Setup {
        self.write();
        Setup::bare().config_at(self.path()).faults("requests")
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let traffic = Traffic::start(self.listen[0], 4, "/", &[OLD, NEW]);
        traffic.wait_answers(50);
        traffic
    }

    pub(crate) fn get(&self) -> String {
        Client::connect(self.listen[0]).get("/").text().to_owned()
    }

    /// Runs a command of the binary with the same configuration, in the server's folder.
    pub(crate) fn command(&self, server: &Server, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.arg("--config").arg(self.path()).args(words).current_dir(server.folder());
        command.output().expect("run the server's binary")
    }
}

/// Reloads and waits for the end of it, whichever it is.
pub(crate) fn reload(server: &Server) -> Event {
    let before =
        server.journal.named("reload done").len() + server.journal.named("reload rejected").len();
    server.signal(SIGHUP);
    eventually("the reload ends", || {
        let mut ends = server.journal.so_far();
        ends.retain(|event| matches!(event.name(), "reload done" | "reload rejected"));
        (ends.len() > before).then(|| ends.pop()).flatten()
    })
}

/// What the links to a command socket lead to that lie in a server's runtime directory, which is its folder.
pub(crate) fn links(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("list the runtime directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let links = paths.filter(|path| path.extension().is_some_and(|ending| ending == "link"));
    links.map(|link| fs::read_link(link).expect("read a link")).collect()
}

/// Puts a script in a binary's place, as a package manager does: renamed over it.
pub(crate) fn replace_program(binary: &Path, script: &str) {
    let new = binary.with_extension("new");
    // Another process writes it: here a test beside this one could fork while it is open, and its child
    // would keep it from being executed.
    let write = r#"printf '%s' "$1" > "$2" && chmod 755 "$2""#;
    let written = Command::new("sh").args(["-c", write, "sh", script]).arg(&new).status();
    assert!(written.expect("run a shell").success());
    fs::rename(&new, binary).expect("put it in place");
}

//! Proxies of others that stand in front of a server of the tests.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Client, Scratch, eventually, private_loopback, skip_without, skipped};

/// A proxy that listens at an address of its own. Dropping it ends it.
pub(crate) struct Front {
    child: Child,
    scratch: Scratch,
    address: SocketAddr,
}

impl Front {
    /// HAProxy with this configuration, in which `ADDRESS` stands for where it listens. None, with a visible reason,
    /// without it.
    pub(crate) fn haproxy(config: &str) -> Option<Front> {
        if skip_without("haproxy") {
            return None;
        }
        let defaults = "defaults\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n  timeout check 20s\n";
        Some(Front::start(&format!("{defaults}{config}\n"), |config, _| {
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(config);
            command
        }))
    }

    /// nginx with this in its configuration, in which `ADDRESS` stands for where it listens. None, with a visible
    /// reason, without it.
    pub(crate) fn nginx(config: &str) -> Option<Front> {
        if skip_without("nginx") {
            return None;
        }
        let common =
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\n";
        Some(Front::start(&format!("{config}\n{common}"), |config, folder| {
            let mut command = Command::new("nginx");
            command.arg("-c").arg(config).arg("-p").arg(folder);
            command
        }))
    }

    /// The same with a proxy of TCP. None, with a visible reason, without the module for it.
    pub(crate) fn nginx_stream(config: &str) -> Option<Front> {
        const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
        if !Path::new(MODULE).is_file() {
            skipped(format_args!("nginx has no module `stream` (libnginx-mod-stream)"));
            return None;
        }
        Front::nginx(&format!("load_module {MODULE};\nstream {{\n{config}\n}}"))
    }

    fn start(config: &str, command: impl FnOnce(&Path, &Path) -> Command) -> Front {
        let (scratch, address) = (Scratch::new(), private_loopback(8081));
        let config = scratch.write("front.conf", config.replace("ADDRESS", &address.to_string()));
        let log = fs::File::create(scratch.path().join("front.log")).expect("a log");
        let mut command = command(&config, scratch.path());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().expect("a copy")))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("start the proxy");
        let mut front = Front { child, scratch, address };
        eventually("the proxy listens", || {
            let ended = front.child.try_wait().expect("the state of a child");
            assert!(ended.is_none(), "the proxy has ended:\n{}", front.log());
            TcpStream::connect(address).is_ok().then_some(())
        });
        front
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("front.log")).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Connects from this address of the loopback.
    #[track_caller]
    pub(crate) fn connect_from(&self, from: &str) -> Client {
        Client::connect_from(from, self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Its one process; one that has ended is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

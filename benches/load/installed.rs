//! Servers that are not Rust, and that a machine has on its path or has not: how each is started.
//!
//! All of them are set up alike: one worker, laneway's body, no log, no limit that a measurement would reach, and
//! the least work for a response that they offer. Their response heads stay what they are without further work.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const BODY: &str = "Hello from laneway\n";
/// The name of the file with the body, for those that have no response in their configuration.
const BODY_FILE: &str = "greeting";
const CONFIGURATION_FILE: &str = "configuration";

/// A server program from the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Installed {
    Nginx,
    H2o,
    Haproxy,
    Lighttpd,
    Node,
}

impl Installed {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Installed::Nginx => "nginx",
            Installed::H2o => "h2o",
            Installed::Haproxy => "haproxy",
            Installed::Lighttpd => "lighttpd",
            Installed::Node => "node",
        }
    }

    /// How it comes to its response.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Installed::Nginx => "`return 200`, reuseport",
            Installed::H2o | Installed::Lighttpd => "a file",
            Installed::Haproxy => "`http-request return`",
            Installed::Node => "cluster of one worker",
        }
    }

    pub(crate) fn is_on_path(self) -> bool {
        let folders = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&folders).any(|folder| folder.join(self.program()).is_file())
    }

    /// What it says of its version, in a line.
    pub(crate) fn version(self) -> String {
        let flag = match self {
            Installed::H2o | Installed::Node => "--version",
            _ => "-v",
        };
        let Ok(output) = Command::new(self.program()).arg(flag).output() else {
            return "of unknown version".into();
        };
        // nginx says it on stderr.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.trim().into()
    }

    /// Whether the process that is started serves too, or only looks after those that do. Node's primary accepts
    /// for its workers; h2o has a child that only waits for a crash.
    pub(super) fn root_serves(self) -> bool {
        self != Installed::Nginx
    }

    /// Writes what it needs to `directory`; returns the program and its arguments.
    pub(super) fn prepare(
        self,
        directory: &Path,
        address: SocketAddr,
    ) -> io::Result<Vec<OsString>> {
        let configuration = match self {
            Installed::Nginx => nginx(address),
            Installed::H2o => h2o(address, directory),
            Installed::Haproxy => haproxy(address),
            Installed::Lighttpd => lighttpd(address, directory),
            Installed::Node => node(address),
        };
        let file = directory.join(CONFIGURATION_FILE);
        fs::write(&file, configuration)?;
        fs::write(directory.join(BODY_FILE), BODY)?;
        let options: &[&str] = match self {
            Installed::Nginx => &["-p", ".", "-e", "stderr", "-c"],
            Installed::H2o => &["-c"],
            Installed::Haproxy => &["-db", "-f"],
            Installed::Lighttpd => &["-D", "-f"],
            Installed::Node => &[],
        };
        let mut arguments: Vec<OsString> = vec![self.program().into()];
        arguments.extend(options.iter().map(Into::into));
        arguments.push(file.into());
        Ok(arguments)
    }
}

fn nginx(address: SocketAddr) -> String {
    format!(
        r#"daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
           worker_rlimit_nofile 20000; events {{ worker_connections 16384; }}
           http {{
             access_log off; default_type text/plain;
             keepalive_requests 1000000000; keepalive_timeout 600s;
             server {{ listen {address} reuseport backlog=4096; return 200 "Hello from laneway\n"; }}
           }}"#
    )
}

/// Its files cost it half of what its mruby handlers do: it keeps them open.
fn h2o(address: SocketAddr, directory: &Path) -> String {
    let (host, port, folder) = (address.ip(), address.port(), directory.display());
    format!(
        r#"
listen: {{host: {host}, port: {port}}}
num-threads: 1
max-connections: 16384
http1-request-timeout: 600
hosts:
  default:
    paths:
      /:
        file.dir: "{folder}"
        file.index: [{BODY_FILE}]
        file.send-compressed: OFF
        file.etag: OFF
        file.mime.setdefaulttype: "text/plain; charset=utf-8"
"#
    )
}

/// It has no `Date`, which it would have to render anew for each response.
fn haproxy(address: SocketAddr) -> String {
    // Two descriptors for each connection, of the 20,000 that there may be.
    format!(
        r#"
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout client 600s
  timeout http-keep-alive 600s
frontend greeting
  bind {address} backlog 4096
  http-request return status 200 content-type "text/plain; charset=utf-8" string "Hello from laneway\n"
"#
    )
}

fn lighttpd(address: SocketAddr, directory: &Path) -> String {
    let (host, port, folder) = (address.ip(), address.port(), directory.display());
    // It counts the requests of a connection in 16 bits: 65,535 is as good as no limit, for a second or two.
    format!(
        r#"
server.bind = "{host}"
server.port = {port}
server.document-root = "{folder}"
server.tag = ""
server.max-connections = 8192
server.max-fds = 20000
server.listen-backlog = 4096
server.max-keep-alive-requests = 65535
server.max-keep-alive-idle = 600
index-file.names = ("{BODY_FILE}")
mimetype.assign = ("" => "text/plain; charset=utf-8")
static-file.etags = "disable"
"#
    )
}

fn node(address: SocketAddr) -> String {
    let (host, port, length) = (address.ip(), address.port(), BODY.len());
    format!(
        r#"
const cluster = require('node:cluster');
const http = require('node:http');
if (cluster.isPrimary) {{
  cluster.fork();
}} else {{
  const headers = {{ 'Content-Type': 'text/plain; charset=utf-8', 'Content-Length': {length} }};
  const server = http.createServer((request, response) => {{
    response.writeHead(200, headers);
    response.end('Hello from laneway\n');
  }});
  server.keepAliveTimeout = 0; // no limit
  server.listen({{ host: '{host}', port: {port}, backlog: 4096 }});
}}
"#
    )
}

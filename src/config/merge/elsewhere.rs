//! Names that other servers and process managers give to what is set here under another name, or not at all.

/// What to write instead of `key` in `table`, in a few words for the caret. At the top level, `table` is empty.
pub(super) fn meant(table: &str, key: &str) -> Option<String> {
    let key = key.to_ascii_lowercase();
    if table == "route"
        && let Some(meant) = in_a_route(&key)
    {
        return Some(meant.to_owned());
    }
    match setting(&key) {
        Some("server.listen") => {
            Some("`server.listen` has host and port: listen = \"127.0.0.1:8080\"".to_owned())
        }
        Some(setting) => Some(format!("did you mean `{setting}`?")),
        None => reason(table, &key).map(str::to_owned),
    }
}

/// What to write instead of it in a route.
fn in_a_route(key: &str) -> Option<&'static str> {
    const ROUTE_BODY: &str =
        "what a route answers is its text, json, body_file, bytes, files, redirect or echo";
    match key {
        "body" | "content" | "respond" | "response" | "return" => Some(ROUTE_BODY),
        "code" | "status_code" => Some("did you mean `status`?"),
        "header" | "add_header" => Some("did you mean `headers`?"),
        "location" | "uri" | "url" | "prefix" => Some("did you mean `path`?"),
        "method" | "methods" => Some(
            "a route is found by host and path alone; docs/serving.md has the methods it takes",
        ),
        "server_name" | "hostname" => Some("did you mean `host`?"),
        "rewrite" => Some("did you mean `redirect`?"),
        _ => None,
    }
}

/// The setting that it is.
fn setting(key: &str) -> Option<&'static str> {
    Some(match key {
        "port" | "host" | "bind" | "address" | "addr" | "hostname" => "server.listen",
        "worker_processes" | "instances" | "threads" | "processes" | "nproc" | "nbthread"
        | "concurrency" => "workers.count",
        "exec_mode" => "workers.mode",
        "worker_connections" | "maxconn" | "max_clients" | "maxclients" => {
            "workers.max_connections"
        }
        "worker_cpu_affinity" | "cpuaffinity" | "cpu_affinity" => "workers.pin",
        "pid" | "pidfile" => "supervisor.pid_file",
        "kill_timeout"
        | "timeoutstopsec"
        | "worker_shutdown_timeout"
        | "graceful_timeout"
        | "grace_period" => "supervisor.drain_timeout",
        "listen_timeout" | "timeoutstartsec" => "supervisor.ready_timeout",
        "watchdogsec" => "supervisor.watchdog",
        "startlimitburst" => "supervisor.max_restarts",
        "restartsec" => "supervisor.restart_delay",
        "client_max_body_size" | "max_body_size" => "limits.body",
        "large_client_header_buffers" | "max_header_bytes" => "limits.header_bytes",
        "keepalive_requests" => "limits.requests_per_connection",
        "keepalive_timeout" | "idle_timeout" => "timeouts.keep_alive",
        "client_header_timeout" | "read_header_timeout" => "timeouts.header",
        "client_body_timeout" | "read_timeout" => "timeouts.body",
        "send_timeout" | "write_timeout" => "timeouts.write",
        "log_level" | "loglevel" => "log.level",
        "log_format" => "log.format",
        _ => return None,
    })
}

/// Why there is none.
fn reason(table: &str, key: &str) -> Option<&'static str> {
    const FILES: &str = "a route serves the files of a folder: files = \"public\"";
    const PROXY: &str = "laneway passes no requests on to other servers";
    const TLS: &str = "laneway speaks no TLS: a proxy before it has to";
    const LOG: &str =
        "the log goes to standard error, which systemd, a container or the shell keeps";
    Some(match key {
        "location" | "routes" | "handle" | "server_name" | "vhost" | "virtual_host" => {
            "each path that is answered has a table [[route]], with path and, if wanted, host"
        }
        "root" | "alias" | "static" | "try_files" | "file_server" | "directory" | "dir"
        | "document_root" => FILES,
        "proxy" | "proxy_pass" | "reverse_proxy" | "upstream" | "upstreams" | "backend" => PROXY,
        "tls"
        | "ssl"
        | "https"
        | "ssl_certificate"
        | "ssl_certificate_key"
        | "certificate"
        | "cert"
        | "key" => TLS,
        "error_log" | "access_log" | "log_file" | "file" | "output" | "out_file" | "error_file"
            if table != "route" =>
        {
            LOG
        }
        "gzip" | "encode" | "compress" | "compression" | "brotli" => {
            "responses are sent as they are, not compressed"
        }
        "daemon" | "daemonize" | "background" => {
            "the server stays in the foreground: systemd or the shell (`server run &`) puts it behind"
        }
        "env" | "environment" => "the environment is that of the process which starts the server",
        "script" | "exec" | "command" | "cmd" | "apps" | "execstart" => {
            "laneway answers requests itself, and starts no other program"
        }
        "include" | "import" => "one file is the whole configuration",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::merge::is_key;

    #[test]
    fn what_is_offered_exists() {
        let source = include_str!("elsewhere.rs");
        let offered = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
        let settings: Vec<_> = offered
            .filter_map(|name| name.split_once('.'))
            .filter(|(table, _)| table.bytes().all(|byte| byte.is_ascii_lowercase()))
            .collect();
        assert!(settings.len() > 15, "{settings:?}");
        for (table, key) in settings {
            assert!(is_key(table, key), "{table}.{key}");
        }
    }
}

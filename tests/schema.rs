//! docs/config.schema.json: it is what the code says of its configuration, and it accepts what the server accepts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod harness;
mod keys;

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{checked_by, installed};
use jsonschema::Validator;
use keys::{BLESS, read, root, tables};
use laneway::config::{Options, load};
use laneway::internals::config_schema;
use serde_json::Value;

fn validator() -> Validator {
    jsonschema::draft7::new(&config_schema()).unwrap()
}

/// A configuration, as a validator takes it.
fn instance(toml: &str) -> Value {
    let table: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{toml}: {error}"));
    serde_json::to_value(table).unwrap()
}

/// What the server finds wrong with a configuration, beside which the file `page.html` lies; nothing if it is right.
fn errors(toml: &str) -> Option<String> {
    read(toml).err().map(|errors| errors.to_string())
}

#[test]
fn the_schema_that_is_shipped_is_what_the_code_says() {
    let file = root().join("docs/config.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&config_schema()).unwrap());
    if std::env::var_os(BLESS).is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == text,
        "docs/config.schema.json is not what the code says: {BLESS}=1 cargo test --test schema writes it"
    );
}

#[test]
fn the_shipped_configuration_names_the_schema_and_keeps_to_it() {
    let text = fs::read_to_string(root().join("config.toml")).unwrap();
    let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
    assert!(root().join(named.expect("a line #:schema at the top")).is_file(), "{named:?}");
    let validator = validator();
    let found: Vec<_> = validator.iter_errors(&instance(&text)).map(|of| of.to_string()).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn what_editors_use_takes_the_shipped_configuration_and_no_other_key() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("docs")).unwrap();
    fs::copy(root().join("docs/config.schema.json"), folder.path().join("docs/config.schema.json"))
        .unwrap();
    let right = fs::read_to_string(root().join("config.toml")).unwrap();
    let wrong = right.replace("backlog = ", "baklog = ");
    for (program, arguments) in [("taplo", &["lint"][..]), ("tombi", &["lint", "--offline"])] {
        let Some(program) = installed(program) else { continue };
        let file = folder.path().join("config.toml");
        let judged = |text: &str| {
            fs::write(&file, text).unwrap();
            let mut command = Command::new(&program);
            checked_by(command.args(arguments).arg(&file).current_dir(folder.path()), b"")
        };
        let told = judged(&right).unwrap();
        assert!(!told.contains("Warning"), "{told}");
        let told = judged(&wrong).unwrap_err();
        assert!(told.contains("baklog"), "{told}");
    }
}

#[test]
fn every_key_is_described() {
    for (table, keys) in tables(&config_schema()) {
        for (key, said) in keys {
            let text = said["description"].as_str().unwrap_or_default();
            assert!(text.ends_with(['.']), "{table}.{key} has a doc comment: {text:?}");
        }
    }
}

#[test]
fn what_is_no_schema_of_toml_is_not_in_it() {
    let text = config_schema().to_string();
    for word in ["null", "$ref", "x-range"] {
        assert!(!text.contains(&format!("\"{word}\"")), "{word}");
    }
}

/// Compares both with what is expected of them.
fn assert_judged(toml: &str, is_valid: bool, is_seen: bool) {
    let errors = errors(toml);
    assert_eq!(errors.is_none(), is_valid, "the server, of {toml}\n{}", errors.unwrap_or_default());
    let found: Vec<_> = validator().iter_errors(&instance(toml)).map(|of| of.to_string()).collect();
    assert_eq!(found.is_empty(), is_valid || !is_seen, "the schema, of {toml}\n{found:?}");
}

#[test]
fn it_accepts_what_the_server_accepts() {
    let settings = [
        "server.listen = \"127.0.0.1:8080\"",
        "server.listen = [\"127.0.0.1:0\", \"[::1]:2\", \"localhost:3\", \"a.example.:4\", \"[fe80::1%2]:5\"]",
        "server.listen = [\"1a:80\", \"a_b-c:80\"]",
        "server.listen = [\"unix:/run/a b.sock\", \"unix:x\", \"unix:a/b\"]",
        "server.socket_mode = \"0660\"",
        "server.socket_mode = \"0o602\"",
        "server.socket_mode = \"020\"",
        "server.merge_slashes = false",
        "admin.listen = \"off\"",
        "admin.listen = [\"127.0.0.1:9180\", \"[::1]:9180\"]",
        "admin.hosts = [\"status.example.org\", \"a_b-c.\", \"1a\"]",
        "admin.hosts = \"status\"",
        "server.proxy_protocol = \"off\"",
        "access.trusted_proxies = []",
        "access.trusted_proxies = \"192.0.2.1\"",
        "access.trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::/32\", \"::\", \"2001:db8::1.2.3.4\"]",
        "workers.count = \"auto\"",
        "workers.count = 1024",
        "workers.driver = \"io_uring\"",
        "supervisor.watchdog = \"0s\"",
        "supervisor.watchdog = \"100ms\"",
        "supervisor.drain_timeout = \"1h 30m\"",
        "supervisor.drain_timeout = \"1h30m\"",
        "supervisor.drain_timeout = \" 2 minutes \"",
        "supervisor.drain_timeout = \"1.5s\"",
        "supervisor.drain_timeout = \"1000us\"",
        "supervisor.drain_timeout = \"0.5year\"",
        "supervisor.pid_file = \"\"",
        "supervisor.user = \"nobody\"",
        "limits.body = 0",
        "limits.body = \"0B\"",
        "limits.body = \"10 mb\"",
        "limits.body = \"1.5MiB\"",
        "limits.body = \"1048576\"",
        "limits.body = \"64ki\"",
        "log.level = \"trace\"",
        "route = []",
    ];
    for toml in settings {
        assert_judged(toml, true, true);
    }
    let routes = [
        "path = \"/\"\ntext = \"x\"\nhost = \"\"",
        "path = \"/\"\ntext = \"x\"\nhost = \"a.example.\"",
        "path = \"/\"\ntext = \"x\"\nhost = \"[::1]\"",
        "path = \"/*\"\ntext = \"x\"\nstatus = 404",
        "path = \"/a/*\"\ntext = \"\"\nstatus = 204",
        "path = \"/ä/..b/:id\"\njson = { a = [1, 2.5, true, \"b\", 1979-05-27] }",
        "path = \"/\"\njson = 1",
        "path = \"/\"\nbody_file = \"page.html\"",
        "path = \"/\"\nbytes = \"1KiB\"",
        "path = \"/*\"\nfiles = \"/usr\"\nindex = [\"a\", \"b\"]\nlisting = true\nsymlinks = \"never\"",
        "path = \"/a/*\"\nfiles = \"/usr\"\ncache_control = { \"*.css\" = \"no-cache\" }",
        "path = \"/\"\nbytes = 0\nstatus = 204",
        "path = \"/\"\nredirect = \"https://example.org/\"\nstatus = 303",
        "path = \"/\"\necho = \"request\"\nheaders = { X-Name = \"a, b\", Set-Cookie = \"\" }",
        "path = \"/\"\ntext = \"x\"\ndelay = \"1ms\"\nheaders = { Location = \"/x\" }",
    ];
    for route in routes {
        assert_judged(&format!("[[route]]\n{route}\n"), true, true);
    }
}

#[test]
fn it_refuses_what_the_server_refuses() {
    let settings = [
        "serve.backlog = 1",
        "server.baklog = 1",
        "server.proxy_protocol = \"optional\"",
        "server = 1",
        "server.listen = []",
        "server.listen = \"127.0.0.1\"",
        "server.listen = \"8080\"",
        "server.listen = 8080",
        "server.listen = \":8080\"",
        "server.listen = \"unix:\"",
        "server.listen = \"unix:@x\"",
        "server.listen = \"unix:///x\"",
        "server.listen = \"unix:/x/\"",
        "server.socket_mode = 0o660",
        "server.socket_mode = \"0444\"",
        "server.socket_mode = \"1660\"",
        "server.socket_mode = \"20\"",
        "server.listen = \"http://a:80\"",
        "server.listen = [\"::1:8080\"]",
        "server.listen = \"a b:80\"",
        "server.backlog = \"1\"",
        "server.listen = \"off\"",
        "admin.listen = \"on\"",
        "admin.listen = []",
        "admin.hosts = [\"127.0.0.1\"]",
        "admin.hosts = [\"::1\", \"[::1]\"]",
        "admin.hosts = [\"*.example.org\"]",
        "admin.hosts = \"example.org:80\"",
        "access.trusted_proxies = \"unix\"",
        "access.trusted_proxies = [\"proxy.example\"]",
        "access.trusted_proxies = [\"10.0.0.1:80\"]",
        "access.trusted_proxies = [\"fe80::1%eth0\"]",
        "server.backlog = 1.5",
        "server.merge_slashes = \"on\"",
        "workers.count = \"many\"",
        "workers.mode = \"thread\"",
        "workers.mode = \"Threads\"",
        "supervisor.drain_timeout = 30",
        "supervisor.drain_timeout = \"30\"",
        "supervisor.drain_timeout = \"-1s\"",
        "supervisor.drain_timeout = \"1M\"",
        "supervisor.drain_timeout = \"soon\"",
        "supervisor.drain_timeout = \"\"",
        "supervisor.ready_timeout = \"0s\"",
        "supervisor.pid_file = 1",
        "limits.body = -1",
        "limits.body = \"-1B\"",
        "limits.body = \"1.5\"",
        "limits.body = \"large\"",
        "limits.request_line = \"0KiB\"",
        "log.level = 1",
        "route = 1",
        "route = [1]",
    ];
    for toml in settings {
        assert_judged(toml, false, true);
    }
    let routes = [
        "text = \"x\"",
        "path = \"/\"",
        "path = \"a\"\ntext = \"x\"",
        "path = \"/a*\"\ntext = \"x\"",
        "path = \"/*/a\"\ntext = \"x\"",
        "path = \"/a?b\"\ntext = \"x\"",
        "path = \"/a b\"\ntext = \"x\"",
        "path = \"/a/../b\"\ntext = \"x\"",
        "path = \"/.\"\ntext = \"x\"",
        "path = \"/\"\ntext = \"x\"\nhost = \"a:80\"",
        "path = \"/\"\ntext = \"x\"\nhost = \".a\"",
        "path = \"/\"\ntext = \"x\"\nbytes = 1",
        "path = \"/\"\nbytes = \"\"",
        "path = \"/\"\ntext = 1",
        "path = \"/\"\ntext = \"x\"\nstatus = 199",
        "path = \"/\"\ntext = \"x\"\nstatus = 204",
        "path = \"/\"\njson = 1\nstatus = 304",
        "path = \"/\"\necho = \"body\"\nstatus = 205",
        "path = \"/\"\necho = \"all\"",
        "path = \"/\"\nredirect = \"\"",
        "path = \"/\"\nredirect = \"a b\"",
        "path = \"/\"\nredirect = \"/x\"\nstatus = 200",
        "path = \"/\"\nredirect = \"/x\"\nheaders = { location = \"/y\" }",
        "path = \"/\"\ntext = \"x\"\nheaders = { \"A B\" = \"c\" }",
        "path = \"/\"\ntext = \"x\"\nheaders = { A = \"b\\nc\" }",
        "path = \"/\"\ntext = \"x\"\nheaders = { A = \" b\" }",
        "path = \"/\"\ntext = \"x\"\nheaders = { A = 1 }",
        "path = \"/\"\ntext = \"x\"\nheaders = { content-LENGTH = \"1\" }",
        "path = \"/\"\ntext = \"x\"\nfiles = \"public\"",
        "path = \"/\"\nfiles = \"/usr\"",
        "path = \"/*\"\nfiles = \"/usr\"\nstatus = 201",
        "path = \"/*\"\ntext = \"x\"\nlisting = true",
        "path = \"/*\"\nfiles = \"/usr\"\nlisting = 1",
        "path = \"/*\"\nfiles = \"/usr\"\nsymlinks = \"all\"",
    ];
    for route in routes {
        assert_judged(&format!("[[route]]\n{route}\n"), false, true);
    }
}

#[test]
fn what_a_schema_cant_tell_the_server_finds() {
    let cases = [
        "limits.body = \"2GiB\"",
        "supervisor.drain_timeout = \"366d\"",
        "supervisor.drain_timeout = \"1ns\"",
        "supervisor.watchdog = \"99ms\"",
        "supervisor.restart_delay = \"31s\"",
        "server.listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
        "server.listen = \"127.0.0.1:65536\"",
        "server.listen = \"999.0.0.1:80\"",
        "admin.hosts = \"a..b\"",
        "access.trusted_proxies = [\"10.0.0.1/8\"]",
        "workers.engine = \"may\"",
        "route = [{ path = \"//a\", text = \"\" }]",
        "route = [{ path = \"/a\", text = \"\" }, { path = \"/a\", text = \"\" }]",
        "route = [{ path = \"/a\", body_file = \"absent\" }]",
        "route = [{ path = \"/*\", files = \"absent\" }]",
        "route = [{ path = \"/*\", files = \"/usr\", index = \"a/b\" }]",
        "route = [{ path = \"/a\", bytes = 1, status = 204 }]",
    ];
    for toml in cases {
        assert_judged(toml, false, false);
    }
}

#[test]
fn numbers_are_refused_beyond_the_range_that_is_stated() {
    let schema = config_schema();
    let mut count = 0;
    for (table, keys) in tables(&schema).iter().filter(|(table, _)| *table != "route") {
        for (key, said) in keys.iter() {
            let branches = said["anyOf"].as_array().into_iter().flatten().chain([said]);
            for numbers in branches.filter(|of| of["type"] == "integer") {
                let bound = |name: &str| numbers[name].as_i64().unwrap();
                let (least, most) = (bound("minimum"), bound("maximum"));
                let judged = [(least, true), (most, true), (least - 1, false), (most + 1, false)];
                for (number, is_valid) in judged {
                    assert_judged(&format!("{table}.{key} = {number}"), is_valid, true);
                }
                count += 1;
            }
        }
    }
    assert!(count >= 9, "{count}");
}

#[test]
fn durations_and_sizes_are_refused_beyond_the_range_that_is_told() {
    let schema = config_schema();
    let mut count = 0;
    for (table, keys) in tables(&schema).iter().filter(|(table, _)| *table != "route") {
        for (key, said) in keys.iter() {
            let range = said["description"].as_str().unwrap().rsplit("\n\n").next().unwrap();
            let range = range.trim_end_matches('.');
            let is_right = |text: &str| {
                let toml = match key.as_str() {
                    // It may not be longer than the longest.
                    "restart_delay" => format!("{table}.restart_delay_max = \"365d\"\n"),
                    "restart_delay_max" => format!("{table}.restart_delay = \"0s\"\n"),
                    _ => String::new(),
                };
                errors(&format!("{toml}{table}.{key} = \"{text}\"")).is_none()
            };
            let told =
                range.strip_prefix("A duration from ").or(range.strip_prefix("A size from "));
            let Some((least, most)) = told.and_then(|range| range.split_once(" to ")) else {
                continue;
            };
            let (most, never) = most.split_once(", or ").unwrap_or((most, least));
            let (number, unit): (String, String) =
                most.chars().partition(|letter| letter.is_ascii_digit());
            let more = format!("{}{unit}", number.parse::<u64>().unwrap() + 1);
            assert!([least, most, never].into_iter().all(is_right), "{table}.{key}: {range}");
            assert!(!is_right(&more), "{table}.{key}: {range}");
            let (number, unit): (String, String) =
                least.chars().partition(|letter| letter.is_ascii_digit());
            if let Some(less) = number.parse::<u64>().unwrap().checked_sub(1) {
                let is_never = less == 0 && never == "0s";
                assert!(is_never || !is_right(&format!("{less}{unit}")), "{table}.{key}: {range}");
            }
            count += 1;
        }
    }
    assert!(count >= 14, "{count}");
}

#[test]
fn what_is_described_as_the_default_loads_to_the_default() {
    let mut options = Options::default();
    options.folder = Some(Path::new("/nonexistent").to_owned());
    let defaults: toml::Table = load(&options).unwrap().to_toml().parse().unwrap();
    for (table, keys) in tables(&config_schema()).iter().filter(|(table, _)| *table != "route") {
        for (key, said) in keys.iter() {
            let shown = serde_json::to_value(&defaults[*table][key]).unwrap();
            assert_eq!(said["default"], shown, "{table}.{key}");
        }
    }
}

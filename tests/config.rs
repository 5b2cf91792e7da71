//! Configuration: what it comes from, which values it takes, and every error word for word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::path::PathBuf;
use std::time::Duration;

use laneway::config::{Config, Content, Count, ListenAddress, Mode, Options, RoutePath, load};

/// Loads `toml` from a file called `laneway.toml` in a folder of its own.
fn load_toml(
    toml: &str,
    set: &[&str],
    environment: &[(&str, &str)],
) -> Result<(Config, String), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("laneway.toml");
    std::fs::write(&file, toml).unwrap();
    std::fs::write(folder.path().join("page.html"), "<p>page</p>").unwrap();
    let options = Options {
        file: Some(file.clone()),
        set: set.iter().map(ToString::to_string).collect(),
        environment: environment
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
    };
    match load(&options) {
        Ok(loaded) => Ok((loaded.config.clone(), loaded.to_toml())),
        // The folder's name is not part of what is tested.
        Err(errors) => {
            Err(errors.to_string().replace(&format!("{}/", folder.path().display()), ""))
        }
    }
}

fn config(toml: &str) -> Config {
    load_toml(toml, &[], &[]).unwrap_or_else(|errors| panic!("{errors}")).0
}

fn errors(toml: &str) -> String {
    match load_toml(toml, &[], &[]) {
        Ok(_) => panic!("{toml} is valid"),
        Err(errors) => errors,
    }
}

/// Asserts that `errors` is `expected`, whose lines are indented by the margin of the first.
#[track_caller]
fn assert_text(errors: &str, expected: &str) {
    let expected = expected.strip_prefix('\n').unwrap_or(expected);
    let margin = expected.len() - expected.trim_start_matches(' ').len();
    let lines: Vec<_> =
        expected.trim_end().lines().map(|line| line.get(margin..).unwrap_or("")).collect();
    assert_eq!(errors, lines.join("\n"), "\n--- is:\n{errors}");
}

#[test]
fn a_misspelt_key_is_shown_with_what_was_meant() {
    assert_text(
        &errors("[server]\nbaklog = 10\n"),
        "
        error: unknown key `baklog` in `server`
         --> laneway.toml:2:1
          |
        2 | baklog = 10
          | ^^^^^^ did you mean `backlog`?
          |
          = help: the keys of `server` are listen, backlog
        ",
    );
}

#[test]
fn a_misspelt_table_is_shown_once_for_all_its_keys() {
    assert_text(
        &errors("[timeout]\nheader = \"1s\"\nbody = \"1s\"\n"),
        "
        error: unknown table `timeout`
         --> laneway.toml:1:2
          |
        1 | [timeout]
          |  ^^^^^^^ did you mean `timeouts`?
          |
          = help: the tables are server, workers, supervisor, limits, timeouts, log, route
        ",
    );
}

#[test]
fn a_key_in_the_wrong_table_is_shown_with_its_home() {
    assert_text(
        &errors("[limits]\nmax_connections = 4\n"),
        "
        error: unknown key `max_connections` in `limits`
         --> laneway.toml:2:1
          |
        2 | max_connections = 4
          | ^^^^^^^^^^^^^^^ did you mean `workers.max_connections`?
          |
          = help: the keys of `limits` are request_line, header_bytes, headers, body, requests_per_connection
        ",
    );
}

#[test]
fn several_errors_are_told_at_once_and_one_hides_no_other() {
    assert_text(
        &errors("[workers]\ncount = 0\nmode = \"thread\"\n[timeouts]\nbody = \"soon\"\n"),
        "
        error: `workers.count`: invalid value: integer `0`, expected \"auto\" or a whole number from 1 to 1024
         --> laneway.toml:2:9
          |
        2 | count = 0
          |         ^

        error: `workers.mode`: unknown variant `thread`, expected `threads` or `processes`
         --> laneway.toml:3:8
          |
        3 | mode = \"thread\"
          |        ^^^^^^^^

        error: `timeouts.body`: invalid value: string \"soon\", expected a duration of at least 1ms, such as \"250ms\" or \"30s\"
         --> laneway.toml:5:8
          |
        5 | body = \"soon\"
          |        ^^^^^^
        ",
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_the_words_that_are_allowed() {
    // (key and value, what the error says)
    let cases = [
        ("workers.mode=true", "boolean `true`, expected `threads` or `processes`"),
        ("workers.accept=3", "integer `3`, expected one of `reuseport`, `shared`, `handoff`"),
        ("workers.accept=[]", "sequence, expected one of `reuseport`, `shared`, `handoff`"),
        ("workers.engine={}", "map, expected `native` or `may`"),
        ("workers.driver=1.5", "floating point `1.5`, expected one of `auto`, `epoll`, `io_uring`"),
        ("log.level=0", "integer `0`, expected one of `error`, `warn`, `info`, `debug`, `trace`"),
        ("log.format=0", "integer `0`, expected one of `auto`, `pretty`, `json`"),
    ];
    for (set, expected) in cases {
        let errors = load_toml("", &[set], &[]).unwrap_err();
        let (key, _) = set.split_once('=').unwrap();
        let first = errors.lines().next().unwrap_or_default();
        assert_eq!(first, format!("error: `{key}`: invalid type: {expected}"));
    }
}

#[test]
fn text_that_is_not_toml_is_shown_where_it_goes_wrong() {
    assert_text(
        &errors("[server\nbacklog = = 3\n"),
        "
        error: unclosed table, expected `]`
         --> laneway.toml:1:8
          |
        1 | [server
          |        ^

        error: extra `=`, expected nothing
         --> laneway.toml:2:11
          |
        2 | backlog = = 3
          |           ^

        error: unexpected key or value, expected newline, `#`
         --> laneway.toml:2:13
          |
        2 | backlog = = 3
          |             ^
        ",
    );
}

#[test]
fn a_bad_address_in_a_list_is_pointed_at() {
    assert_text(
        &errors("[server]\nlisten = [\"127.0.0.1:8080\", \"nonsense\"]\n"),
        "
        error: `server.listen`: the port is missing: \"nonsense\"; expected an address such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\"
         --> laneway.toml:2:29
          |
        2 | listen = [\"127.0.0.1:8080\", \"nonsense\"]
          |                             ^^^^^^^^^^
        ",
    );
}

#[test]
fn errors_of_environment_and_command_line_are_shown_in_their_own_text() {
    let environment = [("LANEWAY_WORKERS__COUNT", "many")];
    let errors = load_toml("", &["workers.pni=true", "nonsense"], &environment).unwrap_err();
    assert_text(
        &errors,
        "
        error: `workers.count`: invalid value: string \"many\", expected \"auto\" or a whole number from 1 to 1024
         --> environment:1:24
          |
        1 | LANEWAY_WORKERS__COUNT=many
          |                        ^^^^

        error: unknown key `pni` in `workers`
         --> --set:1:1
          |
        1 | workers.pni=true
          | ^^^^^^^^^^^ did you mean `pin`?
          |
          = help: the keys of `workers` are mode, count, pin, accept, engine, driver, max_connections

        error: expected KEY=VALUE, such as workers.count=4
         --> --set:1:1
          |
        1 | nonsense
          | ^^^^^^^^
        ",
    );
}

#[test]
fn two_routes_for_one_path_and_host_are_refused() {
    let route = "[[route]]\npath = \"/a\"\ntext = \"x\"\n";
    assert_text(
        &errors(&format!("{route}{route}")),
        "
        error: route 2 has the same path and host as route 1
         --> laneway.toml:5:8
          |
        5 | path = \"/a\"
          |        ^^^^
          |
          = help: only one of them could ever answer
        ",
    );
}

#[test]
fn each_mistake_in_a_route_is_named() {
    // (the route's keys, what the error says)
    let cases = [
        ("path = \"a\"\ntext = \"x\"", "a route's `path` begins with a slash"),
        ("text = \"x\"", "a route's `path` begins with a slash"),
        ("path = \"/a*\"\ntext = \"x\"", "`*` stands only at the end of a path, as in `/assets/*`"),
        (
            "path = \"/*/a\"\ntext = \"x\"",
            "`*` stands only at the end of a path, as in `/assets/*`",
        ),
        (
            "path = \"/a?b\"\ntext = \"x\"",
            "a route's `path` has no white space, control character, `?` or `#`",
        ),
        ("path = \"/a/../b\"\ntext = \"x\"", "a route's `path` has no `.` or `..` segment"),
        (
            "path = \"/\"\nhost = \"a:80\"\ntext = \"x\"",
            "a route's `host` is a name or an address, without a port",
        ),
        ("path = \"/\"", "route 1 answers nothing"),
        ("path = \"/\"\ntext = \"x\"\nbytes = 1", "route 1 is both `text` and `bytes`"),
        ("path = \"/\"\nredirect = \"/x\"\nstatus = 200", "200 is not a redirect"),
        ("path = \"/\"\nredirect = \"a b\"", "`redirect` is not a URI"),
        ("path = \"/\"\ntext = \"x\"\nstatus = 204", "a 204 response has no body"),
        (
            "path = \"/\"\ntext = \"x\"\nstatus = 199",
            "`route.status`: invalid value: integer `199`, expected a whole number from 200 to 599",
        ),
        ("path = \"/\"\ntext = \"x\"\nheaders = { \"A B\" = \"c\" }", "`A B` is not a field name"),
        (
            "path = \"/\"\ntext = \"x\"\nheaders = { A = \"b\\nc\" }",
            "the value of `A` is not a field value",
        ),
        (
            "path = \"/\"\ntext = \"x\"\nheaders = { Content-Length = \"1\" }",
            "`Content-Length` is set by the server",
        ),
        (
            "path = \"/\"\nbody_file = \"absent\"",
            "cannot read absent: No such file or directory (os error 2)",
        ),
        ("path = \"/\"\njson = nan", "JSON has no inf and no nan"),
        (
            "path = \"/\"\nbytes = \"65MiB\"",
            "`route.bytes`: invalid value: string \"65MiB\", expected a size from 0B to 64MiB, such as \"64KiB\"",
        ),
        (
            "path = \"/\"\necho = \"all\"",
            "`route.echo`: unknown variant `all`, expected `body` or `request`",
        ),
        (
            "path = \"/\"\necho = true",
            "`route.echo`: invalid type: boolean `true`, expected `body` or `request`",
        ),
        ("path = \"/\"\ntext = \"x\"\nfiles = \"public\"", "unknown key `files` in `route`"),
    ];
    for (keys, expected) in cases {
        let errors = errors(&format!("[[route]]\n{keys}\n"));
        let first = errors.lines().next().unwrap_or_default();
        assert_eq!(first, format!("error: {expected}"), "{keys}");
        assert_eq!(errors.matches("error: ").count(), 1, "{keys}:\n{errors}");
    }
}

#[test]
fn a_routes_host_is_as_long_as_a_name_in_dns_may_be() {
    let route = |host: &str| format!("[[route]]\npath = \"/\"\ntext = \"x\"\nhost = \"{host}\"\n");
    let longest = "a".repeat(253);
    for host in [longest.clone(), format!("{longest}.")] {
        assert_eq!(config(&route(&host)).routes[0].host.as_deref(), Some(&*longest));
    }
    let errors = errors(&route(&format!("{longest}a")));
    let first = errors.lines().next().unwrap_or_default();
    assert_eq!(first, "error: a route's `host` has 254 bytes");
}

#[test]
fn keys_of_features_that_do_not_exist_yet_are_refused() {
    for key in ["admin.listen=off", "log.access=off"] {
        assert!(load_toml("", &[key], &[]).unwrap_err().contains("unknown "), "{key}");
    }
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "[server]\nbacklog = 1\n[workers]\ncount = 1\nmax_connections = 1\n";
    let environment = [("LANEWAY_WORKERS__COUNT", "2"), ("LANEWAY_WORKERS__MAX_CONNECTIONS", "2")];
    let (config, _) = load_toml(file, &["workers.count=3"], &environment).unwrap();
    assert_eq!(config.workers.count, Count::Fixed(3));
    assert_eq!(config.workers.max_connections, 2);
    assert_eq!(config.server.backlog, 1);
    assert_eq!(config.workers.mode, Mode::Threads);
}

#[test]
fn of_two_settings_of_one_key_on_the_command_line_the_later_wins() {
    let (config, _) = load_toml("", &["workers.count=3", "workers.count=4"], &[]).unwrap();
    assert_eq!(config.workers.count, Count::Fixed(4));
}

#[test]
fn values_are_toml_or_plain_strings_and_a_list_takes_a_single_one() {
    let listen = |value: &str| {
        let set = format!("server.listen={value}");
        load_toml("", &[&set], &[]).unwrap().0.server.listen
    };
    let local = ListenAddress::Socket("127.0.0.1:1".parse().unwrap());
    for value in ["127.0.0.1:1", "\"127.0.0.1:1\"", "[\"127.0.0.1:1\"]"] {
        assert_eq!(listen(value), std::slice::from_ref(&local), "{value}");
    }
    assert_eq!(listen("localhost:80"), [ListenAddress::Name("localhost".into(), 80)]);
    assert_eq!(listen("['127.0.0.1:1', '[::1]:2']").len(), 2);
    let (config, _) = load_toml("", &[], &[("LANEWAY_WORKERS__MODE", "processes")]).unwrap();
    assert_eq!(config.workers.mode, Mode::Processes);
}

#[test]
fn variables_without_a_double_underscore_are_none_of_ours() {
    let kubernetes = [("LANEWAY_PORT", "tcp://10.0.0.1:80"), ("LANEWAY_SERVICE_HOST", "10.0.0.1")];
    assert!(load_toml("", &[], &kubernetes).is_ok());
    assert!(load_toml("", &[], &[("LANEWAY_WORKER__COUNT", "1")]).is_err());
}

#[test]
fn each_bound_holds_at_n_and_n_plus_1() {
    // (key, smallest and largest that are valid, what lies beyond)
    let cases = [
        ("server.backlog", ["1", "1048576"], ["0", "1048577"]),
        ("workers.count", ["1", "1024"], ["0", "1025"]),
        ("workers.max_connections", ["1", "1048576"], ["0", "1048577"]),
        ("supervisor.max_restarts", ["0", "1000000"], ["-1", "1000001"]),
        ("supervisor.ready_timeout", ["1ms", "365days"], ["0ms", "366days"]),
        ("timeouts.header", ["1ms", "365days"], ["0s", "999us"]),
        ("limits.request_line", ["64", "1MiB"], ["63", "1048577"]),
        ("limits.header_bytes", ["256B", "16MiB"], ["255", "16777217"]),
        ("limits.headers", ["1", "10000"], ["0", "10001"]),
        ("limits.body", ["0", "1GiB"], ["-1", "1073741825"]),
    ];
    for (key, valid, invalid) in cases {
        for value in valid {
            let result = load_toml("", &[&format!("{key}={value}")], &[]);
            assert!(result.is_ok(), "{key}={value}: {}", result.unwrap_err());
        }
        for value in invalid {
            assert!(load_toml("", &[&format!("{key}={value}")], &[]).is_err(), "{key}={value}");
        }
    }
}

#[test]
fn a_delay_longer_than_its_maximum_is_refused() {
    let errors = errors("[supervisor]\nrestart_delay = \"1m\"\n");
    assert!(errors.starts_with(
        "error: `supervisor.restart_delay` is longer than `supervisor.restart_delay_max`"
    ));
    assert!(errors.contains("laneway.toml:2:17"), "{errors}");
}

#[test]
fn routes_are_resolved() {
    let config = config(
        r#"
        [[route]]
        path = "/assets/*"
        host = "Example.ORG."
        body_file = "page.html"
        headers = { "Cache-Control" = "no-store" }
        delay = "20ms"
        [[route]]
        path = "/json"
        json = { a = [1, 2.5, true, "x"], b = 1979-05-27 }
        headers = { content-type = "text/x" }
        [[route]]
        path = "/old"
        redirect = "/new"
        [[route]]
        path = "/bytes"
        bytes = "2KiB"
        status = 503
        "#,
    );
    let [file, json, redirect, bytes] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!(file.path, RoutePath::Prefix("/assets/".into()));
    assert_eq!(file.host.as_deref(), Some("example.org"));
    assert_eq!(file.delay, Duration::from_millis(20));
    assert_eq!(file.headers, [("Cache-Control".into(), "no-store".into())]);
    let fixed = |route: &laneway::config::Route| match &route.content {
        Content::Fixed { content_type, body } => (*content_type, body.to_vec()),
        other => panic!("{other:?}"),
    };
    assert_eq!(fixed(file), (Some("text/html; charset=utf-8"), b"<p>page</p>".to_vec()));
    let expected = "{\"a\":[1,2.5,true,\"x\"],\"b\":\"1979-05-27\"}\n";
    assert_eq!(fixed(json), (None, expected.into()));
    assert!(matches!(&redirect.content, Content::Redirect(location) if location == "/new"));
    assert_eq!((redirect.status, bytes.status), (308, 503));
    assert_eq!(fixed(bytes).1.len(), 2048);
}

#[test]
fn what_show_config_prints_loads_to_the_same() {
    let shipped =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config.toml"));
    let odd = "[server]\nlisten = [\"[::1]:0\", \"localhost:1\"]\n[timeouts]\nbody = \"1500ms\"\n\
               [limits]\nbody = 1000\n[[route]]\npath = \"/j\"\njson = { a = [{ b = 1 }], c = \"d\" }\n\
               headers = { X = \"é\" }\n[[route]]\npath = \"/e\"\necho = \"request\"\n";
    for toml in [&shipped.unwrap(), odd, ""] {
        let (config, printed) = load_toml(toml, &[], &[]).unwrap();
        let (again, printed_again) =
            load_toml(&printed, &[], &[]).unwrap_or_else(|errors| panic!("{printed}\n{errors}"));
        assert_eq!(printed, printed_again);
        let values = |config: &Config| format!("{:?}", Config { file: None, ..config.clone() });
        assert_eq!(values(&config), values(&again));
    }
}

#[test]
fn an_address_that_stands_twice_is_an_error_unless_its_port_is_chosen() {
    let text = errors("[server]\nlisten = [\"127.0.0.1:80\", \"127.0.0.1:80\"]\n");
    assert!(text.contains("\"127.0.0.1:80\" stands twice"), "{text}");
    let chosen = config("[server]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n");
    assert_eq!(chosen.server.listen.len(), 2);
}

#[test]
fn routes_that_are_no_list_are_told_of_once() {
    for (toml, set) in [
        ("[route]\npath = \"/\"\ntext = \"a\"\n", &[][..]),
        ("", &["route.path=/", "route.0.text=a"][..]),
    ] {
        let errors = load_toml(toml, set, &[]).unwrap_err();
        assert!(errors.contains("write [[route]] and its keys below it"), "{errors}");
        assert_eq!(errors.matches("error:").count(), 1, "{errors}");
    }
}

#[test]
fn a_key_below_a_key_is_not_taken_for_an_unknown_table() {
    let errors = load_toml("", &["server.listen.foo=1"], &[]).unwrap_err();
    assert!(errors.contains("`server.listen` is not a table"), "{errors}");
}

#[test]
fn an_echo_has_no_status_that_forbids_a_body() {
    let text = errors("[[route]]\npath = \"/\"\necho = \"request\"\nstatus = 205\n");
    assert!(text.contains("a 205 response has no body"), "{text}");
}

#[test]
fn a_field_stands_once_whatever_its_case() {
    let route = "[[route]]\npath = \"/\"\n";
    let text = errors(&format!("{route}text = \"\"\nheaders = {{ X-A = \"1\", x-a = \"2\" }}\n"));
    assert!(text.contains("stands twice"), "{text}");
    let own = "redirect = \"/x\"\nheaders = { location = \"/y\" }\n";
    let text = errors(&format!("{route}{own}"));
    assert!(text.contains("`location` is what `redirect` says"), "{text}");
}

#[test]
fn a_body_file_that_could_be_read_for_ever_is_refused() {
    for file in ["/dev/zero", "/dev"] {
        let text = errors(&format!("[[route]]\npath = \"/\"\nbody_file = \"{file}\"\n"));
        assert!(text.contains("it is not a regular file"), "{text}");
    }
}

#[test]
fn what_is_shown_of_a_relative_body_file_loads_from_anywhere() {
    let (_, shown) =
        load_toml("[[route]]\npath = \"/\"\nbody_file = \"page.html\"\n", &[], &[]).unwrap();
    let line = shown.lines().find(|line| line.starts_with("body_file")).unwrap();
    assert!(line.contains("= \"/") && line.ends_with("page.html\""), "{line}");
}

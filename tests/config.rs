//! Configuration: what it comes from, which values it takes, and every error word for word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::path::PathBuf;
use std::time::Duration;

use laneway::config::{Config, Content, Count, ListenAddress, Mode, Options, RoutePath, load};

/// A file and an environment.
fn options_of(file: PathBuf, environment: Vec<(String, String)>) -> Options {
    let mut options = Options::default();
    options.file = Some(file);
    options.environment = environment;
    options
}

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
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let mut options = options_of(file.clone(), environment.collect());
    options.set = set.iter().map(ToString::to_string).collect();
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
          = help: the keys of `server` are listen, socket_owner, socket_group, socket_mode, backlog, proxy_protocol, merge_slashes
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
          = help: the tables are server, workers, supervisor, limits, timeouts, log, access, admin, files, route
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
          = help: the keys of `limits` are request_line, header_bytes, headers, body, body_rate, requests_per_connection
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

        error: `workers.mode`: unknown word `thread`, expected `threads` or `processes`
         --> laneway.toml:3:8
          |
        3 | mode = \"thread\"
          |        ^^^^^^^^ did you mean `threads`?

        error: `timeouts.body`: \"soon\" is no duration
         --> laneway.toml:5:8
          |
        5 | body = \"soon\"
          |        ^^^^^^
          |
          = help: write a number with a unit (ms, s, m, h, d), such as \"250ms\", \"30s\" or \"1h 30m\": from 1ms to 365d
        ",
    );
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_the_words_that_are_allowed() {
    // (key and value, what the error says)
    let cases = [
        ("workers.mode=true", "boolean `true`, expected `threads` or `processes`"),
        ("workers.accept=3", "integer `3`, expected one of `reuseport`, `shared`, `handoff`"),
        ("workers.accept=[]", "list, expected one of `reuseport`, `shared`, `handoff`"),
        ("workers.engine={}", "table, expected `native` or `may`"),
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
        error: the name of the table `server` is not closed
         --> laneway.toml:1:8
          |
        1 | [server
          |        ^
          |
          = help: write [server]

        error: there are two equals signs
         --> laneway.toml:2:11
          |
        2 | backlog = = 3
          |           ^
          |
          = help: one stands between a key and its value
        ",
    );
}

#[test]
fn a_bad_address_in_a_list_is_pointed_at() {
    assert_text(
        &errors("[server]\nlisten = [\"127.0.0.1:8080\", \"nonsense\"]\n"),
        "
        error: `server.listen`: \"nonsense\" is no address: the port is missing
         --> laneway.toml:2:29
          |
        2 | listen = [\"127.0.0.1:8080\", \"nonsense\"]
          |                             ^^^^^^^^^^
          |
          = help: write \"nonsense:8080\"
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
         --> command line:1:1
          |
        1 | workers.pni=true
          | ^^^^^^^^^^^ did you mean `pin`?
          |
          = help: the keys of `workers` are mode, count, pin, accept, engine, driver, max_connections

        error: expected KEY=VALUE, such as workers.count=4
         --> command line:1:1
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
        2 | path = \"/a\"
          |        ---- here first
        ...
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
        ("path = \"/a//b\"\ntext = \"x\"", "a route's `path` has no `//`"),
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
            "`route.bytes`: \"65MiB\" is more than 64MiB, the most",
        ),
        (
            "path = \"/\"\necho = \"all\"",
            "`route.echo`: unknown word `all`, expected `body` or `request`",
        ),
        (
            "path = \"/\"\necho = true",
            "`route.echo`: invalid type: boolean `true`, expected `body` or `request`",
        ),
        ("path = \"/\"\ntext = \"x\"\nfiles = \"public\"", "route 1 is both `text` and `files`"),
        (
            "path = \"/\"\nfiles = \"/usr\"",
            "`files` is what is below a path, and \"/\" is one alone",
        ),
        ("path = \"/*\"\nfiles = \"/absent\"", "there is no folder /absent"),
        ("path = \"/*\"\nfiles = \"/etc/passwd\"", "/etc/passwd is no folder"),
        ("path = \"/*\"\nfiles = \"/usr\"\nstatus = 201", "a file's status is its own"),
        (
            "path = \"/*\"\nfiles = \"/usr\"\nindex = \"a/b\"",
            "`index` has \"a/b\", which is no file's name",
        ),
        (
            "path = \"/*\"\nfiles = \"/usr\"\nnot_found = \"/404.html\"",
            "`not_found` has \"/404.html\", which is no file's name",
        ),
        (
            "path = \"/*\"\nfiles = \"/usr\"\nfallback = \"../x\"",
            "`fallback` has \"../x\", which is no file's name",
        ),
        (
            "path = \"/*\"\nfiles = \"/usr\"\ncache_control = { \"*\" = \"a\\nb\" }",
            "`cache_control` of \"*\" is not a field value",
        ),
        (
            "path = \"/*\"\nfiles = \"/usr\"\nsymlinks = \"all\"",
            "`route.symlinks`: unknown word `all`, expected `inside` or `never`",
        ),
        (
            "path = \"/*\"\ntext = \"x\"\nlisting = true",
            "`listing` is a key of routes that serve files",
        ),
    ];
    for (keys, expected) in cases {
        let errors = errors(&format!("[[route]]\n{keys}\n"));
        let first = errors.lines().next().unwrap_or_default();
        assert_eq!(first, format!("error: {expected}"), "{keys}");
        assert_eq!(errors.matches("error: ").count(), 1, "{keys}:\n{errors}");
    }
}

#[test]
fn a_route_has_repeated_slashes_only_if_those_of_requests_stay() {
    let route = "[[route]]\npath = \"/a//b\"\ntext = \"x\"\n";
    let config = config(&format!("[server]\nmerge_slashes = false\n{route}"));
    assert_eq!(config.routes[0].path, RoutePath::Exact("/a//b".into()));
    assert!(errors(route).contains("server.merge_slashes = false"), "{}", errors(route));
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
fn what_a_later_version_will_have_is_called_so() {
    // (key and value, what stands at the caret)
    let cases = [
        ("exec.command=[]", "the engine that starts other programs"),
        ("node.script=x", "the engine that starts Node workers"),
    ];
    for (set, what) in cases {
        let text = load_toml("", &[set], &[]).unwrap_err();
        assert!(text.starts_with("error: unknown "), "{text}");
        assert!(text.ends_with(&format!("^ {what}: not in this version; leave it out")), "{text}");
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

/// What is told of a configuration that is valid.
fn warnings(toml: &str, environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("laneway.toml");
    std::fs::write(&file, toml).unwrap();
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let options = options_of(file, environment.collect());
    let loaded = load(&options).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.warnings.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn service_links_of_kubernetes_are_no_settings() {
    let kubernetes = [
        ("LANEWAY_PORT", "tcp://10.0.0.1:80"),
        ("LANEWAY_SERVICE_HOST", "10.0.0.1"),
        ("LANEWAY_API_SERVICE_HOST", "10.0.0.1"),
        ("LANEWAY_API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("LANEWAY_MY__API_SERVICE_PORT", "80"),
        ("LANEWAY_MY__API_PORT_80_TCP", "tcp://10.0.0.1:80"),
    ];
    assert_eq!(warnings("", &kubernetes), "");
    assert!(load_toml("", &[], &[("LANEWAY_WORKER__COUNT", "1")]).is_err());
}

#[test]
fn a_variable_that_was_meant_as_a_setting_is_warned_of() {
    let form = "a setting is LANEWAY_TABLE__KEY, with two underscores between, such as LANEWAY_WORKERS__COUNT";
    // (name, what stands at the caret)
    let cases = [
        ("LANEWAY_WORKERS_COUNT", "did you mean LANEWAY_WORKERS__COUNT?"),
        ("LANEWAY_WORKER_COUNT", "did you mean LANEWAY_WORKERS__COUNT?"),
        ("laneway_workers__count", "did you mean LANEWAY_WORKERS__COUNT?"),
        ("LANEWAY_WORKERS_MAX_CONNECTIONS", "did you mean LANEWAY_WORKERS__MAX_CONNECTIONS?"),
        ("LANEWAY_LISTEN", "did you mean LANEWAY_SERVER__LISTEN?"),
        ("LANEWAY_PORT", "did you mean LANEWAY_SERVER__LISTEN?"),
        ("LANEWAY_CONFIG", "`--config FILE` names the configuration file"),
        ("LANEWAY_SECRET", ""),
    ];
    for (name, label) in cases {
        let carets = "^".repeat(name.len());
        let caret = format!("  | {carets} {label}");
        let expected = format!(
            "warning: the variable {name} is no setting, and is ignored\n --> environment:1:1\n  |\n\
             1 | {name}\n{}\n  |\n  = help: {form}",
            caret.trim_end()
        );
        let text = warnings("", &[(name, "1")]);
        assert_eq!(text, expected, "\n--- is:\n{text}");
    }
}

#[test]
fn a_parameter_in_a_path_is_warned_of_because_it_is_none() {
    let route = |path: &str| format!("[[route]]\npath = \"{path}\"\ntext = \"x\"\n");
    // (path, segment, what would take it)
    let cases = [("/:id", ":id", "/"), ("/{id}", "{id}", "/"), ("/a/<id>/b", "<id>", "/a/")];
    for (path, segment, front) in cases {
        let carets = "^".repeat(path.len() + 2);
        let expected = format!(
            "warning: `{segment}` in a route's path is no parameter: it matches itself alone\n \
             --> laneway.toml:2:8\n  |\n2 | path = \"{path}\"\n  |        {carets}\n  |\n  = help: \
             path = \"{front}*\" takes everything below {front}"
        );
        let text = warnings(&route(path), &[]);
        assert_eq!(text, expected, "\n--- is:\n{text}");
    }
    for path in ["/a:b", "/{", "/:", "/x{id}"] {
        assert_eq!(warnings(&route(path), &[]), "", "{path}");
    }
}

#[test]
fn a_value_without_quotes_is_told_to_need_them() {
    // (line, column and length of what lacks them, what to write)
    let cases = [
        ("listen = 127.0.0.1:8080", 10, 14, "listen = \"127.0.0.1:8080\""),
        ("listen = localhost:8080 # here", 10, 14, "listen = \"localhost:8080\""),
        ("listen = :8080", 10, 5, "listen = \":8080\""),
        ("listen = *:8080", 10, 6, "listen = \"*:8080\""),
        ("listen = [127.0.0.1:80, \"a:1\"]", 11, 12, "\"127.0.0.1:80\""),
        ("listen = http://a/", 10, 9, "listen = \"http://a/\""),
        ("header = 30s", 10, 3, "header = \"30s\""),
        ("body = 64KiB", 8, 5, "body = \"64KiB\""),
        ("mode = threads", 8, 7, "mode = \"threads\""),
        ("mode = “threads”", 8, 9, "mode = \"threads\""),
        ("pin = yes", 7, 3, "pin = \"yes\", or pin = true if it is yes or no that is asked for"),
        (
            "pin = False",
            7,
            5,
            "pin = \"False\", or pin = false if it is yes or no that is asked for",
        ),
    ];
    for (line, column, length, write) in cases {
        let expected = format!(
            "error: text needs quotes\n --> laneway.toml:2:{column}\n  |\n2 | {line}\n  | {}{}\n  |\n  \
             = help: write {write}",
            " ".repeat(column - 1),
            "^".repeat(length),
        );
        let text = errors(&format!("[x]\n{line}\n"));
        assert_eq!(text, expected, "\n--- is:\n{text}");
    }
}

#[test]
fn a_number_in_quotes_is_told_to_need_none() {
    // (key, value, what the error says)
    let whole = |from: u32, to: u32| format!("expected a whole number from {from} to {to}");
    let cases = [
        (
            "workers.count",
            "\"4\"",
            "expected \"auto\" or a whole number from 1 to 1024".to_owned(),
            "4",
        ),
        ("server.backlog", "\"64\"", whole(1, 1_048_576), "64"),
        ("workers.pin", "\"true\"", "expected true or false".to_owned(), "true"),
    ];
    for (key, value, expected, bare) in cases {
        let (table, name) = key.split_once('.').unwrap();
        let text = errors(&format!("[{table}]\n{name} = {value}\n"));
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("error: `{key}`: invalid ")), "{text}");
        assert!(first.ends_with(&format!("string {value}, {expected}")), "{text}");
        assert!(
            text.ends_with(&format!("= help: write {name} = {bare}, without quotes")),
            "{text}"
        );
    }
}

#[test]
fn a_duration_without_a_unit_is_told_both_that_it_may_mean() {
    for value in ["30", "\"30\"", "1.5", "\"0\""] {
        let number = value.trim_matches('"');
        let expected = format!(
            "error: `timeouts.header`: a duration has a unit, and {number} has none\n \
             --> laneway.toml:2:10\n  |\n2 | header = {value}\n  |          {}\n  |\n  = help: write \
             \"{number}s\" for seconds or \"{number}ms\" for milliseconds",
            "^".repeat(value.len())
        );
        let text = errors(&format!("[timeouts]\nheader = {value}\n"));
        assert_eq!(text, expected, "\n--- is:\n{text}");
    }
}

#[test]
fn each_way_to_write_an_address_wrong_is_told_how_to_write_it_right() {
    let everywhere = "for every interface [\"0.0.0.0:8080\", \"[::]:8080\"], for this machine alone \"127.0.0.1:8080\"";
    let forms = "such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\"";
    let file = "such as \"unix:/run/laneway/http.sock\"";
    let network = format!("any process of the network namespace could use it: name a path, {file}");
    let brackets = "an IPv6 address needs brackets, and a port behind them";
    // (value, what is wrong, what to do)
    let cases = [
        ("\":8080\"", "the host is missing", everywhere),
        ("\"*:8080\"", "`*` is no host", everywhere),
        ("\"8080\"", "the host is missing", everywhere),
        ("8080", "the host is missing", everywhere),
        ("\"http://a:81/x\"", "it is a URL", "write the host and the port alone: \"a:81\""),
        ("\"https://a\"", "it is a URL", "write the host and the port alone: \"a:80\""),
        ("\"/run/x\"", "it is a path", "a Unix socket is written \"unix:/run/x\""),
        ("\"unix:\"", "the path is missing", file),
        ("\"unix:@x\"", "an abstract socket has no owner and no permissions", &network),
        ("\"unix:///run/x\"", "it is a URL", "write \"unix:/run/x\""),
        ("\"unix:/run/\"", "it names a folder", &format!("name a file in it, {file}")),
        ("\"unix:/run/..\"", "it names a folder", &format!("name a file in it, {file}")),
        ("\"127.0.0.1\"", "the port is missing", "write \"127.0.0.1:8080\""),
        ("\"[::1]\"", "the port is missing", "write \"[::1]:8080\""),
        ("\"::1\"", brackets, "write \"[::1]:8080\""),
        ("\"localhost\"", "the port is missing", "write \"localhost:8080\""),
        (
            "\"127.0.0.1:65536\"",
            "the port is not a number from 0 to 65535",
            "write \"127.0.0.1:8080\", say",
        ),
        ("\"256.0.0.1:80\"", "the host is malformed", forms),
        ("\"a b:80\"", "it has white space", forms),
    ];
    for (value, what, help) in cases {
        let shown = value.trim_matches('"');
        let expected = format!(
            "error: `server.listen`: \"{shown}\" is no address: {what}\n --> laneway.toml:2:10\n  |\n\
             2 | listen = {value}\n  |          {}\n  |\n  = help: {help}",
            "^".repeat(value.len())
        );
        let text = errors(&format!("[server]\nlisten = {value}\n"));
        assert_eq!(text, expected, "\n--- is:\n{text}");
    }
}

#[test]
fn a_key_that_stands_twice_is_shown_with_the_first() {
    assert_text(
        &errors("[server]\nbacklog = 3\nlisten = \"a:1\"\nbacklog = 4\n[log]\n[server]\n"),
        "
        error: `backlog` stands twice
         --> laneway.toml:4:1
          |
        2 | backlog = 3
          | ------- here first
        3 | listen = \"a:1\"
        4 | backlog = 4
          | ^^^^^^^ leave one of them out

        error: `server` stands twice
         --> laneway.toml:6:2
          |
        1 | [server]
          |  ------ here first
        ...
        6 | [server]
          |  ^^^^^^ put its keys there
        ",
    );
}

#[test]
fn what_does_not_close_is_one_error_where_it_opens() {
    // (text, line and column, what the error says, the help)
    let many = format!("[a]\nb = {}\n", "[".repeat(100_000));
    let balanced = format!("[a]\nb = {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("[a]\nb = [1\nc = 3\n[d]\n", "2:5", "`[` is not closed", "`]` is missing before line 3"),
        (
            "[a]\nb = [1,\n 2\n[d]\ne = 1\n",
            "2:5",
            "`[` is not closed",
            "`]` is missing before line 4",
        ),
        (
            "[a]\nb = [[1, 2], [3\n",
            "2:5",
            "2 brackets are not closed, of which this is the first",
            "`]` is missing",
        ),
        ("[a]\nb = { c = [1 }\nd = 1\n", "2:11", "`[` is not closed", "`]` is missing"),
        ("[a]\nb = {\n c = 1\n[d]\n", "2:5", "`{` is not closed", "`}` is missing before line 4"),
        (
            "[a]\nb = \"\"\"x\n[d]\n",
            "2:5",
            "a text of several lines is not closed",
            "it ends with \"\"\"",
        ),
        (
            &many,
            "2:5",
            "100000 brackets are not closed, of which this is the first",
            "`]` is missing",
        ),
        (&balanced, "2:85", "brackets within brackets go too deep", "80 is the most"),
    ];
    for (toml, place, what, help) in cases {
        let text = errors(toml);
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
        assert!(text.starts_with(&format!("error: {what}\n --> laneway.toml:{place}\n")), "{text}");
        assert!(text.ends_with(&format!("  = help: {help}")), "{text}");
    }
}

#[test]
fn another_language_is_called_by_its_name() {
    let help = "a table is `[server]`, and a key in it `listen = \"127.0.0.1:8080\"`; \
                `server show-config` prints a whole configuration";
    // (text, the language, the line that shows it)
    let cases = [
        ("server:\n  listen: a:1\n", "YAML", 1),
        ("# a comment\n---\nserver:\n", "YAML", 2),
        ("\n{ \"server\": {} }\n", "JSON", 2),
        ("worker_processes 4;\nhttp {\n}\n", "nginx's configuration", 1),
        ("http {\n  server {\n    listen 80;\n  }\n}\n", "nginx's configuration", 1),
        (":8080 {\n  respond \"hi\"\n}\n", "a Caddyfile", 1),
        ("<server>\n</server>\n", "XML", 1),
    ];
    for (toml, language, line) in cases {
        let text = errors(toml);
        let expected = format!(
            "error: this looks like {language}; laneway's configuration is TOML\n --> laneway.toml:{line}:1\n"
        );
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.ends_with(&format!("  = help: {help}")), "{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
    }
    assert_text(
        &errors("[server]\nlisten: a:1\n"),
        "
        error: `listen:` is how YAML writes a key
         --> laneway.toml:2:9
          |
        2 | listen: a:1
          |         ^
          |
          = help: TOML has an equals sign: listen = \"a:1\"
        ",
    );
}

#[test]
fn each_bad_field_of_a_route_is_shown_where_it_stands() {
    let route = "[[route]]\npath = \"/\"\ntext = \"\"\n[route.headers]\n";
    let fields = "\"A b\" = \"x\"\nDate = \"x\"\nC = \"z\\n\"\nD = 3\nc = \"\"\n";
    assert_text(
        &errors(&format!("{route}{fields}")),
        "
        error: `A b` is not a field name
         --> laneway.toml:5:1
          |
        5 | \"A b\" = \"x\"
          | ^^^^^
          |
          = help: it has letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 §5.1)

        error: `Date` is set by the server
         --> laneway.toml:6:1
          |
        6 | Date = \"x\"
          | ^^^^
          |
          = help: leave it out: it frames the message or governs the connection

        error: the value of `C` is not a field value
         --> laneway.toml:7:1
          |
        7 | C = \"z\\n\"
          | ^
          |
          = help: it has no control characters, and no white space at its ends

        error: the value of the field `D` is not text
         --> laneway.toml:8:5
          |
        8 | D = 3
          |     ^
          |
          = help: write D = \"…\"; a field stands once, with one value

        error: `c` stands twice
         --> laneway.toml:9:1
          |
        7 | C = \"z\\n\"
          | - the other
        8 | D = 3
        9 | c = \"\"
          | ^
          |
          = help: upper and lower case are the same in a field's name
        ",
    );
}

#[test]
fn bytes_that_are_no_utf_8_are_shown_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("laneway.toml");
    let told = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let options = options_of(file.clone(), Vec::new());
        let errors = load(&options).err().unwrap().to_string();
        errors.replace(&format!("{}/", folder.path().display()), "")
    };
    assert_text(
        &told(b"[server]\nlisten = \"\xfc\"\n"),
        "
        error: the configuration is not UTF-8 text
         --> laneway.toml:2:11
          |
        2 | listen = \"\u{fffd}\"
          |           ^ the byte 0xfc begins no character
          |
          = help: save it as UTF-8
        ",
    );
    assert!(told(b"\xff\xfea\0").ends_with("= help: it looks like UTF-16: save it as UTF-8"));
}

#[test]
fn a_folder_in_place_of_the_file_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    let options = options_of(folder.path().to_owned(), Vec::new());
    let told = || load(&options).err().unwrap().to_string();
    let name = folder.path().display().to_string();
    let expected = format!("error: cannot read {name}: it is a folder\n |\n = help: ");
    assert_eq!(told(), format!("{expected}--config names a file"));
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    assert_eq!(told(), format!("{expected}name the file in it: --config {name}/config.toml"));
}

#[test]
fn spaces_around_the_equals_sign_of_an_argument_mean_nothing() {
    let set = ["workers.count = 4", "server.listen = localhost:80 ", "workers.mode= processes"];
    let (config, _) = load_toml("", &set, &[]).unwrap();
    assert_eq!(config.workers.count, Count::Fixed(4));
    assert_eq!(config.server.listen, [ListenAddress::Name("localhost".into(), 80)]);
    assert_eq!(config.workers.mode, Mode::Processes);
    let text = load_toml("", &["workers.count =  many"], &[]).unwrap_err();
    assert!(text.contains(" --> command line:1:18\n"), "{text}");
}

#[test]
fn a_watchdog_shorter_than_100_ms_is_refused() {
    assert_text(
        &errors("[supervisor]\nwatchdog = \"99ms\"\n"),
        "
        error: `supervisor.watchdog`: \"99ms\" is shorter than 100ms, the least
         --> laneway.toml:2:12
          |
        2 | watchdog = \"99ms\"
          |            ^^^^^^
          |
          = help: write a number with a unit (ms, s, m, h, d), such as \"250ms\", \"30s\" or \"1h 30m\": from 100ms to 365d, or \"0s\" for never
        ",
    );
}

#[test]
fn each_bound_holds_at_n_and_n_plus_1() {
    // (key, smallest and largest that are valid, what lies beyond)
    let cases = [
        ("server.backlog", ["1", "1048576"], ["0", "1048577"]),
        ("workers.count", ["1", "1024"], ["0", "1025"]),
        ("workers.max_connections", ["1", "1048576"], ["0", "1048577"]),
        ("supervisor.max_restarts", ["0", "1000000"], ["-1", "1000001"]),
        ("supervisor.watchdog", ["0s", "365days"], ["1ms", "99ms"]),
        ("supervisor.watchdog", ["100ms", "10s"], ["99ms", "366days"]),
        ("supervisor.ready_timeout", ["1ms", "365days"], ["0ms", "366days"]),
        ("timeouts.header", ["1ms", "365days"], ["0s", "999us"]),
        ("limits.request_line", ["64", "1MiB"], ["63", "1048577"]),
        ("limits.header_bytes", ["256B", "16MiB"], ["255", "16777217"]),
        ("limits.headers", ["1", "10000"], ["0", "10001"]),
        ("limits.body", ["0", "1GiB"], ["-1", "1073741825"]),
        ("limits.body_rate", ["0B", "1GiB"], ["-1", "1073741825"]),
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
        Content::Fixed { content_type, body, .. } => (content_type.clone(), body.to_vec()),
        other => panic!("{other:?}"),
    };
    assert_eq!(fixed(file), (Some("text/html; charset=utf-8".into()), b"<p>page</p>".to_vec()));
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
        // All but where it is from.
        let values = |config: &Config| {
            let mut config = config.clone();
            config.file = None;
            let text = format!("{config:?}");
            let (of_the_file, values) = text.split_once(" server:").expect("the first table");
            assert!(of_the_file.contains("fingerprint"), "{of_the_file}");
            values.to_owned()
        };
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

#[test]
fn trusted_proxies_are_addresses_and_networks() {
    let trusted = |value: &str| {
        let toml = format!("[access]\ntrusted_proxies = {value}\n");
        load_toml(&toml, &[], &[]).map(|(config, written)| (config.access, written))
    };
    let (access, written) = trusted("[\"10.0.0.0/8\", \"::1\"]").unwrap();
    let has = |address: &str| access.trusted_proxies.contains(address.parse().unwrap());
    assert!(has("10.255.0.1") && has("::1") && !has("127.0.0.1"));
    assert!(
        written.contains("[access]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n"),
        "{written}"
    );
    let (access, written) = trusted("\"192.0.2.1/32\"").unwrap();
    assert!(access.trusted_proxies.contains("192.0.2.1".parse().unwrap()));
    assert!(written.contains("trusted_proxies = [\"192.0.2.1\"]\n"), "{written}");
    assert!(trusted("[]").unwrap().0.trusted_proxies.is_empty());
    assert!(config("").access.trusted_proxies.is_empty());
    assert_text(
        &trusted("[\"192.0.2.1\", \"10.0.0.1/8\"]").unwrap_err(),
        r#"
        error: `access.trusted_proxies`: "10.0.0.1/8" is no address and no network: bits are set behind its prefix
         --> laneway.toml:2:33
          |
        2 | trusted_proxies = ["192.0.2.1", "10.0.0.1/8"]
          |                                 ^^^^^^^^^^^^
          |
          = help: write "10.0.0.0/8" for the network, or "10.0.0.1" for that address alone
        "#,
    );
    assert_text(
        &trusted("true").unwrap_err(),
        r#"
        error: `access.trusted_proxies`: invalid type: boolean `true`, expected an address or a network such as "10.0.0.0/8", or a list of them
         --> laneway.toml:2:19
          |
        2 | trusted_proxies = true
          |                   ^^^^
        "#,
    );
}

#[test]
fn a_proxy_protocol_that_is_required_needs_proxies_and_an_engine_that_reads_it() {
    let proxied = |more: &str| {
        let toml = format!("[server]\nproxy_protocol = \"required\"\n{more}");
        load_toml(&toml, &[], &[])
    };
    let (config, written) = proxied("[access]\ntrusted_proxies = \"::1\"\n").unwrap();
    assert!(proxied("listen = \"unix:http.sock\"\n").is_ok(), "a Unix socket is trusted");
    let both = proxied("listen = [\"unix:http.sock\", \"127.0.0.1:8080\"]\n").unwrap_err();
    assert!(both.contains("`access.trusted_proxies` is empty"), "{both}");
    assert_eq!(config.server.proxy_protocol, laneway::config::ProxyProtocol::Required);
    assert!(written.contains("proxy_protocol = \"required\"\n"), "{written}");
    assert_text(
        &proxied("").unwrap_err(),
        r#"
        error: `server.proxy_protocol` is required, and `access.trusted_proxies` is empty
         --> laneway.toml:2:18
          |
        2 | proxy_protocol = "required"
          |                  ^^^^^^^^^^
          |
          = help: name the proxies: a connection that comes from anywhere else is closed
        "#,
    );
    let error = load_toml("", &["server.proxy_protocol=on"], &[]).unwrap_err();
    assert!(error.contains("unknown word `on`, expected `off` or `required`"), "{error}");
    #[cfg(feature = "may")]
    assert_text(
        &proxied(
            "[access]\ntrusted_proxies = \"::1\"\n[workers]\nengine = \"may\"\nmode = \"processes\"\n",
        )
        .unwrap_err(),
        r#"
        error: the engine "may" needs server.proxy_protocol = "off"
         --> laneway.toml:2:18
          |
        2 | proxy_protocol = "required"
          |                  ^^^^^^^^^^
          |
          = help: may_minihttp takes the first bytes of a connection for a request
        "#,
    );
}

#[test]
fn the_access_log_is_off_standard_output_or_a_file_beside_the_configuration() {
    use laneway::config::{AccessFormat, AccessLog};
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("laneway.toml");
    std::fs::write(&file, "[log]\naccess = \"logs/access.log\"\naccess_format = \"combined\"\n")
        .unwrap();
    let mut options = Options::default();
    options.file = Some(file);
    let loaded = load(&options).unwrap();
    let path = folder.path().join("logs/access.log");
    assert_eq!(loaded.config.log.access, AccessLog::File(path.clone()));
    assert_eq!(loaded.config.log.access_format, AccessFormat::Combined);
    assert!(loaded.to_toml().contains(&format!("access = \"{}\"", path.display())));
    for (written, expected) in [("off", AccessLog::Off), ("stdout", AccessLog::Stdout)] {
        let set = format!("log.access={written}");
        assert_eq!(load_toml("", &[&set], &[]).unwrap().0.log.access, expected);
    }
    for (toml, message) in [
        ("log.access = \"\"", "\"\" is no file's path"),
        ("log.access = \"logs/\"", "\"logs/\" is no file's path"),
        ("log.access = \"stderr\"", "standard error is the server's own log"),
        ("log.access = true", "expected \"off\", \"stdout\" or a path in quotes"),
        ("log.access_format = \"xml\"", "expected `json` or `combined`"),
        ("access.send_request_id = true", "`access.send_request_id` needs `log.access`"),
    ] {
        let text = errors(toml);
        assert!(text.contains(message), "{toml}: {text}");
    }
}

#[cfg(feature = "may")]
#[test]
fn an_engine_that_cannot_write_an_access_log_says_why() {
    let toml = "workers.engine = \"may\"\nworkers.mode = \"processes\"\nlog.access = \"stdout\"\n";
    let text = errors(toml);
    assert!(text.starts_with("error: the engine \"may\" writes no access log\n"), "{text}");
    assert!(text.contains("doesn't tell when a response has left"), "{text}");
}

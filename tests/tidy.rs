//! The rules that the compiler does not know: which part may depend on which, where `unsafe` may
//! stand, what every file begins with. They are data at the top; the rest reads Rust just well enough
//! to hold the sources to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each part, and the parts it may name. A path belongs to the longest part that it begins with; a
/// part may always name itself and what is below it. `main` and `lib` are the roots of the two crates.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("main", &["cli", "config", "observe", "supervisor"]),
    ("cli", &["config", "supervisor"]),
    ("config", &[]),
    ("supervisor", &["config", "observe", "sys", "worker"]),
    ("worker", &["config", "content", "http", "observe", "sys", "worker::driver"]),
    ("worker::driver", &["sys"]),
    ("http", &[]),
    ("content", &["config", "http"]),
    ("observe", &["config", "sys"]),
    ("sys", &[]),
];

/// What a module, and everything below it, must not name, wherever in a path it stands.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        // Sans-I/O: no socket, no file, no clock.
        "http",
        &[
            "std::net",
            "std::fs",
            "std::os::fd",
            "std::thread",
            "Instant",
            "SystemTime",
            "nix",
            "libc",
            "socket2",
        ],
    ),
    (
        // Pure: what it knows of the world and of the time is handed to it.
        "supervisor::policy",
        &[
            "std::net",
            "std::fs",
            "std::io",
            "std::os::fd",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "nix",
            "libc",
            "crate::sys",
        ],
    ),
];

/// The only part with `unsafe` in it.
const UNSAFE_PART: &str = "sys";

/// A file is a sitting: about 500 lines without its tests, and this many at the very most.
const FILE_LINES_MAX: usize = 650;

/// One word or sign of Rust, with the number of its line; comments, strings and white space are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Splits source text into tokens. A literal becomes one token `"`, so that nothing in it counts.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let start = at;
        let text = if let Some(end) = end_of_comment(&chars, at) {
            at = end;
            None
        } else if let Some(end) = end_of_literal(&chars, at) {
            at = end;
            Some("\"".to_owned())
        } else if is_word(chars[at]) {
            while at < chars.len() && is_word(chars[at]) {
                at += 1;
            }
            Some(chars[start..at].iter().collect())
        } else if chars[at..].starts_with(&[':', ':']) {
            at += 2;
            Some("::".to_owned())
        } else {
            at += 1;
            (!chars[start].is_whitespace()).then(|| chars[start].to_string())
        };
        found.extend(text.map(|text| Token { text, line }));
        line += chars[start..at].iter().filter(|&&c| c == '\n').count();
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_comment(chars: &[char], at: usize) -> Option<usize> {
    if chars[at..].starts_with(&['/', '/']) {
        let length = chars[at..].iter().position(|&c| c == '\n');
        return Some(length.map_or(chars.len(), |length| at + length));
    }
    if !chars[at..].starts_with(&['/', '*']) {
        return None;
    }
    // Block comments nest.
    let (mut depth, mut at) = (0, at);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// The end of a string, byte string, raw string or character that begins here.
fn end_of_literal(chars: &[char], at: usize) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = at + prefix.len();
        chars[at..].iter().copied().take(prefix.len()).eq(prefix.chars())
            && chars.get(after).is_some_and(|&c| matches!(c, '"' | '\'' | '#'))
    })?;
    let mut at = at + prefix.len();
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    if hashes > 0 || (prefix.contains('r') && chars[at] == '"') {
        // A raw identifier or an attribute has `#` too, but no quote behind it.
        (prefix.contains('r') && chars.get(at + hashes) == Some(&'"')).then_some(())?;
        at += hashes + 1;
        let mut closing = vec!['"'];
        closing.extend(std::iter::repeat_n('#', hashes));
        let length = chars[at..].windows(closing.len()).position(|window| window == closing)?;
        return Some(at + length + closing.len());
    }
    let quote = chars[at];
    if quote == '\'' {
        // `'a'` is a character and `'a` a lifetime.
        let is_character = chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'');
        is_character.then_some(())?;
    }
    at += 1;
    while *chars.get(at)? != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    Some(at + 1)
}

/// A path somewhere in the source, made absolute: `crate` at its front if it leads into this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedPath {
    segments: Vec<String>,
    line: usize,
}

/// Finds the paths in a file: plain ones, and those that a group `a::{b, c::d}` stands for.
struct PathFinder<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The module the reader is in, without `crate`, and the depth of braces at which each inline
    /// module ends.
    module: Vec<String>,
    inline_ends: Vec<usize>,
    depth: usize,
    found: Vec<NamedPath>,
}

impl PathFinder<'_> {
    fn text(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| &token.text)
    }

    fn run(mut self) -> Vec<NamedPath> {
        while self.at < self.tokens.len() {
            if self.text(0) == "mod" && self.text(2) == "{" {
                self.module.push(self.text(1).to_owned());
                self.inline_ends.push(self.depth);
                self.depth += 1;
                self.at += 3;
            } else if self.text(0).starts_with(is_word) {
                self.path(Vec::new());
            } else {
                self.brace();
                self.at += 1;
            }
        }
        self.found
    }

    fn brace(&mut self) {
        match self.text(0) {
            "{" => self.depth += 1,
            "}" => {
                self.depth = self.depth.saturating_sub(1);
                if self.inline_ends.last() == Some(&self.depth) {
                    self.inline_ends.pop();
                    self.module.pop();
                }
            }
            _ => {}
        }
    }

    /// Reads one path that goes on from `front`, and everything in its groups.
    fn path(&mut self, mut front: Vec<String>) {
        let line = self.tokens[self.at].line;
        loop {
            match self.text(0) {
                "{" if !front.is_empty() => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        match self.text(0) {
                            "," => self.at += 1,
                            _ => self.path(front.clone()),
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => self.at += 1,
                text if text.starts_with(is_word) => {
                    front.push(text.to_owned());
                    self.at += 1;
                }
                // Not a path after all, as in `a::<T>`; the sign is read by the caller.
                _ => {
                    self.record(front, line);
                    if !matches!(self.text(0), "," | "}" | "{") {
                        self.at += 1;
                    }
                    return;
                }
            }
            if self.text(0) != "::" {
                self.record(front, line);
                if self.text(0) == "as" {
                    self.at += 2;
                }
                return;
            }
            self.at += 1;
        }
    }

    fn record(&mut self, segments: Vec<String>, line: usize) {
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        let rest =
            segments.iter().skip_while(|segment| matches!(segment.as_str(), "super" | "self"));
        let segments = match segments[0].as_str() {
            "laneway" => ["crate".to_owned()].into_iter().chain(segments[1..].to_vec()).collect(),
            "super" | "self" => {
                let module = &self.module[..self.module.len().saturating_sub(ups)];
                let front = ["crate".to_owned()].into_iter().chain(module.to_vec());
                front.chain(rest.cloned()).collect()
            }
            _ => segments,
        };
        self.found.push(NamedPath { segments, line });
    }
}

fn paths(tokens: &[Token], module: &[String]) -> Vec<NamedPath> {
    let finder = PathFinder {
        tokens,
        at: 0,
        module: module.to_vec(),
        inline_ends: Vec::new(),
        depth: 0,
        found: Vec::new(),
    };
    finder.run()
}

/// One source file.
struct Source {
    path: PathBuf,
    module: Vec<String>,
    text: String,
    tokens: Vec<Token>,
}

impl Source {
    fn new(path: &Path, text: String) -> Self {
        let mut module: Vec<String> = path
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let tokens = tokens(&text);
        Self { path: path.to_owned(), module, text, tokens }
    }

    /// The module's path as the tables write it; a crate root's name is `main` or `lib`.
    fn name(&self) -> String {
        self.module.join("::")
    }

    /// Paths are resolved from here: the crate roots have no name in a path.
    fn module_in_paths(&self) -> &[String] {
        if matches!(self.name().as_str(), "main" | "lib") { &[] } else { &self.module }
    }

    fn is_below(&self, part: &str) -> bool {
        let name = self.name();
        name == part || name.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"))
    }

    /// The number of lines before the tests at the end of the file.
    fn lines_without_tests(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let opens_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ");
        let tests = lines.windows(2).position(opens_tests);
        tests.unwrap_or(lines.len())
    }

    fn problem(&self, line: usize, problem: &str) -> String {
        format!("src/{}:{line}: {problem}", self.path.display())
    }
}

/// The part that a module belongs to: the longest in the table that its path begins with.
fn part_of(module: &[String]) -> Option<&'static str> {
    let parts = DIRECTIONS.iter().map(|&(part, _)| part);
    let owns = |part: &&str| {
        let segments: Vec<&str> = part.split("::").collect();
        module.len() >= segments.len() && module.iter().zip(segments).all(|(a, b)| a == b)
    };
    parts.filter(owns).max_by_key(|part| part.len())
}

fn check_directions(source: &Source) -> Vec<String> {
    if source.name() == "lib" {
        // The root declares every part and may name it again for users.
        return Vec::new();
    }
    let Some(part) = part_of(&source.module) else {
        return vec![source.problem(1, "is no part that the table of tests/tidy.rs knows")];
    };
    let row = DIRECTIONS.iter().find(|(name, _)| *name == part);
    let allowed = row.map_or(&[][..], |(_, allowed)| allowed);
    let check = |path: &NamedPath| {
        let inside = path.segments.strip_prefix(&["crate".to_owned()])?;
        if inside.is_empty() {
            return None;
        }
        let named = path.segments.join("::");
        let Some(target) = part_of(inside) else {
            let problem = format!("`{named}` is in no part that the table knows");
            return Some(source.problem(path.line, &problem));
        };
        // `worker` may be named from `worker::driver` only as the way to itself.
        let fine = target == part || allowed.contains(&target);
        let problem = format!("`{part}` must not depend on `{target}` (`{named}`)");
        (!fine).then(|| source.problem(path.line, &problem))
    };
    let paths = paths(&source.tokens, source.module_in_paths());
    paths.iter().filter_map(check).collect()
}

fn check_forbidden(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let paths = paths(&source.tokens, source.module_in_paths());
    for (part, forbidden) in FORBIDDEN {
        if !source.is_below(part) {
            continue;
        }
        for path in &paths {
            let names = |forbidden: &&&str| {
                let wanted: Vec<&str> = forbidden.split("::").collect();
                path.segments.windows(wanted.len()).any(|window| window == wanted)
            };
            let found = forbidden.iter().find(names);
            problems.extend(found.map(|found| {
                source.problem(path.line, &format!("`{part}` must not know `{found}`"))
            }));
        }
    }
    problems
}

fn check_unsafe(source: &Source) -> Vec<String> {
    if source.is_below(UNSAFE_PART) {
        return Vec::new();
    }
    let is_unsafe = |token: &&Token| token.text == "unsafe";
    let problem = |token: &Token| source.problem(token.line, "`unsafe` outside of `sys`");
    source.tokens.iter().filter(is_unsafe).map(problem).collect()
}

fn check_header(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    let says_something = first.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    let problem = source.problem(1, "does not begin with `//!` and what it is for");
    (!says_something).then_some(problem).into_iter().collect()
}

fn check_length(source: &Source) -> Vec<String> {
    let lines = source.lines_without_tests();
    let is_tests = source.module.last().is_some_and(|last| last == "tests");
    let problem = source.problem(lines, &format!("more than {FILE_LINES_MAX} lines"));
    (lines > FILE_LINES_MAX && !is_tests).then_some(problem).into_iter().collect()
}

fn collect(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("read a folder of src") {
        let path = entry.expect("an entry of src").path();
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("read a source file");
            let relative = path.strip_prefix(root).expect("a path below src");
            found.push(Source::new(relative, text));
        }
    }
}

/// Runs a check over every file of `src`.
fn assert_tidy(check: fn(&Source) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    assert!(sources.iter().any(|source| source.name() == "lib"), "the sources were not found");
    let mut problems: Vec<String> = sources.iter().flat_map(check).collect();
    problems.sort();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_part_depends_only_on_the_parts_it_may() {
    assert_tidy(check_directions);
}

#[test]
fn the_pure_parts_know_no_socket_no_file_and_no_clock() {
    assert_tidy(check_forbidden);
}

#[test]
fn unsafe_stands_in_sys_alone() {
    assert_tidy(check_unsafe);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    assert_tidy(check_header);
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    assert_tidy(check_length);
}

/// The effective configuration, from `server show-config` in a folder without a `config.toml`.
fn shown_configuration(arguments: &[&Path]) -> toml::Table {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(arguments).arg("show-config").current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"LANEWAY_") {
            command.env_remove(name);
        }
    }
    let output = command.output().expect("run the server");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("TOML in UTF-8");
    text.parse().expect("the shown configuration is TOML")
}

/// Every setting but the routes, by `table.key`.
fn settings(configuration: &toml::Table) -> BTreeMap<String, toml::Value> {
    let tables = configuration.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
    let settings = tables.flat_map(|(name, table)| {
        table.iter().map(move |(key, value)| (format!("{name}.{key}"), value.clone()))
    });
    // Built in, it greets this host alone; the file that people start from listens to all.
    settings.filter(|(key, _)| key != "server.listen").collect()
}

#[test]
fn the_shipped_configuration_states_every_key_with_its_real_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let defaults = settings(&shown_configuration(&[]));
    let effective = settings(&shown_configuration(&[Path::new("--config"), &file]));
    assert_eq!(effective, defaults, "config.toml changes a default");
    let stated: toml::Table =
        fs::read_to_string(&file).expect("read config.toml").parse().expect("config.toml is TOML");
    let stated: Vec<String> = settings(&stated).into_keys().collect();
    let known: Vec<String> = defaults.into_keys().collect();
    assert_eq!(stated, known, "the keys that config.toml states");
}

fn source(path: &str, text: &str) -> Source {
    Source::new(Path::new(path), text.to_owned())
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = r##"
        // unsafe
        /* unsafe /* unsafe */ unsafe */
        let a = ("unsafe \" unsafe", r#"unsafe " unsafe"#, b"unsafe", '"', 'u', '\'');
        fn f<'a>(x: &'a str) -> &'a str { x } // unsafe
    "##;
    assert_eq!(check_unsafe(&source("http/mod.rs", text)), Vec::<String>::new());
    let text = format!("{text}\nunsafe {{}}");
    let line = text.lines().count();
    let expected = format!("src/http/mod.rs:{line}: `unsafe` outside of `sys`");
    assert_eq!(check_unsafe(&source("http/mod.rs", &text)), [expected]);
    assert!(check_unsafe(&source("sys/fd.rs", &text)).is_empty());
}

#[test]
fn a_wrong_direction_is_found_however_it_is_written() {
    for (path, text) in [
        ("http/parse.rs", "use crate::config::Limits;"),
        ("http/parse.rs", "fn f(l: &super::super::config::Limits) {}"),
        ("config/file.rs", "use crate::{config::Raw, sys};"),
        ("config/file.rs", "mod tests { use super::super::super::sys::Fd; }"),
        ("worker/driver/epoll.rs", "use crate::worker::connection::Slab;"),
        ("worker/driver/mod.rs", "use super::connection::Slab;"),
        ("supervisor/mod.rs", "fn f() { crate::content::f::<u8>() }"),
        ("content/mod.rs", "pub(in crate::observe) fn f() {}"),
        ("main.rs", "use laneway::{cli, worker::run};"),
        ("sys/mod.rs", "use crate::Config;"),
        ("util.rs", ""),
    ] {
        let problems = check_directions(&source(path, text));
        assert_eq!(problems.len(), 1, "{path}: {text}: {problems:?}");
    }
}

#[test]
fn an_allowed_direction_is_left_alone() {
    for (path, text) in [
        ("http/parse.rs", "use super::{head::Head, Limits}; use crate::http::{self, body};"),
        ("config/file.rs", "mod tests { use super::*; use super::super::Config; }"),
        ("worker/mod.rs", "use self::driver::epoll; use crate::{http, sys::{fd::Fd, epoll as e}};"),
        ("worker/driver/epoll.rs", "use super::Event; use crate::sys;"),
        ("supervisor/mod.rs", "use crate::worker; if a { crate::sys::f() } else { B { c } }"),
        ("main.rs", "use laneway::cli; fn f() { laneway::supervisor::run() }"),
        ("lib.rs", "pub mod sys; pub use crate::config::Config;"),
    ] {
        let problems = check_directions(&source(path, text));
        assert_eq!(problems, Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn what_a_pure_part_must_not_know_is_found() {
    for (path, text, problems) in [
        ("http/date.rs", "use std::time::{Duration, Instant};", 1),
        ("http/date.rs", "use std::{fs, net::TcpStream};", 2),
        ("http/date.rs", "use std::time::Duration; use std::fmt;", 0),
        ("supervisor/policy.rs", "use std::time::Instant; fn f(now: Instant) {}", 0),
        ("supervisor/policy.rs", "fn f() { Instant::now(); std::time::Instant::now(); }", 2),
        ("supervisor/policy/state.rs", "use crate::{config, sys::Pid};", 1),
        ("supervisor/mod.rs", "use std::{fs, io}; use crate::sys;", 0),
    ] {
        let found = check_forbidden(&source(path, text));
        assert_eq!(found.len(), problems, "{path}: {text}: {found:?}");
    }
}

#[test]
fn a_file_without_a_header_or_with_too_many_lines_is_found() {
    assert_eq!(check_header(&source("a.rs", "//! Does it.\n")).len(), 0);
    for text in ["", "use std::fs;\n//! Late.\n", "//!\n", "// Does it.\n"] {
        assert_eq!(check_header(&source("a.rs", text)).len(), 1, "{text:?}");
    }
    let longest = "x\n".repeat(FILE_LINES_MAX);
    let tests = format!("{longest}#[cfg(test)]\nmod tests {{\n{longest}}}\n");
    assert_eq!(check_length(&source("a.rs", &longest)).len(), 0);
    assert_eq!(check_length(&source("a.rs", &tests)).len(), 0);
    assert_eq!(check_length(&source("a.rs", &format!("x\n{tests}"))).len(), 1);
    assert_eq!(check_length(&source("a/tests.rs", &format!("x\n{tests}"))).len(), 0);
}

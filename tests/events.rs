//! The log's events are a contract: docs/events.md lists every one with its level and fields, and this compares the
//! list with the code.

#![allow(clippy::expect_used, reason = "a test that cannot go on fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Levels and fields of an event, from all places that log it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

type Events = BTreeMap<String, Shape>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of src") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The arguments of a call, of which `text` begins behind the opening parenthesis: split at the commas that stand in no
/// bracket and no string.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    let (mut found, mut current) = (Vec::new(), String::new());
    for c in text.chars() {
        match c {
            _ if in_string => {
                in_string = escaped || c != '"';
                escaped = c == '\\' && !escaped;
            }
            '"' => in_string = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    found.push(current.trim().to_owned());
    found.retain(|argument| !argument.is_empty());
    found
}

/// Every event that the code logs. A call whose last argument is no literal could not be listed.
fn in_the_code() -> Events {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut events = Events::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source");
        for level in ["error", "warn", "info", "debug", "trace"] {
            let call = format!("tracing::{level}!(");
            for (at, _) in text.match_indices(&call) {
                let mut arguments = arguments(&text[at + call.len()..]);
                let name = arguments.pop().expect("an event has a name");
                let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
                let name =
                    name.unwrap_or_else(|| panic!("an event of {} has no name", file.display()));
                let shape = events.entry(name.to_owned()).or_default();
                shape.levels.insert(level.to_uppercase());
                shape.fields.extend(arguments.iter().map(|argument| {
                    let field = argument.split('=').next().unwrap_or_default();
                    field.trim().trim_start_matches(['%', '?']).to_owned()
                }));
            }
        }
    }
    events
}

/// Every row of the table: `| event | level | fields | when |`.
fn in_the_table() -> Events {
    let text = fs::read_to_string(root().join("docs/events.md")).expect("docs/events.md");
    let mut events = Events::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, level, fields, when] = cells[..] else { panic!("not four cells: {line}") };
        assert!(!when.is_empty(), "no word on when: {line}");
        let words = |cell: &str| {
            let words = cell.split(',').map(|word| word.trim().trim_matches('`').to_owned());
            words.filter(|word| !word.is_empty()).collect()
        };
        let shape = Shape { levels: words(level), fields: words(fields) };
        let before = events.insert(name.trim_matches('`').to_owned(), shape);
        assert_eq!(before, None, "{name} stands twice");
    }
    events
}

#[test]
fn the_table_of_events_is_what_the_code_logs() {
    let (code, table) = (in_the_code(), in_the_table());
    let mut wrong = Vec::new();
    for name in code.keys().chain(table.keys()).collect::<BTreeSet<_>>() {
        match (code.get(name), table.get(name)) {
            (Some(logged), Some(listed)) if logged == listed => {}
            (logged, listed) => {
                wrong.push(format!("{name}:\n  logged {logged:?}\n  listed {listed:?}"))
            }
        }
    }
    assert!(wrong.is_empty(), "docs/events.md differs from the code:\n{}", wrong.join("\n"));
}

#[test]
fn calls_are_read_as_they_are_written() {
    let call = "lane, %path, by = f(a, b), reason = \"x, \\\"y)\", remedy = format!(\"{a}\"),\n \"name\") more";
    let expected = [
        "lane",
        "%path",
        "by = f(a, b)",
        "reason = \"x, \\\"y)\"",
        "remedy = format!(\"{a}\")",
        "\"name\"",
    ];
    assert_eq!(arguments(call), expected);
    let code = in_the_code();
    let exited = &code["worker exited"];
    assert!(exited.fields.contains("reason") && exited.levels.contains("ERROR"), "{exited:?}");
}

#[test]
fn no_event_has_one_level_here_and_another_there() {
    for (name, shape) in in_the_code() {
        assert_eq!(shape.levels.len(), 1, "{name}: {shape:?}");
    }
}

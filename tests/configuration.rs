//! docs/configuration.md has a row for each key, with the values and the default that the code has, and examples that
//! are valid.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use keys::{BLESS, read, root, tables};
use laneway::internals::config_schema;
use serde_json::Value;

/// What a row says of its key beside what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    values: String,
    default: String,
}

/// A row of the page: `| key | values | default | meaning |`.
struct Row {
    key: String,
    facts: Facts,
    meaning: String,
}

impl Row {
    fn of(line: &str) -> Option<Row> {
        let cells = line.strip_prefix("| `")?;
        let cells: Vec<&str> = cells.strip_suffix(" |")?.splitn(4, " | ").collect();
        let [key, values, default, meaning] = cells[..] else { panic!("not four cells: {line}") };
        let facts = Facts { values: values.to_owned(), default: default.to_owned() };
        let key = key.trim_end_matches('`').to_owned();
        Some(Row { key, facts, meaning: meaning.trim().to_owned() })
    }

    fn line(&self) -> String {
        let Facts { values, default } = &self.facts;
        format!("| `{}` | {values} | {default} | {} |", self.key, self.meaning)
    }
}

/// The name of the table that a heading is of: ``## `[server]` `` or ``## `[[route]]` ``.
fn table_of(line: &str) -> Option<&str> {
    Some(line.strip_prefix("## `[")?.trim_end_matches(['`', ']']).trim_start_matches('['))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/configuration.md")).unwrap()
}

/// The row that the schema makes of a key; what it means, in the words of the code.
fn row(key: &str, said: &Value) -> Row {
    let text = said["description"].as_str().unwrap_or_default();
    let (meaning, range) = text.split_once("\n\n").unwrap_or((text, ""));
    let values = match range.trim_end_matches('.') {
        "" => values(said),
        range => range[..1].to_lowercase() + &range[1..],
    };
    let default = match &said["default"] {
        Value::Null => "–".to_owned(),
        // As TOML it looks the same, but for what stands between two elements of a list.
        default => format!("`{}`", default.to_string().replace("\",\"", "\", \"")),
    };
    Row { key: key.to_owned(), facts: Facts { values, default }, meaning: meaning.to_owned() }
}

/// The values of a key that has no range.
fn values(said: &Value) -> String {
    let words: Vec<String> = match (&said["enum"], &said["oneOf"]) {
        (Value::Array(words), _) => words.iter().map(Value::to_string).collect(),
        (_, Value::Array(words)) => words.iter().map(|word| word["const"].to_string()).collect(),
        _ => Vec::new(),
    };
    match (words.split_last(), said["type"].as_str()) {
        (Some((last, others)), _) => format!("`{}` or `{last}`", others.join("`, `")),
        (_, Some("boolean")) => "`true` or `false`".to_owned(),
        (_, Some("string")) => "a text".to_owned(),
        (_, Some("object")) => "a table of texts".to_owned(),
        _ => "any value".to_owned(),
    }
}

/// The rows that there should be, by table and key.
fn expected() -> BTreeMap<(String, String), Row> {
    let schema = config_schema();
    let rows = tables(&schema).into_iter().flat_map(|(table, keys)| {
        keys.iter().map(move |(key, said)| ((table.to_owned(), key.clone()), row(key, said)))
    });
    rows.collect()
}

/// The rows that there are, each with its table.
fn stated(page: &str) -> Vec<(String, Row)> {
    let (mut table, mut rows) = ("", Vec::new());
    for line in page.lines() {
        table = table_of(line).unwrap_or(if line.starts_with("## ") { "" } else { table });
        rows.extend(Row::of(line).filter(|_| !table.is_empty()).map(|row| (table.to_owned(), row)));
    }
    rows
}

/// The page with every row that lacks, in the words of the code, and with the facts that the code has. A row of a key
/// that is not there stays: what it says may belong to another.
fn corrected(page: &str) -> String {
    let mut missing = expected();
    let facts: BTreeMap<_, _> =
        missing.iter().map(|(of, row)| (of.clone(), row.facts.clone())).collect();
    stated(page).into_iter().for_each(|(table, row)| drop(missing.remove(&(table, row.key))));
    let (mut table, mut lines) = (String::new(), Vec::new());
    let mut end_table = |table: &str, lines: &mut Vec<String>| {
        let last =
            lines.iter().rposition(|line: &String| line.starts_with("| ")).unwrap_or(lines.len());
        let of_table: Vec<_> = missing.keys().filter(|(of, _)| of == table).cloned().collect();
        for (index, of) in of_table.into_iter().enumerate() {
            lines.insert(last + 1 + index, missing.remove(&of).unwrap().line());
        }
    };
    for line in page.lines() {
        if line.starts_with("## ") {
            end_table(&table, &mut lines);
            table = table_of(line).unwrap_or_default().to_owned();
        }
        let row = Row::of(line).map(|row| (facts.get(&(table.clone(), row.key.clone())), row));
        lines.push(match row {
            Some((Some(facts), row)) => Row { facts: facts.clone(), ..row }.line(),
            _ => line.to_owned(),
        });
    }
    end_table(&table, &mut lines);
    let tables: BTreeSet<String> = missing.keys().map(|(table, _)| table.clone()).collect();
    for table in tables {
        lines.extend([String::new(), format!("## `[{table}]`"), String::new()]);
        lines.extend(
            ["| key | values | default | what it does |", "|---|---|---|---|"].map(str::to_owned),
        );
        let rows = missing.iter().filter(|((of, _), _)| *of == table);
        lines.extend(rows.map(|(_, row)| row.line()));
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_page_has_every_key_with_its_values_and_its_default() {
    if std::env::var_os(BLESS).is_some() {
        fs::write(root().join("docs/configuration.md"), corrected(&page())).unwrap();
    }
    let (mut missing, mut wrong) = (expected(), Vec::new());
    for (table, row) in stated(&page()) {
        match missing.remove(&(table.clone(), row.key.clone())) {
            None => wrong.push(format!("no such key, or twice: {table}.{}", row.key)),
            Some(right) if right.facts != row.facts => {
                wrong.push(format!("{table}.{}: {:?}, not {:?}", row.key, right.facts, row.facts));
            }
            Some(_) if row.meaning.is_empty() => {
                wrong.push(format!("no word on {table}.{}", row.key))
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        missing.iter().map(|((table, _), row)| format!("missing in {table}: {}", row.line())),
    );
    assert!(
        wrong.is_empty(),
        "docs/configuration.md differs from the code:\n{}\n{BLESS}=1 cargo test --test configuration puts in what \
         is missing, in the words of the doc comments, and corrects values and defaults; then say there what a user \
         has to know, and put the key into the example of its table",
        wrong.join("\n")
    );
}

#[test]
fn the_example_of_each_table_is_valid_and_has_each_of_its_keys() {
    let page = page();
    let mut keys = expected();
    for section in page.split("\n## ").skip(1) {
        let table = table_of(&format!("## {}", section.lines().next().unwrap())).map(str::to_owned);
        for block in section.split("```toml\n").skip(1) {
            let toml = block.split("```").next().unwrap();
            read(toml).unwrap_or_else(|errors| panic!("{errors}"));
            let stated: toml::Table = toml.parse().unwrap();
            let Some(table) = &table else { continue };
            let stated = match stated.get(table) {
                Some(toml::Value::Array(list)) => list.clone(),
                Some(one) => vec![one.clone()],
                None => Vec::new(),
            };
            let stated =
                stated.iter().filter_map(toml::Value::as_table).flat_map(toml::Table::iter);
            for (key, value) in stated {
                let of = (table.clone(), key.clone());
                let default = keys.get(&of).map(|row| row.facts.default.clone());
                let is_default = default == Some(format!("`{value}`"));
                assert!(!is_default, "the example of {table}.{key} is its default");
                keys.remove(&of);
            }
        }
    }
    let left: Vec<_> = keys.keys().map(|(table, key)| format!("{table}.{key}")).collect();
    assert!(left.is_empty(), "docs/configuration.md has no example of {}", left.join(", "));
}

#[test]
fn a_page_is_corrected_where_it_differs_and_nowhere_else() {
    let page = corrected(&page());
    assert_eq!(corrected(&page), page);
    let row = page.lines().find(|line| line.starts_with("| `backlog`")).unwrap();
    let broken = page.replace(row, "| `backlog` | ? | ? | What it means. |");
    let repaired = corrected(&broken);
    assert_eq!(Row::of(row).unwrap().facts.values, "a whole number from 1 to 1048576");
    assert!(repaired.contains("`backlog` | a whole number from 1 to 1048576 | `4096` | What it"));
    let without = corrected(&page.replace(&format!("{row}\n"), ""));
    assert!(without.contains("\n| `backlog` | a whole number"), "{without}");
    assert_eq!(without.lines().count(), page.lines().count());
}

//! A key or a table that stands twice: where it stands first.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::lines::{line_at, line_start};
use crate::config::diagnostic::{Diagnostic, Place};

/// What is wrong with the key or table at `second`, and where the first is.
pub(super) fn diagnose(
    source: usize,
    text: &str,
    tree: &DeTable<'_>,
    second: &Range<usize>,
) -> Diagnostic {
    let place = |span: Range<usize>| Place { source, span };
    let name = text.get(second.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let line = line_at(text, second.start).trim_start();
    let first = first_of(text, tree, second);
    let diagnostic = Diagnostic::new(format!("`{name}` stands twice"), Some(place(second.clone())));
    if !line.starts_with('[') {
        let diagnostic = diagnostic.label("leave one of them out");
        return diagnostic.other(first.map(place), "here first");
    }
    let is_list = |at: usize| line_at(text, at).trim_start().starts_with("[[");
    let diagnostic = match &first {
        // One of them is a table of a list, the other a table of its own.
        Some(first) if is_list(first.start) != line.starts_with("[[") => {
            diagnostic.label(format!("each is written [[{name}]], if there are several"))
        }
        Some(_) => diagnostic.label("put its keys there"),
        None => diagnostic.label("leave one of them out"),
    };
    diagnostic.other(first.map(place), "here first")
}

/// Where a key of the same name as the one at `second` stands first.
fn first_of(text: &str, tree: &DeTable<'_>, second: &Range<usize>) -> Option<Range<usize>> {
    let start = line_start(text, second.start);
    let before = text.get(start..second.start)?;
    let name = text.get(second.clone())?.trim_matches(['"', '\'']);
    if before.trim_start().starts_with('[') && !before.contains('=') {
        let mut path = parts(before.trim_start().trim_start_matches('['));
        path.push(name);
        return first_table(text, &path, start);
    }
    if !before.contains(['=', '{', '[']) {
        let mut path = table_at(text, start);
        path.extend(parts(before));
        let found = inside(tree, &path).and_then(|table| key_in(table, name, second.start));
        if found.is_some() {
            return found;
        }
    }
    // In a table in braces: the nearest before it is in the same one, if no other table begins between them.
    let first = latest_before(tree, name, second.start)?;
    let between = text.get(first.end..second.start)?;
    let is_same_table = !between.lines().skip(1).any(|line| line.trim_start().starts_with('['));
    is_same_table.then_some(first)
}

/// Where the table at `path` is first written, as a table or as a part of a key, before `end`.
fn first_table(text: &str, path: &[&str], end: usize) -> Option<Range<usize>> {
    let (mut at, mut found, mut table) = (0, None, Vec::new());
    for line in text.get(..end)?.split_inclusive('\n') {
        let key = line.trim_start().trim_start_matches('[');
        let key_at = at + line.len() - key.len();
        at += line.len();
        let is_table = line.trim_start().starts_with('[');
        let Some(key) = key.split(if is_table { ']' } else { '=' }).next() else { continue };
        if !is_table && !line.contains('=') {
            continue;
        }
        if is_table {
            table.clear();
        }
        let own = table.len();
        let names = parts(key);
        let whole: Vec<&str> = table.iter().copied().chain(names.iter().copied()).collect();
        if line.trim_start().starts_with("[[")
            && whole.len() < path.len()
            && path.starts_with(&whole)
        {
            // The next element of a list has tables of its own.
            found = None;
        } else if found.is_none() && whole.starts_with(path) && own < path.len() {
            // Its last name, behind those before it.
            let before: usize =
                key.split('.').take(path.len() - own - 1).map(|name| name.len() + 1).sum();
            let name = key.split('.').nth(path.len() - own - 1)?;
            let lead = name.len() - name.trim_start().len();
            let start = key_at + before + lead;
            found = Some(start..start + name.trim().len());
        }
        if is_table {
            table = names;
        }
    }
    found
}

/// The names of a dotted key, or of what of it ends with a dot.
fn parts(key: &str) -> Vec<&str> {
    let names = key.split('.').map(|name| name.trim().trim_matches(['"', '\'']));
    names.filter(|name| !name.is_empty()).collect()
}

/// The path of the table whose keys the line at `start` is among.
fn table_at(text: &str, start: usize) -> Vec<&str> {
    let is_header = |line: &&str| line.trim_start().starts_with('[') && !line.contains('=');
    let header = text.get(..start).and_then(|before| before.lines().rev().find(is_header));
    let name = header.map(|line| line.trim().trim_start_matches('['));
    parts(name.and_then(|name| name.split(']').next()).unwrap_or_default())
}

/// The table at `path`: of a list, its last element.
fn inside<'t, 'i>(tree: &'t DeTable<'i>, path: &[&str]) -> Option<&'t DeTable<'i>> {
    path.iter().try_fold(tree, |table, name| {
        let (_, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            DeValue::Array(list) => match list.iter().last()?.get_ref() {
                DeValue::Table(table) => Some(table),
                _ => None,
            },
            _ => None,
        }
    })
}

/// Where `name` stands in `table`, if before `end`.
fn key_in(table: &DeTable<'_>, name: &str, end: usize) -> Option<Range<usize>> {
    let (key, _) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    Some(key.span()).filter(|span| span.start < end)
}

/// The key `name` that stands last before `end`, in whichever table.
fn latest_before(tree: &DeTable<'_>, name: &str, end: usize) -> Option<Range<usize>> {
    fn of_value(value: &DeValue<'_>, name: &str, end: usize) -> Option<Range<usize>> {
        match value {
            DeValue::Table(table) => latest_before(table, name, end),
            DeValue::Array(list) => {
                let found = list.iter().filter_map(|value| of_value(value.get_ref(), name, end));
                found.max_by_key(|span| span.start)
            }
            _ => None,
        }
    }
    let own = tree.iter().filter(|(key, _)| key.get_ref() == name).map(|(key, _)| key.span());
    let below = tree.iter().filter_map(|(_, value)| of_value(value.get_ref(), name, end));
    own.chain(below).filter(|span| span.start < end).max_by_key(|span| span.start)
}

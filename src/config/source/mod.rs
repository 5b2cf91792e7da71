//! Where settings come from: the file, the environment and the command line, all taken apart into
//! [`Setting`]s that know their place in the text.

mod lines;
mod reword;
mod syntax;
mod twice;
pub(super) mod variables;

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place};

/// One key with its value, and where both stand.
#[derive(Clone, Debug)]
pub(super) struct Setting<'t> {
    /// `["workers", "count"]`, or `["route"]`.
    pub(super) path: Vec<String>,
    /// Where the last part of the path stands.
    pub(super) key: Place,
    pub(super) value: Spanned<DeValue<'t>>,
    /// What to add to a position within the value: the text before it, in a source that isn't all TOML.
    offset: usize,
}

impl Setting<'_> {
    /// Where `span`, which came with the value, stands in its source.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let span = span.start + self.offset..span.end + self.offset;
        Place { source: self.key.source, span }
    }
}

/// The settings of a file. `source` is the number of its text.
///
/// # Errors
/// What of it isn't TOML. What the valid lines would mean is then not asked.
pub(super) fn from_file(source: usize, text: &str) -> Result<Vec<Setting<'_>>, Vec<Diagnostic>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(syntax::diagnose(source, text, tree.get_ref(), &errors));
    }
    let mut settings = Vec::new();
    let mut put = |path: Vec<String>, key: &Spanned<DeString<'_>>, value| {
        let key = Place { source, span: key.span() };
        settings.push(Setting { path, key, value, offset: 0 });
    };
    for (section, value) in tree.into_inner() {
        let name = section.get_ref().to_string();
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => {
                // The table itself, so that an unknown one is found even if it is empty.
                let itself = DeValue::Table(DeTable::new());
                put(vec![name.clone()], &section, Spanned::new(span, itself));
                for (key, value) in table {
                    put(vec![name.clone(), key.get_ref().to_string()], &key, value);
                }
            }
            value => put(vec![name], &section, Spanned::new(span, value)),
        }
    }
    // In the order of the file, so that errors come in that order too.
    settings.sort_by_key(|setting| setting.key.span.start);
    Ok(settings)
}

/// The setting of one `KEY=VALUE`, whose key is `table.key`.
pub(super) fn from_argument(source: usize, text: &str) -> Result<Setting<'_>, Box<Diagnostic>> {
    let Some((key, value)) = text.split_once('=') else {
        let place = Place { source, span: 0..text.len() };
        let title = "expected KEY=VALUE, such as workers.count=4";
        return Err(Diagnostic::new(title, Some(place)).into());
    };
    let path = key.trim().split('.').map(|part| part.trim().to_owned()).collect();
    Ok(assigned(source, path, key.len(), value))
}

/// The setting of one `NAME=VALUE` of the environment, where `NAME` sets `path`.
pub(super) fn from_variable(source: usize, path: Vec<String>, text: &str) -> Setting<'_> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    assigned(source, path, name.len(), value)
}

/// `key_bytes` of key, an equals sign, and a value: TOML, or, where it isn't, a plain string.
fn assigned(source: usize, path: Vec<String>, key_bytes: usize, value: &str) -> Setting<'_> {
    // `a = b` with spaces is one setting to people; spaces in a value need quotes.
    let spaces = value.len() - value.trim_start().len();
    let value = value.trim();
    let parsed = match DeValue::parse_recoverable(value) {
        (parsed, errors) if errors.is_empty() => parsed,
        _ => Spanned::new(0..value.len(), DeValue::String(Cow::Borrowed(value))),
    };
    let key = Place { source, span: 0..key_bytes };
    Setting { path, key, value: parsed, offset: key_bytes + 1 + spaces }
}

//! What the parser of TOML says, in words that tell what to write.

use std::ops::Range;

use toml::de::DeValue;

use super::lines::{is_key_byte, line_at, line_start};

/// An error in better words.
pub(super) struct Reworded {
    pub(super) title: String,
    pub(super) span: Range<usize>,
    pub(super) help: String,
}

/// Whether the parser says that a text of one line is not closed.
pub(super) fn is_open_text(message: &str) -> bool {
    message.starts_with("invalid basic string, expected `\"`")
        || message.starts_with("invalid literal string, expected `'`")
}

/// The error `message` at `span`, if it can be said better.
pub(super) fn reworded(text: &str, message: &str, span: &Range<usize>) -> Option<Reworded> {
    let error = Error { text, line: line_at(text, span.start).trim_end(), span };
    let reworded = |(title, help): (String, String)| Reworded { title, span: span.clone(), help };
    let plain = |title: &str, help: &str| Some(reworded((title.to_owned(), help.to_owned())));
    if let Some(header) = error.header() {
        return Some(reworded(header));
    }
    if let Some(better) = error.comment().or_else(|| error.mark_behind()) {
        return Some(better);
    }
    if is_open_text(message) {
        let quote = if message.contains("basic") { '"' } else { '\'' };
        return plain(
            "a text is not closed",
            &format!(
                "it ends with {quote} in its own line; one of several lines stands between \"\"\" and \"\"\""
            ),
        );
    }
    if message.starts_with("missing escaped value") {
        let escape: String = error.rest(1).chars().take(2).collect();
        return plain(
            &format!("`{escape}` is no escape"),
            "write \\\\ for a backslash, or the text in single quotes, where a backslash is one",
        );
    }
    if message.starts_with("missing comma between") {
        let what =
            if error.rest(0).starts_with(';') { "`;` is no comma" } else { "a comma is missing" };
        return plain(what, "values of a list, and keys in braces, are separated by commas");
    }
    if error.rest(0).starts_with(':') && message.starts_with("missing assignment") {
        return plain("`:` is how JSON writes a key", "TOML has an equals sign: { key = value }");
    }
    if message.starts_with("unexpected key or value") {
        return error.behind_value().map(reworded);
    }
    if message.starts_with("extra `=`") {
        return plain("there are two equals signs", "one stands between a key and its value");
    }
    if message.starts_with("unexpected leading zero") {
        return plain("a number begins without zeros", "leave them out");
    }
    error.no_value().map(reworded).or_else(|| error.null().map(reworded))
}

struct Error<'t> {
    text: &'t str,
    line: &'t str,
    span: &'t Range<usize>,
}

impl Error<'_> {
    /// What is left of the line from `back` bytes before the error on.
    fn rest(&self, back: usize) -> &str {
        let from = self.span.start.saturating_sub(back);
        self.text.get(from..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }

    /// The key of the line and what stands behind its equals sign, without a comment; `None` without such a sign.
    fn pair(&self) -> Option<(&str, &str)> {
        let (key, value) = self.line.split_once('=')?;
        let value = value.split('#').next().unwrap_or_default();
        Some((key.trim(), value.trim()))
    }

    /// A table's name that is not closed, or is followed by something.
    fn header(&self) -> Option<(String, String)> {
        let line = self.line.trim_start();
        let opened = line.len() - line.trim_start_matches('[').len();
        let name: &str = line.trim_start_matches('[').trim_start();
        let name = &name[..name.bytes().take_while(|byte| is_key_byte(*byte)).count()];
        // A line of a list's values begins with a bracket, too.
        if opened == 0
            || opened > 2
            || name.is_empty()
            || name.starts_with(|of: char| of.is_ascii_digit())
        {
            return None;
        }
        let behind = line.trim_start_matches('[').trim_start()[name.len()..].trim();
        let closed = behind.len() - behind.trim_start_matches(']').len();
        let behind = behind.trim_start_matches(']').trim();
        let written = if opened == 2 || name == "route" {
            format!("[[{name}]]")
        } else {
            format!("[{name}]")
        };
        if closed == opened && !behind.is_empty() && !behind.starts_with('#') {
            let title = format!("something stands behind the name of the table {written}");
            return Some((title, "the keys of a table begin in the next line".to_owned()));
        }
        if closed == 0 && behind.ends_with(']') {
            let title = "the name of a table has letters, digits, `-` and `_`".to_owned();
            return Some((title, "such as [server]".to_owned()));
        }
        let title = if closed < opened {
            format!("the name of the table `{name}` is not closed")
        } else {
            format!("the name of the table `{name}` has too many brackets")
        };
        (closed != opened).then(|| (title, format!("write {written}")))
    }

    /// A comment as other languages have them.
    fn comment(&self) -> Option<Reworded> {
        let line = self.line.trim_start();
        let mark = ["//", "/*", ";", "--"].into_iter().find(|mark| line.starts_with(mark))?;
        let start = line_start(self.text, self.span.start) + self.line.len() - line.len();
        Some(Reworded {
            title: format!("`{mark}` begins no comment"),
            span: start..start + mark.len(),
            help: "a comment begins with #".to_owned(),
        })
    }

    /// The mark that ends a line in other languages, behind a value.
    fn mark_behind(&self) -> Option<Reworded> {
        let (_, value) = self.pair()?;
        let mark = value.chars().last().filter(|last| matches!(last, ';' | ','))?;
        DeValue::parse(value[..value.len() - 1].trim_end()).ok()?;
        let at =
            line_start(self.text, self.span.start) + self.line.split('#').next()?.rfind(mark)?;
        Some(Reworded {
            title: format!("`{mark}` stands behind a value"),
            span: at..at + 1,
            help: "leave it out: a line ends by itself".to_owned(),
        })
    }

    /// What follows a value that has ended.
    fn behind_value(&self) -> Option<(String, String)> {
        let (key, _) = self.pair()?;
        let rest = self.rest(0).trim_end();
        let before = self.line.get(..self.line.len().saturating_sub(rest.len()))?.trim_end();
        if before.ends_with(['"', '\'']) {
            let quote = if before.ends_with('"') { '"' } else { '\'' };
            let help = format!(
                "write {key} = \"…\", with \\\" for each \" that is part of the text; if what follows is a key, it begins \
                 in the next line"
            );
            return Some((format!("something stands behind the {quote} that ends the text"), help));
        }
        let digits = |text: &str| text.starts_with(|of: char| of.is_ascii_digit());
        if rest.starts_with(',') && digits(&rest[1..]) {
            let (_, value) = self.pair()?;
            let title = "a number has no commas".to_owned();
            return Some((title, format!("write {key} = {}", value.replace(',', ""))));
        }
        let help = "a key and its value have a line of their own";
        Some(("something stands behind the value".to_owned(), help.to_owned()))
    }

    /// A key without a value, or with one and no equals sign.
    fn no_value(&self) -> Option<(String, String)> {
        const SHOWN: &str = "`server show-config` prints each key with its value";
        if let Some((key, value)) = self.pair() {
            if let Some(key) = key.strip_suffix(':').map(str::trim_end) {
                let title = "`:=` is no equals sign".to_owned();
                return Some((title, format!("write {key} = {value}")));
            }
            if key.contains(' ') && key.bytes().all(|byte| byte == b' ' || is_key_byte(byte)) {
                let title = format!("`{key}` is no key: it has white space");
                return Some((title, format!("write {} = {value}", key.replace(' ', "_"))));
            }
            let is_missing = value.is_empty() && !key.is_empty() && key.bytes().all(is_key_byte);
            let title = format!("`{key}` has no value");
            return is_missing.then(|| (title, format!("write {key} = and the value; {SHOWN}")));
        }
        let line = self.line.split('#').next()?.trim().trim_end_matches(';');
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if key.is_empty() || !key.bytes().all(is_key_byte) {
            return None;
        }
        let value = match value.trim() {
            "" => {
                return Some((
                    format!("`{key}` has no value"),
                    format!("write {key} = and the value; {SHOWN}"),
                ));
            }
            value if DeValue::parse(value).is_ok() => value.to_owned(),
            value => format!("\"{}\"", value.trim_matches(['"', '\''])),
        };
        Some((format!("`{key}` has no equals sign"), format!("write {key} = {value}")))
    }

    /// JSON's word for no value.
    fn null(&self) -> Option<(String, String)> {
        let (_, value) = self.pair()?;
        let value = value.rsplit(['=', ',', '[', '{']).next()?.trim_matches([' ', '}', ']']);
        let is_null = matches!(value, "null" | "nil" | "None" | "undefined");
        is_null.then(|| (format!("TOML has no {value}"), "leave the key out".to_owned()))
    }
}

//! What a file that is not TOML was probably meant to be: another language, a text without quotes, a bracket that is
//! not closed. The parser's own words are kept where they say it well.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::lines::{is_key_byte, line_at, line_start};
use super::{reword, twice};
use crate::config::diagnostic::{Diagnostic, ERRORS_MAX, Place};

/// What is wrong with `text`, of which the parser made `tree` and `errors`. At most one thing a line, and nothing
/// behind a bracket or a string that is not closed: all that follows from it.
pub(super) fn diagnose(
    source: usize,
    text: &str,
    tree: &DeTable<'_>,
    errors: &[Error],
) -> Vec<Diagnostic> {
    let place = |span: Range<usize>| Place { source, span };
    if let Some((language, at)) = other_language(text) {
        let title = format!("this looks like {language}; laneway's configuration is TOML");
        let help = "a table is `[server]`, and a key in it `listen = \"127.0.0.1:8080\"`; \
                    `server show-config` prints a whole configuration";
        return vec![Diagnostic::new(title, Some(place(at))).help(help)];
    }
    let open = not_closed(text);
    let end = open.as_ref().map_or(usize::MAX, |open| open.span.start);
    let mut found: Vec<(usize, Diagnostic)> = Vec::new();
    for error in errors {
        if found.len() > ERRORS_MAX {
            break;
        }
        let span = error.span().unwrap_or(0..0);
        let line = line_start(text, span.start);
        let is_told = found.iter().any(|(of, _)| *of == line) || goes_on(text, errors, line);
        if span.start < end && !is_told {
            found.push((line, one(source, text, tree, error.message(), &span)));
        }
    }
    if let Some(open) = open {
        let diagnostic = Diagnostic::new(open.title, Some(place(open.span))).help(open.help);
        found.push((open.at_line, diagnostic));
    }
    found.sort_by_key(|(line, _)| *line);
    found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
}

/// Whether the line at `line` is no key, and goes on with the text that the line before it leaves open.
fn goes_on(text: &str, errors: &[Error], line: usize) -> bool {
    let Some(before) = line.checked_sub(1).map(|end| line_start(text, end)) else {
        return false;
    };
    let is_open = |error: &Error| {
        let at = error.span().map(|span| line_start(text, span.start));
        reword::is_open_text(error.message()) && at == Some(before)
    };
    let key = line_at(text, line).split_once('=').map(|(key, _)| key.trim());
    let is_key = key.is_some_and(|key| !key.is_empty() && key.bytes().all(is_key_byte));
    !is_key && errors.iter().any(is_open)
}

/// One error of the parser, in better words where there are some.
fn one(
    source: usize,
    text: &str,
    tree: &DeTable<'_>,
    message: &str,
    span: &Range<usize>,
) -> Diagnostic {
    let place = |span: Range<usize>| Some(Place { source, span });
    if message == "duplicate key" {
        return twice::diagnose(source, text, tree, span);
    }
    if message.starts_with("cannot recurse") {
        return Diagnostic::new("brackets within brackets go too deep", place(span.clone()))
            .help("80 is the most");
    }
    if let Some(reworded) = reword::reworded(text, message, span) {
        let diagnostic = Diagnostic::new(reworded.title, place(reworded.span));
        return diagnostic.help(reworded.help);
    }
    if let Some(bare) = bare_text(text, span.start) {
        let value = text[bare.clone()].trim_matches(['“', '”', '„', '‘', '’', '\'', '"']);
        let key = key_before(text, bare.start);
        let truth = match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some("true"),
            "false" | "no" | "off" => Some("false"),
            _ => None,
        };
        let truth = truth.map_or_else(String::new, |truth| {
            format!(", or {key}{truth} if it is yes or no that is asked for")
        });
        return Diagnostic::new("text needs quotes", place(bare))
            .help(format!("write {key}\"{value}\"{truth}"));
    }
    if let Some((key, value)) = yaml_pair(line_at(text, span.start)) {
        let value = match value {
            "" => "…".to_owned(),
            value if DeValue::parse(value).is_ok() => value.to_owned(),
            value => format!("\"{value}\""),
        };
        return Diagnostic::new(format!("`{key}:` is how YAML writes a key"), place(span.clone()))
            .help(format!("TOML has an equals sign: {key} = {value}"));
    }
    Diagnostic::new(message, place(span.clone()))
}

/// The value around `at`, if it would be one with quotes and is none without.
fn bare_text(text: &str, at: usize) -> Option<Range<usize>> {
    let start = line_start(text, at);
    let line = line_at(text, at);
    let before = line.get(..at.checked_sub(start)?)?;
    // Within a list it ends at the next comma or bracket, else with the line.
    let front = before.rfind(['=', '[', '{', ',']).map(|at| at + 1)?;
    let opened = before[..front].matches(['[', '{']).count();
    let in_list =
        opened > before[..front].matches([']', '}']).count() || before[..front].ends_with([',']);
    let value = line.get(front..)?;
    let ends: &[char] = if in_list { &[',', ']', '}', '#'] } else { &['#'] };
    let value = &value[..value.find(ends).unwrap_or(value.len())];
    let lead = value.len() - value.trim_start().len();
    let value = value.trim();
    let is_number = value.matches('.').count() < 2
        && value.bytes().all(|byte| byte.is_ascii_digit() || b"+-_.eExXoObB".contains(&byte));
    if value.is_empty()
        || value.starts_with(['"', '\'', '[', '{', '='])
        || value.contains(['"', '\\', '='])
        || is_number
        || DeValue::parse(value.trim_end_matches([']', '}', ','])).is_ok()
        || before[..front].trim_start().starts_with('[') && !before.contains('=')
    {
        return None;
    }
    let start = start + front + lead;
    Some(start..start + value.len())
}

/// `key = ` if that stands before `at` in its line.
fn key_before(text: &str, at: usize) -> String {
    let before = text.get(line_start(text, at)..at).unwrap_or_default().trim();
    match before.strip_suffix('=') {
        Some(key) if !key.contains('=') => format!("{} = ", key.trim()),
        _ => String::new(),
    }
}

/// The key and the value of `key: value`.
fn yaml_pair(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (key, value) = line.strip_prefix("- ").unwrap_or(line).split_once(':')?;
    let is_key = !key.is_empty() && key.bytes().all(is_key_byte);
    (is_key && (value.is_empty() || value.starts_with(' '))).then(|| (key, value.trim()))
}

/// The language that this is written in, if that isn't TOML, and the line that shows it.
fn other_language(text: &str) -> Option<(&'static str, Range<usize>)> {
    let mut at = 0;
    let mut shown = None;
    for line in text.split_inclusive('\n') {
        let start = at + (line.len() - line.trim_start().len());
        at += line.len();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let span = start..start + line.len();
        let is_table = line.starts_with('[') && line.trim_end().ends_with(']');
        let is_pair = line
            .split_once('=')
            .is_some_and(|(key, _)| key.trim().bytes().all(is_key_byte) && !key.trim().is_empty());
        if matches!(line, "[Unit]" | "[Service]" | "[Install]") {
            return Some(("a unit of systemd", span));
        }
        if line.starts_with("module.exports") || line.starts_with("export default") {
            return Some(("JavaScript", span));
        }
        if is_table || is_pair {
            return None;
        }
        let language = if line.starts_with('{') {
            Some("JSON")
        } else if line.starts_with("<VirtualHost") || line.starts_with("<IfModule") {
            Some("Apache's configuration")
        } else if line.starts_with('<') {
            Some("XML")
        } else if line.ends_with(';') {
            Some("nginx's configuration")
        } else if line.ends_with('{') {
            // nginx and Caddy open blocks alike; nginx ends its other lines with semicolons.
            let semicolon = text.lines().any(|line| line.trim_end().ends_with(';'));
            Some(if semicolon { "nginx's configuration" } else { "a Caddyfile" })
        } else if line == "---" || line.starts_with("- ") || yaml_pair(line).is_some() {
            Some("YAML")
        } else {
            None
        };
        if shown.is_none() {
            shown = Some((language?, span));
        }
    }
    shown
}

/// Something that opens and doesn't close.
struct OpenBracket {
    span: Range<usize>,
    at_line: usize,
    title: String,
    help: String,
}

/// The first bracket of a value, or string of several lines, that is not closed before the next key or table.
fn not_closed(text: &str) -> Option<OpenBracket> {
    let mut stack: Vec<(usize, u8)> = Vec::new();
    let bytes = text.as_bytes();
    let (mut at, mut is_value, mut is_line_start) = (0, false, true);
    while at < bytes.len() {
        if is_line_start && !stack.is_empty() && begins_anew(line_at(text, at), &stack) {
            return Some(open(text, &stack, Some(at)));
        }
        is_line_start = false;
        let byte = bytes[at];
        match byte {
            b'\n' => {
                is_line_start = true;
                is_value &= !stack.is_empty();
            }
            b'#' => {
                at = text[at..].find('\n').map_or(bytes.len(), |length| at + length);
                continue;
            }
            b'"' | b'\'' => {
                let quotes =
                    text.get(at..at + 3).filter(|three| *three == "\"\"\"" || *three == "'''");
                match end_of_string(text, at, quotes.unwrap_or(&text[at..=at])) {
                    Some(end) => at = end,
                    None if quotes.is_some() => {
                        let title = "a text of several lines is not closed".to_owned();
                        let help = format!("it ends with {}", &text[at..at + 3]);
                        return Some(OpenBracket {
                            span: at..at + 3,
                            at_line: line_start(text, at),
                            title,
                            help,
                        });
                    }
                    // The parser tells of it, and goes on in the next line.
                    None => at = text[at..].find('\n').map_or(bytes.len(), |length| at + length),
                }
                continue;
            }
            b'=' => is_value = true,
            b'[' | b'{' if is_value => stack.push((at, byte)),
            b']' | b'}' if is_value => {
                let opening = if byte == b']' { b'[' } else { b'{' };
                if stack.last().is_some_and(|(_, of)| *of == opening) {
                    stack.pop();
                } else if !stack.is_empty() {
                    return Some(open(text, &stack[stack.len() - 1..], None));
                }
            }
            _ => {}
        }
        at += 1;
    }
    (!stack.is_empty()).then(|| open(text, &stack, None))
}

/// Whether a line is a key or a table of its own, though a bracket is open.
fn begins_anew(line: &str, stack: &[(usize, u8)]) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let in_list = stack.last().is_some_and(|(_, byte)| *byte == b'[');
    let is_key = in_list
        && line.split_once('=').is_some_and(|(key, _)| {
            let key = key.trim();
            !key.is_empty() && key.bytes().all(is_key_byte)
        });
    let name = line.trim_matches(['[', ']']).trim();
    let is_value = matches!(name, "true" | "false" | "inf" | "nan");
    let is_table = line.starts_with('[')
        && line.ends_with(']')
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(is_key_byte)
        && !is_value;
    is_key || is_table
}

fn open(text: &str, stack: &[(usize, u8)], next: Option<usize>) -> OpenBracket {
    let (at, byte) = stack[0];
    let (opening, closing) = if byte == b'[' { ('[', ']') } else { ('{', '}') };
    let title = match stack.len() {
        1 => format!("`{opening}` is not closed"),
        count => format!("{count} brackets are not closed, of which this is the first"),
    };
    let help = match next {
        Some(next) => {
            let line = text[..next].matches('\n').count() + 1;
            format!("`{closing}` is missing before line {line}")
        }
        None => format!("`{closing}` is missing"),
    };
    OpenBracket { span: at..at + 1, at_line: line_start(text, at), title, help }
}

/// The end of the string that begins at `at` with `quotes`.
fn end_of_string(text: &str, at: usize, quotes: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_basic = quotes.starts_with('"');
    let mut at = at + quotes.len();
    while at < bytes.len() {
        if text.as_bytes()[at..].starts_with(quotes.as_bytes()) {
            // Up to two more quotes may stand right before those that close.
            let more = bytes[at + quotes.len()..].iter().take(2);
            let more = more.take_while(|byte| quotes.len() == 3 && **byte == quotes.as_bytes()[0]);
            return Some(at + quotes.len() + more.count());
        }
        match bytes[at] {
            b'\\' if is_basic => at += 2,
            b'\n' if quotes.len() == 1 => return None,
            _ => at += 1,
        }
    }
    None
}

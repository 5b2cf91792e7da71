//! The listing of a folder: what it says, in which order, and in which form. What there is to be listed, and what may be,
//! is decided elsewhere.

mod html;

use std::cmp::{Ordering, Reverse};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::path::link;
use super::terms::quality;
use crate::http::{Fields, Response, media_type};

/// Most entries of a listing.
pub const ENTRIES_MAX: usize = 100_000;

/// The last second that is shown as a time; its year has four digits.
const TIME_MAX_S: u64 = 253_402_300_799;

/// What a folder has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// One segment of a path.
    pub name: Vec<u8>,
    /// Else it is a file.
    pub is_folder: bool,
    /// Bytes; of a folder nothing.
    pub size: u64,
    /// When it was last modified, in seconds since the epoch.
    pub modified_s: i64,
}

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Html,
    /// For programs.
    Json,
}

/// A folder, as far as it is listed.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'f> {
    /// As it was asked for, decoded.
    pub path: &'f [u8],
    /// Whether what is above it is served as well.
    pub has_parent: bool,
    /// Whether it has more than is listed.
    pub is_cut: bool,
}

/// By what entries are sorted, folders first in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    by: Column,
    is_descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Name,
    Size,
    Modified,
}

impl Column {
    const ALL: [Column; 3] = [Column::Name, Column::Size, Column::Modified];

    /// As a query has it.
    fn name(self) -> &'static str {
        match self {
            Column::Name => "name",
            Column::Size => "size",
            Column::Modified => "modified",
        }
    }
}

/// The form that a request wants; HTML, if it likes both as well.
pub fn form(fields: Fields<'_>) -> Form {
    let json = quality(fields, "application", "json");
    if json > quality(fields, "text", "html") { Form::Json } else { Form::Html }
}

/// The listing of a folder. `query` says by what it is sorted: `sort=name|size|modified` and `order=asc|desc`.
pub fn page(
    form: Form,
    folder: Folder<'_>,
    query: Option<&[u8]>,
    mut entries: Vec<Entry>,
) -> (Response, Vec<u8>) {
    let order = Order::of(query.unwrap_or_default());
    let is_cut = folder.is_cut || entries.len() > ENTRIES_MAX;
    let folder = Folder { is_cut, ..folder };
    entries.truncate(ENTRIES_MAX);
    entries.sort_unstable_by(|a, b| order.compare(a, b));
    let (content_type, policy, body) = match form {
        Form::Html => {
            let policy = Some(("Content-Security-Policy", html::POLICY));
            ("text/html; charset=utf-8", policy, html::page(folder, order, &entries))
        }
        Form::Json => (media_type::JSON, None, json(folder, &entries)),
    };
    let fields = [
        ("Content-Type", content_type),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-cache"),
        ("Vary", "Accept"),
    ];
    let fields = fields.into_iter().chain(policy);
    (Response::new(200, fields, Some(body.len() as u64)), body)
}

impl Order {
    /// What is unknown in a query says nothing.
    fn of(query: &[u8]) -> Order {
        let mut order = Order { by: Column::Name, is_descending: false };
        for parameter in query.split(|byte| *byte == b'&') {
            match parameter {
                b"order=desc" => order.is_descending = true,
                b"order=asc" => order.is_descending = false,
                _ => {
                    let value = parameter.strip_prefix(b"sort=");
                    let by = |column: &Column| value == Some(column.name().as_bytes());
                    order.by = Column::ALL.into_iter().find(by).unwrap_or(order.by);
                }
            }
        }
        order
    }

    fn compare(self, a: &Entry, b: &Entry) -> Ordering {
        let of_column = match self.by {
            Column::Name => by_name(a, b),
            Column::Size => a.size.cmp(&b.size).then_with(|| by_name(a, b)),
            Column::Modified => a.modified_s.cmp(&b.modified_s).then_with(|| by_name(a, b)),
        };
        let of_column = if self.is_descending { of_column.reverse() } else { of_column };
        Reverse(a.is_folder).cmp(&Reverse(b.is_folder)).then(of_column)
    }
}

/// Without regard to the case of ASCII, and where that makes no difference by all bytes.
fn by_name(a: &Entry, b: &Entry) -> Ordering {
    let folded = a.name.iter().map(u8::to_ascii_lowercase);
    folded.cmp(b.name.iter().map(u8::to_ascii_lowercase)).then_with(|| a.name.cmp(&b.name))
}

impl Entry {
    /// As a link that works where the folder is at hand.
    fn href(&self) -> String {
        let mut link = link(&self.name);
        if self.is_folder {
            link.push('/');
        }
        link
    }

    /// When it was modified (RFC 3339), unless that can't be written so.
    fn modified(&self) -> Option<String> {
        let seconds =
            u64::try_from(self.modified_s).ok().filter(|seconds| *seconds <= TIME_MAX_S)?;
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        Some(humantime::format_rfc3339_seconds(time).to_string())
    }
}

/// A listing in JSON.
#[derive(Serialize)]
struct Document {
    path: String,
    entries: Vec<Item>,
    /// Whether the folder has more.
    cut: bool,
}

/// An entry in JSON. A name that isn't UTF-8 has replacements in it; its link hasn't.
#[derive(Serialize)]
struct Item {
    name: String,
    href: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    modified: Option<String>,
}

fn json(folder: Folder<'_>, entries: &[Entry]) -> Vec<u8> {
    let item = |entry: &Entry| Item {
        name: String::from_utf8_lossy(&entry.name).into_owned(),
        href: entry.href(),
        r#type: if entry.is_folder { "folder" } else { "file" },
        size: (!entry.is_folder).then_some(entry.size),
        modified: entry.modified(),
    };
    let document = Document {
        path: String::from_utf8_lossy(folder.path).into_owned(),
        entries: entries.iter().map(item).collect(),
        cut: folder.is_cut,
    };
    // Strings and numbers written to memory: there is nothing in them that could fail.
    let mut body = serde_json::to_vec(&document).expect("strings serialise to memory");
    body.push(b'\n');
    body
}

#[cfg(test)]
mod tests;

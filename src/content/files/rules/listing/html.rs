//! A listing as a page: a table that screen readers understand, sorted by links, without a script.

use std::fmt::{self, Display, Write};

use bytesize::ByteSize;

use super::{Column, Entry, Folder, Order};

const STYLE: &str = include_str!("page.css");

/// Nothing is loaded or run but the style of the page, which is the one with this hash of SHA-256.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-cTLzj/SOVm0M47LBLZBX2ptPZnLaSFqRg/WARI/1zRo='; base-uri 'none'; \
                                 form-action 'none'; frame-ancestors 'none'";

/// Text in HTML, of what should be UTF-8.
struct Escaped<'t>(&'t [u8]);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in String::from_utf8_lossy(self.0).chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // What is no text in HTML.
                char if char.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// A name, apart from what is around it: one in a script from right to left turns nothing else round.
struct Isolated<'t>(Escaped<'t>);

impl Display for Isolated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<bdi>{}</bdi>", self.0)
    }
}

pub(super) fn page(folder: Folder<'_>, order: Order, entries: &[Entry]) -> Vec<u8> {
    // About as much as an entry takes.
    let mut page = String::with_capacity(2 * STYLE.len() + 200 * entries.len());
    // Writing to a string can't fail.
    let _ = write_page(&mut page, folder, order, entries);
    page.into_bytes()
}

fn write_page(
    page: &mut String,
    folder: Folder<'_>,
    order: Order,
    entries: &[Entry],
) -> fmt::Result {
    let path = Escaped(folder.path);
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{path}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{}</h1>\n",
        Isolated(Escaped(folder.path))
    )?;
    if folder.has_parent {
        page.push_str("<p><a href=\"../\">Parent folder</a></p>\n");
    }
    page.push_str("<table>\n<thead>\n<tr>");
    for column in Column::ALL {
        write_column(page, column, order)?;
    }
    page.push_str("</tr>\n</thead>\n<tbody>\n");
    for entry in entries {
        write_entry(page, entry)?;
    }
    page.push_str("</tbody>\n</table>\n");
    if folder.is_cut {
        writeln!(page, "<p>These are the first {}; there are more.</p>", entries.len())?;
    }
    if entries.is_empty() {
        page.push_str("<p>This folder is empty.</p>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

/// The head of a column, a link that sorts by it; by the one that it is sorted by already, the other way round.
fn write_column(page: &mut String, column: Column, order: Order) -> fmt::Result {
    let is_descending = order.by == column && !order.is_descending;
    let aria = match order {
        Order { by, .. } if by != column => "",
        Order { is_descending: true, .. } => " aria-sort=\"descending\"",
        Order { is_descending: false, .. } => " aria-sort=\"ascending\"",
    };
    let title = match column {
        Column::Name => "Name",
        Column::Size => "Size",
        Column::Modified => "Modified (UTC)",
    };
    let (name, order) = (column.name(), if is_descending { "desc" } else { "asc" });
    write!(
        page,
        "<th scope=\"col\"{aria}><a href=\"?sort={name}&amp;order={order}\">{title}</a></th>"
    )
}

fn write_entry(page: &mut String, entry: &Entry) -> fmt::Result {
    let slash = if entry.is_folder { "/" } else { "" };
    let name = Isolated(Escaped(&entry.name));
    // In a link everything is percent-encoded that would have to be escaped, but for these.
    let href = entry.href().replace('&', "&amp;").replace('\'', "&#39;");
    write!(page, "<tr><td><a href=\"{href}\">{name}{slash}</a></td><td>")?;
    if !entry.is_folder {
        write!(
            page,
            "<span title=\"{} bytes\">{}</span>",
            entry.size,
            ByteSize(entry.size).display().iec()
        )?;
    }
    page.push_str("</td><td>");
    if let Some(time) = entry.modified() {
        let shown = time.trim_end_matches('Z').replace('T', " ");
        write!(page, "<time datetime=\"{time}\">{shown}</time>")?;
    }
    page.push_str("</td></tr>\n");
    Ok(())
}

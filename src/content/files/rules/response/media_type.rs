//! Which media type a file has, by its name (RFC 9110 §8.3).

use std::borrow::Cow;

use crate::content::files::rules::path::last_segment;
use crate::http::media_type;

/// Where the table of mime_guess is out of date, or says what browsers don't understand. `text/` gets its charset later.
const OWN: &[(&str, &str)] = &[
    // RFC 9239: "text/javascript" is the one to use.
    ("cjs", "text/javascript"),
    ("mjs", "text/javascript"),
    // Video in segments (RFC 8216 §10), and what TypeScript is called like.
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("m4a", "audio/mp4"),
    // Source maps are JSON.
    ("map", "application/json"),
    ("rpm", "application/x-rpm"),
    ("toml", "application/toml"),
    ("vcf", "text/vcard"),
    // RFC 9512.
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
    // XML says of itself how it is written; as text/xml it would be taken for what a charset says.
    ("dtd", "application/xml-dtd"),
    ("xml", "application/xml"),
    ("xsl", "application/xslt+xml"),
    ("xslt", "application/xslt+xml"),
];

/// Longest extension that is looked up, in bytes; none that is known is longer.
const EXTENSION_BYTES_MAX: usize = 32;

/// The media type of a file with this name, or path. Text is taken for UTF-8.
pub(super) fn of_name(name: &[u8]) -> Cow<'static, str> {
    let found = extension(name).and_then(|extension| {
        let own = OWN.iter().find(|(own, _)| own.eq_ignore_ascii_case(extension));
        own.map(|(_, found)| *found).or_else(|| mime_guess::from_ext(extension).first_raw())
    });
    match found {
        None => media_type::BYTES.into(),
        Some(found) if found.starts_with("text/") => format!("{found}; charset=utf-8").into(),
        Some(found) => found.into(),
    }
}

/// Whether this is a type of HTML.
pub(super) fn is_html(media_type: &str) -> bool {
    media_type.starts_with("text/html")
}

/// What is behind the last point of the last segment. A name that only begins with a point has none.
fn extension(name: &[u8]) -> Option<&str> {
    let name = last_segment(name);
    let point = memchr::memrchr(b'.', name).filter(|point| *point > 0)?;
    let extension = std::str::from_utf8(&name[point + 1..]).ok()?;
    (extension.len() <= EXTENSION_BYTES_MAX).then_some(extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_goes_by_the_extension_and_text_is_utf_8() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.d/INDEX.HTM", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("app.min.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.js.map", "application/json"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.wasm", "application/wasm"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.jpg", "image/jpeg"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.ico", "image/x-icon"),
            ("a.woff2", "font/woff2"),
            ("a.mp4", "video/mp4"),
            ("a.ts", "video/mp2t"),
            ("a.pdf", "application/pdf"),
            ("a.xml", "application/xml"),
            ("a.tar.gz", "application/gzip"),
            ("a.zst", "application/zstd"),
            ("README", "application/octet-stream"),
            ("a.d/README", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(of_name(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(of_name(b"a.\xff"), "application/octet-stream");
        let long = format!("a.{}", "x".repeat(EXTENSION_BYTES_MAX + 1));
        assert_eq!(of_name(long.as_bytes()), "application/octet-stream");
    }

    #[test]
    fn each_own_type_is_needed() {
        for (extension, own) in OWN {
            let theirs = mime_guess::from_ext(extension).first_raw();
            assert_ne!(theirs, Some(*own), "{extension}");
        }
    }
}

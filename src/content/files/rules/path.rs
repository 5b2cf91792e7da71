//! From the path of a request to what is looked up, and to where a request is sent instead.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use super::terms::{Term, quality};
use crate::http::{Method, Request, Target};

/// Longest name that a file has anywhere (`NAME_MAX`), in bytes: a longer one needs not be looked up.
const NAME_BYTES_MAX: usize = 255;
/// Longest path that the kernel takes (`PATH_MAX`, without its end), in bytes.
const PATH_BYTES_MAX: usize = 4095;
/// The one folder with a leading point that is meant to be asked for (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";

/// What a path asks for, below the root. Segments are never empty, `.` or `..`, and none has a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'p> {
    /// A file, or a folder without the slash behind it.
    File(&'p [u8]),
    /// A folder, without the slash at its end; the root is empty.
    Folder(&'p [u8]),
    /// Nothing that may be served, or that there could be.
    Hidden,
}

/// What a path asks for whose part behind that of the route is `rest`: decoded, without dot segments. Names that begin
/// with a point are hidden unless `dotfiles`, but for `.well-known` in the first place.
pub fn wanted(rest: &[u8], dotfiles: bool) -> Wanted<'_> {
    let path = rest.strip_suffix(b"/").unwrap_or(rest);
    if rest.is_empty() {
        return Wanted::Folder(rest);
    }
    let is_served = |(index, name): (usize, &[u8])| match name {
        // Empty ones are there where slashes aren't merged: then the path is another one.
        b"" | b"." | b".." => false,
        [b'.', ..] if !dotfiles => index == 0 && name == WELL_KNOWN,
        _ => name.len() <= NAME_BYTES_MAX,
    };
    let mut segments = path.split(|byte| *byte == b'/').enumerate();
    if path.len() > PATH_BYTES_MAX || path.contains(&0) || !segments.all(is_served) {
        return Wanted::Hidden;
    }
    if path.len() < rest.len() { Wanted::Folder(path) } else { Wanted::File(path) }
}

/// What isn't a part of a path as it is (RFC 3986 §3.3): all but unreserved characters, sub-delims, `:`, `@` and `/`.
const NOT_OF_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// What isn't a part of a query as it is, of what requests may have in one: `%` stays, since a query comes encoded.
const NOT_OF_QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Where a folder is that was asked for without the slash at its end: a path, which is this origin's because one slash
/// alone is in front of it, and the query as it came.
pub fn slash_location(target: &Target<'_>) -> String {
    let slashes = target.path.iter().take_while(|byte| **byte == b'/').count();
    let path = percent_encode(&target.path[slashes..], NOT_OF_PATH);
    let mut location = format!("/{path}");
    if !location.ends_with('/') {
        location.push('/');
    }
    if let Some(query) = target.query {
        location.push('?');
        location.extend(percent_encode(query, NOT_OF_QUERY));
    }
    location
}

/// A name as a relative link, which no colon in it makes another scheme's.
pub(super) fn link(name: &[u8]) -> String {
    format!("./{}", percent_encode(name, NOT_OF_PATH))
}

/// What is behind the last slash of a path.
pub(super) fn last_segment(path: &[u8]) -> &[u8] {
    let start = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
    &path[start..]
}

/// What decides whether a request gets the fallback, besides its path, as `Vary` states it.
pub const VARY_OF_FALLBACK: &str = "Accept, Sec-Fetch-Mode";

/// Whether a request for what isn't there is answered with the fallback of a single-page application: it is a
/// navigation. That is a GET or HEAD that accepts HTML, comes from no script as far as its browser says
/// (`Sec-Fetch-Mode`), and asks for no file: its last segment has no extension.
pub fn takes_fallback(request: &Request<'_>, rest: &[u8]) -> bool {
    let is_read = matches!(request.method, Method::Get | Method::Head);
    let has_extension = memchr::memchr(b'.', last_segment(rest)).is_some();
    let mode = Term::SecFetchMode.value(request.fields);
    is_read
        && !has_extension
        && mode.is_none_or(|mode| mode == b"navigate")
        && quality(request.fields, "text", "html") > 0
}

#[cfg(test)]
mod tests {
    use super::super::response::tests::{with_request, with_target};
    use super::*;

    #[test]
    fn a_path_names_a_file_a_folder_or_nothing() {
        use Wanted::{File, Folder, Hidden};
        let longest = "x".repeat(NAME_BYTES_MAX);
        let too_long = "x".repeat(NAME_BYTES_MAX + 1);
        let deepest = "x/".repeat(PATH_BYTES_MAX / 2) + "x";
        let too_deep = format!("{deepest}x");
        for (rest, expected) in [
            ("", Folder(&b""[..])),
            ("a", File(b"a")),
            ("a/", Folder(b"a")),
            ("a/b c/\u{e9}\\", File("a/b c/\u{e9}\\".as_bytes())),
            ("a..b/c.", File(b"a..b/c.")),
            (&longest, File(longest.as_bytes())),
            (&deepest, File(deepest.as_bytes())),
            ("/", Hidden),
            ("a//b", Hidden),
            ("a//", Hidden),
            ("/a", Hidden),
            ("..", Hidden),
            ("a/../b", Hidden),
            ("a/.", Hidden),
            ("a\0.html", Hidden),
            (&too_long, Hidden),
            (&too_deep, Hidden),
        ] {
            for dotfiles in [false, true] {
                assert_eq!(wanted(rest.as_bytes(), dotfiles), expected, "{rest:?}");
            }
        }
        assert_eq!(wanted(b"\xff\xfe", false), File(b"\xff\xfe"));
    }

    #[test]
    fn names_with_a_leading_point_are_hidden_but_for_the_well_known() {
        use Wanted::{File, Folder, Hidden};
        for (rest, shown) in [
            (".git/config", File(&b".git/config"[..])),
            ("a/.env", File(b"a/.env")),
            (".a/", Folder(b".a")),
            ("...", File(b"...")),
            ("a/.well-known/b", File(b"a/.well-known/b")),
            (".well-known/.git", File(b".well-known/.git")),
            (".well-knownx", File(b".well-knownx")),
        ] {
            assert_eq!(wanted(rest.as_bytes(), false), Hidden, "{rest}");
            assert_eq!(wanted(rest.as_bytes(), true), shown, "{rest}");
        }
        let challenge = b".well-known/acme-challenge/x";
        assert_eq!(wanted(challenge, false), File(challenge));
        assert_eq!(wanted(b".well-known/", false), Folder(b".well-known"));
    }

    #[test]
    fn a_folder_without_its_slash_is_a_path_of_this_origin() {
        for (target, expected) in [
            ("/a", "/a/"),
            ("/a?x=1&y=%20", "/a/?x=1&y=%20"),
            ("/a?", "/a/?"),
            ("/a%20b/%c3%a9%ff", "/a%20b/%C3%A9%FF/"),
            ("/%5chost", "/%5Chost/"),
            ("/a%3fb%23%25", "/a%3Fb%23%25/"),
            ("/a:b@c", "/a:b@c/"),
            ("//host", "/host/"),
            ("//host/..", "/"),
            ("/%2fhost", "/host/"),
            ("//host/../x", "/x/"),
            ("http://other/a?b", "/a/?b"),
            ("/a?<\u{e9}>\\", "/a/?%3C%C3%A9%3E%5C"),
        ] {
            for merge_slashes in [true, false] {
                let location = with_target(target, merge_slashes, slash_location);
                assert!(!location.starts_with("//"), "{target}: {location}");
                assert_eq!(location, expected, "{target}");
            }
        }
    }

    #[test]
    fn the_fallback_is_for_navigation_alone() {
        for (method, rest, lines, expected) in [
            ("GET", "users/7", "Accept: text/html, */*;q=0.1\r\n", true),
            ("HEAD", "users/7", "Accept: text/html\r\n", true),
            ("GET", "users/7/", "Accept: text/html\r\n", true),
            ("GET", "v1.2/users", "Accept: text/html\r\n", true),
            ("GET", "users/7", "Accept: */*\r\n", true),
            ("GET", "users/7", "", true),
            ("GET", "users/7", "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n", true),
            ("GET", "users/7", "Accept: */*\r\nSec-Fetch-Mode: cors\r\n", false),
            ("GET", "assets/x.js", "Accept: text/html\r\n", false),
            ("GET", "assets/x.", "Accept: text/html\r\n", false),
            ("GET", "users/7", "Accept: application/json\r\n", false),
            ("GET", "users/7", "Accept: text/html;q=0, */*\r\n", false),
            ("PURGE", "users/7", "Accept: text/html\r\n", false),
        ] {
            let takes = with_request(method, "/", lines, |request| {
                takes_fallback(request, rest.as_bytes())
            });
            assert_eq!(takes, expected, "{method} {rest} {lines}");
        }
    }
}

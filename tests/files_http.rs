//! What is sent of a file: validators, conditions, ranges, coded forms, and what stands in for a file that isn't there.

mod harness;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Client, Mode, Response, Server, Setup, in_mode};

macro_rules! in_both_modes_with_both_drivers {
    ($($case:ident),+ $(,)?) => {
        in_mode!(threads, new(Workers::Threads, Accept::Reuseport), [$($case),+]);
        in_mode!(processes_epoll, on_epoll(Workers::Processes, Accept::Reuseport), [$($case),+]);
    };
}

in_both_modes_with_both_drivers!(
    a_file_has_its_type_and_validators,
    conditions_decide_in_the_order_of_the_rfc,
    ranges_are_parts_of_the_file,
    a_file_is_sent_in_the_form_that_its_client_wants_most,
    names_of_any_bytes_are_found_and_hidden_ones_are_not,
    a_folder_is_answered_by_what_is_in_it,
    what_is_not_there_is_answered_by_what_stands_in_for_it,
    how_long_something_is_kept_is_a_setting,
);

/// Sun, 06 Nov 1994 08:49:37 GMT
const MODIFIED: Duration = Duration::from_secs(784_111_777);
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
/// Of the small and the large file: what is kept in memory, and what isn't.
const SIZES: [(&str, usize); 2] = [("small.txt", 1000), ("large.txt", 300_000)];

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + ((at + at / 251) % 26) as u8).collect()
}

/// Writes a file that was modified long ago.
fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
    fs::write(path, content).expect("a file");
    set_modified(path, UNIX_EPOCH + MODIFIED);
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(time))
        .expect("a time");
}

/// A server of `/*` with these lines in its route.
fn start(mode: Mode, lines: &str, fill: impl FnOnce(&Path)) -> Server {
    let setup = Setup::new(mode).config("");
    let root = setup.scratch().path().join("public");
    fs::create_dir(&root).expect("the root");
    fill(&root);
    setup.route("/*", &format!("files = \"{}\"\n{lines}", root.display())).start()
}

/// Asks with these field lines, each with its line end.
#[track_caller]
fn ask(client: &mut Client, method: &str, path: &str, lines: &str) -> Response {
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    client.response_to(method)
}

#[track_caller]
fn get(client: &mut Client, path: &str, lines: &str) -> Response {
    ask(client, "GET", path, lines)
}

fn with_both_sizes(root: &Path) {
    for (name, size) in SIZES {
        write(root.join(name), content(size));
    }
}

fn a_file_has_its_type_and_validators(mode: Mode) {
    let server = start(mode, "headers = { X-Own = \"yes\" }", |root| {
        with_both_sizes(root);
        for name in ["a.html", "a.css", "a.js", "a.json", "a.png", "a.wasm", "plain"] {
            write(root.join(name), name);
        }
        for (name, seconds) in [("zero", 0), ("one", 1)] {
            write(root.join(name), "set");
            set_modified(&root.join(name), UNIX_EPOCH + Duration::from_secs(seconds));
        }
        write(root.join("zero-large"), content(300_000));
        set_modified(&root.join("zero-large"), UNIX_EPOCH);
    });
    let mut client = server.connect();
    for (name, expected) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("small.txt", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.png", "image/png"),
        ("a.wasm", "application/wasm"),
        ("plain", "application/octet-stream"),
    ] {
        let response = client.get(&format!("/{name}"));
        assert_eq!(response.header("content-type"), Some(expected), "{name}");
        assert_eq!(response.header("x-own"), Some("yes"));
    }
    for (name, size) in SIZES {
        let response = client.get(&format!("/{name}"));
        let tag = format!("\"{:x}.0-{size:x}\"", MODIFIED.as_secs());
        assert_eq!(response.header("etag"), Some(&*tag));
        assert_eq!(response.header("last-modified"), Some(DATE));
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
        assert_eq!(response.header("vary"), None);
        assert!(response.body == content(size));
        let head = client.head(&format!("/{name}"));
        assert_eq!(head.stable_headers(), response.stable_headers());
    }
    // A time that was set says nothing: the content does, where it is at hand.
    let [zero, one, large] = ["/zero", "/one", "/zero-large"].map(|path| client.get(path));
    assert_eq!(zero.header("etag"), one.header("etag"), "the same content");
    assert!(zero.header("etag").is_some_and(|tag| tag.starts_with("\"h")), "{zero:?}");
    assert_eq!(large.header("etag"), None);
    for response in [zero, one, large] {
        assert_eq!((response.status, response.header("last-modified")), (200, None));
    }
    let options = ask(&mut client, "OPTIONS", "/small.txt", "");
    assert_eq!((options.status, options.allow()), (204, vec!["GET", "HEAD", "OPTIONS"]));
    let put = ask(&mut client, "PUT", "/small.txt", "Content-Length: 0\r\n");
    assert_eq!((put.status, put.allow()), (405, vec!["GET", "HEAD", "OPTIONS"]));
}

fn conditions_decide_in_the_order_of_the_rfc(mode: Mode) {
    let server = start(mode, "", with_both_sizes);
    let mut client = server.connect();
    for (name, size) in SIZES {
        let path = format!("/{name}");
        let tag = client.get(&path).header("etag").expect("a tag").to_owned();
        for (lines, status) in [
            ("If-None-Match: TAG", 304),
            ("If-None-Match: W/TAG", 304),
            ("If-None-Match: \"x\", TAG", 304),
            ("If-None-Match: *", 304),
            ("If-None-Match: \"x\"", 200),
            ("If-None-Match: \"x\"; If-Modified-Since: DATE", 200),
            ("If-Modified-Since: DATE", 304),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
            ("If-Match: TAG", 200),
            ("If-Match: *", 200),
            ("If-Match: W/TAG", 412),
            ("If-Match: \"x\"", 412),
            ("If-Match: \"x\"; If-None-Match: TAG", 412),
            ("If-Unmodified-Since: DATE", 200),
            ("If-Unmodified-Since: Sunday, 06-Nov-94 08:49:36 GMT", 412),
            ("If-Unmodified-Since: Sunday, 06-Nov-94 08:49:36 GMT; If-Match: TAG", 200),
        ] {
            let lines = lines.replace("TAG", &tag).replace("DATE", DATE).replace("; ", "\r\n");
            for method in ["GET", "HEAD"] {
                let response = ask(&mut client, method, &path, &format!("{lines}\r\n"));
                assert_eq!(response.status, status, "{method} {path} {lines}");
                match status {
                    304 => {
                        assert_eq!(response.header("etag"), Some(&*tag));
                        assert_eq!(response.header("content-type"), None);
                    }
                    200 if method == "GET" => assert!(response.body == content(size)),
                    _ => {}
                }
            }
        }
    }
}

/// The parts of a multipart content: `Content-Range` and bytes of each.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let content_type = response.header("content-type").expect("a type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("parts");
    // The first delimiter has no line end in front of it.
    let body = [b"\r\n", &response.body[..]].concat();
    let delimiter = format!("\r\n--{boundary}");
    let mut pieces = split(&body, delimiter.as_bytes());
    assert_eq!(pieces.pop(), Some(&b"--\r\n"[..]), "the end");
    assert_eq!(pieces.remove(0), b"", "nothing in front");
    let part = |piece: &[u8]| {
        let [head, bytes] = split(piece, b"\r\n\r\n")[..] else { panic!("a head and bytes") };
        let head = String::from_utf8_lossy(head).into_owned();
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: "));
        assert!(head.contains("Content-Type: text/plain; charset=utf-8"), "{head}");
        (range.expect("a range").to_owned(), bytes.to_vec())
    };
    pieces.into_iter().map(part).collect()
}

fn split<'b>(mut bytes: &'b [u8], separator: &[u8]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    while let Some(at) = bytes.windows(separator.len()).position(|window| window == separator) {
        pieces.push(&bytes[..at]);
        bytes = &bytes[at + separator.len()..];
    }
    pieces.push(bytes);
    pieces
}

fn ranges_are_parts_of_the_file(mode: Mode) {
    let server = start(mode, "", with_both_sizes);
    let mut client = server.connect();
    for (name, size) in SIZES {
        let (path, whole) = (format!("/{name}"), content(size));
        let tag = client.get(&path).header("etag").expect("a tag").to_owned();
        let end = size - 1;
        for (range, first, last) in [
            ("0-0".to_owned(), 0, 0),
            ("5-".to_owned(), 5, end),
            ("-7".to_owned(), size - 7, end),
            ("0-18446744073709551615".to_owned(), 0, end),
            (format!("{end}-{size}"), end, end),
            ("0-9,10-19,5-30".to_owned(), 0, 30),
        ] {
            let response = get(&mut client, &path, &format!("Range: bytes={range}\r\n"));
            let expected = format!("bytes {first}-{last}/{size}");
            assert_eq!(
                (response.status, response.header("content-range")),
                (206, Some(&*expected))
            );
            assert!(response.body == whole[first..=last], "{path} {range}");
            assert_eq!(response.header("etag"), Some(&*tag));
        }
        let range = format!("Range: bytes=0-4, 500-509,-3,{size}-\r\n");
        let response = get(&mut client, &path, &range);
        assert_eq!((response.status, response.header("content-range")), (206, None));
        let expected = [(0, 4), (500, 509), (size - 3, end)].map(|(first, last)| {
            (format!("bytes {first}-{last}/{size}"), whole[first..=last].to_vec())
        });
        assert!(parts(&response) == expected, "{path}");
        for unsatisfiable in ["-0".to_owned(), format!("{size}-"), "99999999-".to_owned()] {
            let range = format!("Range: bytes={unsatisfiable}\r\n");
            let response = get(&mut client, &path, &range);
            let expected = format!("bytes */{size}");
            assert_eq!(
                (response.status, response.header("content-range")),
                (416, Some(&*expected))
            );
            assert_eq!(ask(&mut client, "HEAD", &path, &range).status, 200);
        }
        let many = "0-,".repeat(1300);
        for (ignored, more) in [
            ("bytes=5-2", ""),
            ("bytes=abc", ""),
            ("items=0-1", ""),
            (&*format!("bytes={many}"), ""),
            ("bytes=0-1", "If-Range: \"x\"\r\n"),
            ("bytes=0-1", &*format!("If-Range: W/{tag}\r\n")),
            ("bytes=0-1", "If-Range: Sun, 06 Nov 1994 08:49:38 GMT\r\n"),
            ("bytes=0-1\r\nRange: bytes=0-1", ""),
        ] {
            let response = get(&mut client, &path, &format!("Range: {ignored}\r\n{more}"));
            assert_eq!((response.status, response.header("content-range")), (200, None), "{more}");
            assert!(response.body == whole, "{path} {ignored}");
        }
        for same in [&*tag, DATE] {
            let lines = format!("Range: bytes=1-2\r\nIf-Range: {same}\r\n");
            assert_eq!(get(&mut client, &path, &lines).status, 206, "{same}");
        }
        let head = ask(&mut client, "HEAD", &path, "Range: bytes=0-0\r\n");
        assert_eq!((head.status, head.header("content-length")), (200, Some(&*size.to_string())));
    }
}

fn a_file_is_sent_in_the_form_that_its_client_wants_most(mode: Mode) {
    let server = start(mode, "", |root| {
        write(root.join("a.js"), "plain");
        write(root.join("a.js.gz"), "by gzip");
        write(root.join("a.js.br"), "by brotli");
        write(root.join("large.css"), content(300_000));
        write(root.join("large.css.zst"), content(200_000));
        write(root.join("alone.js"), "alone");
    });
    let mut client = server.connect();
    let mut tags = Vec::new();
    for (accept, coding, body) in [
        ("gzip", Some("gzip"), "by gzip"),
        ("gzip, br;q=0.9", Some("gzip"), "by gzip"),
        ("gzip, br", Some("br"), "by brotli"),
        ("zstd", None, "plain"),
        ("identity, br;q=0.9", None, "plain"),
        ("identity;q=0, *", Some("br"), "by brotli"),
    ] {
        let lines = format!("Accept-Encoding: {accept}\r\n");
        let response = get(&mut client, "/a.js", &lines);
        assert_eq!((response.status, response.text()), (200, body), "{accept}");
        assert_eq!(response.header("content-encoding"), coding, "{accept}");
        assert_eq!(response.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(response.header("vary"), Some("Accept-Encoding"));
        let tag = response.header("etag").expect("a tag").to_owned();
        let same = get(&mut client, "/a.js", &format!("{lines}If-None-Match: {tag}\r\n"));
        assert_eq!((same.status, same.header("vary")), (304, Some("Accept-Encoding")));
        let part = get(&mut client, "/a.js", &format!("{lines}Range: bytes=1-2\r\n"));
        assert_eq!((part.status, part.text()), (206, &body[1..3]));
        assert_eq!(part.header("content-encoding"), coding);
        assert_eq!(part.header("vary"), Some("Accept-Encoding"));
        tags.push((coding, tag));
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "a tag for each form: {tags:?}");
    let none = get(&mut client, "/a.js", "Accept-Encoding: zstd, identity;q=0\r\n");
    assert_eq!((none.status, none.header("vary")), (406, Some("Accept-Encoding")));
    let large = get(&mut client, "/large.css", "Accept-Encoding: zstd\r\n");
    assert!(large.body == content(200_000) && large.header("content-encoding") == Some("zstd"));
    assert_eq!(client.get("/alone.js").header("vary"), None);
}

fn names_of_any_bytes_are_found_and_hidden_ones_are_not(mode: Mode) {
    let fill = |root: &Path| {
        for name in [&b"a b.txt"[..], "\u{fc}\u{4e2d}.txt".as_bytes(), b"\xff\xfe.txt", b"100%.txt"]
        {
            write(root.join(OsStr::from_bytes(name)), name);
        }
        for name in [".env", ".git/config", "a/.hidden", ".well-known/security.txt"] {
            write(root.join(name), name);
        }
        write(root.join("file.txt"), "file");
    };
    let server = start(mode, "", fill);
    for (target, name) in [
        ("/a%20b.txt", &b"a b.txt"[..]),
        ("/%C3%BC%e4%b8%ad.txt", "\u{fc}\u{4e2d}.txt".as_bytes()),
        ("/%ff%fe.txt", b"\xff\xfe.txt"),
        ("/100%25.txt", b"100%.txt"),
        ("/.well-known/security.txt", b".well-known/security.txt"),
    ] {
        assert!(server.get(target).body == name, "{target}");
    }
    for (target, status) in [
        ("/.env", 404),
        ("/.git/config", 404),
        ("/%2egit/config", 404),
        ("/a/.hidden", 404),
        ("/file.txt/", 404),
        ("/file.txt/x", 404),
        ("/a%00.html", 400),
        ("/file.txt%00", 400),
        ("/%252e%252e/x", 404),
    ] {
        assert_eq!(server.get(target).status, status, "{target}");
    }
    let server = start(mode, "dotfiles = true", fill);
    assert_eq!(server.get("/.env").text(), ".env");
}

fn a_folder_is_answered_by_what_is_in_it(mode: Mode) {
    let fill = |root: &Path| {
        write(root.join("index.html"), "root");
        write(root.join("a/index.html"), "a");
        write(root.join("b c/default.htm"), "b");
        write(root.join("list/x<y.txt"), "x");
        write(root.join("list/z/w"), "w");
        write(root.join("list/.hidden"), "h");
    };
    let lines = "index = [\"index.html\", \"default.htm\"]\nlisting = true";
    let server = start(mode, lines, fill);
    let mut client = server.connect();
    for (target, text) in [("/", "root"), ("/a/", "a"), ("/b%20c/", "b")] {
        let response = client.get(target);
        assert_eq!((response.status, response.text()), (200, text), "{target}");
        assert_eq!(response.header("cache-control"), Some("no-cache"));
    }
    for (target, location) in [
        ("/a", "/a/"),
        ("/a?x=1&y", "/a/?x=1&y"),
        ("/b%20c", "/b%20c/"),
        ("//a", "/a/"),
        ("//host/../a", "/a/"),
        ("/%2f/a", "/a/"),
        ("http://other/a", "/a/"),
    ] {
        let response = client.get(target);
        let found = (response.status, response.header("location"));
        assert_eq!(found, (308, Some(location)), "{target}");
    }
    let page = client.get("/list/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("'none'")));
    assert_eq!(page.header("vary"), Some("Accept"));
    let expected = "<a href=\"./x%3Cy.txt\"><bdi>x&lt;y.txt</bdi></a>";
    assert!(page.text().contains(expected) && page.text().contains("href=\"./z/\""), "{page:?}");
    assert!(!page.text().contains("hidden"), "{page:?}");
    let json = get(&mut client, "/list/?sort=name&order=desc", "Accept: application/json\r\n");
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert!(
        json.text().starts_with("{\"path\":\"/list/\",\"entries\":[{\"name\":\"z\","),
        "{json:?}"
    );
    let server = start(mode, "", fill);
    assert_eq!(server.get("/list/").status, 404);
}

fn what_is_not_there_is_answered_by_what_stands_in_for_it(mode: Mode) {
    let fill = |root: &Path| {
        write(root.join("index.html"), "the application");
        write(root.join("404.html"), "nothing here");
        write(root.join("about.html"), "about us");
        write(root.join("img/x"), "img");
    };
    let html = "Accept: text/html\r\n";
    let lines = "fallback = \"index.html\"\nnot_found = \"404.html\"\nclean_urls = true";
    let server = start(mode, lines, fill);
    let mut client = server.connect();
    for (target, lines, status, text) in [
        ("/users/7", html, 200, "the application"),
        ("/users/7", "Accept: application/json\r\n", 404, "nothing here"),
        ("/users/7", "Accept: */*\r\nSec-Fetch-Mode: cors\r\n", 404, "nothing here"),
        ("/assets/x.js", html, 404, "nothing here"),
        ("/about", html, 200, "about us"),
        ("/about.html", html, 200, "about us"),
        ("/img../x", "Accept: a/b\r\n", 404, "nothing here"),
        ("/img/x", "", 200, "img"),
    ] {
        let response = get(&mut client, target, lines);
        assert_eq!((response.status, response.text()), (status, text), "{target} {lines}");
        let vary = response.header("vary");
        let varies = status == 404 || text == "the application";
        assert_eq!(vary, varies.then_some("Accept, Sec-Fetch-Mode"), "{target}");
        if status == 404 {
            assert_eq!(response.header("etag"), None, "no form of a file");
        }
    }
    let head = ask(&mut client, "HEAD", "/users/7", html);
    assert_eq!((head.status, head.header("content-length")), (200, Some("15")));
    // Neither conditions nor ranges are those of what stands for an error.
    let lines = "Range: bytes=0-1\r\nIf-None-Match: *\r\n";
    assert_eq!(get(&mut client, "/assets/x.js", lines).text(), "nothing here");
    let server = start(mode, "", fill);
    for target in ["/users/7", "/about"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

fn how_long_something_is_kept_is_a_setting(mode: Mode) {
    let lines = "cache_control = { \"/assets/*\" = \"max-age=31536000, immutable\", \"*.png\" = \"max-age=60\" }";
    let server = start(mode, lines, |root| {
        for name in ["assets/a.js", "b.png", "c.js", "app.3f2a9c1e.js", "d.html"] {
            write(root.join(name), name);
        }
    });
    let mut client = server.connect();
    for (path, expected) in [
        ("/assets/a.js", Some("max-age=31536000, immutable")),
        ("/b.png", Some("max-age=60")),
        ("/c.js", None),
        ("/app.3f2a9c1e.js", None),
        ("/d.html", Some("no-cache")),
    ] {
        let response = client.get(path);
        assert_eq!(response.header("cache-control"), expected, "{path}");
        let tag = response.header("etag").expect("a tag");
        let same = get(&mut client, path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((same.status, same.header("cache-control")), (304, expected), "{path}");
    }
}

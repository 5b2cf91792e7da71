//! Conditional requests and ranges held against nginx's answers to the same: a grid of them, and each difference with its
//! reason.

mod harness;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::{Duration, UNIX_EPOCH};

use harness::{Client, Front, Mode, Response, Setup};

/// Sun, 06 Nov 1994 08:49:37 GMT
const MODIFIED: Duration = Duration::from_secs(784_111_777);
const SIZE: usize = 10_000;

/// `DATE` is that of the file, `TAG` its tag as that server has it.
const CONDITIONS: &[&str] = &[
    "",
    "If-Match: TAG",
    "If-Match: \"x\"",
    "If-Match: \"x\", TAG",
    "If-Match: W/TAG",
    "If-Match: *",
    "If-Unmodified-Since: DATE",
    "If-Unmodified-Since: BEFORE",
    "If-Unmodified-Since: AFTER",
    "If-Unmodified-Since: yesterday",
    "If-None-Match: TAG",
    "If-None-Match: \"x\"",
    "If-None-Match: W/TAG",
    "If-None-Match: \"x\", TAG",
    "If-None-Match: *",
    "If-Modified-Since: DATE",
    "If-Modified-Since: BEFORE",
    "If-Modified-Since: AFTER",
    "If-Modified-Since: now",
    "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT",
    "If-Modified-Since: Sun Nov  6 08:49:37 1994",
    "If-Range: TAG",
    "If-Range: \"x\"",
    "If-Range: W/TAG",
    "If-Range: DATE",
    "If-Range: BEFORE",
    "If-Range: AFTER",
    "If-Match: TAG; If-None-Match: TAG",
    "If-Match: \"x\"; If-None-Match: TAG",
    "If-Match: TAG; If-Unmodified-Since: BEFORE",
    "If-None-Match: TAG; If-Modified-Since: BEFORE",
    "If-None-Match: \"x\"; If-Modified-Since: DATE",
    "If-Range: TAG; If-None-Match: \"x\"",
];

const RANGES: &[&str] = &[
    "",
    "bytes=0-0",
    "bytes=5-",
    "bytes=-7",
    "bytes=9999-10000",
    "bytes=0-99999999999",
    "bytes=10000-",
    "bytes=-0",
    "bytes=5-2",
    "bytes=abc",
    "items=0-1",
    "bytes=0-4,500-509,-3",
    "bytes=0-9,5-19",
    "bytes=10000-,1-2",
];

/// What is compared of a response: its status, what of the file it has, and what it says of that.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    parts: Vec<(String, Vec<u8>)>,
    modified: Option<String>,
    has_tag: bool,
}

/// What a request asks for.
struct Asked {
    method: &'static str,
    condition: &'static str,
    range: &'static str,
}

/// Why an answer may differ from nginx's, and which requests and answers that is for: ours, and nginx's.
type Reason = (&'static str, fn(&Asked, &Answer, &Answer) -> bool);

const REASONS: &[Reason] = &[
    ("HEAD ignores Range (RFC 9110 §14.2)", |asked, ours, theirs| {
        asked.method == "HEAD"
            && !asked.range.is_empty()
            && ours.status == 200
            && matches!(theirs.status, 206 | 416)
    }),
    ("a malformed set of ranges is ignored (RFC 9110 §14.2)", |asked, ours, theirs| {
        let is_malformed = matches!(asked.range, "bytes=5-2" | "bytes=abc" | "items=0-1");
        asked.method == "GET" && is_malformed && (ours.status, theirs.status) == (200, 416)
    }),
    ("ranges that overlap become one (RFC 9110 §15.3.7.2)", |asked, ours, theirs| {
        asked.range == "bytes=0-9,5-19" && (ours.status, theirs.status) == (206, 206)
    }),
    ("a date that is none is ignored (RFC 9110 §13.1.4)", |asked, _, theirs| {
        asked.condition == "If-Unmodified-Since: yesterday" && theirs.status == 412
    }),
    ("If-Unmodified-Since is ignored beside If-Match (RFC 9110 §13.1.4)", |asked, _, theirs| {
        asked.condition == "If-Match: TAG; If-Unmodified-Since: BEFORE" && theirs.status == 412
    }),
    (
        "If-Modified-Since is ignored beside If-None-Match (RFC 9110 §13.1.3)",
        |asked, ours, theirs| {
            asked.condition == "If-None-Match: TAG; If-Modified-Since: BEFORE"
                && ours.status == 304
                && theirs.status != 304
        },
    ),
    ("a 304 with a tag needs no date (RFC 9110 §15.4.5)", |_, ours, theirs| {
        let both = (ours.status, theirs.status) == (304, 304) && ours.has_tag && theirs.has_tag;
        both && ours.modified.is_none()
    }),
];

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| b'a' + ((at + at / 251) % 26) as u8).collect()
}

/// The parts of the file that a response has: the range that each states, and its bytes.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let content_type = response.header("content-type").unwrap_or_default();
    let Some((_, boundary)) = content_type.split_once("multipart/byteranges; boundary=") else {
        let range = response.header("content-range").unwrap_or("whole").to_owned();
        return vec![(range, response.body.clone())];
    };
    let body = String::from_utf8(response.body.clone()).expect("a file of letters");
    let delimiter = format!("--{boundary}");
    let pieces = body.split(&delimiter).filter_map(|piece| {
        let (head, rest) = piece.split_once("\r\n\r\n")?;
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: "))?;
        let bytes = rest.strip_suffix("\r\n")?.as_bytes().to_vec();
        Some((range.to_owned(), bytes))
    });
    pieces.collect()
}

fn answer(client: &mut Client, tag: &str, asked: &Asked) -> Answer {
    let condition = asked
        .condition
        .replace("TAG", tag)
        .replace("BEFORE", "Sun, 06 Nov 1994 08:49:36 GMT")
        .replace("AFTER", "Sun, 06 Nov 1994 08:49:38 GMT")
        .replace("DATE", "Sun, 06 Nov 1994 08:49:37 GMT");
    let lines: String = condition
        .split("; ")
        .filter(|line| !line.is_empty())
        .fold(String::new(), |lines, line| format!("{lines}{line}\r\n"));
    let range = match asked.range {
        "" => String::new(),
        range => format!("Range: {range}\r\n"),
    };
    let method = asked.method;
    client.send(format!("{method} /file.txt HTTP/1.1\r\nHost: a\r\n{lines}{range}\r\n"));
    let response = client.response_to(method);
    let has_file = matches!(response.status, 200 | 206);
    let parts = match has_file {
        true => parts(&response),
        false => vec![(response.header("content-range").unwrap_or("none").to_owned(), vec![])],
    };
    // Pages that explain an error have fields of their own.
    let is_error = response.status >= 400;
    let field = |name: &str| response.header(name).filter(|_| !is_error).map(ToOwned::to_owned);
    Answer {
        status: response.status,
        parts,
        modified: field("last-modified"),
        has_tag: field("etag").is_some(),
    }
}

#[test]
fn conditions_and_ranges_are_answered_as_nginx_does_but_for_reasons() {
    let setup = Setup::new(Mode::THREADS).config("");
    let root = setup.scratch().path().to_owned();
    let file = root.join("file.txt");
    fs::write(&file, content()).expect("a file");
    let opened = File::options().write(true).open(&file).expect("the file");
    opened.set_modified(UNIX_EPOCH + MODIFIED).expect("a time");
    let config = format!(
        "http {{ access_log off; types {{ text/plain txt; }} if_modified_since before;\n\
         server {{ listen ADDRESS; root {}; }} }}",
        root.display()
    );
    let Some(nginx) = Front::nginx(&config) else { return };
    let server = setup.route("/*", &format!("files = \"{}\"", root.display())).start();
    let mut ours = server.connect();
    let tag_of =
        |client: &mut Client| client.get("/file.txt").header("etag").expect("a tag").to_owned();
    let (our_tag, their_tag) = (tag_of(&mut ours), tag_of(&mut nginx.connect()));
    let mut used = BTreeMap::new();
    let mut unexplained = Vec::new();
    let mut count = 0;
    for method in ["GET", "HEAD"] {
        for condition in CONDITIONS {
            for range in RANGES {
                count += 1;
                let asked = Asked { method, condition, range };
                let ours = answer(&mut ours, &our_tag, &asked);
                let theirs = answer(&mut nginx.connect(), &their_tag, &asked);
                if ours == theirs {
                    continue;
                }
                match REASONS.iter().find(|(_, explains)| explains(&asked, &ours, &theirs)) {
                    Some((reason, _)) => *used.entry(*reason).or_insert(0) += 1,
                    None => unexplained.push(format!(
                        "{method} [{condition}] [{range}]: {} {:?} {:?}, nginx {} {:?} {:?}",
                        ours.status,
                        ours.parts.iter().map(|(range, _)| range).collect::<Vec<_>>(),
                        (ours.modified, ours.has_tag),
                        theirs.status,
                        theirs.parts.iter().map(|(range, _)| range).collect::<Vec<_>>(),
                        (theirs.modified, theirs.has_tag),
                    )),
                }
            }
        }
    }
    assert!(count >= 500, "{count} requests");
    assert!(unexplained.is_empty(), "{} differ:\n{}", unexplained.len(), unexplained.join("\n"));
    for (reason, _) in REASONS {
        assert!(used.contains_key(reason), "nothing differs any more because {reason}: {used:?}");
    }
}

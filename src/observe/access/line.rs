//! A line of the access log, in either format. What a client has sent is escaped and cut here, so that a line is never
//! longer than the kernel writes in one piece.
//!
//! A line is made in one place of memory, so that no part of it is moved: it is begun when the head of its request is whole,
//! with room for the time near its start, and ended when the request is over.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;

use super::escape::{put_combined, put_json};
use super::number::{fraction, put_ip, put_number, put_seconds};
use crate::config::AccessFormat;

// What is left of a text in a line, in bytes with its escapes. With all else they stay below `LINE_BYTES_MAX`.
const METHOD_BYTES_MAX: usize = 32;
const HOST_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 1536;
const REFERRER_BYTES_MAX: usize = 1024;
const AGENT_BYTES_MAX: usize = 512;

/// What is known of a request before it is answered. What isn't known is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'r> {
    /// Who is at the other end of the connection; `None` if that has no address.
    pub remote: Option<SocketAddr>,
    /// Who has sent the request, by what a proxy that is believed says.
    pub client: Option<IpAddr>,
    /// The version, as in a request line.
    pub version: &'r [u8],
    /// As above.
    pub method: &'r [u8],
    /// What it is sent to, with the port if there is one.
    pub host: &'r [u8],
    /// As it came.
    pub target: &'r [u8],
    /// `Referer`
    pub referrer: &'r [u8],
    /// `User-Agent`
    pub agent: &'r [u8],
    /// `X-Request-Id`
    pub request_id: &'r [u8],
}

/// What is known of a request when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The status of its response, or [`CLIENT_GONE`].
    pub status: u16,
    /// Bytes of its body that came, without framing.
    pub body_bytes: u64,
    /// Bytes of its response, without the head.
    pub bytes: u64,
    /// From its head to the last byte of its response, in microseconds.
    pub duration_us: u64,
    /// Its response didn't leave as a whole.
    pub is_aborted: bool,
}

/// The status of a request whose client went before there was a response, as nginx has it.
pub const CLIENT_GONE: u16 = 499;

/// How a line of JSON begins, if nothing failed: with a level, and a time behind it.
const JSON_START: &str = "{\"level\":\"info\",\"ts\":";
const LEVEL: Range<usize> = 10..14;
/// `1234567890.123456`: all seconds from 2001 to 2286 have ten digits. Fewer stand behind spaces.
const TIME_JSON_BYTES: usize = 17;
const SECONDS_MAX: u64 = 9_999_999_999;
/// `[06/Nov/1994:08:49:37 +0000]`
const TIME_COMBINED_BYTES: usize = 28;
/// More than the end of a line has, whatever the numbers in it are.
const END_BYTES_MAX: usize = 128;
/// As much as most lines have before that, besides the texts of their clients.
const START_BYTES: usize = 352;

/// A line on its way.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Once it is ended, the line.
    pub(super) text: Vec<u8>,
    /// Where its time has its place.
    time_at: u32,
    /// Where its status and its size come in, and where it ends: of the combined format alone.
    size_at: u32,
    end_at: u32,
    /// Where the request's id stands, which is behind the line where the format has no place for it.
    id: (u32, u32),
}

impl Line {
    /// The request's id, until the line is ended.
    pub(super) fn id(&self) -> &[u8] {
        &self.text[self.id.0 as usize..self.id.1 as usize]
    }

    fn here(&self) -> u32 {
        self.text.len() as u32
    }

    fn put(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn put_id(&mut self, id: &[u8]) {
        let start = self.here();
        self.text.extend_from_slice(id);
        self.id = (start, self.here());
    }

    fn put_addresses(&mut self, seen: &Seen<'_>) {
        if let Some(remote) = seen.remote {
            let start = self.text.len();
            put_ip(&mut self.text, remote.ip());
            let ip = start..self.text.len();
            self.put("\",\"remote_port\":\"");
            put_number(&mut self.text, remote.port().into());
            self.put("\",\"client_ip\":\"");
            if seen.client == Some(remote.ip()) {
                return self.text.extend_from_within(ip);
            }
        } else {
            self.put("\",\"remote_port\":\"\",\"client_ip\":\"");
        }
        if let Some(client) = seen.client {
            put_ip(&mut self.text, client);
        }
    }

    fn begin_json(&mut self, start: &str, seen: &Seen<'_>, id: &[u8]) {
        self.put(start);
        self.time_at = JSON_START.len() as u32;
        self.put_addresses(seen);
        self.put("\",\"proto\":\"");
        put_json(&mut self.text, seen.version, METHOD_BYTES_MAX);
        self.put("\",\"method\":\"");
        put_json(&mut self.text, seen.method, METHOD_BYTES_MAX);
        self.put("\",\"host\":\"");
        put_json(&mut self.text, seen.host, HOST_BYTES_MAX);
        self.put("\",\"uri\":\"");
        put_json(&mut self.text, seen.target, TARGET_BYTES_MAX);
        self.put("\",\"headers\":{");
        if !seen.agent.is_empty() {
            self.put("\"User-Agent\":[\"");
            put_json(&mut self.text, seen.agent, AGENT_BYTES_MAX);
            self.put(if seen.referrer.is_empty() { "\"]" } else { "\"]," });
        }
        if !seen.referrer.is_empty() {
            self.put("\"Referer\":[\"");
            put_json(&mut self.text, seen.referrer, REFERRER_BYTES_MAX);
            self.put("\"]");
        }
        self.put("}},\"user_id\":\"\",\"request_id\":\"");
        self.put_id(id);
        self.put("\",\"bytes_read\":");
    }

    fn begin_combined(&mut self, seen: &Seen<'_>, id: &[u8]) {
        match seen.client {
            Some(client) => put_ip(&mut self.text, client),
            None => self.put("-"),
        }
        self.put(" - - ");
        self.time_at = self.here();
        self.text.extend_from_slice(&[b' '; TIME_COMBINED_BYTES]);
        self.put(" \"");
        if seen.method.is_empty() {
            // What is no request line stands as it came.
            put_combined(&mut self.text, seen.target, TARGET_BYTES_MAX);
        } else {
            put_combined(&mut self.text, seen.method, METHOD_BYTES_MAX);
            self.put(" ");
            put_combined(&mut self.text, seen.target, TARGET_BYTES_MAX);
            self.put(" ");
            put_combined(&mut self.text, seen.version, METHOD_BYTES_MAX);
        }
        self.put("\" ");
        self.size_at = self.here();
        self.put(" \"");
        put_combined(&mut self.text, seen.referrer, REFERRER_BYTES_MAX);
        self.put("\" \"");
        put_combined(&mut self.text, seen.agent, AGENT_BYTES_MAX);
        self.put("\"\n");
        self.end_at = self.here();
        self.put_id(id);
    }

    fn end_json(&mut self, told: &Told) {
        let text = &mut self.text;
        put_number(text, told.body_bytes);
        text.extend_from_slice(b",\"duration\":");
        put_seconds(text, told.duration_us);
        text.extend_from_slice(b",\"size\":");
        put_number(text, told.bytes);
        text.extend_from_slice(b",\"status\":");
        put_number(text, told.status.into());
        let end: &str =
            if told.is_aborted { ",\"aborted\":true}\n" } else { ",\"aborted\":false}\n" };
        text.extend_from_slice(end.as_bytes());
        if told.status >= 500 {
            text.splice(LEVEL, *b"error");
        }
    }

    fn end_combined(&mut self, told: &Told) {
        let text = &mut self.text;
        text.truncate(self.end_at as usize);
        put_number(text, told.status.into());
        text.push(b' ');
        put_number(text, told.bytes);
        // What came last stands before what the client has sent.
        let count = text.len() - self.end_at as usize;
        text[self.size_at as usize..].rotate_right(count);
    }
}

/// What makes the lines of a lane.
pub(super) struct Renderer {
    format: AccessFormat,
    /// How each line begins, up to the address of its client.
    start: String,
    /// The second of the last line, and the time of it as far as that is the same in all lines of the second.
    second: u64,
    time: Vec<u8>,
}

impl Renderer {
    pub(super) fn new(format: AccessFormat, lane: usize) -> Renderer {
        let time = " ".repeat(TIME_JSON_BYTES);
        let start = format!(
            "{JSON_START}{time},\"logger\":\"http.log.access\",\"msg\":\"handled request\",\"lane\":{lane},\
             \"request\":{{\"remote_ip\":\""
        );
        Renderer { format, start, second: u64::MAX, time: Vec::new() }
    }

    /// Begins the line of a request, in place of what was in `line`.
    pub(super) fn begin(&self, line: &mut Line, seen: &Seen<'_>, id: &[u8]) {
        line.text.clear();
        let texts = [seen.host, seen.target, seen.referrer, seen.agent, id];
        let bytes = START_BYTES + END_BYTES_MAX + texts.map(<[u8]>::len).iter().sum::<usize>();
        line.text.reserve(bytes);
        match self.format {
            AccessFormat::Json => line.begin_json(&self.start, seen, id),
            AccessFormat::Combined => line.begin_combined(seen, id),
        }
        // Escapes may have taken it.
        line.text.reserve(END_BYTES_MAX);
    }

    /// Ends the line of a request that is over at this time, since 1970.
    pub(super) fn end(&mut self, line: &mut Line, told: &Told, now: Duration) {
        let second = now.as_secs().min(SECONDS_MAX);
        if second != self.second {
            self.begin_second(second);
        }
        let at = line.time_at as usize;
        let count = self.time.len();
        line.text[at..at + count].copy_from_slice(&self.time);
        match self.format {
            AccessFormat::Json => {
                let fraction = fraction(now.subsec_micros().into());
                line.text[at + count..at + TIME_JSON_BYTES].copy_from_slice(&fraction);
                line.end_json(told);
            }
            AccessFormat::Combined => line.end_combined(told),
        }
    }

    /// Makes the part of a time that all lines of a second share.
    fn begin_second(&mut self, second: u64) {
        self.second = second;
        self.time.clear();
        match self.format {
            AccessFormat::Json => {
                // Writing to a Vec can't fail.
                let _ = write!(self.time, "{second:10}");
            }
            AccessFormat::Combined => {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
                // `Sun, 06 Nov 1994 08:49:37 GMT`: every part has its place (RFC 9110 §5.6.7).
                let mut date = [b' '; 29];
                let _ = write!(&mut date[..], "{}", HttpDate::from(now));
                let [day, month, year, time] = [5..7, 8..11, 12..16, 17..25].map(|of| &date[of]);
                let parts = [&b"["[..], day, b"/", month, b"/", year, b":", time, b" +0000]"];
                parts.iter().for_each(|part| self.time.extend_from_slice(part));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request_id::ID_BYTES_MAX;
    use super::super::ring::LINE_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const TOLD: Told =
        Told { status: 200, body_bytes: 17, bytes: 21, duration_us: 1_234, is_aborted: false };
    const NOW: Duration = Duration::new(1_784_111_777, 12_345_000);

    fn seen() -> Seen<'static> {
        let remote = Some(([192, 0, 2, 1], 4711).into());
        Seen {
            remote,
            client: Some([198, 51, 100, 7].into()),
            version: b"HTTP/1.1",
            method: b"GET",
            host: b"example.org",
            target: b"/a?b=\"c",
            referrer: b"http://a/",
            agent: b"curl/8",
            request_id: b"",
        }
    }

    fn line(format: AccessFormat, seen: &Seen<'_>, told: &Told, id: &[u8]) -> String {
        let (mut renderer, mut line) = (Renderer::new(format, 3), Line::default());
        line.put("the line before");
        renderer.begin(&mut line, seen, id);
        assert_eq!(line.id(), id);
        let room = line.text.capacity();
        renderer.end(&mut line, told, NOW);
        assert_eq!(line.text.capacity(), room, "there was room for its end");
        String::from_utf8(line.text).expect("UTF-8")
    }

    #[test]
    fn a_line_of_json_has_the_names_of_caddy_and_a_few_of_its_own() {
        let expected = "{\"level\":\"info\",\"ts\":1784111777.012345,\"logger\":\"http.log.access\",\
            \"msg\":\"handled request\",\"lane\":3,\"request\":{\"remote_ip\":\"192.0.2.1\",\"remote_port\":\"4711\",\
            \"client_ip\":\"198.51.100.7\",\"proto\":\"HTTP/1.1\",\"method\":\"GET\",\"host\":\"example.org\",\
            \"uri\":\"/a?b=\\\"c\",\"headers\":{\"User-Agent\":[\"curl/8\"],\"Referer\":[\"http://a/\"]}},\
            \"user_id\":\"\",\"request_id\":\"abc\",\"bytes_read\":17,\"duration\":0.001234,\"size\":21,\"status\":200,\
            \"aborted\":false}\n";
        assert_eq!(line(AccessFormat::Json, &seen(), &TOLD, b"abc"), expected);
        let nothing = line(AccessFormat::Json, &Seen::default(), &TOLD, b"");
        let value: Value = serde_json::from_str(&nothing).expect("JSON");
        assert_eq!(value["request"]["uri"], "");
        assert_eq!(value["request"]["headers"], serde_json::json!({}));
        let failed = line(AccessFormat::Json, &seen(), &Told { status: 503, ..TOLD }, b"abc");
        let as_failed = expected.replacen("info", "error", 1).replacen("200", "503", 1);
        assert_eq!(failed, as_failed);
        let direct = Seen { client: seen().remote.map(|of| of.ip()), ..seen() };
        let direct = line(AccessFormat::Json, &direct, &TOLD, b"abc");
        assert_eq!(direct, expected.replacen("198.51.100.7", "192.0.2.1", 1));
    }

    #[test]
    fn a_line_of_the_combined_format_is_what_nginx_writes() {
        let expected = "198.51.100.7 - - [15/Jul/2026:10:36:17 +0000] \"GET /a?b=\\x22c HTTP/1.1\" 200 21 \
                        \"http://a/\" \"curl/8\"\n";
        assert_eq!(line(AccessFormat::Combined, &seen(), &TOLD, b"abc"), expected);
        let expected = "- - - [15/Jul/2026:10:36:17 +0000] \"-\" 200 21 \"-\" \"-\"\n";
        assert_eq!(line(AccessFormat::Combined, &Seen::default(), &TOLD, b""), expected);
    }

    #[test]
    fn any_time_is_a_number_of_json() {
        let mut renderer = Renderer::new(AccessFormat::Json, 0);
        for (seconds, expected) in [
            (0, 0.0),
            (59, 59.0),
            (784_111_777, 784_111_777.0),
            (9_999_999_999, 9_999_999_999.0),
            (1 << 60, 9_999_999_999.0),
        ] {
            let mut line = Line::default();
            renderer.begin(&mut line, &seen(), b"id");
            renderer.end(&mut line, &TOLD, Duration::from_secs(seconds));
            let value: Value = serde_json::from_slice(&line.text).expect("JSON");
            assert_eq!(value["ts"].as_f64(), Some(expected));
            assert_eq!(&line.text[..LEVEL.end], b"{\"level\":\"info");
        }
    }

    #[test]
    fn the_longest_line_is_written_in_one_piece() {
        for text in [&[b'"'; 9_000][..], &[0; 9_000], &[b'a'; 9_000], &[0xff; 9_000]] {
            let remote = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535".parse().ok();
            let seen = Seen {
                remote,
                client: remote.map(|of| of.ip()),
                version: text,
                method: text,
                host: text,
                target: text,
                referrer: text,
                agent: text,
                request_id: text,
            };
            let told = Told {
                status: 599,
                body_bytes: u64::MAX,
                bytes: u64::MAX,
                duration_us: u64::MAX,
                is_aborted: false,
            };
            for format in [AccessFormat::Json, AccessFormat::Combined] {
                let (mut renderer, mut line) = (Renderer::new(format, usize::MAX), Line::default());
                renderer.begin(&mut line, &seen, &[b'a'; ID_BYTES_MAX]);
                renderer.end(&mut line, &told, Duration::from_secs(9_000_000_000));
                let bytes = line.text.len();
                assert!(bytes <= LINE_BYTES_MAX, "{bytes} bytes");
                assert!(bytes > LINE_BYTES_MAX / 2);
            }
        }
    }

    proptest! {
        #[test]
        fn any_request_is_one_line(
            method: Vec<u8>, target: Vec<u8>, host: Vec<u8>, agent: Vec<u8>, referrer: Vec<u8>, status in 100_u16..600,
        ) {
            let seen = Seen {
                method: &method, target: &target, host: &host, agent: &agent, referrer: &referrer, ..seen()
            };
            let told = Told { status, is_aborted: true, ..TOLD };
            let json = line(AccessFormat::Json, &seen, &told, b"id");
            prop_assert!(json.ends_with('\n') && json.matches('\n').count() == 1);
            let value: Value = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(value["status"].as_u64(), Some(status.into()));
            prop_assert_eq!(value["request"]["uri"].as_str().expect("text"), String::from_utf8_lossy(&target));
            let combined = line(AccessFormat::Combined, &seen, &told, b"id");
            prop_assert!(combined.ends_with('\n') && combined.is_ascii());
            prop_assert!(!combined[..combined.len() - 1].contains(|of: char| of.is_control()));
            prop_assert_eq!(combined.matches('"').count(), 6, "{}", combined);
        }
    }
}

//! A line of the access log, in either format. What a client has sent is escaped and cut here, so that a line is never
//! longer than the kernel writes in one piece.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;

use super::escape::{put_combined, put_json};
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
    /// Bytes of its response, without the head.
    pub bytes: u64,
    /// From its head to the last byte of its response, in microseconds.
    pub duration_us: u64,
    /// Its response didn't leave as a whole.
    pub is_aborted: bool,
}

/// The status of a request whose client went before there was a response, as nginx has it.
pub const CLIENT_GONE: u16 = 499;

/// The part of a line that is known before a request is answered, and where what is known later stands in it.
#[derive(Debug, Default)]
pub(super) struct Begun {
    pub(super) text: Vec<u8>,
    cuts: [u32; 2],
    /// Where the request's id stands in it, which is in JSON alone.
    id: (u32, u32),
}

impl Begun {
    /// Renders what is known of a request, in place of what was here.
    pub(super) fn render(&mut self, format: AccessFormat, seen: &Seen<'_>, id: &[u8]) {
        self.text.clear();
        match format {
            AccessFormat::Json => self.render_json(seen, id),
            AccessFormat::Combined => self.render_combined(seen, id),
        }
    }

    /// The request's id.
    pub(super) fn id(&self) -> &[u8] {
        &self.text[self.id.0 as usize..self.id.1 as usize]
    }

    fn cut(&self) -> u32 {
        self.text.len() as u32
    }

    fn put(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn put_id(&mut self, id: &[u8]) {
        let start = self.cut();
        self.text.extend_from_slice(id);
        self.id = (start, self.cut());
    }

    fn render_json(&mut self, seen: &Seen<'_>, id: &[u8]) {
        self.put("\"request\":{\"remote_ip\":\"");
        if let Some(remote) = seen.remote {
            put_ip(&mut self.text, remote.ip());
        }
        self.put("\",\"remote_port\":\"");
        if let Some(remote) = seen.remote {
            put_number(&mut self.text, remote.port().into());
        }
        self.put("\",\"client_ip\":\"");
        if let Some(client) = seen.client {
            put_ip(&mut self.text, client);
        }
        let texts = [
            ("\",\"proto\":\"", seen.version, METHOD_BYTES_MAX),
            ("\",\"method\":\"", seen.method, METHOD_BYTES_MAX),
            ("\",\"host\":\"", seen.host, HOST_BYTES_MAX),
            ("\",\"uri\":\"", seen.target, TARGET_BYTES_MAX),
        ];
        for (key, text, bytes_max) in texts {
            self.put(key);
            put_json(&mut self.text, text, bytes_max);
        }
        self.put("\",\"headers\":{");
        let fields = [
            ("\"User-Agent\":[\"", seen.agent, AGENT_BYTES_MAX),
            ("\"Referer\":[\"", seen.referrer, REFERRER_BYTES_MAX),
        ];
        let mut is_first = true;
        for (key, text, bytes_max) in fields.into_iter().filter(|(_, text, _)| !text.is_empty()) {
            if !std::mem::take(&mut is_first) {
                self.put(",");
            }
            self.put(key);
            put_json(&mut self.text, text, bytes_max);
            self.put("\"]");
        }
        self.put("}},");
        self.cuts = [self.cut(); 2];
        self.put("\"request_id\":\"");
        self.put_id(id);
        self.put("\"");
    }

    fn render_combined(&mut self, seen: &Seen<'_>, id: &[u8]) {
        match seen.client {
            Some(client) => put_ip(&mut self.text, client),
            None => self.put("-"),
        }
        self.put(" - - ");
        let client = self.cut();
        self.put("\"");
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
        self.cuts = [client, self.cut()];
        self.put(" \"");
        put_combined(&mut self.text, seen.referrer, REFERRER_BYTES_MAX);
        self.put("\" \"");
        put_combined(&mut self.text, seen.agent, AGENT_BYTES_MAX);
        self.put("\"\n");
        // Behind the line: the format has no place for it.
        self.put_id(id);
    }
}

/// What renders the lines of a lane.
pub(super) struct Renderer {
    pub(super) format: AccessFormat,
    lane: usize,
    /// The second of the last line in the combined format, and its time.
    second: u64,
    time: Vec<u8>,
}

impl Renderer {
    pub(super) fn new(format: AccessFormat, lane: usize) -> Renderer {
        Renderer { format, lane, second: u64::MAX, time: Vec::new() }
    }

    /// Renders a line of a request that is over at this time (since 1970), in place of what was in `line`.
    pub(super) fn render(&mut self, line: &mut Vec<u8>, begun: &Begun, told: &Told, now: Duration) {
        line.clear();
        let [first, second] = begun.cuts.map(|cut| cut as usize);
        let text = &begun.text;
        match self.format {
            AccessFormat::Json => {
                let level: &[u8] = if told.status >= 500 { b"error" } else { b"info" };
                line.extend_from_slice(b"{\"level\":\"");
                line.extend_from_slice(level);
                line.extend_from_slice(b"\",\"ts\":");
                put_seconds(line, now.as_micros() as u64);
                line.extend_from_slice(
                    b",\"logger\":\"http.log.access\",\"msg\":\"handled request\",",
                );
                line.extend_from_slice(&text[..first]);
                line.extend_from_slice(b"\"user_id\":\"\",\"duration\":");
                put_seconds(line, told.duration_us);
                line.extend_from_slice(b",\"size\":");
                put_number(line, told.bytes);
                line.extend_from_slice(b",\"status\":");
                put_number(line, told.status.into());
                line.extend_from_slice(b",\"lane\":");
                put_number(line, self.lane as u64);
                line.extend_from_slice(b",\"aborted\":");
                line.extend_from_slice(if told.is_aborted { b"true," } else { b"false," });
                line.extend_from_slice(&text[second..]);
                line.extend_from_slice(b"}\n");
            }
            AccessFormat::Combined => {
                line.extend_from_slice(&text[..first]);
                line.extend_from_slice(self.time_of(now));
                line.extend_from_slice(&text[first..second]);
                put_number(line, told.status.into());
                line.push(b' ');
                put_number(line, told.bytes);
                line.extend_from_slice(&text[second..begun.id.0 as usize]);
            }
        }
    }

    /// `[06/Nov/1994:08:49:37 +0000] `
    fn time_of(&mut self, now: Duration) -> &[u8] {
        let second = now.as_secs();
        if second != self.second {
            self.second = second;
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            // `Sun, 06 Nov 1994 08:49:37 GMT`: every part has its place (RFC 9110 §5.6.7).
            let date = HttpDate::from(now).to_string();
            let parts = [&date[5..7], "/", &date[8..11], "/", &date[12..16], ":", &date[17..25]];
            self.time.clear();
            self.time.push(b'[');
            parts.iter().for_each(|part| self.time.extend_from_slice(part.as_bytes()));
            self.time.extend_from_slice(b" +0000] ");
        }
        &self.time
    }
}

/// Adds an address; one of IPv4 that a socket of IPv6 tells as such.
fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            for (index, part) in ip.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                put_number(out, part.into());
            }
        }
        IpAddr::V6(ip) => {
            // Writing to a Vec can't fail.
            let _ = write!(out, "{ip}");
        }
    }
}

/// Adds a number.
fn put_number(out: &mut Vec<u8>, number: u64) {
    const DIGITS_MAX: usize = 20;
    let (mut digits, mut at, mut rest) = ([0; DIGITS_MAX], DIGITS_MAX, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// Adds so many microseconds as seconds.
fn put_seconds(out: &mut Vec<u8>, us: u64) {
    put_number(out, us / 1_000_000);
    let (mut digits, mut rest) = (*b".000000", us % 1_000_000);
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use super::super::request_id::ID_BYTES_MAX;
    use super::super::ring::LINE_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const TOLD: Told = Told { status: 200, bytes: 21, duration_us: 1_234, is_aborted: false };
    const NOW: Duration = Duration::new(784_111_777, 12_345_000);

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
        let (mut begun, mut line) = (Begun::default(), b"the line before".to_vec());
        begun.render(format, seen, id);
        assert_eq!(begun.id(), id);
        Renderer::new(format, 3).render(&mut line, &begun, told, NOW);
        String::from_utf8(line).expect("UTF-8")
    }

    #[test]
    fn a_line_of_json_has_the_names_of_caddy_and_a_few_of_its_own() {
        let expected = "{\"level\":\"info\",\"ts\":784111777.012345,\"logger\":\"http.log.access\",\
            \"msg\":\"handled request\",\"request\":{\"remote_ip\":\"192.0.2.1\",\"remote_port\":\"4711\",\
            \"client_ip\":\"198.51.100.7\",\"proto\":\"HTTP/1.1\",\"method\":\"GET\",\"host\":\"example.org\",\
            \"uri\":\"/a?b=\\\"c\",\"headers\":{\"User-Agent\":[\"curl/8\"],\"Referer\":[\"http://a/\"]}},\
            \"user_id\":\"\",\"duration\":0.001234,\"size\":21,\"status\":200,\"lane\":3,\"aborted\":false,\
            \"request_id\":\"abc\"}\n";
        assert_eq!(line(AccessFormat::Json, &seen(), &TOLD, b"abc"), expected);
        let nothing = line(AccessFormat::Json, &Seen::default(), &TOLD, b"");
        let value: Value = serde_json::from_str(&nothing).expect("JSON");
        assert_eq!(value["request"]["uri"], "");
        assert_eq!(value["request"]["headers"], serde_json::json!({}));
    }

    #[test]
    fn a_line_of_the_combined_format_is_what_nginx_writes() {
        let expected = "198.51.100.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b=\\x22c HTTP/1.1\" 200 21 \
                        \"http://a/\" \"curl/8\"\n";
        assert_eq!(line(AccessFormat::Combined, &seen(), &TOLD, b"abc"), expected);
        let expected = "- - - [06/Nov/1994:08:49:37 +0000] \"-\" 200 21 \"-\" \"-\"\n";
        assert_eq!(line(AccessFormat::Combined, &Seen::default(), &TOLD, b""), expected);
    }

    #[test]
    fn numbers_and_addresses_are_what_the_standard_library_writes() {
        for number in [0, 1, 9, 10, 99, 100, 999_999, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
            out.clear();
            put_seconds(&mut out, number);
            let expected = format!("{}.{:06}", number / 1_000_000, number % 1_000_000);
            assert_eq!(out, expected.as_bytes());
        }
        for ip in ["0.0.0.0", "255.10.1.0", "::1", "2001:db8::1"] {
            let mut out = Vec::new();
            put_ip(&mut out, ip.parse().expect("an address"));
            assert_eq!(out, ip.as_bytes());
        }
        let mut out = Vec::new();
        put_ip(&mut out, "::ffff:1.2.3.4".parse().expect("an address"));
        assert_eq!(out, b"1.2.3.4");
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
            let told =
                Told { status: 599, bytes: u64::MAX, duration_us: u64::MAX, is_aborted: false };
            for format in [AccessFormat::Json, AccessFormat::Combined] {
                let mut begun = Begun::default();
                begun.render(format, &seen, &[b'a'; ID_BYTES_MAX]);
                let (mut renderer, mut line) = (Renderer::new(format, usize::MAX), Vec::new());
                renderer.render(&mut line, &begun, &told, Duration::from_secs(253_000_000_000));
                assert!(line.len() <= LINE_BYTES_MAX, "{} bytes", line.len());
                assert!(line.len() > LINE_BYTES_MAX / 2);
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

//! Headers as proxies write them, and what is none.

use proptest::prelude::*;

use super::*;

fn client_at(text: &str) -> Source {
    Source::Client(text.parse().expect("an address"))
}

/// A header of version 2 with this command, family and content.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a length").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, content].concat()
}

/// What a whole header of version 2 is for 192.0.2.1:258.
fn v4(values: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4], values].concat())
}

/// Asserts that `header` says `source`, whatever follows it, and that no beginning of it says anything.
#[track_caller]
fn assert_says(header: &[u8], source: Source) {
    let whole = Parsed::Whole { length: header.len(), source };
    assert_eq!(parse(header), whole, "{}", header.escape_ascii());
    for end in 0..header.len() {
        assert_eq!(parse(&header[..end]), Parsed::Incomplete, "{}", header[..end].escape_ascii());
    }
    for behind in [&b"GET / HTTP/1.1\r\n"[..], b"\n", b"\r\n", header] {
        assert_eq!(parse(&[header, behind].concat()), whole);
    }
}

/// Asserts that `bytes` are no header, and neither are they with more behind them.
#[track_caller]
fn assert_malformed(bytes: &[u8]) {
    assert_eq!(parse(bytes), Parsed::Malformed, "{}", bytes.escape_ascii());
    assert_eq!(parse(&[bytes, b"\r\n"].concat()), Parsed::Malformed, "{}", bytes.escape_ascii());
}

#[test]
fn version_1_states_a_client_or_none() {
    let longest = "ffff:f:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    for (line, source) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", client_at("192.0.2.1:56324")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n", client_at("255.255.255.255:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", client_at("[2001:db8::1]:1")),
        ("PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::1 1 2\r\n", client_at("[2001:db8::1]:1")),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", client_at("192.0.2.1:1")),
        (&longest, client_at("[ffff:f:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
        ("PROXY UNKNOWN\r\n", Source::Unstated),
        ("PROXY UNKNOWN ffff::1 whatever \t this is\r\n", Source::Unstated),
    ] {
        assert_says(line.as_bytes(), source);
    }
}

#[test]
fn a_line_that_two_readers_could_read_in_two_ways_is_no_header() {
    for line in [
        "GET / HTTP/1.1\r\n",
        " PROXY UNKNOWN\r\n",
        "proxy UNKNOWN\r\n",
        "PROXYUNKNOWN\r\n",
        "PROXY\tUNKNOWN\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY  UNKNOWN\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY unknown\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN\r\r\n",
        "PROXY UNKNOWN \r x\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2 1 2\r\n",
        "PROXY TCP4 ::1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%1 ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 00 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 02\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
    ] {
        assert_malformed(line.as_bytes());
    }
    assert_malformed(b"PROXY UNKNOWN \xff\r\n");
    assert_malformed(b"PROXY UNKNOWN \0\xc3\r\n");
}

#[test]
fn a_line_has_107_bytes_at_most() {
    let line = |length: usize| {
        let mut line = format!("{:x<1$}", "PROXY UNKNOWN ", length - 2);
        line.push_str("\r\n");
        line.into_bytes()
    };
    assert_eq!(line(V1_BYTES_MAX).len(), V1_BYTES_MAX);
    assert_says(&line(V1_BYTES_MAX), Source::Unstated);
    assert_malformed(&line(V1_BYTES_MAX + 1));
    // It is known as soon as so many bytes have come.
    assert_eq!(parse(&line(200)[..V1_BYTES_MAX - 1]), Parsed::Incomplete);
    assert_eq!(parse(&line(200)[..V1_BYTES_MAX]), Parsed::Malformed);
}

#[test]
fn version_2_states_a_client_or_none() {
    let of_v6 = [[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0; 16]].concat();
    let of_v6 = [&of_v6[..], &[1, 2, 3, 4]].concat();
    let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
    let mapped = [&mapped[..], &[0; 16], &[1, 2, 3, 4]].concat();
    for (header, source) in [
        (v4(&[]), client_at("192.0.2.1:258")),
        (v2(0x21, 0x21, &of_v6), client_at("[2001:db8::1]:258")),
        (v2(0x21, 0x21, &mapped), client_at("192.0.2.1:258")),
        // A health check, whatever else is in it.
        (v2(0x20, 0x00, &[]), Source::Unstated),
        (v2(0x20, 0x11, &[1; 12]), Source::Unstated),
        (v2(0x20, 0xff, b"\r\n\r\n"), Source::Unstated),
        // Neither over TCP nor with an address.
        (v2(0x21, 0x00, &[]), Source::Unstated),
        (v2(0x21, 0x00, b"anything"), Source::Unstated),
        (v2(0x21, 0x12, &[1; 12]), Source::Unstated),
        (v2(0x21, 0x22, &[1; 36]), Source::Unstated),
        (v2(0x21, 0x31, &[b'a'; 216]), Source::Unstated),
        (v2(0x21, 0x32, &[b'a'; 216]), Source::Unstated),
        (v2(0x21, 0x10, &[]), Source::Unstated),
        // With values behind the addresses: a name, nothing, one of no known kind.
        (v4(b"\x02\x00\x0bexample.org\x04\x00\x00\xea\x00\x01x"), client_at("192.0.2.1:258")),
    ] {
        assert_says(&header, source);
    }
}

#[test]
fn what_version_2_does_not_allow_is_no_header() {
    let mut other_signature = v4(&[]);
    other_signature[11] = b'\r';
    for header in [
        b"\r\nGET / HTTP/1.1\r\n".to_vec(),
        other_signature,
        v2(0x22, 0x11, &[1; 12]),
        v2(0x2f, 0x11, &[1; 12]),
        v2(0x11, 0x11, &[1; 12]),
        v2(0x31, 0x11, &[1; 12]),
        v2(0x01, 0x11, &[1; 12]),
        v2(0x21, 0x13, &[1; 12]),
        v2(0x21, 0x03, &[]),
        v2(0x21, 0x41, &[1; 216]),
        v2(0x21, 0xf1, &[1; 216]),
        v2(0x21, 0x11, &[1; 11]),
        v2(0x21, 0x11, &[]),
        v2(0x21, 0x21, &[1; 35]),
        v2(0x21, 0x12, &[1; 11]),
        v2(0x21, 0x31, &[1; 215]),
        // A value that is not whole.
        v4(b"\x02"),
        v4(b"\x02\x00"),
        v4(b"\x02\x00\x02x"),
        v4(b"\x02\xff\xffx"),
        v4(b"\x04\x00\x00\x02"),
        // A checksum that is none.
        v4(b"\x03\x00\x00"),
        v4(b"\x03\x00\x04\0\0\0\0"),
        v4(b"\x03\x00\x05\0\0\0\0\0"),
    ] {
        assert_malformed(&header);
    }
}

#[test]
fn version_2_has_so_many_bytes_at_most() {
    let with = |length: usize| {
        let value = u16::try_from(length - V2_FIXED_BYTES - 12 - 3).expect("a length");
        let value = [&[0xea][..], &value.to_be_bytes(), &vec![b'x'; usize::from(value)]].concat();
        v4(&value)
    };
    let longest = with(V2_BYTES_MAX);
    let whole = Parsed::Whole { length: V2_BYTES_MAX, source: client_at("192.0.2.1:258") };
    assert_eq!((longest.len(), parse(&longest)), (V2_BYTES_MAX, whole));
    // It is known as soon as the length has come.
    let longer = with(V2_BYTES_MAX + 1);
    assert_eq!(parse(&longer[..V2_FIXED_BYTES - 1]), Parsed::Incomplete);
    assert_eq!(parse(&longer[..V2_FIXED_BYTES]), Parsed::Malformed);
    assert_malformed(&v2(0x20, 0, &vec![0; usize::from(u16::MAX)]));
}

/// Puts the right checksum into the header whose checksum begins at `at`.
fn sealed(mut header: Vec<u8>, at: usize) -> Vec<u8> {
    let checksum = crc32c(&header[..at], &header[at + 4..]).to_be_bytes();
    header[at..at + 4].copy_from_slice(&checksum);
    header
}

#[test]
fn a_checksum_that_is_there_has_to_be_right() {
    // RFC 3720 §B.4: 32 bytes of zero.
    assert_eq!(crc32c(&[0; 20], &[0; 8]), 0x8a91_36aa);
    let whole = sealed(v4(b"\x02\x00\x01a\x03\x00\x04\0\0\0\0\x02\x00\x01b"), 16 + 12 + 4 + 3);
    assert_says(&whole, client_at("192.0.2.1:258"));
    // Without byte 32 it is no checksum.
    for at in (SIGNATURE.len() + 4..whole.len()).filter(|at| *at != 32) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        assert_ne!(parse(&changed), parse(&whole), "byte {at}");
    }
}

/// What begins as a header does, more often than chance would have it.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let words = prop::collection::vec(
        prop::sample::select(vec![
            "PROXY",
            "TCP4",
            "TCP6",
            "UNKNOWN",
            "192.0.2.1",
            "::1",
            "1",
            "65536",
            " ",
            " ",
            " ",
            "\r",
            "\n",
            "\r\n",
        ]),
        0..16,
    );
    prop_oneof![
        bytes(),
        words.prop_map(|words| words.concat().into_bytes()),
        (any::<u8>(), any::<u8>(), bytes()).prop_map(|(command, family, content)| {
            v2(0x20 | command & 0x11, family & 0x33, &content)
        }),
    ]
}

proptest! {
    #[test]
    fn a_verdict_stands_whatever_follows(bytes in anything(), more in anything()) {
        let parsed = parse(&bytes);
        if parsed != Parsed::Incomplete {
            prop_assert_eq!(parse(&[bytes.as_slice(), &more].concat()), parsed);
        } else {
            prop_assert!(bytes.len() < V2_BYTES_MAX);
        }
        if let Parsed::Whole { length, .. } = parsed {
            prop_assert!((1..=bytes.len()).contains(&length));
            prop_assert_eq!(parse(&bytes[..length]), parsed);
            prop_assert_eq!(parse(&bytes[..length - 1]), Parsed::Incomplete);
        }
    }

    #[test]
    fn each_address_is_read_as_it_was_written(
        source in any::<SocketAddr>(),
        to in any::<[u8; 16]>(),
        port in any::<u16>(),
    ) {
        let (line, header) = match source.ip() {
            IpAddr::V4(from) => {
                let to: [u8; 4] = [to[0], to[1], to[2], to[3]];
                let stated = [from.octets(), to].concat();
                (format!("TCP4 {from} {}", Ipv4Addr::from(to)), (0x11, stated))
            }
            IpAddr::V6(from) => {
                let stated = [from.octets(), to].concat();
                (format!("TCP6 {from} {}", Ipv6Addr::from(to)), (0x21, stated))
            }
        };
        let expected = client(source.ip(), source.port());
        let line = format!("PROXY {line} {} {port}\r\n", source.port());
        prop_assert_eq!(parse(line.as_bytes()), Parsed::Whole { length: line.len(), source: expected });
        let (family, mut stated) = header;
        stated.extend(source.port().to_be_bytes());
        stated.extend(port.to_be_bytes());
        let header = v2(0x21, family, &stated);
        prop_assert_eq!(parse(&header), Parsed::Whole { length: header.len(), source: expected });
    }
}

//! What frames a body: Content-Length, Transfer-Encoding, and chunks.

use super::{Case, cut_off, echoed, last, refused, served};

/// A POST with these field lines, and what follows its head.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{rest}")
}

fn length(value: &str) -> String {
    post(&format!("Content-Length: {value}"), "hello")
}

fn coding(value: &str) -> String {
    post(&format!("Transfer-Encoding: {value}"), "5\r\nhello\r\n0\r\n\r\n")
}

fn chunks(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

/// A body of one chunk whose size is written like this.
fn size(size: &str) -> String {
    chunks(&format!("{size}\r\nhello\r\n0\r\n\r\n"))
}

pub(super) fn all() -> Vec<Case> {
    [lengths(), codings(), chunked()].into_iter().flatten().collect()
}

fn lengths() -> Vec<Case> {
    let malformed = [
        ("a negative length §6.3", "-1"),
        ("a length with a plus sign §6.3", "+5"),
        ("a hexadecimal length §6.3", "0x5"),
        ("a length with a space §6.3", "5 5"),
        ("a length that is no number §6.3", "abc"),
        ("an empty length §6.3", ""),
        ("a length with an underscore §6.3", "5_0"),
        ("a list of two lengths §6.3", "5, 6"),
        ("minus zero §6.3", "-0"),
        ("a list of one length twice §6.3", "5, 5"),
        ("a length with a fraction §6.3", "5.0"),
    ];
    let mut cases: Vec<Case> = malformed
        .into_iter()
        .map(|(what, value)| refused(what, &[400], length(value), length("5")))
        .collect();
    cases.extend([
        refused(
            "two lengths §6.3",
            &[400],
            length("5\r\nContent-Length: 6"),
            length("5\r\nContent-Lengt: 6"),
        ),
        refused(
            "one length twice §6.3",
            &[400],
            length("5\r\nContent-Length: 5"),
            length("5\r\nContent-Lengt: 5"),
        ),
        refused(
            "a length beyond 64 bits S:8.6",
            &[413, 400],
            length("99999999999999999999"),
            length("00000000000000000005"),
        ),
        refused(
            "a length beyond 64 bits by one digit S:8.6",
            &[413, 400],
            length("18446744073709551621"),
            length("5"),
        ),
        refused("a length beyond limits.body", &[413], length("1048577"), length("5")),
        refused(
            "white space before the colon of a length §5.1",
            &[400],
            post("Content-Length : 5", "hello"),
            length("5"),
        ),
        last(
            "HTTP/1.0 with content of no length §6.3",
            "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\nhello",
        ),
        last(
            "HTTP/1.0 POST of nothing §6.3",
            "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        last(
            "HTTP/1.0 PUT of nothing §6.3",
            "PUT /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        last(
            "HTTP/1.0 PATCH of nothing §6.3",
            "PATCH /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        last(
            "HTTP/1.0 QUERY of nothing §6.3",
            "QUERY /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        ),
        echoed(
            "HTTP/1.0 DELETE of nothing",
            "DELETE /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "",
        ),
        echoed(
            "HTTP/1.0 with a length",
            "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
        ),
        echoed(
            "HTTP/1.0 with a length of 0",
            "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            "",
        ),
        echoed("a length with leading zeros", length("005"), "hello"),
        echoed("a length between white space", length(" \t5\t "), "hello"),
        echoed("HTTP/1.1 without a length §6.3", post("X: y", ""), ""),
        echoed("a length of 0", post("Content-Length: 0", ""), ""),
        cut_off("a body shorter than its length §8", post("Content-Length: 10", "hello")),
    ]);
    cases
}

fn codings() -> Vec<Case> {
    let fine = coding("chunked");
    let bad = |what, statuses, value: &str| refused(what, statuses, coding(value), fine.clone());
    let with_length = post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n");
    let length_first = post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
    let http10 = fine.replace("HTTP/1.1", "HTTP/1.0");
    let folded = post("Transfer-Encoding:\r\n chunked\r\nContent-Length: 5", "0\r\n\r\n");
    vec![
        refused("a coding and a length §6.1", &[400], with_length, fine.clone()),
        refused("a length and a coding §6.1", &[400], length_first, fine.clone()),
        refused("HTTP/1.0 with a coding §6.1", &[400], http10, fine.clone()),
        refused("a folded coding §5.2", &[400], folded, fine.clone()),
        bad("chunked before another coding §6.3", &[400], "chunked, gzip"),
        bad("chunked before another line §6.3", &[400], "chunked\r\nTransfer-Encoding: identity"),
        bad("no chunked at all §6.3", &[400], "gzip"),
        bad("identity alone §6.3", &[400], "identity"),
        bad("another coding before chunked §6.1", &[501], "gzip, chunked"),
        bad("an unknown coding §6.1", &[501], "xchunked"),
        bad("a vertical tab before chunked", &[400], "\x0bchunked"),
        bad("NUL behind chunked S:5.5", &[400], "chunked\0"),
        bad("an empty coding §6.1", &[400], ""),
        bad("chunked twice §6.1", &[400], "chunked, chunked"),
        bad("chunked in two lines §6.1", &[400], "chunked\r\nTransfer-Encoding: chunked"),
        bad("chunked with a parameter §7.1", &[400], "chunked;a=b"),
        bad("chunked in quotes §6.1", &[400], "\"chunked\""),
        refused(
            "white space before the colon of a coding §5.1",
            &[400],
            post("Transfer-Encoding : chunked", "0\r\n\r\n"),
            fine.clone(),
        ),
        echoed("Chunked in another case §7", coding("Chunked"), "hello"),
        bad("a comma before chunked", &[400], ",chunked"),
        bad("a comma behind chunked", &[400], "chunked,"),
        bad("a comma and a space before chunked", &[400], ", chunked"),
        bad("commas around chunked", &[400], ", chunked,"),
        bad("a comma alone", &[400], ","),
        bad("8,000 commas and chunked", &[400], &format!("{}chunked", ",".repeat(8_000))),
        bad("chunked and 8,000 commas", &[400], &format!("chunked{}", ",".repeat(8_000))),
        bad("an empty line of codings before chunked", &[400], "\r\nTransfer-Encoding: chunked"),
        bad("an empty line of codings behind chunked", &[400], "chunked\r\nTransfer-Encoding:"),
        bad(
            "another coding in a line before chunked §6.1",
            &[501],
            "gzip\r\nTransfer-Encoding: chunked",
        ),
    ]
}

fn chunked() -> Vec<Case> {
    let fine = size("5");
    let bad_size = |what, value: &str| refused(what, &[400], size(value), fine.clone());
    let bad = |what, body: &str| refused(what, &[400], chunks(body), fine.clone());
    let trailers = |count: usize| chunks(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(count)));
    // So many bytes, the line end included.
    let trailer = |bytes: usize| {
        let value = "v".repeat(bytes - "X: \r\n".len());
        chunks(&format!("0\r\nX: {value}\r\n\r\n"))
    };
    // So many bytes from the semicolon to the line end.
    let extension = |bytes: usize| size(&format!("5;a={}", "b".repeat(bytes - ";a=".len())));
    let zeros = |count: usize| size(&format!("{}5", "0".repeat(count)));
    vec![
        bad_size("a chunk size with 0x §7.1", "0x5"),
        bad_size("a chunk size with a plus sign §7.1", "+5"),
        bad_size("a negative chunk size §7.1", "-5"),
        bad_size("a chunk size with an underscore §7.1", "5_0"),
        bad_size("a space before a chunk size §7.1", " 5"),
        bad_size("a space behind a chunk size §7.1", "5 "),
        bad_size("an empty chunk size §7.1", ""),
        bad("an extension without a size §7.1", ";a\r\n\r\n"),
        bad("white space and an extension without a size §7.1", " ;a\r\n\r\n"),
        bad("an extension in place of a chunk's end §7.1", "5\r\nhello;a\r\n\r\n"),
        bad("an extension within a chunk's end §7.1", "5\r\nhello\r;a\r\n\r\n"),
        bad_size("a chunk size that is no number §7.1", "G"),
        refused(
            "a chunk size beyond 64 bits §7.1",
            &[400, 413],
            size("FFFFFFFFFFFFFFFF0"),
            size("00000000000000005"),
        ),
        refused(
            "a chunk size that would wrap to 5 §7.1",
            &[400, 413],
            size("10000000000000005"),
            fine.clone(),
        ),
        refused("a chunk beyond limits.body", &[413], size("100001"), fine.clone()),
        refused("more leading zeros than the limit §7.1", &[400], zeros(17), zeros(16)),
        refused("leading zeros for ever §7.1", &[400], zeros(100_000), fine.clone()),
        refused(
            "a last chunk of zeros for ever §7.1.1",
            &[400],
            chunks(&"0".repeat(100_000)),
            chunks("0000000000000000\r\n\r\n"),
        ),
        echoed(
            "leading zeros of each chunk",
            chunks("00000000000000001\r\na\r\n00000000000000001\r\nb\r\n0\r\n\r\n"),
            "ab",
        ),
        bad_size("an extension without a name §7.1.1", "5;"),
        bad_size("an extension of white space §7.1.1", "5; "),
        bad_size("white space behind an extension's name §7.1.1", "5;a "),
        bad_size("white space behind an extension's value §7.1.1", "5;a=b "),
        bad_size("white space behind a quoted value §7.1.1", "5;a=\"b\"\t"),
        bad_size("an extension without a value §7.1.1", "5;a="),
        bad_size("an extension of white space for a value §7.1.1", "5;a= "),
        bad_size("a semicolon for a value §7.1.1", "5;a=;b"),
        bad_size("two names of an extension §7.1.1", "5;a b"),
        bad_size("two values of an extension §7.1.1", "5;a=b c"),
        bad_size("a value behind a quoted one §7.1.1", "5;a=\"b\"c"),
        bad_size("two equals signs §7.1.1", "5;a==b"),
        bad_size("a name behind white space §7.1.1", "5 a"),
        bad_size("two sizes §7.1", "5 5"),
        bad_size("a value behind white space §7.1.1", "5 =a"),
        bad_size("a control character in quotes §7.1.1", "5;a=\"\x01\""),
        bad_size("an escaped control character §7.1.1", "5;a=\"\\\x7f\""),
        bad_size("a line end in quotes §7.1.1", "5;a=\"\r\n\""),
        bad_size("quotes that are not closed §7.1.1", "5;a=\"b"),
        bad_size("an extension with a bare CR §7.1.1", "5;a\rb"),
        bad_size("white space in the line end of a size §7.1", "5\r ;a"),
        bad_size("an extension in the line end of a size §7.1.1", "5\r;a"),
        bad_size("an extension with a bare LF §7.1.1", "5;a\nb"),
        bad("a chunk size that ends in LF §7.1", "5\nhello\r\n0\r\n\r\n"),
        bad("a chunk that ends in LF §7.1", "5\r\nhello\n0\r\n\r\n"),
        bad("a chunk longer than its size §7.1", "5\r\nhelloXX\r\n0\r\n\r\n"),
        bad("an extension behind a chunk §7.1", "5\r\nhello;a\r\nhello\r\n0\r\n\r\n"),
        bad("white space behind a chunk §7.1", "5\r\nhello ;a\r\nhello\r\n0\r\n\r\n"),
        bad("an extension in the line end of a chunk §7.1", "5\r\nhello\r;a\r\nhello\r\n0\r\n\r\n"),
        bad("a chunk without its line end §7.1", "5\r\nhello0\r\n\r\n"),
        bad("a trailer with white space before its colon §5.1", "0\r\nX : v\r\n\r\n"),
        bad("a folded trailer §5.2", "0\r\nX: a\r\n b\r\n\r\n"),
        bad("a trailer without a colon §5", "0\r\nNoColon\r\n\r\n"),
        bad("an end with a bare LF §7.1", "0\r\n\n"),
        bad("a trailer without a name §5", "0\r\n: v\r\n\r\n"),
        bad("a trailer with a control character §5", "0\r\nX: \x01\r\n\r\n"),
        bad("a trailer with a bare CR §5", "0\r\nX: a\rb\r\n\r\n"),
        refused("more trailers than limits.headers", &[431], trailers(101), trailers(100)),
        refused("trailers beyond limits.header_bytes", &[431], trailer(32_769), trailer(32_768)),
        refused(
            "64 KiB of chunk extension §7.1.1",
            &[400, 413, 431],
            extension(65_536),
            extension(4_000),
        ),
        refused(
            "more chunk extension than the limit §7.1.1",
            &[400],
            extension(4_097),
            extension(4_096),
        ),
        refused(
            "white space for ever before an extension §7.1.1",
            &[400],
            size(&format!("5{};a", " ".repeat(4_095))),
            size(&format!("5{};a", " ".repeat(4_094))),
        ),
        cut_off("a body without its last chunk §8", chunks("5\r\nhello\r\n")),
        cut_off("a body without its last line §8", chunks("5\r\nhello\r\n0\r\n")),
        echoed(
            "a trailer that looks like framing S:6.5.1",
            chunks("5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "hello",
        ),
        echoed("an extension §7.1.1", size("5;a=b;c;d=\"e;\\\"\""), "hello"),
        echoed("white space before an extension S:5.6.3", size("5 ;a=b"), "hello"),
        echoed("white space behind a semicolon S:5.6.3", size("5; a"), "hello"),
        echoed("white space before an equals sign S:5.6.3", size("5;a =b"), "hello"),
        echoed("white space behind an equals sign S:5.6.3", size("5;a= b"), "hello"),
        echoed(
            "white space wherever it may be S:5.6.3",
            size("5 \t; \ta\t = \t\"b\" ; c = d ; e ;f"),
            "hello",
        ),
        echoed("bytes beyond ASCII in quotes §7.1.1", size("5;a=\"\u{e9}\t\\\u{e9}\""), "hello"),
        served(
            "white space before the last chunk's extension S:5.6.3",
            chunks("0; comment\r\n\r\n"),
        ),
        echoed(
            "leading zeros and another case §7.1",
            chunks("000A\r\n0123456789\r\n1\r\nx\r\n000\r\n\r\n"),
            "0123456789x",
        ),
        served("an extension of the last chunk §7.1.1", chunks("0;last\r\n\r\n")),
    ]
}

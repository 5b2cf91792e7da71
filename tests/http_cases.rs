//! The table of raw requests (`cases/`), over real sockets and through the sans-I/O engine: whole, byte by
//! byte, and split in two at every place, each with a canary behind it.

mod cases;
#[path = "oracle/engine.rs"]
mod engine;
mod harness;

use cases::{Case, Outcome};
use engine::{Seen, feed};
use harness::{Client, Mode, Response, Server, Setup, in_every_mode};
use laneway::internals::http::{self, Limits};

in_every_mode!(every_case_comes_to_its_outcome_over_sockets);

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const CANARY_BODY: &str = "the canary sings";
/// What a configuration that says nothing sets.
const DEFAULT: Limits = Limits {
    request_line: 8 << 10,
    header_bytes: 32 << 10,
    headers: 100,
    body: 1 << 20,
    merge_slashes: true,
};
/// Inputs longer than this are split at some places only, near their ends and the limits.
const SPLIT_EVERYWHERE_BYTES: usize = 512;

/// The places to split an input at.
fn places(input: &[u8]) -> Vec<usize> {
    let all = 1..input.len();
    if input.len() <= SPLIT_EVERYWHERE_BYTES {
        return all.collect();
    }
    let near = |at: usize| at.saturating_sub(2)..at + 3;
    let interesting = [2, 16, 4096, 8192, 16_384, 32_768, 65_536, input.len() - 2];
    all.filter(|at| interesting.iter().any(|place| near(*place).contains(at))).collect()
}

/// The input in one piece, in two at every place, and byte by byte if it is short.
fn ways(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut ways = vec![vec![input]];
    ways.extend(places(input).into_iter().map(|at| {
        let (first, second) = input.split_at(at);
        vec![first, second]
    }));
    if input.len() <= SPLIT_EVERYWHERE_BYTES {
        ways.push(input.chunks(1).collect());
    }
    ways
}

/// The input with a canary behind it, unless the stream is to end within it.
fn whole(case: &Case) -> Vec<u8> {
    let canary = if case.outcome == Outcome::CutOff { &[][..] } else { CANARY };
    [&case.input[..], canary].concat()
}

#[test]
fn every_case_comes_to_its_outcome_in_the_engine() {
    for case in cases::all() {
        let input = whole(&case);
        for pieces in ways(&input) {
            check_engine(&case, &pieces);
        }
        if let Outcome::Refused { twin, .. } = &case.outcome {
            let what = case.what;
            let outcome = Outcome::Served;
            let twin = Case { what, input: twin.clone(), outcome };
            check_engine(&twin, &[&twin.input, CANARY]);
        }
    }
}

fn check_engine(case: &Case, pieces: &[&[u8]]) {
    let seen = feed(pieces.iter().copied(), &DEFAULT);
    let canary_seen =
        |seen: &Seen| matches!(seen, Seen::Head { request, .. } if request == "GET /canary");
    let canary_sang = seen.iter().any(canary_seen);
    let is_kept = matches!(seen.first(), Some(Seen::Head { keep_alive: true, .. }));
    let as_asked = match &case.outcome {
        Outcome::Refused { statuses, .. } => {
            let refused = matches!(seen.last(), Some(Seen::Refused { status, .. }) if statuses.contains(status));
            refused && !canary_sang
        }
        // What answers it, and that nothing follows the last one, is not the engine's.
        Outcome::Served | Outcome::Answered(_) => canary_sang && is_kept,
        Outcome::Last => {
            matches!(seen.first(), Some(Seen::Head { has_body: false, keep_alive: false, .. }))
        }
        Outcome::Echoed(body) => {
            let read = seen.iter().find_map(|seen| match seen {
                Seen::Body(read) => Some(&read[..]),
                _ => None,
            });
            canary_sang && is_kept && read.unwrap_or_default() == body.as_bytes()
        }
        // A head whose message has not ended, and no refusal: the end of the stream decides.
        Outcome::CutOff => {
            let open = matches!(seen.first(), Some(Seen::Head { has_body: true, .. }));
            open && !seen.iter().any(|seen| matches!(seen, Seen::End | Seen::Refused { .. }))
        }
    };
    assert!(as_asked, "{} in {} pieces came to {seen:?}", case.what, pieces.len());
}

/// What the cases ask for, beside `/`.
const ROUTES: &str = r#"
[[route]]
path = "/echo"
echo = "body"
[[route]]
path = "/canary"
text = "the canary sings"
[[route]]
path = "/old"
redirect = "/new"
[[route]]
path = "/admin/*"
text = "admin"
[[route]]
path = "/hosted"
host = "vh.example"
text = "hosted"
"#;

fn every_case_comes_to_its_outcome_over_sockets(mode: Mode) {
    // One lane, so that an answer on another connection proves that the loop has read what came before.
    let server = Setup::new(mode).lanes(1).routes(ROUTES).start();
    let mut pacer = server.connect();
    for case in cases::all() {
        let input = whole(&case);
        for pieces in ways(&input) {
            check_socket(&server, &mut pacer, &case, &pieces);
        }
        if let Outcome::Refused { twin, .. } = &case.outcome {
            let what = case.what;
            let twin = Case { what, input: twin.clone(), outcome: Outcome::Served };
            check_socket(&server, &mut pacer, &twin, &[&twin.input, CANARY]);
        }
    }
    let worker_ended = server.journal.named("worker exited");
    assert!(worker_ended.is_empty(), "{worker_ended:?}");
    assert!(server.journal.named("request panicked").is_empty(), "a request panicked");
}

/// What the parser of may_minihttp takes, and has dropped before the adapter sees it (docs/engines.md).
#[cfg(feature = "may")]
const LENIENT: &[&str] = &[
    "HEAD with a bare LF",
    "more empty lines than the limit §2.2",
    "a bare LF before the request",
    "bare LF line ends",
    "one bare LF",
];

#[cfg(feature = "may")]
#[test]
fn the_engine_may_serves_nothing_that_is_refused_but_what_its_parser_hides() {
    let server = Setup::new(Mode::MAY).lanes(1).routes(ROUTES).start();
    let is_served = |case: &Case| {
        let mut client = server.connect();
        // It may end the connection before it has read everything.
        let _ = client.try_send(whole(case));
        String::from_utf8_lossy(&client.rest()).contains("HTTP/1.1 2")
    };
    let is_refused = |case: &Case| matches!(case.outcome, Outcome::Refused { .. });
    let refused = cases::all().into_iter().filter(is_refused);
    let served: Vec<_> = refused.filter(is_served).map(|case| case.what).collect();
    assert_eq!(served, LENIENT);
    // With nothing behind it that would end the connection first, so is a bare LF instead of the empty line.
    assert_eq!(server.connect().request("GET / HTTP/1.1\r\nHost: a\r\n\n").status, 200);
}

fn check_socket(server: &Server, pacer: &mut Client, case: &Case, pieces: &[&[u8]]) {
    let what = format!("{} in {} pieces", case.what, pieces.len());
    let responses = converse(server, pacer, case, pieces);
    let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    let success = |status: &u16| (200..300).contains(status);
    match &case.outcome {
        Outcome::Refused { statuses: allowed, .. } => {
            let refused = matches!(statuses[..], [status] if allowed.contains(&status));
            assert!(refused && responses[0].says_close(), "{what} was answered {responses:?}");
        }
        Outcome::Served | Outcome::Echoed(_) | Outcome::Answered(_) => {
            let as_asked = match &case.outcome {
                Outcome::Answered(status) => statuses[0] == *status,
                _ => success(&statuses[0]),
            };
            let canary_sang = statuses.len() == 2 && responses[1].text() == CANARY_BODY;
            assert!(as_asked && canary_sang, "{what}: {responses:?}");
            if let Outcome::Echoed(body) = case.outcome {
                assert_eq!(responses[0].text(), body, "{what}");
            }
        }
        Outcome::Last => {
            let alone = matches!(statuses[..], [status] if success(&status));
            assert!(alone && responses[0].says_close(), "{what}: {responses:?}");
        }
        Outcome::CutOff => assert!(!statuses.iter().any(success), "{what}: {responses:?}"),
    }
}

/// Sends the pieces so that the server reads them one at a time: between two, it answers a request on
/// another connection of the same lane. Returns all its answers, which no reset may have cut short; that to a HEAD,
/// which comes first, has no body.
fn converse(server: &Server, pacer: &mut Client, case: &Case, pieces: &[&[u8]]) -> Vec<Response> {
    let mut client = server.connect();
    for (index, piece) in pieces.iter().enumerate() {
        if let Err(error) = client.try_send(piece) {
            panic!("{}, in piece {index} of {}: {error}", case.what, pieces.len());
        }
        if index + 1 < pieces.len() {
            assert_eq!(pacer.get("/").status, 200);
        }
    }
    if case.outcome == Outcome::CutOff {
        client.end_of_sending();
    }
    let is_head = case.input.trim_ascii_start().starts_with(b"HEAD ");
    let mut method = if is_head { "HEAD" } else { "GET" };
    let next = || client.try_response_to(std::mem::replace(&mut method, "GET"));
    let responses = std::iter::from_fn(next).collect();
    assert!(!client.was_reset(), "the connection was reset after {responses:?}");
    responses
}

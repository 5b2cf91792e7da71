//! What a connection waits for between two steps, and how long.

use super::*;
use crate::control::DrainKind;
use crate::observe::ledger::labels::RejectedFor;
use crate::worker::context::{Drain, DrainStage};

const WHOLE: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PART_OF_HEAD: &str = "GET / HTTP/1.1\r\n";
const PART_OF_BODY: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\nbody";

#[test]
fn what_a_client_has_to_send_next_has_its_time_from_now_on_but_a_head_from_when_it_began() {
    let (site, lane) = (pieces(b"x", 1, Some(1)).0, Lane::new());
    for (sent, time, goes_on) in [
        (WHOLE, lane.config.timeouts.keep_alive, WHOLE),
        (PART_OF_BODY, lane.config.timeouts.body, "more"),
        (PART_OF_HEAD, lane.config.timeouts.header, "H"),
    ] {
        let mut pair = lane.serve(&site);
        for now_ms in [50_000, 50_001] {
            pair.context.now_ms = now_ms;
            let is_in_head = sent == PART_OF_HEAD && now_ms > 50_000;
            let until = Next::WaitUntil(now_ms + time.as_millis() as u64);
            let next = pair.ask(if now_ms == 50_000 { sent } else { goes_on });
            assert_eq!(next, if is_in_head { Next::Wait } else { until }, "{sent} at {now_ms}");
        }
    }
}

#[test]
fn in_a_drain_one_that_was_never_used_has_the_time_for_a_head_unless_the_server_stops() {
    let (site, lane) = (pieces(b"x", 1, Some(1)).0, Lane::new());
    let mut pair = lane.serve(&site);
    let header_ms = lane.config.timeouts.header.as_millis() as u64;
    let idle_ms_in = |pair: &mut Pair<'_>, kind| {
        let stage = DrainStage::Finishing;
        pair.context.drain = Some(Drain { kind, stage, until_ms: None });
        pair.connection.idle_timeout_ms(&pair.context)
    };
    assert_eq!(idle_ms_in(&mut pair, DrainKind::Replaced), header_ms);
    assert_eq!(idle_ms_in(&mut pair, DrainKind::Stop), DRAIN_GRACE_MS);
    pair.context.drain = None;
    pair.ask(WHOLE);
    assert_eq!(idle_ms_in(&mut pair, DrainKind::Replaced), DRAIN_GRACE_MS);
}

#[test]
fn only_of_a_body_of_which_much_has_come_much_is_waited_for_at_once() {
    let (site, lane) = (pieces(b"x", 1, Some(1)).0, Lane::new());
    let mut pair = lane.serve(&site);
    for sent in [WHOLE, PART_OF_HEAD, "Host: a\r\nContent-Length: 65536\r\n\r\n", "body"] {
        pair.ask(sent);
        assert_eq!(pair.connection.interest(), Interest::Input, "{sent}");
    }
    let mut next = pair.ask(&"x".repeat(16 << 10));
    while let Next::Again(_) = next {
        next = pair.turn(true);
    }
    assert_eq!(pair.connection.interest(), Interest::BulkInput);
}

#[test]
fn of_what_comes_behind_the_last_request_nothing_is_kept_and_no_more_is_waited_for() {
    fn large(_: &Answers) -> Answer<'_> {
        let response = ResponseOf::Request(Box::new(Response::new(200, [], None)));
        Answer::Known(Outcome::Ready(Reply { response, body: Body::Owned(vec![b'x'; 1 << 20]) }))
    }
    let (site, lane) = (Site::of(Box::new(Answers(large))), Lane::new());
    let mut pair = lane.serve(&site);
    pair.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(pair.connection.interest(), Interest::RoomOrInput);
    let held = pair.connection.held_bytes();
    step(&mut pair.connection, &mut pair.context, &mut pair.driver, |connection, _, lane| {
        let ready = Ready { readable: true, ..Ready::quiet(0) };
        connection.on_ready(ready, &mut Input::new(Some(b"more"), None), lane)
    });
    assert_eq!(pair.connection.held_bytes(), held);
    assert_eq!(pair.connection.interest(), Interest::Room);
}

#[test]
fn what_the_kernel_has_no_room_for_in_the_end_waits_if_the_lane_may_hold_it() {
    let (site, lane) = (pieces(b"x", 1, Some(1)).0, Lane::new());
    for (room, is_kept) in [(5, true), (4, false)] {
        let mut pair = lane.serve(&site);
        pair.context.held_elsewhere = context::HELD_BYTES_MAX - room;
        let next = pair.connection.keep_unsent(b"bytes", &pair.context);
        assert_eq!(matches!(next, Next::WaitUntil(_)), is_kept, "{next:?}");
        assert_eq!(next == Next::Close, !is_kept, "{next:?}");
        let rejected = pair.context.counters.counts().rejected(RejectedFor::Memory);
        assert_eq!(rejected, u64::from(!is_kept));
        if is_kept {
            pair.turn(false);
            assert_eq!(pair.received(), b"bytes");
        }
    }
}

//! Tests of the ring, over real sockets.

use std::cell::RefCell;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use super::*;
use crate::sys::socket::{Departure, recv, send};

/// A socket that a ring can name, and its peer.
fn pair() -> (Connected, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("nonblocking");
    (Connected::from(OwnedFd::from(ours)), theirs)
}

/// No more than what a kernel without io_uring prints.
fn ring() -> Option<Ring> {
    Ring::new().map_err(|error| eprintln!("skipped, no io_uring here: {error}")).ok()
}

fn wait_for(ring: &mut Ring) -> Completion {
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.wait([], Some(20_000)).expect("a wait");
    }
}

#[test]
fn a_ring_that_is_gone_takes_no_wake_up_from_another() {
    for _ in 0..200 {
        let Some(mut ring) = ring() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let poll = || Poll { fd: listener.as_fd(), wanted: Wanted::ReadableByOne, token: 7 };
        thread::scope(|scope| {
            let gone = scope.spawn(|| {
                let mut gone = Ring::new().expect("a second ring");
                gone.wait([poll()], Some(0)).expect("a call");
            });
            gone.join().expect("a ring that was dropped");
        });
        ring.wait([poll()], Some(0)).expect("a call");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).expect("connect");
        ring.wait([], Some(5_000)).expect("a wait");
        assert_eq!(ring.next_completion().map(|completion| completion.token), Some(7));
    }
}

#[test]
fn what_there_is_no_room_for_is_told_to_the_byte() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = pair();
    let mut offered = Vec::new();
    let rest = loop {
        let piece: Vec<u8> = (0..10_007).map(|n| (offered.len() + n) as u8 ^ 0x5a).collect();
        offered.extend_from_slice(&piece);
        assert!(ring.send(&ours, 7, &piece));
        ring.submit();
        if let Some(unsent) = ring.next_unsent() {
            assert_eq!(unsent.token, 7);
            break unsent.rest.expect("not broken");
        }
    };
    drop(ours);
    let mut received = Vec::new();
    theirs.read_to_end(&mut received).expect("all of it");
    assert!(!rest.is_empty());
    received.extend_from_slice(&rest);
    assert!(received == offered, "{} of {} bytes", received.len(), offered.len());
}

#[test]
fn a_send_to_a_peer_that_is_gone_is_told_as_broken() {
    let Some(mut ring) = ring() else { return };
    let (ours, theirs) = pair();
    drop(theirs);
    assert!(ring.send(&ours, 7, b"hello"));
    ring.submit();
    assert_eq!(ring.next_unsent(), Some(Unsent { token: 7, rest: None }));
}

#[test]
fn more_sends_than_fit_a_call_all_arrive() {
    let Some(mut ring) = ring() else { return };
    let count = SUBMISSIONS as usize + 1;
    let pairs: Vec<_> = (0..count).map(|_| pair()).collect();
    // Together more than there is room for copies of, too.
    let pieces: Vec<Vec<u8>> = (0..count).map(|n| vec![n as u8; 500 + n]).collect();
    for (n, ((ours, _), piece)) in pairs.iter().zip(&pieces).enumerate() {
        assert!(ring.send(ours, n as u64, piece));
        assert!(ring.output_bytes <= OUTPUT_BYTES);
    }
    ring.submit();
    assert_eq!(ring.next_unsent(), None);
    for ((ours, mut theirs), piece) in pairs.into_iter().zip(pieces) {
        drop(ours);
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).expect("all of it");
        assert!(received == piece);
    }
}

#[test]
fn a_flood_that_takes_all_buffers_ends_the_receive_and_loses_nothing() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = pair();
    let sent: Vec<u8> = (0..3 * BUFFERS * BUFFER_BYTES).map(|n| (n / 7) as u8).collect();
    let (mut received, mut kept) = (Vec::new(), Vec::new());
    let sender = thread::spawn({
        let sent = sent.clone();
        move || theirs.write_all(&sent).expect("everything is read")
    });
    ring.receive(&ours, 7);
    let mut starved = 0;
    loop {
        let completion = wait_for(&mut ring);
        if let Some(buffer) = completion.buffer {
            received.extend_from_slice(ring.bytes(&buffer));
            kept.push(buffer);
        }
        match completion.result {
            0 => break,
            error if error < 0 => {
                assert_eq!(error, -libc::ENOBUFS);
                starved += 1;
                kept.drain(..).for_each(|buffer| ring.give_back(buffer));
                ring.receive(&ours, 7);
            }
            _ if !completion.more => ring.receive(&ours, 7),
            _ => {}
        }
    }
    sender.join().expect("sent");
    assert!(starved >= 2, "starved {starved} times");
    assert!(received == sent);
}

#[test]
fn a_receive_that_was_cancelled_says_that_it_ended_and_takes_nothing_more() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = pair();
    ring.receive(&ours, 7);
    ring.submit();
    ring.cancel(Operation::Receive, 7);
    let completion = wait_for(&mut ring);
    assert_eq!((completion.result, completion.more), (-libc::ECANCELED, false));
    theirs.write_all(b"later").expect("room");
    ring.wait([], Some(0)).expect("a call");
    assert!(ring.next_completion().is_none());
    let mut later = [0; 5];
    recv(ours.as_fd(), &mut later).expect("it is still there");
    assert_eq!(&later, b"later");
}

/// As small a completion queue as the kernel allows, so that it overflows.
fn small_ring() -> Option<Ring> {
    let ring = Ring::with_completions(SUBMISSIONS);
    ring.map_err(|error| eprintln!("skipped, no io_uring here: {error}")).ok()
}

#[test]
fn a_flood_of_completions_tells_every_send_what_became_of_it_and_of_no_other() {
    const POLLS: u64 = 300;
    let Some(mut ring) = small_ring() else { return };
    let (broken, _) = pair();
    let (full, _unread) = pair();
    while send(full.as_fd(), &[0; 4096], Departure::Now).is_ok() {}
    while send(full.as_fd(), &[0], Departure::Now).is_ok() {}
    let (healthy, mut peer) = pair();
    let (polled, mut waker) = pair();
    for cycle in 0..20 {
        for n in 0..POLLS {
            ring.poll(&polled, Wanted::Readable, n);
        }
        ring.wait([], Some(0)).expect("a call");
        waker.write_all(b"?").expect("room");
        // Two rounds of failures, so that those of the second find the queue full; one of all kinds; one of successes.
        for round in 0..4 {
            let mut expected = Vec::new();
            for n in 0..u64::from(SUBMISSIONS) {
                let token = (4 * cycle + round) << 16 | n;
                let bytes = token.to_be_bytes();
                let (socket, unsent) = match (round, n % 3) {
                    (0 | 1, _) | (2, 0) => (&broken, Some(Unsent { token, rest: None })),
                    (2, 1) => (&full, Some(Unsent { token, rest: Some(bytes.to_vec()) })),
                    _ => (&healthy, None),
                };
                expected.extend(unsent);
                assert!(ring.send(socket, token, &bytes));
            }
            ring.wait([], Some(0)).expect("a call");
            let mut told: Vec<Unsent> = std::iter::from_fn(|| ring.next_unsent()).collect();
            told.sort_by_key(|unsent| unsent.token);
            let counts = (told.len(), expected.len());
            assert!(
                told == expected,
                "cycle {cycle}, round {round}: told and expected: {counts:?}"
            );
            let mut arrived = vec![0; 8 * (SUBMISSIONS as usize - expected.len())];
            peer.read_exact(&mut arrived).expect("what was sent");
        }
        let mut ready: Vec<u64> = (0..POLLS).map(|_| wait_for(&mut ring).token).collect();
        ready.sort_unstable();
        assert!(ready.into_iter().eq(0..POLLS));
        recv(polled.as_fd(), &mut [0]).expect("what woke it");
    }
}

#[test]
fn a_ring_that_failed_is_told_of_by_every_wait_and_sends_nothing_more() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = pair();
    assert!(ring.send(&ours, 7, b"never"));
    ring.fail(io::Error::from_raw_os_error(libc::EBADR));
    assert!(ring.send(&ours, 8, &[0; SEND_BYTES_MAX]));
    for _ in 0..2 {
        assert_eq!(ring.wait([], Some(0)).expect_err("it failed").raw_os_error(), None);
        assert_eq!(ring.next_unsent(), None);
    }
    drop((ours, ring));
    assert_eq!(theirs.read(&mut [0]).expect("an end of stream"), 0);
}

#[test]
fn a_socket_that_is_dropped_between_a_send_and_its_call_is_sent_to_and_no_other() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = pair();
    assert!(ring.send(&ours, 7, b"hello"));
    drop(ours);
    // Would have its number, if it were closed by now.
    let (_other, other_peer) = pair();
    ring.submit();
    let mut received = Vec::new();
    theirs.read_to_end(&mut received).expect("what was sent, and an end of stream");
    assert_eq!(received, b"hello");
    other_peer.set_nonblocking(true).expect("nonblocking");
    let read = (&other_peer).read(&mut [0]);
    assert_eq!(read.expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn polls_that_panic_are_never_handed_over() {
    let Some(mut ring) = ring() else { return };
    let (polled, mut peer) = UnixStream::pair().expect("a pair");
    peer.write_all(b"?").expect("room");
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        let polls = (0..2).map(|n| match n {
            0 => Poll { fd: polled.as_fd(), wanted: Wanted::Readable, token: 7 },
            _ => panic!("amid the polls"),
        });
        ring.wait(polls, Some(0))
    }));
    assert!(panicked.is_err());
    // From here on its number is free for another.
    drop(polled);
    let error = ring.wait([], Some(0)).expect_err("it failed");
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(ring.next_completion().is_none());
}

#[test]
fn a_ring_that_is_the_threads_own_sends_to_what_was_dropped_and_to_no_other() {
    thread_local!(static RING: RefCell<Option<Ring>> = const { RefCell::new(None) });
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let queued = thread::spawn(move || {
        // In this order: what is used first is dropped last.
        RING.with(|own| {
            let Some(mut ring) = ring() else { return false };
            let ours = Connected::from(OwnedFd::from(ours));
            let is_queued = ring.send(&ours, 7, b"hello");
            drop(ours);
            own.replace(Some(ring));
            is_queued
        })
    });
    if queued.join().expect("a thread that ends") {
        // It stays open, as nothing can tell any more when the ring is done with it.
        let mut received = [0; 5];
        theirs.read_exact(&mut received).expect("what was sent");
        assert_eq!(&received, b"hello");
    }
}

#[test]
#[should_panic(expected = "a token of 60 bits")]
fn a_token_that_would_be_another_operations_is_refused() {
    let Some(mut ring) = ring() else { panic!("skipped, not a token of 60 bits") };
    ring.cancel(Operation::Poll, TOKEN_MAX + 1);
}

//! Tests of the ring, over real sockets.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use super::*;

/// No more than what a kernel without io_uring prints.
fn ring() -> Option<Ring> {
    Ring::new().map_err(|error| eprintln!("skipped, no io_uring here: {error}")).ok()
}

fn wait_for(ring: &mut Ring) -> Completion {
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.wait(Some(20_000)).expect("a wait");
    }
}

#[test]
fn a_ring_that_is_gone_takes_no_wake_up_from_another() {
    for _ in 0..200 {
        let Some(mut gone) = ring() else { return };
        let mut other = Ring::new().expect("a second ring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        for ring in [&mut gone, &mut other] {
            ring.poll(listener.as_raw_fd(), Wanted::ReadableByOne, 7);
            ring.submit();
        }
        let address = listener.local_addr().expect("an address");
        drop(gone);
        let _client = TcpStream::connect(address).expect("connect");
        other.wait(Some(5_000)).expect("a wait");
        assert_eq!(other.next_completion().map(|completion| completion.token), Some(7));
    }
}

#[test]
fn what_there_is_no_room_for_is_told_to_the_byte() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("nonblocking");
    let mut offered = Vec::new();
    let rest = loop {
        let piece: Vec<u8> = (0..10_007).map(|n| (offered.len() + n) as u8 ^ 0x5a).collect();
        offered.extend_from_slice(&piece);
        assert!(ring.send(ours.as_fd(), 7, &piece));
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
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    drop(theirs);
    assert!(ring.send(ours.as_fd(), 7, b"hello"));
    ring.submit();
    assert_eq!(ring.next_unsent(), Some(Unsent { token: 7, rest: None }));
}

#[test]
fn more_sends_than_fit_a_call_all_arrive() {
    let Some(mut ring) = ring() else { return };
    let count = SUBMISSIONS as usize + 1;
    let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().expect("a pair")).collect();
    // Together more than there is room for copies of, too.
    let pieces: Vec<Vec<u8>> = (0..count).map(|n| vec![n as u8; 500 + n]).collect();
    for (n, ((ours, _), piece)) in pairs.iter().zip(&pieces).enumerate() {
        assert!(ring.send(ours.as_fd(), n as u64, piece));
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
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let sent: Vec<u8> = (0..3 * BUFFERS * BUFFER_BYTES).map(|n| (n / 7) as u8).collect();
    let (mut received, mut kept) = (Vec::new(), Vec::new());
    let sender = std::thread::spawn({
        let sent = sent.clone();
        move || theirs.write_all(&sent).expect("everything is read")
    });
    ring.receive(ours.as_fd(), 7);
    let mut starved = 0;
    loop {
        let completion = wait_for(&mut ring);
        if let Some(buffer) = completion.buffer {
            received.extend_from_slice(ring.bytes(buffer));
            kept.push(buffer);
        }
        match completion.result {
            0 => break,
            error if error < 0 => {
                assert_eq!(error, -libc::ENOBUFS);
                starved += 1;
                kept.drain(..).for_each(|buffer| ring.give_back(buffer));
                ring.receive(ours.as_fd(), 7);
            }
            _ if !completion.more => ring.receive(ours.as_fd(), 7),
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
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    ring.receive(ours.as_fd(), 7);
    ring.submit();
    ring.cancel(Operation::Receive, 7);
    let completion = wait_for(&mut ring);
    assert_eq!((completion.result, completion.more), (-libc::ECANCELED, false));
    theirs.write_all(b"later").expect("room");
    ring.wait(Some(0)).expect("a call");
    assert!(ring.next_completion().is_none());
    let mut later = [0; 5];
    (&ours).read_exact(&mut later).expect("it is still there");
    assert_eq!(&later, b"later");
}

#[test]
#[should_panic(expected = "a buffer that the kernel has")]
fn a_buffer_that_was_given_back_cannot_be_read() {
    let Some(mut ring) = ring() else { panic!("a buffer that the kernel has: skipped") };
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(b"?").expect("room");
    ring.receive(ours.as_fd(), 7);
    let buffer = wait_for(&mut ring).buffer.expect("a byte");
    ring.give_back(buffer);
    ring.bytes(buffer);
}

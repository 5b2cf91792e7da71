//! Bodies that are a part of a file.

use std::fs::File;

use super::*;
use crate::config::Networks;
use crate::observe::access::Ticket;
use crate::observe::ledger;
use crate::sys::has_input_within;
use crate::worker::context::clients::Clients;
use crate::worker::driver::forget_unsent;

/// Answers with a part of a file, of which the response may state another length.
struct OfFile {
    response: Response,
    span: FileSpan,
}

impl Handler for OfFile {
    fn answer(&self, _: &Request<'_>, _: &Kept) -> Answer<'_> {
        let body = Body::File(Box::new(self.span.clone()));
        Answer::Known(Outcome::Ready(Reply { response: ResponseOf::Site(&self.response), body }))
    }
}

/// A file of so many bytes, all of them different from their neighbours.
fn file(length: usize) -> (Arc<File>, Vec<u8>) {
    let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&content).expect("space");
    (Arc::new(file), content)
}

fn site(file: &Arc<File>, offset: u64, length: usize, stated: Option<u64>) -> Site {
    let span = FileSpan::new(Arc::clone(file), offset, length as u64);
    Site::of(Box::new(OfFile { response: Response::new(200, [], stated), span }))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

impl Pair<'_> {
    /// Turns until the connection waits for its client to send more, or has closed, and says what that has received.
    fn bytes_of(&mut self, request: &str) -> (Vec<u8>, Next) {
        let (mut next, mut received) = (self.ask(request), self.received());
        while next != Next::Close
            && (self.connection.transport.is_blocked() || matches!(next, Next::Again(_)))
        {
            next = self.turn(false);
            received.extend(self.received());
        }
        (received, next)
    }
}

/// What follows a head.
fn body_of(received: &[u8]) -> &[u8] {
    let at = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    &received[at + 4..]
}

#[test]
fn a_part_of_a_file_is_sent_and_what_comes_behind_it_too() {
    let (file, content) = file(3_000_000);
    for (offset, length) in [(0, 3_000_000), (1, 2_999_998), (2_999_999, 1), (0, 100), (7, 0)] {
        let (site, lane) = (site(&file, offset, length, None), Lane::new());
        let mut pair = lane.serve(&site);
        let (received, _) =
            pair.bytes_of(&[GET, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", GET].concat());
        let field = format!("\r\nContent-Length: {length}\r\n");
        let text = String::from_utf8_lossy(&received);
        assert_eq!(text.matches(&field).count(), 3, "{offset}, {length}");
        let part = &content[offset as usize..][..length];
        let first = body_of(&received);
        assert!(first.starts_with(part), "{offset}, {length}");
        // Of the HEAD there is a head alone.
        let last = body_of(body_of(&first[length..]));
        assert!(last == part, "{offset}, {length}");
        assert!(pair.connection.is_idle());
        assert_eq!(ended(&lane), (3, 0, received.len() as u64));
    }
}

#[test]
fn a_part_of_a_file_is_held_to_the_length_that_its_response_states() {
    let (file, content) = file(1_000);
    for (stated, sent, is_kept) in [(900, 900, true), (1_000, 1_000, true), (1_001, 1_000, false)] {
        let (site, lane) = (site(&file, 0, 1_000, Some(stated)), Lane::new());
        let mut pair = lane.serve(&site);
        let (received, _) = pair.bytes_of(GET);
        assert!(body_of(&received) == &content[..sent], "{stated}");
        assert_eq!(pair.connection.is_idle(), is_kept, "{stated}");
    }
}

#[test]
fn a_file_that_has_become_shorter_closes_its_connection() {
    let (file, content) = file(2_000_000);
    let (site, lane) = (site(&file, 0, content.len(), None), Lane::new());
    for shorter in [1_000_000, 0] {
        let mut pair = lane.serve(&site);
        pair.ask(GET);
        file.set_len(shorter).expect("a file");
        let mut received = pair.received();
        while pair.turn(false) != Next::Close {
            received.extend(pair.received());
        }
        received.extend(pair.received());
        assert!(body_of(&received).len() < content.len());
        let aborted = ended(&lane).1;
        pair.connection.abandon(&mut pair.context);
        assert_eq!((ended(&lane).0, ended(&lane).1), (0, aborted + 1));
    }
}

#[test]
fn a_file_waits_for_its_client_and_holds_nothing_meanwhile() {
    let (file, content) = file(3_000_000);
    let (site, lane) = (site(&file, 0, content.len(), None), Lane::new());
    let mut pair = lane.serve(&site);
    let mut next = pair.ask(GET);
    while matches!(next, Next::Again(_)) {
        next = pair.turn(false);
    }
    assert!(matches!(next, Next::WaitUntil(_)), "{next:?}");
    assert!(pair.connection.transport.is_blocked() && !pair.connection.transport.is_paused());
    assert!(pair.connection.held_bytes() < 1_000, "{}", pair.connection.held_bytes());
    assert!(matches!(pair.connection.interest(), Interest::RoomOrInput));
    assert_eq!(ended(&lane), (0, 0, 0));
}

/// A connection over TCP, whose kernel takes more at once than one turn sends.
pub(super) fn over_tcp<'s>(
    lane: &'s Lane,
    site: &'s Site,
) -> (TcpStream, Connection<'s>, Context<'s>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    server.set_nonblocking(true).expect("nonblocking");
    let context = Context::new(site, &lane.limits, &lane.config, &lane.ledger, 0);
    (client, Connection::new(server.into()), context)
}

#[test]
fn a_turn_sends_a_part_of_a_large_file_and_no_event_has_it_send_more() {
    const TURN_BYTES: usize = FILE_BYTES_PER_TURN;
    let (file, content) = file(5 * TURN_BYTES);
    let (site, lane) = (site(&file, 0, content.len(), None), Lane::new());
    let (mut client, mut connection, mut context) = over_tcp(&lane, &site);
    client.write_all(GET.as_bytes()).expect("room");
    let mut driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
    // In a thread of its own a client reads as fast as it can.
    let mut reader = client.try_clone().expect("a descriptor");
    let length = content.len();
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; length];
        reader.read_exact(&mut received).expect("at least as much");
        received.len()
    });
    let (mut turns, mut next) = (0, Next::Wait);
    while turns == 0 || connection.transport.is_blocked() {
        let unsent = |connection: &Connection<'_>| connection.transport.unsent_bytes();
        let before = if turns == 0 { length } else { unsent(&connection) };
        next = turn(&mut connection, &mut context, &mut driver, true);
        turns += 1;
        let after = unsent(&connection);
        assert!(before - after <= TURN_BYTES, "{before} to {after}");
        if matches!(next, Next::Again(_)) {
            // Queued for its next turn, it does nothing at an event.
            connection.set_queued(true);
            let ready = Ready { readable: true, writable: true, ..Ready::quiet(0) };
            let mut buffer = [0; 1024];
            let mut input = Input::new(None, Some(&mut buffer));
            assert_eq!(connection.on_ready(ready, &mut input, &mut context), Next::Wait);
            assert_eq!(unsent(&connection), after);
            assert!(matches!(connection.interest(), Interest::Input));
        }
    }
    assert!(turns >= 5, "{turns}");
    assert!(matches!(next, Next::WaitUntil(_)), "{next:?}");
    assert_eq!(reader.join().expect("a client"), length);
}

#[test]
fn the_address_of_the_client_is_known_when_it_is_gone_and_the_time_of_a_record() {
    let (file, _) = file(1);
    let (site, lane) = (site(&file, 0, 1, None), Lane::new());
    let (client, connection, mut context) = over_tcp(&lane, &site);
    let record = crate::observe::record::Record::open(
        context.now_us,
        ledger::labels::Method::Get,
        Ticket::NONE,
    );
    context.now_us += 7;
    assert_eq!(context.now_us - record.began_us(), 7);
    let mut clients = Clients::new(Networks::default());
    let kept = clients.at_other_end(connection.socket());
    clients.keep(context.jobs.at_work.index, kept);
    context.clients = Some(clients);
    assert_eq!(context.remote(), Some(client.local_addr().expect("an address")));
    forget_unsent(&client);
    drop(client);
    assert!(has_input_within(connection.socket(), Duration::from_secs(5)), "the client has reset");
    assert_eq!(context.remote(), kept.address, "it is kept");
    let mut pair = lane.serve(&site);
    let mut clients = Clients::new(Networks::default());
    clients.keep(0, clients.at_other_end(pair.connection.socket()));
    pair.context.clients = Some(clients);
    assert_eq!(pair.context.remote(), None, "not of TCP");
}

#[test]
fn files_behind_each_other_leave_others_their_turn() {
    const TURN_BYTES: usize = FILE_BYTES_PER_TURN;
    const FILE_BYTES: usize = 100_000;
    const COUNT: usize = 200;
    let (file, _) = file(FILE_BYTES);
    let (site, lane) = (site(&file, 0, FILE_BYTES, None), Lane::new());
    let (mut client, mut connection, mut context) = over_tcp(&lane, &site);
    let mut driver = Driver::Epoll(epoll::Driver::new().expect("a driver"));
    let mut reader = client.try_clone().expect("a descriptor");
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).expect("all of it");
        received
    });
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all((GET.repeat(COUNT - 1) + last).as_bytes()).expect("room");
    let mut before = 0;
    while before < COUNT as u64 {
        turn(&mut connection, &mut context, &mut driver, true);
        let responses = ended(&lane).0;
        // The one that an earlier turn has begun, and those that fit into this one.
        let most = 1 + (TURN_BYTES / FILE_BYTES) as u64;
        assert!(responses - before <= most, "{before} to {responses}");
        before = responses;
    }
    let received = reader.join().expect("a client");
    assert_eq!(received.len() as u64, ended(&lane).2);
    assert_eq!(ended(&lane).0, COUNT as u64);
}

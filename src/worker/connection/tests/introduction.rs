//! What a connection costs before and after a proxy has said whose it is, and what is counted.

use super::*;
use crate::config::Networks;
use crate::observe::ledger::labels::{RejectedFor, TimedOut};
use crate::worker::context::clients::Clients;

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A connection that a proxy has to introduce, over a Unix socket.
fn introduced<'s>(lane: &'s Lane, site: &'s Site) -> Pair<'s> {
    let mut pair = lane.serve(site);
    let (client, server) = UnixStream::pair().expect("a pair");
    client.set_nonblocking(true).expect("nonblocking");
    server.set_nonblocking(true).expect("nonblocking");
    (pair.client, pair.connection) = (client, Connection::introduced(server.into()));
    let mut clients = Clients::new(Networks::default());
    clients.keep(0, clients.at_other_end(pair.connection.socket()));
    pair.context.clients = Some(clients);
    pair
}

impl Pair<'_> {
    fn hears(&mut self, bytes: &[u8]) -> Next {
        self.client.write_all(bytes).expect("room");
        self.turn(true)
    }

    fn client(&self) -> Option<String> {
        self.context.remote().map(|address| address.to_string())
    }
}

#[test]
fn a_part_of_a_header_is_kept_and_nothing_once_it_is_whole() {
    let (site, lane) = (pieces(b"x", 1, None).0, Lane::new());
    let mut pair = introduced(&lane, &site);
    assert_eq!(pair.connection.held_bytes(), 0);
    assert_eq!(pair.hears(&HEADER[..10]), Next::Wait, "its deadline stays");
    assert!((10..100).contains(&pair.connection.held_bytes()));
    assert_eq!((pair.client(), pair.connection.is_idle()), (None, false));
    let next = pair.hears(&HEADER[10..]);
    assert_eq!(next, Next::WaitUntil(pair.context.timeouts.keep_alive_ms));
    assert_eq!(pair.connection.held_bytes(), 0);
    assert!(pair.connection.is_idle() && pair.connection.is_fresh());
    assert_eq!(pair.client().as_deref(), Some("192.0.2.1:56324"));
    pair.hears(REQUEST);
    assert!(pair.received().starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(pair.client().as_deref(), Some("192.0.2.1:56324"));
    let received = pair.context.counters.cells().received_bytes.get();
    assert_eq!(received, (HEADER.len() + REQUEST.len()) as u64);
}

#[test]
fn what_ends_a_connection_before_it_is_introduced_is_counted_by_its_reason() {
    let (site, lane) = (pieces(b"x", 1, None).0, Lane::new());
    let mut pair = introduced(&lane, &site);
    assert_eq!(pair.hears(REQUEST), Next::Close);
    let cells = pair.context.counters.cells();
    assert_eq!(cells.rejected.at(RejectedFor::ProxyHeader).get(), 1);
    assert!(pair.received().is_empty());

    let mut pair = introduced(&lane, &site);
    pair.hears(&HEADER[..10]);
    let Pair { connection, context, driver, .. } = &mut pair;
    assert_eq!(step(connection, context, driver, Connection::on_deadline), Next::Close);
    assert_eq!(context.counters.cells().timed_out.at(TimedOut::Header).get(), 1);
    assert!(pair.received().is_empty());

    // One that has come by then has come in time, and one that has ended has not timed out.
    let mut pair = introduced(&lane, &site);
    pair.client.write_all(&[HEADER, REQUEST].concat()).expect("room");
    let Pair { connection, context, driver, .. } = &mut pair;
    assert_ne!(step(connection, context, driver, Connection::on_deadline), Next::Close);
    assert!(pair.received().starts_with(b"HTTP/1.1 200 OK\r\n"));
    let mut pair = introduced(&lane, &site);
    drop(std::mem::replace(&mut pair.client, UnixStream::pair().expect("a pair").0));
    let Pair { connection, context, driver, .. } = &mut pair;
    assert_eq!(step(connection, context, driver, Connection::on_deadline), Next::Close);
    assert_eq!(context.counters.cells().timed_out.at(TimedOut::Header).get(), 1);
}

#[test]
fn a_header_is_refused_where_the_lane_may_hold_no_more() {
    let (site, lane) = (pieces(b"x", 1, None).0, Lane::new());
    let mut pair = introduced(&lane, &site);
    pair.context.held_elsewhere = context::HELD_BYTES_MAX - 9;
    assert_eq!(pair.hears(&HEADER[..10]), Next::Close);
    let cells = pair.context.counters.cells();
    assert_eq!(cells.rejected.at(RejectedFor::Memory).get(), 1);
    // One that needs not be kept costs nothing.
    let mut pair = introduced(&lane, &site);
    pair.context.held_elsewhere = context::HELD_BYTES_MAX;
    assert!(matches!(pair.hears(HEADER), Next::WaitUntil(_)));
}

//! What the kernel keeps for a group of sockets, seen by where connections end up.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::*;
use crate::sys::socket::Listener;
use crate::sys::socket::ports::PortHolder;

const BACKLOG: u32 = 64;

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn requested() -> RequestedAddress {
    RequestedAddress(any_port().into(), 0)
}

fn accesses() -> Accesses {
    let config = crate::config::load(&crate::config::Options::default()).expect("valid").config;
    Accesses::find(&config).expect("no user is named")
}

fn listeners(lanes: usize) -> Listeners {
    let group = Group::open(requested(), any_port(), BACKLOG, lanes).expect("a free port");
    Listeners { groups: vec![group], ..Listeners::default() }
}

/// What an heir would be passed of these.
fn lend(listeners: &Listeners) -> Listeners {
    let copy = |group: &Group| {
        let copies = group.listeners.iter().map(|of| of.as_fd().try_clone_to_owned().unwrap());
        let copies = copies.map(Listener::from);
        Group::inherit(group.requested.clone(), false, group.file_identity(), copies).unwrap()
    };
    Listeners::inherit(Purpose::Serve, listeners.groups.iter().map(copy).collect())
}

/// By lane, how many of 64 connections came to its socket.
fn spread(listeners: &Listeners) -> Vec<usize> {
    let group = &listeners.groups[0];
    let address = group.address.internet().expect("a port");
    let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    let taken = |listener: &Listener| std::iter::from_fn(|| listener.accept().ok()).count();
    let spread: Vec<usize> = group.listeners.iter().map(taken).collect();
    assert_eq!(spread.iter().sum::<usize>(), clients.len());
    spread
}

fn all_get_some(spread: &[usize]) -> bool {
    spread.iter().all(|count| *count > 0)
}

#[test]
fn an_heir_changes_nothing_that_the_kernel_keeps_until_it_takes_over() {
    let mut old = listeners(4);
    old.steer(Some(3)).unwrap();
    let mut heir = lend(&old);
    heir.steer(Some(1)).unwrap();
    heir.keep(&[]);
    let before = spread(&old);
    assert!(all_get_some(&before[..3]) && before[3] == 0, "{before:?}");
    heir.take_over(accesses()).unwrap();
    assert_eq!(spread(&old), [64, 0, 0, 0]);
}

#[test]
fn an_heir_that_wants_all_lanes_takes_away_what_steered_before_it() {
    let mut old = listeners(4);
    old.steer(Some(2)).unwrap();
    let mut heir = lend(&old);
    heir.take_over(accesses()).unwrap();
    let after = spread(&heir);
    assert!(all_get_some(&after), "{after:?}");
}

#[test]
fn an_heir_that_ends_leaves_the_sockets_of_the_one_before_alone() {
    let old = listeners(2);
    let mut heir = lend(&old);
    heir.close();
    assert!(all_get_some(&spread(&old)));
}

#[test]
fn sockets_that_only_an_heir_has_get_no_connection_before_its_workers_are_ready() {
    let old = listeners(1);
    let mut heir = lend(&old);
    heir.grow(4, BACKLOG).unwrap();
    assert_eq!(spread(&heir), [64, 0, 0, 0]);
    heir.begin_to_listen(BACKLOG).unwrap();
    let after = spread(&heir);
    assert!(all_get_some(&after), "{after:?}");
}

#[test]
fn what_an_heir_that_failed_did_to_the_sockets_is_undone() {
    let mut old = listeners(4);
    old.steer(Some(3)).unwrap();
    let mut heir = lend(&old);
    heir.take_over(accesses()).unwrap();
    heir.steer(Some(1)).unwrap();
    heir.groups[0].set_backlog(1).unwrap();
    heir.groups[0].listeners.iter().for_each(|listener| listener.ignore_new().unwrap());
    drop(heir);
    old.restore(BACKLOG, accesses()).unwrap();
    let after = spread(&old);
    assert!(all_get_some(&after[..3]) && after[3] == 0, "{after:?}");
    let backlog = |listener: &Listener| listener.accept_queue().unwrap().backlog;
    assert!(old.groups[0].listeners.iter().all(|listener| backlog(listener) == BACKLOG));
}

#[test]
fn a_group_that_joins_while_lanes_leave_is_steered_as_well() {
    let mut listeners = listeners(4);
    listeners.steer(Some(2)).unwrap();
    listeners.groups.insert(0, Group::open(requested(), any_port(), BACKLOG, 4).unwrap());
    listeners.grow(2, BACKLOG).unwrap();
    let spread = spread(&listeners);
    assert!(all_get_some(&spread[..2]) && spread[2..] == [0, 0], "{spread:?}");
}

#[test]
fn a_wildcard_clashes_with_every_address_of_its_family_on_its_port() {
    // (one, other, whether they clash)
    let cases = [
        ("0.0.0.0:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "0.0.0.0:80", true),
        ("[::]:80", "[::1]:80", true),
        ("[::]:80", "0.0.0.0:80", false),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("127.0.0.1:80", "0.0.0.0:81", false),
        ("127.0.0.1:0", "0.0.0.0:0", false),
        ("unix:/a", "unix:/a", true),
        ("unix:/a", "unix:/b", false),
        ("unix:/a", "0.0.0.0:80", false),
    ];
    for (one, other, expected) in cases {
        let parse = |text: &str| text.parse::<Address>().expect("an address");
        assert_eq!(clashes(&parse(one), &parse(other)), expected, "{one} {other}");
    }
}

#[test]
fn a_port_that_is_in_use_is_told_with_what_was_found_before_and_nothing_is_looked_up() {
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = other.local_addr().unwrap();
    let requested = RequestedAddress(address.into(), 0);
    let found = PortHolder { pid: 1, name: "another".into() };
    let found = PortHolders::Known([(address.port(), found)].into());
    // A look into /proc would find this process.
    for (holders, expected) in
        [(found, "pid 1 (another)"), (PortHolders::none(), "/proc doesn't show")]
    {
        let wanted = Wanted {
            listen: &[],
            resolved: &[],
            backlog: BACKLOG,
            sockets: 1,
            engine: Engine::Native,
            holders: &holders,
            accesses: accesses(),
            lock_patience: Duration::ZERO,
        };
        let opened = Listeners::default().open_address(&requested, &wanted);
        let error = opened.expect_err("the port is in use").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

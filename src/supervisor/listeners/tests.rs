//! What the kernel keeps for a group of sockets, seen by where connections end up.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use super::*;
use crate::sys::socket::Listener;

const BACKLOG: u32 = 64;

fn asked() -> Asked {
    Asked(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 0)
}

fn listeners(lanes: usize) -> Listeners {
    let group = Group::open(asked(), BACKLOG, lanes).expect("a free port");
    Listeners { groups: vec![group], ..Listeners::default() }
}

/// What an heir would be passed of these.
fn lend(listeners: &Listeners) -> Listeners {
    let copy = |group: &Group| {
        let copies = group.listeners.iter().map(|of| of.as_fd().try_clone_to_owned().unwrap());
        Group::inherit(group.asked, false, copies.map(Listener::from)).unwrap()
    };
    Listeners::inherit(listeners.groups.iter().map(copy).collect())
}

/// By lane, how many of 64 connections came to its socket.
fn spread(listeners: &Listeners) -> Vec<usize> {
    let group = &listeners.groups[0];
    let clients: Vec<_> = (0..64).map(|_| TcpStream::connect(group.address).unwrap()).collect();
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
    heir.take_over().unwrap();
    assert_eq!(spread(&old), [64, 0, 0, 0]);
}

#[test]
fn an_heir_that_wants_all_lanes_takes_away_what_steered_before_it() {
    let mut old = listeners(4);
    old.steer(Some(2)).unwrap();
    let mut heir = lend(&old);
    heir.take_over().unwrap();
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
    heir.take_over().unwrap();
    heir.steer(Some(1)).unwrap();
    heir.groups[0].set_backlog(1).unwrap();
    heir.groups[0].listeners.iter().for_each(|listener| listener.ignore_new().unwrap());
    drop(heir);
    old.restore(BACKLOG).unwrap();
    let after = spread(&old);
    assert!(all_get_some(&after[..3]) && after[3] == 0, "{after:?}");
    let backlog = |listener: &Listener| listener.accept_queue().unwrap().backlog;
    assert!(old.groups[0].listeners.iter().all(|listener| backlog(listener) == BACKLOG));
}

#[test]
fn a_group_that_joins_while_lanes_leave_is_steered_as_well() {
    let mut listeners = listeners(4);
    listeners.steer(Some(2)).unwrap();
    listeners.groups.insert(0, Group::open(asked(), BACKLOG, 4).unwrap());
    listeners.grow(2, BACKLOG).unwrap();
    let spread = spread(&listeners);
    assert!(all_get_some(&spread[..2]) && spread[2..] == [0, 0], "{spread:?}");
}

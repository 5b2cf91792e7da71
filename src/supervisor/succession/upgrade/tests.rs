//! What passes between a supervisor and its heir, through a socket that holds less than all of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use serde::Deserialize;

use super::super::unsent::Part;
use super::*;
use crate::config::{self, Count, Engine, LANES_MAX, ListenAddress};
use crate::observe::ledger::Levels;
use crate::supervisor::commands::status::{Happening, Totals};
use crate::supervisor::listeners::{Accesses, PortHolders, Wanted};
use crate::supervisor::processes::totals::Accounts;
use crate::sys::socket::PACKET_FILES_MAX;
use crate::sys::{process, takes_write_within};

/// The most that as many lanes as there can be have counted, and have, and auxiliary workers.
fn accounts() -> Accounts {
    let most = Account { totals: Totals::most(), levels: Levels { open: u64::MAX } };
    let lanes = (0..LANES_MAX).map(Role::Lane);
    lanes.chain([Role::Admin, Role::AccessLog]).map(|role| (role, most)).collect()
}

#[test]
fn more_than_a_socket_holds_is_sent_as_the_heir_takes_it() {
    let (ours, theirs) = socket::packet_pair().expect("a pair");
    let (ours, theirs) = (Control::new(ours), Control::new(theirs));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = config::load(&config::Options::default()).expect("valid").config;
    let accesses = Accesses::find(&config).expect("no user is named");
    let open = |purpose, sockets| {
        let wanted = Wanted {
            listen: &[ListenAddress::Socket(address)],
            resolved: &[Ok(vec![address.into()])],
            backlog: 64,
            sockets,
            engine: Engine::Native,
            holders: &PortHolders::WhenNeeded,
            accesses,
            lock_patience: Duration::ZERO,
        };
        let mut listeners = Listeners::of(purpose);
        listeners.open(&wanted).expect("a free port");
        listeners
    };
    let lanes = PACKET_FILES_MAX + 1;
    let listeners = (&open(Purpose::Serve, lanes), &open(Purpose::Admin, 1));
    let mut unsent = Unsent::of(Handover {
        listeners,
        history: &History::default(),
        lanes: Some(PreviousSize { count: Count::Auto, configured: 1, lanes }),
        accounts: accounts(),
        reloads: Reloads { done: 7, ..Reloads::default() },
        has_command_socket: true,
    });
    let delivery = unsent.flush(&ours, listeners);
    assert!(matches!(delivery, Delivery::NoRoom), "{delivery:?}: it has read nothing");
    let heir = thread::spawn(move || Inheritance::receive(&theirs));
    loop {
        match unsent.flush(&ours, listeners) {
            Delivery::Done => break,
            Delivery::NoRoom => assert!(takes_write_within(&ours, PATIENCE), "it reads"),
            other => panic!("{other:?}"),
        }
    }
    let received = heir.join().expect("the thread").expect("all of it");
    assert_eq!(received.accounts.len(), accounts().iter().count());
    assert_eq!(received.accounts.into_iter().collect::<Accounts>(), accounts());
    assert_eq!((received.listeners.lanes(), received.reloads.done), (lanes, 7));
    assert_eq!(received.admin_listeners.groups()[0].address, listeners.1.groups()[0].address);
    let from = received.from.expect("a predecessor");
    assert_eq!((from.pid, from.has_command_socket), (process::id(), true));
}

#[test]
fn a_server_can_go_back_to_the_version_before_which_knows_so_many_messages() {
    let size = PreviousSize { count: Count::Auto, configured: 1, lanes: 2 };
    let listeners = (&Listeners::of(Purpose::Serve), &Listeners::of(Purpose::Admin));
    let unsent = Unsent::of(Handover {
        listeners,
        history: &History([Happening::default()].into()),
        lanes: Some(size),
        accounts: accounts(),
        reloads: Reloads { done: 7, ..Reloads::default() },
        has_command_socket: true,
    });
    for part in unsent.0 {
        let Part::Message(message) = part else { continue };
        let text = serde_json::to_string(&message).expect("a message");
        let known: Before =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if let Before::Lanes(known) = known {
            assert_eq!(known, size);
        }
    }
}

/// What the version before understands.
#[derive(Deserialize)]
#[allow(dead_code, reason = "it is enough that they are read")]
enum Before {
    Happening(Box<Happening>),
    Lanes(PreviousSize),
    Totals(Vec<(RoleBefore, BTreeMap<String, serde_json::Value>)>),
    HasCommandSocket,
    End,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "as above")]
enum RoleBefore {
    Lane(usize),
    Acceptor,
}

//! Fields as proxies and clients write them, and what comes of each.

use proptest::prelude::*;

use super::*;

fn networks(list: &[&str]) -> Networks {
    serde_json::from_str(&serde_json::to_string(list).unwrap()).unwrap()
}

fn address_of(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Where a request comes from that a proxy at 10.0.0.1 has passed on; trusted are 10.0.0.0/8 and 2001:db8::/32.
fn client_of(forwarded_for: &[&str], forwarded: &[&str]) -> String {
    let trusted = networks(&["10.0.0.0/8", "2001:db8::/32"]);
    let values = |lines: &[&str]| lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    let (forwarded_for, forwarded): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
        (values(forwarded_for), values(forwarded));
    let stated = Stated {
        forwarded_for: forwarded_for.iter().map(Vec::as_slice),
        forwarded: forwarded.iter().map(Vec::as_slice),
    };
    client(Some(address_of("10.0.0.1")), &trusted, stated).unwrap().to_string()
}

#[test]
fn the_last_address_that_is_no_proxys_is_the_clients() {
    for (lines, expected) in [
        (&[][..], "10.0.0.1"),
        (&[""], "10.0.0.1"),
        (&[" , ,"], "10.0.0.1"),
        (&["192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.9, 192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.9", "192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        (&["192.0.2.1", " 10.0.0.3 ,\t10.0.0.2"], "192.0.2.1"),
        (&["192.0.2.1,,10.0.0.2,"], "192.0.2.1"),
        (&["192.0.2.9, 192.0.2.1, 2001:db8::2"], "192.0.2.1"),
        // All are trusted: the first is the farthest that is known.
        (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        // What can't be read, and all before it, is not believed.
        (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (&["192.0.2.1, 10.0.0.300, 10.0.0.2"], "10.0.0.2"),
        (&["192.0.2.1, \"10.0.0.3\""], "10.0.0.1"),
        (&["192.0.2.1 10.0.0.3"], "10.0.0.1"),
        (&["192.0.2.1; 10.0.0.3"], "10.0.0.1"),
        (&["192.0.2.1, \u{e4}"], "10.0.0.1"),
    ] {
        assert_eq!(client_of(lines, &[]), expected, "{lines:?}");
    }
}

#[test]
fn an_address_is_read_in_each_of_its_forms_and_in_no_other() {
    for (text, expected) in [
        ("192.0.2.1", Some("192.0.2.1")),
        ("192.0.2.1:80", Some("192.0.2.1")),
        ("192.0.2.1:_hidden", Some("192.0.2.1")),
        ("2001:db9::1", Some("2001:db9::1")),
        ("[2001:db9::1]", Some("2001:db9::1")),
        ("[2001:db9::1]:80", Some("2001:db9::1")),
        ("::ffff:192.0.2.1", Some("192.0.2.1")),
        ("[::FFFF:192.0.2.1]:80", Some("192.0.2.1")),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:123456", None),
        ("192.0.2.1:+80", None),
        ("192.0.2.01", None),
        ("192.0.2", None),
        ("0x7f.1", None),
        ("[192.0.2.1]", None),
        ("[2001:db9::1", None),
        ("[2001:db9::1]80", None),
        ("[2001:db9::1]:", None),
        ("fe80::1%eth0", None),
        ("192.0.2.1\0", None),
        ("localhost", None),
    ] {
        assert_eq!(address(text.as_bytes()), expected.map(address_of), "{text:?}");
    }
    assert_eq!(address(b"\xff"), None);
}

#[test]
fn forwarded_is_read_as_its_grammar_says() {
    for (lines, expected) in [
        (&["for=192.0.2.1"][..], "192.0.2.1"),
        (&["For=192.0.2.1;proto=http;by=203.0.113.43"], "192.0.2.1"),
        (&["proto=http; FOR=\"192.0.2.1:4711\""], "192.0.2.1"),
        (&["for=\"[2001:db9:cafe::17]:4711\""], "2001:db9:cafe::17"),
        (&["for=\"\\1\\92.0.2.\\1\""], "192.0.2.1"),
        (&["for=192.0.2.9, for=192.0.2.1"], "192.0.2.1"),
        (&["for=192.0.2.9", "for=192.0.2.1, for=10.0.0.2"], "192.0.2.1"),
        (&["for=192.0.2.1, for=\"[2001:db8::2]\""], "192.0.2.1"),
        (&[",, for=192.0.2.1 ,, for=10.0.0.2 ,"], "192.0.2.1"),
        (&["for=192.0.2.1;;, ;for=10.0.0.2;"], "192.0.2.1"),
        // A comma or a quote within quotes ends nothing.
        (&["for=192.0.2.1;ext=\"a, for=10.0.0.9; \\\"\""], "192.0.2.1"),
        // A proxy that says nothing of its client, or hides it.
        (&["for=192.0.2.1, for=unknown"], "10.0.0.1"),
        (&["for=192.0.2.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (&["for=192.0.2.1, proto=https"], "10.0.0.1"),
        (&[""], "10.0.0.1"),
        // What is malformed hides where an element begins.
        (&["for=192.0.2.1, for=2001:db8::1"], "10.0.0.1"),
        (&["for=\"192.0.2.9, for=192.0.2.1"], "10.0.0.1"),
        (&["for=\"x, for=\"[2001:db8::1]\""], "10.0.0.1"),
        (&["for=192.0.2.9;for=192.0.2.1"], "10.0.0.1"),
        (&["for = 192.0.2.1"], "10.0.0.1"),
        (&["for=192.0.2.1 for=192.0.2.2"], "10.0.0.1"),
        (&["for=", "for=10.0.0.2"], "10.0.0.2"),
        (&["for=\"192.0.2.1\\"], "10.0.0.1"),
        (&["=192.0.2.1"], "10.0.0.1"),
        // The sound lines behind a malformed one are believed.
        (&["for=\"", "for=192.0.2.1, for=10.0.0.2"], "192.0.2.1"),
    ] {
        assert_eq!(client_of(&[], lines), expected, "{lines:?}");
    }
}

#[test]
fn forwarded_counts_only_where_there_is_no_x_forwarded_for() {
    assert_eq!(client_of(&["192.0.2.1"], &["for=192.0.2.2"]), "192.0.2.1");
    assert_eq!(client_of(&["unknown"], &["for=192.0.2.2"]), "10.0.0.1");
    assert_eq!(client_of(&[], &["for=192.0.2.2"]), "192.0.2.2");
}

#[test]
fn so_many_proxies_are_followed_and_no_more() {
    for (count, expected) in [(PROXIES_MAX - 1, "192.0.2.1"), (PROXIES_MAX, "10.0.0.9")] {
        let proxies = |of: &str, more: &str| vec![format!("{of}{more}10.0.0.9"); count].join(", ");
        let plain = format!("192.0.2.1, {}", proxies("", ""));
        assert_eq!(client_of(&[&plain], &[]), expected, "{count}");
        let named = format!("for=192.0.2.1, {}", proxies("for", "="));
        assert_eq!(client_of(&[], &[&named]), expected, "{count}");
        let lines = [vec!["for=192.0.2.1"], vec!["for=10.0.0.9"; count]].concat();
        assert_eq!(client_of(&[], &lines), expected, "{count}");
    }
}

#[test]
fn a_peer_without_an_address_has_none_unless_the_fields_state_one() {
    let trusted = networks(&[]);
    let of = |lines: &'static [&'static [u8]]| {
        let values = |lines: &'static [&'static [u8]]| lines.iter().copied();
        client(None, &trusted, Stated { forwarded_for: values(lines), forwarded: values(&[]) })
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[b"unknown"]), None);
    assert_eq!(of(&[b"10.0.0.9, 192.0.2.1"]), Some(address_of("192.0.2.1")));
}

/// An address that is trusted in these tests, or one that isn't.
fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 3]>().prop_map(|[b, c, d]| [10, b, c, d].into()),
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(bytes).to_canonical()),
    ]
}

/// The same, or another one if it is trusted.
fn outside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 10 => (v4.to_bits() | 1 << 24).to_be_bytes().into(),
        address => address,
    }
}

/// How proxies write an address in a field.
fn written(address: IpAddr, style: usize) -> (String, String) {
    match (address, style % 3) {
        (address, 0) if address.is_ipv4() => (address.to_string(), format!("for={address}")),
        (address, 1) if address.is_ipv4() => {
            (format!("{address}:1"), format!("proto=http;For=\"{address}:1\";by=_x"))
        }
        (IpAddr::V4(v4), _) => {
            let mapped = v4.to_ipv6_mapped();
            (mapped.to_string(), format!("for=\"[{mapped}]\""))
        }
        (address, 0) => (address.to_string(), format!("for=\"[{address}]\"")),
        (address, _) => (format!("[{address}]:1"), format!("for=\"[{address}]:1\" ;x=y")),
    }
}

proptest! {
    #[test]
    fn whatever_a_client_sends_what_its_proxy_adds_decides(
        sent in prop::collection::vec("[ -~\t]{0,40}", 0..4),
        own in any_address().prop_map(outside),
        style in 0_usize..3,
    ) {
        let trusted = networks(&["10.0.0.0/8"]);
        let (plain, named) = written(own, style);
        let bytes = |added: &String| -> Vec<Vec<u8>> {
            sent.iter().chain([added]).map(|line| line.as_bytes().to_vec()).collect()
        };
        let (of_plain, of_named) = (bytes(&plain), bytes(&named));
        let both: [&[Vec<u8>]; 2] = [&of_plain, &[]];
        for [forwarded_for, forwarded] in [both, [&[], &of_named]] {
            let stated = Stated {
                forwarded_for: forwarded_for.iter().map(Vec::as_slice),
                forwarded: forwarded.iter().map(Vec::as_slice),
            };
            prop_assert_eq!(client(Some(address_of("10.0.0.1")), &trusted, stated), Some(own));
        }
        // In one line with what the client has sent: it may hide itself by what is malformed, and states no address.
        let [of_plain, of_named] = [plain, named].map(|added| [&sent[..], &[added]].concat().join(", "));
        let found = client_of(&[&of_plain], &[]);
        let plain_trusted = networks(&["10.0.0.0/8", "2001:db8::/32"]).contains(own);
        prop_assert!(plain_trusted || found == own.to_string());
        let found = client_of(&[], &[&of_named]);
        prop_assert!(plain_trusted || found == own.to_string() || found == "10.0.0.1", "{}", found);
    }

    #[test]
    fn a_chain_of_proxies_leads_to_the_first_address_from_the_end_that_is_none(
        chain in prop::collection::vec((any_address(), 0_usize..3), 1..PROXIES_MAX),
    ) {
        let trusted = networks(&["10.0.0.0/8"]);
        let hops = chain.iter().map(|(address, _)| *address).rev();
        let expected = hops.clone().find(|address| !trusted.contains(*address)).unwrap_or(chain[0].0);
        let written: (Vec<_>, Vec<_>) =
            chain.iter().map(|(address, style)| written(*address, *style)).unzip();
        let [plain, named] = [written.0, written.1].map(|list| list.join(", ").into_bytes());
        for [forwarded_for, forwarded] in [[Some(&plain), None], [None, Some(&named)]] {
            let stated = Stated {
                forwarded_for: forwarded_for.into_iter().map(Vec::as_slice),
                forwarded: forwarded.into_iter().map(Vec::as_slice),
            };
            prop_assert_eq!(client(Some(address_of("10.0.0.1")), &trusted, stated), Some(expected));
        }
    }

    #[test]
    fn no_bytes_make_it_fail(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let trusted = networks(&["0.0.0.0/0", "::/0"]);
        for (forwarded_for, forwarded) in [(&lines[..], &[][..]), (&[], &lines)] {
            let stated = Stated {
                forwarded_for: forwarded_for.iter().map(Vec::as_slice),
                forwarded: forwarded.iter().map(Vec::as_slice),
            };
            client(None, &trusted, stated);
        }
    }
}

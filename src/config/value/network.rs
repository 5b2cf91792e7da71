//! Addresses and networks of addresses, as people write them, and what is wrong with those that are none.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Most entries of a list: each request that has come through proxies may be compared with all of them, several times.
pub(in crate::config) const NETWORKS_MAX: usize = 1024;

/// A list of addresses and networks, such as `access.trusted_proxies`. It may be empty.
///
/// ```
/// use laneway::config::{Access, Networks, Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec![r#"access.trusted_proxies=["10.0.0.0/8", "2001:db8::1"]"#.into()];
/// let Access { trusted_proxies, .. } = load(&options).expect("valid").config.access;
/// let is_trusted = |address: &str| trusted_proxies.contains(address.parse().expect("an address"));
/// assert!(is_trusted("10.1.2.3") && is_trusted("2001:db8::1"));
/// assert!(is_trusted("::ffff:10.1.2.3"), "an IPv4 address in the form of IPv6");
/// assert!(!is_trusted("11.0.0.0") && !is_trusted("2001:db8::2"));
/// assert!(Networks::default().is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether `address` is one of these addresses, or in one of these networks. An IPv4 address in the form of IPv6
    /// (RFC 4291 §2.5.5.2) is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Networks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a network such as \"10.0.0.0/8\", or a list of them")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Networks, E> {
                network(text).map(|network| Networks(vec![network]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Networks, A::Error> {
                let mut networks = Vec::new();
                while let Some(Network(network)) = list.next_element()? {
                    if networks.contains(&network) {
                        let why = format_args!("\"{}\" stands twice", written(&network));
                        return Err(A::Error::custom(why));
                    }
                    if networks.len() == NETWORKS_MAX {
                        return Err(A::Error::custom(format_args!(
                            "there are more than {NETWORKS_MAX}, the most\nwrite networks that hold several of them"
                        )));
                    }
                    networks.push(network);
                }
                Ok(Networks(networks))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(written))
    }
}

/// One element of such a list.
struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Network;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a network such as \"10.0.0.0/8\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Network, E> {
                network(text).map(Network)
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// As it is read back: an address alone without the length of its prefix.
fn written(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// An address, or an address and the length of a prefix. One that could be meant in two ways is an error: this list says
/// whose word is taken.
fn network<E: Error>(text: &str) -> Result<IpNet, E> {
    let wrong = |what: &str, help: String| {
        E::custom(format_args!("\"{text}\" is no address and no network: {what}\n{help}"))
    };
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, prefix)) => (address, Some(prefix)),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(no_address(text, address));
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => most,
        Some(prefix) => {
            let is_plain = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse::<u8>().ok().filter(|prefix| is_plain && *prefix <= most);
            prefix.ok_or_else(|| {
                let what = format!("the length of its prefix is not a number from 0 to {most}");
                wrong(&what, format!("such as \"{address}/{most}\""))
            })?
        }
    };
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let help = match prefix.checked_sub(96) {
            Some(32) => format!("write \"{v4}\""),
            Some(prefix) => format!("write \"{v4}/{prefix}\""),
            None => "write the IPv4 network and the IPv6 network apart".to_owned(),
        };
        return Err(wrong("it is one of IPv4 in the form of IPv6", help));
    }
    let network = IpNet::new_assert(address, prefix);
    if network.network() != address {
        let help = format!(
            "write \"{}\" for the network, or \"{address}\" for that address alone",
            network.trunc()
        );
        return Err(wrong("bits are set behind its prefix", help));
    }
    Ok(network)
}

/// What is wrong with `text`, which does not begin with an address.
fn no_address<E: Error>(text: &str, address: &str) -> E {
    const FORMS: &str = "such as \"192.0.2.1\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
    let custom = |what: &str, help: &str| {
        E::custom(format_args!("\"{text}\" is no address and no network: {what}\n{help}"))
    };
    if text.starts_with("unix") {
        let help = "leave it out: what comes over a Unix socket is always trusted";
        return custom("it names a kind of socket", help);
    }
    if address.contains('%') {
        return custom("it has a zone", "leave out the `%` and what follows it");
    }
    let without_port = address.rsplit_once(':').map_or(address, |(host, _)| host);
    for (written, what) in [(address, "it has brackets"), (without_port, "it has a port")] {
        let bare = written.trim_start_matches('[').trim_end_matches(']');
        if let Ok(bare) = bare.parse::<IpAddr>() {
            return custom(what, &format!("write \"{bare}\""));
        }
    }
    if text.contains('*') {
        return custom("`*` stands for nothing here", "write a network, such as \"10.0.0.0/8\"");
    }
    if address.bytes().any(|byte| byte.is_ascii_alphabetic()) && !address.contains(':') {
        return custom("names are not resolved here", FORMS);
    }
    custom("the address is malformed", FORMS)
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as ValueError, StrDeserializer};

    use super::*;

    fn read(text: &str) -> Result<Networks, String> {
        let text: StrDeserializer<'_, ValueError> = text.into_deserializer();
        Networks::deserialize(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_network_has_its_first_and_its_last_address_and_neither_neighbour() {
        for (network, before, first, last, after) in [
            ("10.1.0.0/16", "10.0.255.255", "10.1.0.0", "10.1.255.255", "10.2.0.0"),
            ("192.0.2.7", "192.0.2.6", "192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.4/31", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"),
            ("2001:db8::/32", "2001:db7:ffff::", "2001:db8::", "2001:db8:ffff::", "2001:db9::"),
            ("::1", "::", "::1", "::1", "::2"),
        ] {
            let networks = read(network).unwrap();
            let has = |address: &str| networks.contains(address.parse().unwrap());
            assert_eq!(
                [before, first, last, after].map(has),
                [false, true, true, false],
                "{network}"
            );
        }
    }

    #[test]
    fn every_address_of_one_family_is_none_of_the_other() {
        let (all4, all6) = (read("0.0.0.0/0").unwrap(), read("::/0").unwrap());
        for (address, expected) in [
            ("192.0.2.1", [true, false]),
            ("::ffff:192.0.2.1", [true, false]),
            ("::1", [false, true]),
        ] {
            let address = address.parse().unwrap();
            assert_eq!([all4.contains(address), all6.contains(address)], expected, "{address}");
        }
    }

    #[test]
    fn what_is_no_network_says_why_and_how_it_is_written() {
        for (text, expected) in [
            (
                "10.0.0.1/8",
                "write \"10.0.0.0/8\" for the network, or \"10.0.0.1\" for that address",
            ),
            ("2001:db8::1/32", "write \"2001:db8::/32\""),
            ("10.0.0.0/33", "from 0 to 32"),
            ("::/129", "from 0 to 128"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "from 0 to 32"),
            ("::ffff:10.0.0.1", "write \"10.0.0.1\""),
            ("::ffff:10.0.0.0/104", "write \"10.0.0.0/8\""),
            ("::ffff:0:0/95", "the IPv6 network apart"),
            ("10.0.0.1:80", "it has a port\nwrite \"10.0.0.1\""),
            ("[::1]:80", "write \"::1\""),
            ("[::1]", "write \"::1\""),
            ("fe80::1%eth0", "it has a zone"),
            ("unix", "always trusted"),
            ("unix:/run/a.sock", "always trusted"),
            ("10.*", "write a network"),
            ("proxy.example", "names are not resolved"),
            ("010.0.0.1", "malformed"),
            ("10.0.0", "malformed"),
            ("", "malformed"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_list_has_its_limit_and_no_entry_twice() {
        let read = |list: &[String]| {
            let written = serde_json::to_string(list).unwrap();
            serde_json::from_str::<Networks>(&written).map_err(|error| error.to_string())
        };
        let many: Vec<String> =
            (0..=NETWORKS_MAX).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
        let networks = read(&many[1..]).unwrap();
        assert_eq!(
            serde_json::to_string(&networks).unwrap(),
            serde_json::to_string(&many[1..]).unwrap()
        );
        assert!(read(&many).unwrap_err().contains("more than 1024"));
        let twice = ["192.0.2.1".to_owned(), "192.0.2.1/32".to_owned()];
        assert!(read(&twice).unwrap_err().contains("\"192.0.2.1\" stands twice"));
    }
}

//! Addresses to listen on, as people write them, and what is wrong with those that are none.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// One entry of `server.listen` or `admin.listen`. A host name is resolved by the supervisor, at bind time.
///
/// ```
/// use laneway::config::{ListenAddress, Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec![r#"server.listen=["[::]:80", "localhost:8080", "unix:/run/http.sock"]"#.into()];
/// let config = load(&options).expect("valid").config;
/// let every = "[::]:80".parse().expect("an address");
/// let named = ListenAddress::Name("localhost".into(), 8080);
/// let unix = ListenAddress::Unix("/run/http.sock".into());
/// assert_eq!(config.server.listen, [ListenAddress::Socket(every), named, unix]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A literal IPv4 or IPv6 address. Port 0 lets the kernel choose.
    Socket(SocketAddr),
    /// A host name and port.
    Name(String, u16),
    /// The path of a Unix socket, from the root on.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether it may stand twice in a list, because each time stands for a port of its own that the kernel chooses.
    fn may_stand_twice(&self) -> bool {
        matches!(self, ListenAddress::Socket(address) if address.port() == 0)
            || matches!(self, ListenAddress::Name(_, 0))
    }
}

/// One address or a list of them; with `OFF`, "off" for none as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Addresses<const OFF: bool = false>(Vec<ListenAddress>);

/// How it is written that there is none.
pub(super) const OFF_WORD: &str = "off";

impl<const OFF: bool> From<Addresses<OFF>> for Vec<ListenAddress> {
    fn from(written: Addresses<OFF>) -> Vec<ListenAddress> {
        written.0
    }
}

impl<const OFF: bool> From<Vec<ListenAddress>> for Addresses<OFF> {
    fn from(addresses: Vec<ListenAddress>) -> Addresses<OFF> {
        Addresses(addresses)
    }
}

impl<'de, const OFF: bool> Deserialize<'de> for Addresses<OFF> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const OFF: bool>;
        impl<'de, const OFF: bool> Visitor<'de> for V<OFF> {
            type Value = Addresses<OFF>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if OFF {
                    write!(f, "\"{OFF_WORD}\", ")?;
                }
                f.write_str("an address such as \"127.0.0.1:8080\", or a list of at least one")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Addresses<OFF>, E> {
                if OFF && text == OFF_WORD {
                    return Ok(Addresses(Vec::new()));
                }
                address(text).map(|address| Addresses(vec![address]))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Addresses<OFF>, E> {
                Err(wrong_address(&number.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses<OFF>, A::Error> {
                let mut addresses = Vec::new();
                while let Some(Address(address)) = list.next_element()? {
                    if addresses.contains(&address) && !address.may_stand_twice() {
                        let why = format_args!("\"{address}\" stands twice");
                        return Err(A::Error::custom(why));
                    }
                    addresses.push(address);
                }
                if addresses.is_empty() {
                    return Err(A::Error::invalid_length(0, &self));
                }
                Ok(Addresses(addresses))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl<const OFF: bool> Serialize for Addresses<OFF> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if OFF && self.0.is_empty() {
            return serializer.serialize_str(OFF_WORD);
        }
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// One element of such a list.
struct Address(ListenAddress);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"127.0.0.1:8080\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                address(text).map(Address)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Address, E> {
                Err(wrong_address(&number.to_string()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// `IP:port`, `[IPv6]:port`, `name:port` or `unix:path`.
fn address<E: Error>(text: &str) -> Result<ListenAddress, E> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return match wrong_path(path) {
            Some((what, help)) => Err(wrong(text, what, &help)),
            None => Ok(ListenAddress::Unix(path.into())),
        };
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress::Socket(address));
    }
    let name = text.rsplit_once(':').and_then(|(name, port)| {
        let port = port.parse::<u16>().ok()?;
        (is_name(name)).then(|| ListenAddress::Name(name.to_owned(), port))
    });
    name.ok_or_else(|| wrong_address(text))
}

/// Whether this may be a host's name. All digits and dots is an IPv4 address gone wrong, which a resolver might read
/// in its own way.
pub(super) fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    !numeric && name.trim_end_matches('.').split('.').all(label)
}

/// What the path of a Unix socket begins with.
const UNIX: &str = "unix:";

/// What is wrong with the path of a Unix socket, and how it should be written.
fn wrong_path(path: &str) -> Option<(&'static str, String)> {
    const FORM: &str = "such as \"unix:/run/laneway/http.sock\"";
    if path.is_empty() {
        return Some(("the path is missing", FORM.into()));
    }
    if path.starts_with('@') {
        let help =
            format!("any process of the network namespace could use it: name a path, {FORM}");
        return Some(("an abstract socket has no owner and no permissions", help));
    }
    if path.starts_with("//") {
        let help = format!("write \"{UNIX}/{}\"", path.trim_start_matches('/'));
        return Some(("it is a URL", help));
    }
    if path.contains('\0') {
        return Some(("a path has no zero byte", FORM.into()));
    }
    if path.ends_with('/') || Path::new(path).file_name().is_none() {
        return Some(("it names a folder", format!("name a file in it, {FORM}")));
    }
    None
}

/// The error of an address that is none: what is wrong with it, and what to do.
fn wrong<E: Error>(text: &str, what: &str, help: &str) -> E {
    E::custom(format_args!("\"{text}\" is no address: {what}\n{help}"))
}

/// What is wrong with an address, and how it should be written.
fn wrong_address<E: Error>(text: &str) -> E {
    const FORMS: &str = "such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\"";
    let custom = |what: &str, help: String| wrong(text, what, &help);
    if text.starts_with('/') {
        return custom("it is a path", format!("a Unix socket is written \"{UNIX}{text}\""));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { "" } else { ":80" };
        return custom(
            "it is a URL",
            format!("write the host and the port alone: \"{host}{port}\""),
        );
    }
    let everywhere = |port: &str| {
        format!(
            "for every interface [\"0.0.0.0:{port}\", \"[::]:{port}\"], for this machine alone \
             \"127.0.0.1:{port}\""
        )
    };
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:"))
        && port.parse::<u16>().is_ok()
    {
        let what = if text.starts_with('*') { "`*` is no host" } else { "the host is missing" };
        return custom(what, everywhere(port));
    }
    if text.parse::<u16>().is_ok() {
        return custom("the host is missing", everywhere(text));
    }
    if text.contains("${") || text.starts_with('$') {
        let help = "the variable LANEWAY_SERVER__LISTEN sets it from the environment".to_owned();
        return custom("variables are not replaced in a configuration", help);
    }
    if text.contains(char::is_whitespace) {
        return custom("it has white space", FORMS.to_owned());
    }
    if let Some(address) = without_brackets(text) {
        let help = format!("write \"{address}\"");
        return custom("an IPv6 address needs brackets, and a port behind them", help);
    }
    if text.contains('%') {
        let help = "write \"[fe80::1%2]:8080\"; `ip link` shows the numbers".to_owned();
        return custom("the interface of a link-local address is written as its number", help);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() || is_name(text) {
        return custom("the port is missing", format!("write \"{text}:8080\""));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_err() => {
            let help = format!("write \"{host}:8080\", say");
            custom("the port is not a number from 0 to 65535", help)
        }
        Some(_) => custom("the host is malformed", FORMS.to_owned()),
        None => custom("the port is missing", FORMS.to_owned()),
    }
}

/// How the IPv6 address `text`, which has no brackets or only one of them, is written, if it is one. Where its last
/// part can be a port, that is what was meant: `::1:8080` is an address, too, and none that a machine has.
fn without_brackets(text: &str) -> Option<String> {
    let bare = text.trim_matches(['[', ']']);
    if text.starts_with('[') && text.ends_with(']') {
        return None;
    }
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    let with_port = bare.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_end_matches(']');
        // The address of every interface ends with two colons of its own.
        let host = if host == ":" { "::" } else { host };
        let is_port = port.parse::<u16>().is_ok_and(|port| port >= 10);
        (is_address(host) && is_port).then(|| format!("[{host}]:{port}"))
    });
    with_port.or_else(|| is_address(bare).then(|| format!("[{bare}]:8080")))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Socket(address) => address.fmt(f),
            ListenAddress::Name(name, port) => write!(f, "{name}:{port}"),
            ListenAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

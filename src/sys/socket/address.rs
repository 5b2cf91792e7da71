//! Where a socket listens, of either family, and how that is written.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use socket2::SockAddr;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An address and a port of the internet's families.
    Internet(SocketAddr),
    /// The path of a Unix socket. Of one that another process opened, it may be a name without a file: `@name`.
    Unix(PathBuf),
}

/// What the path of a Unix socket begins with where it is written.
const UNIX: &str = "unix:";

impl Address {
    /// Of the kernel's.
    ///
    /// # Errors
    /// If it is of another family, or a Unix socket without a name.
    pub(super) fn of(address: &SockAddr) -> io::Result<Address> {
        if let Some(internet) = address.as_socket() {
            return Ok(Address::Internet(internet));
        }
        // The name of one without a file begins with a zero byte, which is written as `@`.
        let name = address.as_abstract_namespace().map(String::from_utf8_lossy);
        let unix = name.map(|name| PathBuf::from(format!("@{name}")));
        let unix = unix.or_else(|| address.as_pathname().map(Path::to_owned));
        unix.map(Address::Unix).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// One of the internet's families.
    pub fn internet(&self) -> Option<SocketAddr> {
        match self {
            Address::Internet(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Internet(_) => None,
            Address::Unix(path) => Some(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Internet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Internet(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Address, Self::Err> {
        match text.strip_prefix(UNIX) {
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Internet),
        }
    }
}

/// As it is written: a supervisor of another version reads it.
impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written_and_one_of_the_internet_as_it_always_was() {
        for (text, is_internet) in [
            ("127.0.0.1:80", true),
            ("[::1]:8080", true),
            ("unix:/run/a b.sock", false),
            ("unix:@name", false),
        ] {
            let json = format!("\"{text}\"");
            let address: Address = serde_json::from_str(&json).expect("an address");
            assert_eq!(serde_json::to_string(&address).expect("text"), json);
            assert_eq!(address.internet().is_some(), is_internet);
            let before = serde_json::from_str::<SocketAddr>(&json).ok();
            assert_eq!(address.internet(), before);
        }
        assert!(serde_json::from_str::<Address>("\"/run/x\"").is_err());
    }
}

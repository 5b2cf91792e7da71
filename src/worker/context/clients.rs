//! Where the clients of a lane's connections are, by connection. Kept only where something asks for it: else an idle
//! connection would cost more, and its accept a call to the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::Networks;
use crate::http::Fields;
use crate::observe::forwarded::{self, Stated};
use crate::sys::ring::connected::Connected;
use crate::worker::driver::{self, Peer};

/// The clients of one lane.
pub struct Clients {
    trusted: Networks,
    /// Whether what comes over a Unix socket is trusted.
    is_unix_trusted: bool,
    /// Of a client that was gone before it was asked for.
    gone: Client,
    /// By the index of a connection's place. What is of a connection that is closed means nothing.
    places: Vec<Client>,
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its address; `None` if it has none, on a Unix socket, or was gone before it was asked for: see
    /// [`Clients::without_proxies`].
    pub address: Option<SocketAddr>,
    /// Whether it is a proxy whose word about its own clients is taken.
    pub is_trusted: bool,
}

impl Clients {
    /// Of a lane without connections, before which there are these proxies.
    pub fn new(trusted: Networks) -> Clients {
        Clients { trusted, is_unix_trusted: true, gone: Client::default(), places: Vec::new() }
    }

    /// Of a lane without connections, where no word is taken: a client is what is at the other end of its connection, and
    /// has no address on a Unix socket alone. One that was gone has an address that no other has.
    pub fn without_proxies() -> Clients {
        let address = Some((Ipv4Addr::UNSPECIFIED, 0).into());
        let gone = Client { address, is_trusted: false };
        Clients { is_unix_trusted: false, gone, ..Clients::new(Networks::default()) }
    }

    /// What is at the other end of a connection that was accepted.
    pub fn at_other_end(&self, socket: &Connected) -> Client {
        match driver::peer(socket) {
            Peer::Internet(address) => self.at(address),
            Peer::Unix => Client { address: None, is_trusted: self.is_unix_trusted },
            Peer::Gone => self.gone,
        }
    }

    /// The client at `address`.
    fn at(&self, address: SocketAddr) -> Client {
        Client { address: Some(address), is_trusted: self.trusted.contains(address.ip()) }
    }

    /// The connection is that of a client with this address, as its proxy says.
    pub fn introduce(&mut self, index: u32, address: SocketAddr) {
        self.keep(index, self.at(address));
    }

    /// The proxy has not said whose connection it is. Its own address stays, and fields are not believed: a client that it
    /// didn't name may have written them.
    pub fn distrust(&mut self, index: u32) {
        self.keep(index, Client { is_trusted: false, ..self.of(index) });
    }

    /// Keeps the client of a connection, in place of the one that had its place before.
    pub fn keep(&mut self, index: u32, client: Client) {
        let index = index as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, Client::default());
        }
        self.places[index] = client;
    }

    /// The client of a connection that was accepted.
    pub fn of(&self, index: u32) -> Client {
        self.places.get(index as usize).copied().unwrap_or_default()
    }

    /// Where a request of a connection comes from: its client, or what that says in the request's fields, if it is a
    /// trusted proxy.
    pub fn behind(&self, index: u32, fields: Fields<'_>) -> Option<IpAddr> {
        let Client { address, is_trusted } = self.of(index);
        let address = address.map(|address| address.ip());
        if !is_trusted {
            return address;
        }
        let values = |name: &'static [u8]| {
            let named = fields.iter().filter(move |(of, _)| of.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value)
        };
        let stated =
            Stated { forwarded_for: values(b"x-forwarded-for"), forwarded: values(b"forwarded") };
        forwarded::client(address, &self.trusted, stated)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn clients_trusting(list: &[&str]) -> Clients {
        Clients::new(serde_json::from_str(&serde_json::to_string(list).unwrap()).unwrap())
    }

    fn connected() -> (TcpStream, Connected) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, Connected::from(OwnedFd::from(listener.accept().unwrap().0)))
    }

    #[test]
    fn the_address_of_a_client_outlives_it_and_is_its_own_places_alone() {
        let mut clients = clients_trusting(&["127.0.0.1"]);
        assert_eq!(clients.of(2), Client::default());
        let (client, socket) = connected();
        let address = client.local_addr().unwrap();
        let client_found = clients.at_other_end(&socket);
        assert_eq!(client_found, Client { address: Some(address), is_trusted: true });
        clients.keep(2, client_found);
        drop((client, socket));
        assert_eq!([1, 2, 3].map(|index| clients.of(index).address), [None, Some(address), None]);
        let (pair, _other) = UnixStream::pair().unwrap();
        let local = clients.at_other_end(&Connected::from(OwnedFd::from(pair)));
        assert_eq!(local, Client { address: None, is_trusted: true });
    }

    #[test]
    fn a_client_of_ipv4_at_a_socket_of_both_families_is_one_of_ipv4() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let to = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port());
        let Ok(client) = TcpStream::connect(to) else { return }; // net.ipv6.bindv6only
        let socket = Connected::from(OwnedFd::from(listener.accept().unwrap().0));
        let found = clients_trusting(&["127.0.0.0/8"]).at_other_end(&socket);
        assert_eq!(found, Client { address: client.local_addr().ok(), is_trusted: true });
    }

    #[test]
    fn a_client_that_is_gone_is_not_trusted_and_may_no_more_than_others() {
        let clients = clients_trusting(&["0.0.0.0/0", "::/0"]);
        let (client, socket) = connected();
        driver::forget_unsent(&client);
        drop(client);
        assert!(crate::sys::has_input_within(&socket, std::time::Duration::from_secs(5)));
        assert_eq!(clients.at_other_end(&socket), Client::default());
        let none = Clients::without_proxies();
        assert!(none.at_other_end(&socket).address.is_some(), "it is none of a Unix socket");
        let local = Connected::from(OwnedFd::from(UnixStream::pair().unwrap().0));
        assert_eq!(none.at_other_end(&local), Client::default());
    }
}

//! A network of its own for one test: a server at one end, clients at the other, and 25 ms each way between them.
//!
//! On loopback a handshake takes no time, which hides everything that can happen during one. Here a connection takes a
//! round trip until its client has it, and a half more until the server can accept it.
//!
//! Each end is a network namespace with a TUN device; a thread of the test carries the packets from one device to the
//! other and keeps each for the delay (netem would do the same, but few kernels of virtual machines have it). Both
//! namespaces are nameless: they exist as long as a process or a descriptor is in them, so that nothing is left behind
//! even where the test is killed. Several links may exist at once.
//!
//! ```ignore
//! let Some(link) = Link::new() else { return };
//! link.at_clients(|| {
//!     // This closure, and every thread that it starts, is at the clients' end.
//!     let server = link.start(Setup::new(mode).set("server.listen", link.address(8080)));
//!     server.get("/");
//! });
//! ```

use super::{Server, Setup, skipped};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::time::TimeSpec;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a packet takes from one end to the other.
pub(crate) const ONE_WAY: Duration = Duration::from_millis(25);
/// How long a handshake takes for the client, and an answer after it.
pub(crate) const ROUND_TRIP: Duration = ONE_WAY.saturating_mul(2);

/// Addresses of the server's end: 10.x.y.1 and those after it. The clients' is 10.x.y.100.
const SERVER_ADDRESSES: u8 = 8;
const CLIENT: u8 = 100;
/// The name of the device at either end.
const DEVICE: &str = "link0";
/// Packets that wait in a device for the relay (its default of 500 drops some of a burst), and in the relay until due.
const DEVICE_PACKETS: usize = 10_000;
const PACKETS_ON_THE_WAY: usize = 100_000;
/// Larger than any packet of a device with the default MTU of 1,500.
const PACKET_BYTES: usize = 2048;
/// Packets that are taken from one device before the other has its turn.
const BATCH: usize = 64;

/// Two ends with a delay between them. Dropping it ends the relay; the devices vanish with it.
pub(crate) struct Link {
    /// The second and third byte of the addresses.
    net: [u8; 2],
    server: File,
    clients: File,
    /// The relay ends when this is closed.
    running: Option<UnixStream>,
    relay: Option<JoinHandle<()>>,
}

impl Link {
    /// Makes both ends; `None`, with a visible reason, where the test may not or can't.
    #[track_caller]
    pub(crate) fn new() -> Option<Link> {
        if !nix::unistd::geteuid().is_root() {
            skipped("network namespaces need root");
            return None;
        }
        if super::skip_without("ip") {
            return None;
        }
        if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
            skipped(format_args!("/dev/net/tun can't be opened: {error}"));
            return None;
        }
        // The networks are apart anyway, but a server without `supervisor.pid_file` names a file by its address.
        static LINKS: AtomicU32 = AtomicU32::new(0);
        let number =
            std::process::id().wrapping_mul(37).wrapping_add(LINKS.fetch_add(1, Ordering::Relaxed));
        let [_, _, x, y] = number.to_be_bytes();
        let address = |last| Ipv4Addr::new(10, x, y, last);
        let server_addresses = (1..=SERVER_ADDRESSES).map(address).collect();
        let ends = (End::new(server_addresses), End::new(vec![address(CLIENT)]));
        let (server, clients) = match ends {
            (Ok(server), Ok(clients)) => (server, clients),
            (Err(error), _) | (_, Err(error)) => {
                skipped(format_args!("no network namespace can be made: {error}"));
                return None;
            }
        };
        let (running, stop) = UnixStream::pair().expect("make a socket pair");
        let devices = [server.device, clients.device];
        let relay =
            thread::Builder::new().name("relay".into()).spawn(move || relay(devices, &stop));
        Some(Link {
            net: [x, y],
            server: server.namespace,
            clients: clients.namespace,
            running: Some(running),
            relay: Some(relay.expect("start the relay")),
        })
    }

    /// The server's first address, with this port.
    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        self.nth_address(0, port)
    }

    /// One of the eight addresses of the server's end, from 0, with this port.
    pub(crate) fn nth_address(&self, index: u8, port: u16) -> SocketAddr {
        assert!(index < SERVER_ADDRESSES, "the server's end has {SERVER_ADDRESSES} addresses");
        let [x, y] = self.net;
        (Ipv4Addr::new(10, x, y, index + 1), port).into()
    }

    /// Starts a server at its end and waits until it says `ready`.
    #[track_caller]
    pub(crate) fn start(&self, setup: Setup) -> Server {
        let server = self.spawn(setup);
        server.journal.wait_for("ready");
        server
    }

    /// Starts a server at its end, and waits for nothing.
    pub(crate) fn spawn(&self, setup: Setup) -> Server {
        self.at_server(|| setup.spawn())
    }

    /// Does something at the clients' end. Threads and processes that are started by it are there too.
    pub(crate) fn at_clients<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.clients, act)
    }

    /// Does something at the server's end, where it is reached without a delay, and where the harness's looks into the
    /// kernel's tables ([`super::listeners_at`], [`super::Client::is_held`]) see the server's sockets.
    pub(crate) fn at_server<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        inside(&self.server, act)
    }
}

impl Link {
    /// Takes the clients' address away: whatever is sent there from now on is dropped, as by a host that has vanished.
    pub(crate) fn lose_clients(&self) {
        inside(&self.clients, || ip(&["address", "flush", "dev", DEVICE]));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.running.take());
        let relay = self.relay.take().map(JoinHandle::join);
        if let Some(Err(panic)) = relay
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// Runs `act` on a thread that has entered a network namespace: a namespace is a thread's, and the test's own thread
/// is to stay where it is.
fn inside<T: Send>(namespace: &File, act: impl FnOnce() -> T + Send) -> T {
    on_own_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
        act()
    })
}

fn on_own_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    // What is printed by it and about it then names the test.
    let name = thread::current().name().unwrap_or("unnamed test").to_owned();
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name).spawn_scoped(scope, act);
        thread.expect("start a thread").join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// A network namespace and the device in it.
struct End {
    namespace: File,
    device: File,
}

impl End {
    fn new(addresses: Vec<Ipv4Addr>) -> io::Result<End> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            let tun = tappers::Tun::new_named(tappers::Interface::new(DEVICE)?)?;
            ip(&["link", "set", "lo", "up"]);
            ip(&["link", "set", DEVICE, "up", "txqueuelen", &DEVICE_PACKETS.to_string()]);
            for address in addresses {
                ip(&["address", "add", &format!("{address}/24"), "dev", DEVICE]);
            }
            let device = File::from(tun.as_fd().try_clone_to_owned()?);
            nix::fcntl::fcntl(
                &device,
                nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
            )?;
            Ok(End { namespace, device })
        })
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("run ip");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", words.join(" "));
}

/// Carries packets between the devices until `stop` ends.
fn relay(mut devices: [File; 2], stop: &UnixStream) {
    // What came out of each device, and when it is due at the other.
    let mut on_the_way: [VecDeque<(Instant, Vec<u8>)>; 2] = Default::default();
    loop {
        for (device, queue) in devices.iter_mut().zip(&mut on_the_way) {
            take(device, queue);
        }
        let now = Instant::now();
        let [first, second] = &mut devices;
        deliver(&mut on_the_way[0], second, now);
        deliver(&mut on_the_way[1], first, now);

        let due = on_the_way.iter().filter_map(|queue| Some(queue.front()?.0)).min();
        let wait = due.map(|due| TimeSpec::from(due.saturating_duration_since(Instant::now())));
        let ready = PollFlags::POLLIN;
        let mut files = [
            PollFd::new(devices[0].as_fd(), ready),
            PollFd::new(devices[1].as_fd(), ready),
            PollFd::new(stop.as_fd(), ready),
        ];
        match ppoll(&mut files, wait, None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("wait for packets: {error}"),
        }
        if files[2].any().unwrap_or(true) {
            return;
        }
    }
}

/// Takes the packets that wait in a device, a batch at most.
fn take(device: &mut File, queue: &mut VecDeque<(Instant, Vec<u8>)>) {
    for _ in 0..BATCH {
        let mut packet = [0; PACKET_BYTES];
        match device.read(&mut packet) {
            // As any link does with more than it can hold.
            Ok(_) if queue.len() >= PACKETS_ON_THE_WAY => {}
            Ok(length) => queue.push_back((Instant::now() + ONE_WAY, packet[..length].to_vec())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("take a packet: {error}"),
        }
    }
}

/// Hands over the packets that have been on their way for long enough.
fn deliver(queue: &mut VecDeque<(Instant, Vec<u8>)>, device: &mut File, now: Instant) {
    while let Some((_, packet)) = queue.front().filter(|(due, _)| *due <= now) {
        // A packet that the kernel does not take is lost, and TCP sends it again.
        let _ = device.write(packet);
        queue.pop_front();
    }
}

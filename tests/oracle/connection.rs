//! A real connection over a socket pair, without a loop, and its session without a socket: what they answer must be the
//! same, and must not depend on the pieces that the input comes in.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use laneway::config::{self, Config, Options};
use laneway::internals::Ready;
use laneway::internals::content::Site;
use laneway::internals::http::Limits;
use laneway::internals::observe::ledger::Ledger;
use laneway::internals::worker::connection::{Connection, Next, Phase, Session, Stop};
use laneway::internals::worker::context::Context;
use laneway::internals::worker::driver::{Input, Payload, Sent, transmit};

/// When the delay of a route has passed, which is no timeout, so that waiting for it can be told from waiting for a client:
/// a turn's time is in whole milliseconds, and a part of one more may have passed.
const DELAY_MS: u64 = 77_777 + 1;
const SETTINGS: [&str; 7] = [
    r#"route=[{path="/",text="root"},{path="/echo",echo="body"},{path="/request",echo="request"},{path="/late",text="late",delay="77777ms"},{path="/big",bytes="200KiB"}]"#,
    "limits.request_line=64B",
    "limits.header_bytes=256B",
    "limits.headers=8",
    "limits.body=512B",
    "limits.requests_per_connection=20",
    "timeouts.header=10s",
];

struct World {
    config: Config,
    site: Site,
    limits: Limits,
    ledger: Ledger,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let set = SETTINGS.map(str::to_owned).to_vec();
        let mut options = Options::default();
        options.set = set;
        let config = config::load(&options).expect("valid settings").config;
        let limits = laneway::internals::worker::limits(&config);
        let ledger = Ledger::new(1).expect("a ledger");
        World { site: Site::new(&config.routes, &config.files), limits, ledger, config }
    })
}

fn context() -> Context<'static> {
    let world = world();
    let mut context = Context::new(&world.site, &world.limits, &world.config, &world.ledger, 0);
    // Two conversations are compared, and a second may pass between them.
    context.date = *b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    // No turn of a loop renews it.
    context.discards_left = usize::MAX;
    context
}

/// One connection at work, and its client's end.
struct Talk<'w> {
    connection: Connection<'w>,
    context: Context<'w>,
    input: Vec<u8>,
    client: UnixStream,
    answers: Vec<u8>,
    /// When the connection is to be worked on although nothing comes.
    deadline_ms: u64,
}

/// What a client does when it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It ends its side.
    Ends,
    /// It sends nothing more, until the connection's deadline has passed.
    IsSilent,
}

/// Everything that a connection answers to a stream that comes in these pieces.
///
/// # Panics
/// If it spins.
pub(crate) fn converse(pieces: &[&[u8]], then: Then) -> Vec<u8> {
    let (client, server) = UnixStream::pair().expect("a socket pair");
    client.set_nonblocking(true).expect("nonblocking");
    server.set_nonblocking(true).expect("nonblocking");
    let context = context();
    let connection = Connection::new(server.into());
    let mut talk = Talk {
        deadline_ms: connection.idle_timeout_ms(&context),
        connection,
        context,
        input: vec![0; 64 * 1024],
        client,
        answers: Vec::new(),
    };
    for piece in pieces {
        if talk.client.write_all(piece).is_err() || !talk.turn(false) {
            return talk.answers;
        }
    }
    match then {
        Then::Ends => {
            // A connection that has shut its own side is at its end.
            let _ = talk.client.shutdown(Shutdown::Write);
            talk.turn(true);
        }
        Then::IsSilent => talk.wait(),
    }
    talk.answers
}

/// Everything that a session answers to a stream that comes in these pieces, up to the client's end.
///
/// # Panics
/// If it makes no progress.
pub(crate) fn session(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut lane, mut session) = (context(), Session::default());
    let (mut kept, mut answers) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let before = (kept.len(), answers.len());
            let (consumed, stop) = session.consume(&kept, 0, &mut lane);
            kept.drain(..consumed);
            let waits = matches!(session.phase(), Phase::Waiting { .. });
            if waits {
                session.elapse();
                session.go_on(0, &mut lane);
            }
            let (bytes, body) = lane.output.unsent();
            answers.extend_from_slice(bytes);
            let Payload::Bytes(body) = body else { panic!("a file") };
            answers.extend_from_slice(body);
            drop(lane.output.advance(bytes.len() + body.len()));
            if matches!(session.phase(), Phase::Last { .. }) {
                return answers;
            }
            if stop == Stop::NeedsInput {
                break;
            }
            assert!(waits || before != (kept.len(), answers.len()), "it makes no progress");
        }
    }
    answers
}

impl Talk<'_> {
    /// Works until the connection waits for its client. False if it has closed.
    fn turn(&mut self, read_closed: bool) -> bool {
        let arrived =
            Ready { token: 0, readable: true, writable: false, read_closed, broken: false };
        let room = Ready { readable: false, writable: true, ..arrived };
        let mut ready = arrived;
        for _ in 0..1_000 {
            let mut input = Input::new(None, Some(&mut self.input));
            let mut next = self.connection.on_ready(ready, &mut input, &mut self.context);
            while next == Next::WaitUntil(self.context.now_ms + DELAY_MS) {
                self.send();
                self.context.now_ms += DELAY_MS;
                let mut input = Input::new(None, Some(&mut self.input));
                next = self.connection.on_deadline(&mut input, &mut self.context);
            }
            self.send();
            let drained = self.drain();
            if let Next::WaitUntil(until_ms) | Next::Again(until_ms) | Next::Discard(until_ms) =
                next
            {
                self.deadline_ms = until_ms;
            }
            ready = match next {
                Next::Close => return false,
                Next::Again(_) | Next::Discard(_) => arrived,
                // Room was made: the edge that the kernel would tell of.
                Next::Wait | Next::WaitUntil(_) if drained => room,
                Next::Wait | Next::WaitUntil(_) => return true,
            };
        }
        panic!("the connection spins");
    }

    /// Lets the time pass that the connection waits for.
    fn wait(&mut self) {
        self.context.now_ms = self.deadline_ms;
        let mut input = Input::new(None, Some(&mut self.input));
        self.connection.on_deadline(&mut input, &mut self.context);
        self.send();
        self.drain();
    }

    /// Sends what a step has left to be sent.
    fn send(&mut self) {
        let output = &mut self.context.output;
        let (bytes, body) = output.unsent();
        assert!(body.is_empty(), "a large body is sent at once");
        let sent = transmit(self.connection.socket(), bytes, Payload::Bytes(&[]));
        assert!(sent == Sent::Broken || sent == Sent::Bytes(bytes.len()), "{sent:?}");
        drop(output.advance(bytes.len()));
    }

    /// Reads what the connection has sent. Whether there was any.
    fn drain(&mut self) -> bool {
        let before = self.answers.len();
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.client.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.answers.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("read: {error}"),
            }
        }
        self.answers.len() > before
    }
}

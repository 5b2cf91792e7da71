//! Log lines on standard error: events with fields, pretty for people or JSON for programs.
//!
//! Only the supervisor and the command line log. A worker reports to the supervisor, so that no event loop ever waits
//! for the program that reads the log; and the supervisor waits a second at most (`Stderr`), so that a reader that has
//! stopped can't keep it from its workers and signals.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use crate::config::{Log, LogFormat, LogLevel};
use crate::sys::file::reopen_without_waiting;
use crate::sys::takes_write_within;

type Sink = Box<dyn Layer<Registry> + Send + Sync>;

/// What to replace the settings in effect with.
static IN_EFFECT: OnceLock<reload::Handle<Sink, Registry>> = OnceLock::new();

/// Logs like this from here on, to standard error, with colours on a terminal if `colour`.
///
/// The first call installs the subscriber for as long as the process runs, unless the program has one of its own: that
/// one stays, and gets the events.
///
/// ```
/// use laneway::config::{Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec!["log.level=warn".into(), "log.format=json".into()];
/// let config = load(&options).expect("valid").config;
/// laneway::log::start(&config.log, config.colour);
/// ```
pub fn start(log: &Log, colour: bool) {
    if let Some(in_effect) = IN_EFFECT.get() {
        // Fails if there is no subscriber any more, and then nothing is logged.
        let _ = in_effect.reload(sink(log, colour));
        return;
    }
    let (layer, handle) = reload::Layer::new(sink(log, colour));
    let installed = tracing::subscriber::set_global_default(Registry::default().with(layer));
    // A subscriber that there was before stays: a program that uses the library may have its own.
    if installed.is_ok() {
        let _ = IN_EFFECT.set(handle);
    }
}

fn sink(log: &Log, colour: bool) -> Sink {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let terminal = io::stderr().is_terminal();
    let pretty = match log.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(|| Stderr);
    if pretty {
        let colour = terminal && colour;
        level.and_then(lines.event_format(Pretty { colour })).boxed()
    } else {
        level.and_then(lines.json().flatten_event(true).with_target(false)).boxed()
    }
}

/// How long a line waits for a reader of the log.
const PATIENCE: Duration = Duration::from_secs(1);
/// What poll(2) promises that a pipe takes without waiting: `PIPE_BUF` of pipe(7).
const PIECE_BYTES_MAX: usize = 4096;

/// Lines that standard error did not take.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Standard error, opened once more so that a write never waits; `None` where that can't be: for a file, a socket, or
/// another user's pipe.
static OWN: OnceLock<Option<File>> = OnceLock::new();

/// How soon a write is tried again that there was no room for although poll(2) had said so: another process was first, or
/// a terminal has room for less.
const RETRY: Duration = Duration::from_millis(1);

/// Writes a line, waiting for its reader so long at most. False if it was not taken whole.
fn write_within(mut to: impl Write + AsFd, line: &[u8], patience: Duration) -> bool {
    let start = Instant::now();
    line.chunks(PIECE_BYTES_MAX).all(|mut piece| {
        while !piece.is_empty() {
            let left = patience.saturating_sub(start.elapsed());
            if !takes_write_within(&to, left) {
                return false;
            }
            match to.write(piece) {
                Ok(0) => return false,
                Ok(count) => piece = &piece[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !left.is_zero() => {
                    thread::sleep(RETRY.min(left));
                }
                Err(_) => return false,
            }
        }
        true
    })
}

/// Standard error, without waiting for ever. A line that isn't taken in time is lost, and so is each that
/// follows until one is taken at once; then a `log lines lost` says how many were.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = LOST.load(Ordering::Relaxed);
        let patience = if lost == 0 { PATIENCE } else { Duration::ZERO };
        let own = OWN.get_or_init(|| reopen_without_waiting(io::stderr()).ok());
        let taken = match own {
            Some(own) => write_within(own, line, patience),
            None => write_within(io::stderr(), line, patience),
        };
        if !taken {
            LOST.fetch_add(1, Ordering::Relaxed);
        } else if lost > 0 {
            LOST.store(0, Ordering::Relaxed);
            tracing::warn!(lines = lost, "log lines lost");
        }
        // A loss is not an error of the caller: the next line that is taken says how many were lost.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `12:34:56Z  INFO  worker ready        lane=0 cpu=1`, in UTC; the first line of a day begins with the date.
struct Pretty {
    colour: bool,
}

/// The day of the last line, in days since 1970.
static DAY: AtomicU64 = AtomicU64::new(0);
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// The time of a line, with the date if no line had this one before.
fn time_of_line(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() / DAY_SECONDS;
    let text = humantime::format_rfc3339_seconds(now).to_string();
    let is_first = DAY.swap(day, Ordering::Relaxed) != day;
    match (text.get(..10), text.get(11..20)) {
        (Some(date), Some(time)) if is_first => format!("{date} {time}"),
        (_, Some(time)) => time.to_owned(),
        _ => text,
    }
}

/// Event names are padded to this many columns, so that the fields line up.
const NAME_COLUMNS: usize = 18;

impl<S, N> FormatEvent<S, N> for Pretty
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let time = time_of_line(SystemTime::now());
        let (dim, colour, bold, off) = if self.colour {
            ("\x1b[2m", colour(*event.metadata().level()), "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "", "")
        };
        write!(
            writer,
            "{dim}{time}{off} {colour}{:>5}{off}  {bold}{:<NAME_COLUMNS$}{off}",
            event.metadata().level(),
            line.name
        )?;
        for (name, value) in &line.fields {
            write!(writer, " {dim}{name}={off}{value}")?;
        }
        writeln!(writer)
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

/// An event taken apart: its name, and its other fields in order.
#[derive(Default)]
struct Line {
    name: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.name = value;
        } else {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = !value.is_empty() && !value.contains([' ', '"', '=', '\n']);
        let text = if plain || field.name() == "message" {
            value.to_owned()
        } else {
            // Quotes for the eye; a reason of several lines (a configuration error) stays readable.
            format!("\"{}\"", value.replace('"', "\\\""))
        };
        self.put(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = write!(text, "{value:?}");
        self.put(field, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes lines until one isn't taken, and says whether that came to pass without waiting for ever.
    fn is_lost_in_time(to: impl Into<File>) -> bool {
        let to = to.into();
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let own = reopen_without_waiting(&to).expect("open it once more");
            let line = [&[b'x'; 998][..], b"\r\n"].concat();
            let patience = Duration::from_millis(10);
            let taken = (0..1_000).take_while(|_| write_within(&own, &line, patience)).count();
            tell.send(taken)
        });
        let taken = told.recv_timeout(Duration::from_secs(20));
        taken.is_ok_and(|taken| (1..1_000).contains(&taken))
    }

    #[test]
    fn a_terminal_with_room_for_a_part_of_a_line_is_not_waited_for() {
        let terminal = nix::pty::openpty(None, None).expect("a terminal");
        assert!(is_lost_in_time(terminal.slave), "it waited");
        drop(terminal.master);
    }

    #[test]
    fn a_pipe_that_is_full_is_not_waited_for() {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        assert!(is_lost_in_time(writer), "it waited");
        drop(reader);
    }

    #[test]
    fn the_first_line_of_a_day_has_the_date() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let times =
            [2 * DAY_SECONDS - 2, 2 * DAY_SECONDS - 1, 2 * DAY_SECONDS, 2 * DAY_SECONDS + 1];
        let expected = ["1970-01-02 23:59:58Z", "23:59:59Z", "1970-01-03 00:00:00Z", "00:00:01Z"];
        assert_eq!(times.map(|seconds| time_of_line(at(seconds))), expected);
    }
}

//! The server's log as events: read as it is written, waited on, searched.

use super::DEADLINE;
use serde_json::Value;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Event(pub(crate) Value);

impl Event {
    /// The events of workers that drive no lane have names of their own here ("acceptor ready"), so that "worker ready" is
    /// a lane's in every mode.
    fn new(mut line: Value) -> Event {
        let name = line["message"].as_str().and_then(|name| name.strip_prefix("worker"));
        let name = line["role"].as_str().zip(name).map(|(role, rest)| format!("{role}{rest}"));
        if let Some(name) = name {
            line["message"] = name.into();
        }
        Event(line)
    }

    pub(crate) fn name(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(|value| !value.is_null())
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        let value = self.0[field].as_str();
        value.unwrap_or_else(|| panic!("no text `{field}` in {}", self.0))
    }

    pub(crate) fn number(&self, field: &str) -> u64 {
        let value = self.0[field].as_u64();
        value.unwrap_or_else(|| panic!("no number `{field}` in {}", self.0))
    }

    pub(crate) fn float(&self, field: &str) -> f64 {
        let value = self.0[field].as_f64();
        value.unwrap_or_else(|| panic!("no number `{field}` in {}", self.0))
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.number("pid")).expect("a pid")
    }
}

#[derive(Default)]
struct Lines {
    events: Vec<Event>,
    /// Lines that are not JSON objects.
    strays: Vec<String>,
    ended: bool,
}

/// The log so far, with a thread that keeps reading it.
pub(crate) struct Journal {
    shared: Arc<(Mutex<Lines>, Condvar)>,
}

impl Journal {
    pub(crate) fn read(stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Lines::default()), Condvar::new()));
        let (writer, reader) = (Arc::clone(&shared), BufReader::new(stream));
        // Ends with the stream, which ends with the last process that holds it.
        std::thread::spawn(move || {
            let (lines, changed) = &*writer;
            for line in reader.split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                match serde_json::from_str::<Value>(&line) {
                    Ok(value) if value.is_object() => lines.events.push(Event::new(value)),
                    _ => lines.strays.push(line),
                }
                changed.notify_all();
            }
            lines.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            changed.notify_all();
        });
        Self { shared }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Poisoned by a test that fails while it searches; the log is still needed to report that.
        let lines = self.shared.0.lock();
        lines.unwrap_or_else(PoisonError::into_inner)
    }

    /// The events so far.
    pub(crate) fn so_far(&self) -> Vec<Event> {
        self.lines().events.clone()
    }

    /// The events of a name so far.
    pub(crate) fn named(&self, name: &str) -> Vec<Event> {
        let mut events = self.so_far();
        events.retain(|event| event.name() == name);
        events
    }

    /// Lines so far that are no JSON objects; there should be none.
    pub(crate) fn strays(&self) -> Vec<String> {
        self.lines().strays.clone()
    }

    /// The first event of a name, which may have been logged already.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str) -> Event {
        self.wait_where(name, |_| true)
    }

    /// The first event of a name that has a property.
    #[track_caller]
    pub(crate) fn wait_where(&self, name: &str, matches: impl Fn(&Event) -> bool) -> Event {
        let found = self.wait_nth_where(name, 1, matches);
        found.unwrap_or_else(|| panic!("the log ended without such a `{name}`"))
    }

    /// The `nth` event (from 1) of a name.
    #[track_caller]
    pub(crate) fn wait_nth(&self, name: &str, nth: usize) -> Event {
        let found = self.wait_nth_where(name, nth, |_| true);
        found.unwrap_or_else(|| panic!("the log ended without `{name}` number {nth}"))
    }

    /// The first event of any of the names; `None` if the log ends without one.
    #[track_caller]
    pub(crate) fn wait_for_any(&self, names: &[&str]) -> Option<Event> {
        self.wait_until(names.first().unwrap_or(&""), |lines| {
            let mut events = lines.events.iter();
            events.find(|event| names.contains(&event.name())).cloned()
        })
    }

    /// The event of the first name whose lane is `lane`, after `seen` of them; or the second name's.
    #[track_caller]
    pub(crate) fn wait_either(&self, first: (&str, usize), second: &str, lane: u64) -> Event {
        let (name, seen) = first;
        let of_lane = |event: &&Event| event.has("lane") && event.number("lane") == lane;
        let found = self.wait_until(name, |lines| {
            let events = || lines.events.iter().filter(of_lane);
            let next = events().filter(|event| event.name() == name).nth(seen);
            let other = || events().find(|event| event.name() == second);
            next.or_else(other).cloned()
        });
        found.unwrap_or_else(|| panic!("the log ended without `{name}` and without `{second}`"))
    }

    /// Waits for the end of the log and returns all of it.
    #[track_caller]
    pub(crate) fn whole(&self) -> Vec<Event> {
        self.wait_until("the end of the log", |_| None::<()>);
        self.so_far()
    }

    #[track_caller]
    fn wait_nth_where(
        &self,
        name: &str,
        nth: usize,
        matches: impl Fn(&Event) -> bool,
    ) -> Option<Event> {
        self.wait_until(name, |lines| {
            let named = lines.events.iter().filter(|event| event.name() == name);
            named.filter(|event| matches(event)).nth(nth - 1).cloned()
        })
    }

    /// Waits until `find` finds something or the log ends.
    #[track_caller]
    fn wait_until<T>(&self, what: &str, find: impl Fn(&Lines) -> Option<T>) -> Option<T> {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.lines();
        loop {
            if let Some(found) = find(&lines) {
                return Some(found);
            }
            if lines.ended {
                return None;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The lock is given back first: the server's guard prints the log while unwinding.
                drop(lines);
                panic!("waited in vain for `{what}`");
            }
            let waited = self.shared.1.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        for event in &lines.events {
            writeln!(f, "  {}", event.0)?;
        }
        for stray in &lines.strays {
            writeln!(f, "  not JSON: {stray}")?;
        }
        Ok(())
    }
}

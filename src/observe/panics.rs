//! Panics of workers as messages: kept for the code that catches them, instead of printed between log lines.

use std::cell::{Cell, RefCell};
use std::panic;

thread_local! {
    static CAUGHT_HERE: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook. Panics of workers are kept for the code that catches them; all others are printed as before.
///
/// Without it a worker's panic is printed between the lines of the log, and the log event has no message. Call it once,
/// before [`run`](crate::run).
///
/// ```
/// laneway::panics::install();
/// ```
pub fn install() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !CAUGHT_HERE.get() {
            return print(info);
        }
        let message = info.payload_as_str().unwrap_or("(no message)");
        let text = match info.location() {
            Some(place) => format!("{message} at {}:{}", place.file(), place.line()),
            None => message.to_owned(),
        };
        LAST.set(Some(text));
    }));
}

/// From now on this thread's panics are kept for [`take`].
pub(crate) fn keep() {
    CAUGHT_HERE.set(true);
}

/// The message of this thread's last panic, and where it was raised.
pub(crate) fn take() -> String {
    LAST.take().unwrap_or_else(|| "(unknown)".into())
}

//! Coroutines of `may`: the calls of it that are unsafe.

use may::coroutine::JoinHandle;

/// Starts a coroutine, which must use no thread-local storage across a wait, and no more stack than is configured.
pub fn spawn(run: impl FnOnce() + Send + 'static) {
    // SAFETY: the closures that are passed here touch no thread-local storage; stacks have a guard page.
    unsafe { may::coroutine::spawn(run) };
}

/// Ends a coroutine that waits for I/O, and waits until it has ended: what it owned is dropped.
pub fn cancel(handle: JoinHandle<()>) {
    // SAFETY: cancelling unwinds the coroutine where it waits. The only ones that are cancelled accept connections:
    // they own a listener, what makes services and at most one connection, and hold no lock while they wait.
    unsafe { handle.coroutine().cancel() };
    // A coroutine that was cancelled ends by a panic, which is what was asked for.
    let _ = handle.join();
}

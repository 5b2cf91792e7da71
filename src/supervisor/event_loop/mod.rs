//! The supervisor's loop: what happens becomes an [`Event`], the [`policy`](super::policy) decides about it, and what
//! comes back is carried out here. It decides nothing itself.
//!
//! ```text
//! epoll ── collect ─▶ Event ── react ─▶ Input ─▶ policy ─▶ Action ── carry_out ─▶ processes, sockets, log
//!                                         ▲                              │
//!                                         └────── what came of it ───────┘
//! ```

mod carry_out;
mod changes;
mod collect;
mod event;
mod presence;
mod react;
mod reload;
mod state;
mod succession;

use std::collections::VecDeque;

use carry_out::Carried;
use event::Event;
use state::{Supervisor, doing};

use crate::config::{self, Config};
use crate::control::Control;
use crate::supervisor::loading::loader::Loaded;
use crate::supervisor::policy::Action;
use crate::supervisor::succession::passed::Passed;
use crate::supervisor::succession::upgrade;
use crate::supervisor::token::Token;
use crate::sys::epoll::Events;

pub use state::Outcome;

/// Serves `config` until it is told to stop or has to give up; `options` say where a reload finds the next, and
/// `passed` is what the process was started with.
///
/// What goes wrong is logged. The process must have one thread.
pub fn run(config: Config, options: config::Options, passed: Passed) -> Outcome {
    // Before signals are kept for later: until then one ends a resolver that doesn't answer.
    let loaded = Loaded::of(config);
    let Passed { predecessor, activated } = passed;
    let mut conversation = None;
    let predecessor = predecessor.map_err(doing("cannot take over"));
    let started = predecessor.and_then(|socket| {
        conversation = socket.map(Control::new);
        Supervisor::start(loaded, options, activated, &mut conversation)
    });
    started.and_then(Supervisor::run).unwrap_or_else(|error| {
        tracing::error!(reason = %error, "could not start");
        upgrade::report_failure(conversation.as_ref(), &error);
        Outcome::Exit(1)
    })
}

impl Supervisor {
    fn run((mut supervisor, actions): (Supervisor, Vec<Action>)) -> Result<Outcome, String> {
        if let Carried::Out(outcome) = supervisor.carry_out(actions) {
            return Ok(outcome);
        }
        let mut readiness = Events::with_capacity(64);
        let mut events = VecDeque::new();
        // Of a child that ended before signals were kept no signal tells: as pid 1 it would stay a zombie.
        supervisor.collect_ended(&mut events);
        loop {
            let due_ms = supervisor.policy.next_ms().into_iter().chain(supervisor.own_due_ms());
            let now_ms = supervisor.now_ms();
            let patience_ms = due_ms.min().map(|due_ms| due_ms.saturating_sub(now_ms));
            let count = supervisor
                .epoll
                .wait(&mut readiness, patience_ms)
                .map_err(|error| format!("cannot wait for events: {error}"))?;
            supervisor.show_life();
            for process in supervisor.processes.take_starved() {
                supervisor.collect_from(process, &mut events);
            }
            if supervisor.is_heir_starved() {
                supervisor.collect(Token::Heir, &mut events);
            }
            for index in 0..count {
                if let Some(token) = Token::from_bits(readiness.at(index).token) {
                    supervisor.collect(token, &mut events);
                }
            }
            if supervisor.measures_ms().is_some_and(|due_ms| due_ms <= supervisor.now_ms()) {
                events.push_back(Event::Remeasure);
            }
            if supervisor.look_ms().is_some_and(|due_ms| due_ms <= supervisor.now_ms()) {
                events.push_back(Event::FileChanged);
            }
            events.push_back(Event::Tick);
            while let Some(event) = events.pop_front() {
                if let Carried::Out(outcome) = supervisor.react(event) {
                    return Ok(outcome);
                }
                if supervisor.can_replace() {
                    events.push_front(Event::ConfigurationRead);
                } else if let Some(change) = supervisor.next_change() {
                    events.push_front(Event::ChangeDue(change));
                }
            }
            if let Some(outcome) = supervisor.leave() {
                return Ok(outcome);
            }
        }
    }
}

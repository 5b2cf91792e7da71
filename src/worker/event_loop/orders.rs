//! How a lane's loop hears the supervisor: which sockets to accept from, and when to drain.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::EventLoop;
use crate::config::Accept;
use crate::control::{Command, DrainKind, Missed, Order, Received, WorkerEvent};
use crate::sys::socket::Listener;
use crate::worker::accepting::channels::{Intake, Packets};
use crate::worker::accepting::sources::Source;
use crate::worker::driver::token::Token;

impl EventLoop<'_> {
    /// Does what the supervisor says. Its end, or a signal to this process to end, has the lane drain.
    pub(super) fn hear(&mut self) -> io::Result<()> {
        match self.control.receive::<Command>() {
            Received::Nothing | Received::Exhausted | Received::Message(Command::Start(_), _) => {
                Ok(())
            }
            Received::Message(Command::To(_, order), files) => self.obey(order, files),
            Received::Message(Command::Drain(kind), _) => {
                self.drain_with_process(kind);
                Ok(())
            }
            Received::Message(Command::Seal, _) => {
                self.seal();
                Ok(())
            }
            Received::End => {
                // An end stays readable: an event would come of it in every turn.
                self.driver.forget(self.control.as_fd(), Token::Control)?;
                if self.context.drain.is_none() {
                    self.control.report(self.worker, WorkerEvent::ToldToEnd);
                }
                self.drain_with_process(DrainKind::Stop);
                Ok(())
            }
        }
    }

    fn obey(&mut self, order: Order, files: Vec<OwnedFd>) -> io::Result<()> {
        match order {
            Order::Take { lane, files: count } if files.len() < count => {
                self.sources.miss(lane, Missed::Sockets, self.context.now_ms);
                Ok(())
            }
            Order::Take { lane, .. } => {
                self.sources.forget_missed(lane, Missed::Sockets);
                self.take(lane, files)
            }
            Order::Release(lane) => self.leave(lane),
            Order::PollAgain(lane) => self.accept_waiting(Some(lane)),
            Order::Drain { timeout_ms } => {
                self.drain_alone(timeout_ms);
                Ok(())
            }
            Order::Snapshot(number) => {
                if let Some(inquiries) = &self.inquiries {
                    inquiries.answer(number, files, self.context.now_ms);
                }
                Ok(())
            }
            Order::Attach { .. } | Order::Detach(_) | Order::Reopen => Ok(()),
        }
    }

    /// Accepts from what a lane has, unless this one drains.
    fn take(&mut self, lane: usize, files: Vec<OwnedFd>) -> io::Result<()> {
        if self.context.drain.is_some() {
            return Ok(());
        }
        let source = |file| match self.accept {
            Accept::Handoff => Source::Intake(Intake::Process(Packets::from(file))),
            Accept::Reuseport | Accept::Shared => Source::Listener(Listener::from(file)),
        };
        let mut sources: Vec<Source> = files.into_iter().map(source).collect();
        if let (Accept::Handoff, Some(channels)) = (self.accept, self.channels) {
            sources.push(Source::Intake(channels.intake(lane)?));
        }
        for source in sources {
            let is_shared = match &source {
                Source::Intake(_) => false,
                // Of a Unix socket there is one, whatever the way of accepting.
                Source::Listener(listener) => self.accept == Accept::Shared || listener.is_unix(),
            };
            self.sources.watch(lane, source, is_shared, &mut self.driver)?;
        }
        Ok(())
    }

    /// Accepts no more from what a lane has, once what only this worker can serve was taken.
    fn leave(&mut self, lane: usize) -> io::Result<()> {
        self.sources.forget_missed(lane, Missed::Sockets);
        for source in self.sources.numbers(Some(lane)) {
            while self.sources.has_begun_batch(source) {
                self.accept_from(source)?;
            }
            if self.sources.is_shared(source) {
                self.sources.unwatch(source, &mut self.driver)?;
                // No other worker got the event of a connection that came just before.
                self.accept_from(source)?;
            }
            self.sources.close(source, &mut self.driver)?;
        }
        Ok(())
    }
}

//! What a connection does with bytes that came: its session consumes them, behind those that were kept before, and what can't
//! be handled yet is kept, within what the lane may hold.

use super::{Connection, Next, Stage, Stop};
use crate::http::Refusal;
use crate::observe::ledger::labels::RejectedFor;
use crate::worker::context::Context;
use crate::worker::driver::Input;

impl<'s> Connection<'s> {
    /// Consumes new bytes, behind those that were kept, and keeps what isn't consumed.
    pub(super) fn absorb(&mut self, bytes: &[u8], lane: &mut Context<'s>) -> Stop {
        if self.transport.waiting_input() > 0 {
            self.transport.keep_input(bytes);
            let stop = self.absorb_waiting(lane);
            return self.bound_waiting(stop, lane);
        }
        let Stage::Serving(session) = &mut self.stage else {
            return Stop::Occupied;
        };
        let (consumed, stop) = session.consume(bytes, self.transport.held_bytes(), lane);
        if consumed < bytes.len() {
            self.transport.keep_input(&bytes[consumed..]);
            return self.bound_waiting(stop, lane);
        }
        stop
    }

    /// Refuses a request of which a part is kept, if the lane holds too much with it.
    fn bound_waiting(&mut self, stop: Stop, lane: &mut Context<'s>) -> Stop {
        let has_part = stop == Stop::NeedsInput && self.transport.waiting_input() > 0;
        if !has_part || lane.may_hold(self.held_bytes()) {
            return stop;
        }
        if let Stage::Serving(session) = &mut self.stage {
            let input = self.transport.take_input();
            session.refuse(Refusal::OVERLOADED, &input, lane);
        }
        Stop::Occupied
    }

    /// Consumes what was kept.
    pub(super) fn absorb_waiting(&mut self, lane: &mut Context<'s>) -> Stop {
        let Stage::Serving(session) = &mut self.stage else {
            return Stop::Occupied;
        };
        let mut bytes = self.transport.take_input();
        let (consumed, stop) = session.consume(&bytes, self.transport.held_bytes(), lane);
        bytes.drain(..consumed);
        self.transport.put_back_input(bytes);
        stop
    }

    /// Keeps what was read before it can be handled.
    pub(super) fn keep_early(&mut self, input: &mut Input<'_>, lane: &Context<'s>) -> Next {
        let Some(bytes) = input.brought() else {
            return Next::Wait;
        };
        let cells = lane.counters.cells();
        cells.received_bytes.add(bytes.len() as u64);
        let held = self.held_bytes();
        let Stage::Serving(session) = &mut self.stage else {
            return Next::Wait;
        };
        if session.note_more() {
            return Next::Wait;
        }
        if !lane.may_hold(held + bytes.len()) {
            cells.rejected.at(RejectedFor::Memory).add(1);
            return Next::Close;
        }
        self.transport.keep_input(bytes);
        Next::Wait
    }
}

//! What of a session comes later: a reply that waits for something, and content that comes piece by piece.

use super::{NextPiece, Session, State};
use crate::worker::context::Context;
use crate::worker::context::jobs::JobNumber;
use crate::worker::context::output::Progress;

impl<'s> Session<'s> {
    /// Begins what the reply waits for, or its content. The request is remembered by now, which is answered if this panics.
    pub(super) fn begin_later(&mut self, lane: &Context<'s>) {
        match &mut self.state {
            State::Pending(waiting) => {
                if let Some(pending) = &mut waiting.pending {
                    pending.begin(|| lane.jobs.waker(waiting.job));
                    waiting.held_bytes = pending.held_bytes();
                }
            }
            State::Streaming(streaming) => {
                let stream = &mut streaming.content.stream;
                stream.begin(lane.jobs.waker(streaming.job));
                streaming.held_bytes = stream.held_bytes();
            }
            _ => {}
        }
    }

    /// What the reply waits for has taken as long as it may.
    pub fn elapse(&mut self) {
        match &mut self.state {
            State::Pending(waiting) => waiting.is_over = true,
            State::Streaming(streaming) => streaming.next = NextPiece::Late,
            _ => {}
        }
    }

    /// The job with this number has ended, or the next piece of its content is there. Whether the reply waits for it.
    pub(in crate::worker) fn wake(&mut self, job: JobNumber) -> bool {
        match &mut self.state {
            State::Pending(waiting) if waiting.job == job => {
                waiting.is_over = true;
                true
            }
            State::Streaming(streaming) if streaming.job == job => {
                streaming.next = NextPiece::There;
                true
            }
            _ => false,
        }
    }

    /// Goes on with a reply while nothing waits to be sent: one that has waited for long enough is made, and one whose
    /// content comes piece by piece gets more of it.
    pub fn go_on(&mut self, beside: usize, lane: &mut Context<'s>) {
        match &mut self.state {
            State::Pending(waiting) if waiting.is_over => {
                // Nothing of its response was made: one that panics is answered with a 500.
                lane.output.mark_whole();
                let (asked, pending) = (waiting.asked, waiting.pending.take());
                if let Some(pending) = pending {
                    let outcome = pending.finish();
                    self.state = State::Reading;
                    self.conclude(asked, outcome, beside, lane);
                }
            }
            State::Streaming(_) => self.stream(lane),
            _ => {}
        }
    }

    /// Adds pieces of the content under way to the lane's output, until that is full or the content has ended.
    fn stream(&mut self, lane: &mut Context<'s>) {
        let State::Streaming(streaming) = &mut self.state else {
            return;
        };
        let (keep, has_more) = (streaming.keep, streaming.has_more);
        let progress = match streaming.next {
            NextPiece::There => lane.output.go_on(&mut streaming.content),
            NextPiece::Later => return,
            NextPiece::Late => lane.output.break_off(&mut streaming.content),
        };
        self.state = match progress {
            Progress::Going | Progress::Waiting => {
                streaming.held_bytes = streaming.content.stream.held_bytes();
                if progress == Progress::Waiting {
                    streaming.next = NextPiece::Later;
                }
                return;
            }
            Progress::Whole if keep => State::Reading,
            Progress::Whole => State::Last { has_more },
            Progress::BrokenOff { by_end: true } => State::Last { has_more: true },
            Progress::BrokenOff { by_end: false } => State::BrokenOff,
        };
    }
}

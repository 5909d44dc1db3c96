//! The push: the guest runs at the destination, and the source sends what is missing there.
//!
//! Nobody else has these pages, so nothing is given up here: what a broken connection did not deliver is sent again.

use super::{Conductor, Kind, State};
use crate::pages::PageSet;
use crate::strategy::Push;
use crate::units::{Span, Time};
use crate::vocabulary::Command;

/// The push under way.
#[derive(Debug)]
pub(super) struct Pushing<P> {
    push: Push,
    /// Pages that a failed send has left behind.
    unsent: P,
    /// After a failure nothing is tried before this time.
    retry_at: Option<Time>,
}

/// A connection that has just failed is given this long before it is used again.
const RETRY_AFTER: Span = Span::from_millis(100);

impl<P: PageSet> Pushing<P> {
    /// Whether every page is part of a send, or has arrived.
    pub(super) fn nothing_unsent(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn begin_push(&mut self, rest: P, push: Push) {
        if self.spec.transfer.unlimited_while_paused && self.spec.transfer.limit.is_some() {
            self.desk.order(Command::SetRate { limit: self.spec.transfer.limit });
        }
        self.state = State::Push(Pushing { push, unsent: rest, retry_at: None });
        self.advance_push();
    }

    /// Sends what is unsent; when the destination has everything, ends the service of faults.
    pub(super) fn advance_push(&mut self) {
        let State::Push(pushing) = &mut self.state else { return };
        if self.link_lost.is_some() || pushing.retry_at.is_some() || self.desk.any_open(&[Kind::Send, Kind::RedirectFaults]) {
            return;
        }
        if pushing.unsent.is_empty() {
            self.desk.order(Command::RedirectFaults);
        } else {
            let (set, push) = (std::mem::take(&mut pushing.unsent), pushing.push);
            self.send(set, self.rounds, Some(push));
        }
    }

    pub(super) fn push_failed(&mut self, now: Time, unsent: P, kind: Kind) {
        let State::Push(pushing) = &mut self.state else { unreachable!("only the push pushes") };
        debug_assert!(unsent.is_empty() || kind == Kind::Send);
        pushing.unsent.merge(unsent);
        pushing.retry_at = Some(now + RETRY_AFTER);
    }

    /// Tries again when the time for it has come.
    pub(super) fn retry_push(&mut self, now: Time) {
        let State::Push(pushing) = &mut self.state else { return };
        if pushing.retry_at.is_some_and(|at| now >= at) {
            pushing.retry_at = None;
            self.advance_push();
        }
    }
}

//! The push: the guest runs at the destination, and the source sends what is missing there, straight or to intermediaries.
//!
//! Nobody else has these pages, so nothing is given up here: what a broken connection did not deliver is sent again, and so is
//! what an intermediary has taken with it. The source is released when every page has been acknowledged by somebody who has it,
//! every request that reached the source is answered, and the destination knows where everything is.
//!
//! Should the source fail before that, only the destination can say what that means: it knows what it misses, and where the rest is.

use super::gather::Fetching;
use super::{Conductor, Kind, State};
use crate::pages::PageSet;
use crate::strategy::Push;
use crate::units::{Span, Time};
use crate::vocabulary::{Command, Region, SendClass};

/// The push under way.
#[derive(Debug)]
pub(super) struct Pushing<P> {
    push: Push,
    /// Pages that a failed send has left behind.
    unsent: P,
    /// Pages that were staged and are nowhere but at the source again.
    reclaimed: P,
    /// The destination asks the source no more.
    redirected: bool,
    /// The destination was to ask the source again, and has not been told.
    unserved: bool,
    fetching: Fetching,
    /// After a failure nothing is tried before this time.
    retry_at: Option<Time>,
}

/// A connection that has just failed is given this long before it is used again.
pub(super) const RETRY_AFTER: Span = Span::from_millis(100);

impl<P: PageSet> Pushing<P> {
    pub(super) fn push(&self) -> &Push {
        &self.push
    }

    pub(super) fn fetching(&mut self) -> &mut Fetching {
        &mut self.fetching
    }

    /// Whether every page is part of a send, or has arrived.
    fn nothing_unsent(&self) -> bool {
        self.unsent.is_empty() && self.reclaimed.is_empty()
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    /// An intermediary has no room for these pages.
    pub(super) fn refused(&mut self, set: P) {
        self.unsent.merge(set);
    }

    /// Pages are nowhere but at the source again. Whether the destination, which asked the source no more, must be able to.
    #[must_use]
    pub(super) fn take_back(&mut self, set: P) -> bool {
        let again = self.redirected && !set.is_empty();
        self.redirected &= !again;
        self.reclaimed.merge(set);
        again
    }
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn begin_push(&mut self, rest: P, push: Push) {
        if self.spec.transfer.unlimited_while_paused && self.spec.transfer.limit.is_some() {
            self.desk.order(Command::SetRate { limit: self.spec.transfer.limit });
        }
        let fetching = Fetching::of(&self.spec, &self.intermediaries);
        let pushing =
            Pushing { push, unsent: rest, reclaimed: P::default(), redirected: false, unserved: false, fetching, retry_at: None };
        self.state = State::Push(pushing);
        self.advance_push();
    }

    /// Sends what is unsent; when everything is somewhere else, ends the service of faults, and then releases the source.
    pub(super) fn advance_push(&mut self) {
        const BUSY: [Kind; 4] = [Kind::Send, Kind::RedirectFaults, Kind::Reclaim, Kind::ServeFaults];
        if !matches!(self.state, State::Push(_)) {
            return;
        }
        if self.link_lost.is_none() {
            self.reclaim_next();
        }
        let gathers = self.desk.any_open(&[Kind::Gather]);
        let State::Push(pushing) = &mut self.state else { return };
        if self.link_lost.is_some() || pushing.retry_at.is_some() {
            return;
        }
        if let Some(limit) = pushing.fetching.begins_with_push()
            && !gathers
        {
            self.desk.order(Command::Gather { limit });
        }
        // Once everything has been sent there is nothing to ask for.
        let needed = !pushing.nothing_unsent() || self.desk.any_open(&[Kind::Send]);
        if std::mem::take(&mut pushing.unserved) && needed {
            self.desk.order(Command::ServeFaults);
        }
        if self.desk.any_open(&BUSY) {
            return;
        }
        let prepaging = pushing.push.prepaging;
        if !pushing.unsent.is_empty() {
            let set = std::mem::take(&mut pushing.unsent);
            let class = if self.rounds == 0 { SendClass::First } else { SendClass::Resend };
            self.send_as(Region::Memory, set, self.rounds, class, prepaging);
        } else if !pushing.reclaimed.is_empty() {
            let set = std::mem::take(&mut pushing.reclaimed);
            self.send_as(Region::Memory, set, self.rounds, SendClass::Resend, prepaging);
        } else if pushing.redirected {
            let fetching = pushing.fetching;
            self.release(fetching);
        } else {
            self.desk.order(Command::RedirectFaults);
        }
    }

    /// The destination asks the source no more, and knows where everything is; unless an intermediary has failed meanwhile, so that the
    /// source has pages again that the destination must be able to ask for.
    pub(super) fn redirected(&mut self) {
        let State::Push(pushing) = &mut self.state else { return };
        pushing.redirected = pushing.nothing_unsent();
        if !pushing.redirected {
            self.desk.order(Command::ServeFaults);
        }
    }

    pub(super) fn push_failed(&mut self, now: Time, unsent: P, kind: Kind) {
        let State::Push(pushing) = &mut self.state else { unreachable!("only the push pushes") };
        debug_assert!(unsent.is_empty() || kind == Kind::Send);
        pushing.unsent.merge(unsent);
        pushing.unserved |= kind == Kind::ServeFaults;
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

    /// The source is gone while it pushes. What it had not sent is lost, if the destination misses it.
    pub(super) fn source_dead_in_push(&mut self) {
        let State::Push(pushing) = &mut self.state else { unreachable!("only the push pushes") };
        self.state = State::Release(pushing.fetching.without_source());
        self.begin_gather();
    }
}

//! Gathering: the destination fetches what intermediaries stage, perhaps long after the source is free.
//!
//! It begins with the push or with the end of it, as the strategy says, and outlasts the source. What is still to do once the
//! source is released needs no page set, so that another conductor can go on with it, elsewhere ([`Remainder`]).
//!
//! A source that fails in the push leads here too, whether or not anything was staged: the destination is asked to fetch what is left,
//! and answers that it has everything or that it misses pages which nobody has.

use super::desk::Kind;
use super::intermediaries::Intermediaries;
use super::{Conductor, State};
use crate::machine::Outcome;
use crate::pages::PageSet;
use crate::strategy::{Gather, GatherWhen, Spec};
use crate::units::{Bytes, Rate, Time};
use crate::vocabulary::{Command, Failure};
use serde::{Deserialize, Serialize};

/// How far gathering has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fetching {
    /// It is part of the migration, and how; nothing was ever staged otherwise.
    wanted: Option<Wanted>,
    done: bool,
    /// After a failure nothing is tried before this time.
    retry_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    limit: Option<Rate>,
    when: GatherWhen,
}

impl Fetching {
    /// Gathering by `spec`, if there is anybody with whom pages may be staged.
    pub(super) fn of(spec: &Spec, intermediaries: &Intermediaries) -> Fetching {
        if intermediaries.are_none() {
            return Fetching::default();
        }
        let scatter = spec.push.and_then(|p| p.scatter).map(|s| s.gather);
        let staged = spec.ahead.as_ref().is_some_and(|a| a.staging);
        let gather = scatter.or(staged.then_some(Gather { limit: None, when: GatherWhen::Concurrent }));
        Fetching { wanted: gather.map(|Gather { limit, when }| Wanted { limit, when }), ..Fetching::default() }
    }

    /// The command that begins it, if this is the time for it.
    pub(super) fn begins_with_push(&self) -> Option<Option<Rate>> {
        self.wanted.filter(|w| w.when == GatherWhen::Concurrent && !self.done).map(|w| w.limit)
    }

    /// The source is gone, and nothing may have been staged: even so the destination has to say whether it has everything.
    pub(super) fn without_source(self) -> Fetching {
        let none = Wanted { limit: None, when: GatherWhen::AfterEviction };
        Fetching { wanted: self.wanted.or(Some(none)), ..self }
    }

    pub(super) fn is_done(&mut self) {
        self.done = true;
    }

    pub(super) fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }
}

/// What is left of a migration once its source is released: plain data, so that it can be sent to the destination's agent, where
/// [`Conductor::go_on`] makes a conductor of it. The source may then be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remainder {
    /// Limit of gathering.
    pub limit: Option<Rate>,
    /// Whether the stop rule was met.
    pub converged: bool,
}

impl<P: PageSet> Conductor<P> {
    /// What is left to do elsewhere, in phase [`Gather`](crate::machine::Phase::Gather); `None` in every other.
    #[must_use]
    pub fn remainder(&self) -> Option<Remainder> {
        match &self.state {
            State::Gather(fetching) => Some(Remainder { limit: fetching.wanted.and_then(|w| w.limit), converged: self.converged }),
            State::Waiting
            | State::Preparation
            | State::Snapshots(_)
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Push(_)
            | State::Release(_)
            | State::Rollback(_)
            | State::Ended(_) => None,
        }
    }

    /// A conductor that goes on with what another has left. It orders the gathering anew, which a destination that gathers
    /// already takes as the same.
    #[must_use]
    pub fn go_on(remainder: &Remainder) -> Conductor<P> {
        let mut conductor = Conductor::new(Spec::default(), Bytes::ZERO, Vec::new());
        conductor.converged = remainder.converged;
        conductor.fenced = true;
        let wanted = Some(Wanted { limit: remainder.limit, when: GatherWhen::AfterEviction });
        conductor.state = State::Release(Fetching { wanted, ..Fetching::default() });
        conductor.begin_gather();
        conductor
    }

    /// The source is free.
    pub(super) fn begin_gather(&mut self) {
        // A source that has failed meanwhile was released by that, and its answer may still come.
        let State::Release(fetching) = &self.state else { return };
        let fetching = *fetching;
        match fetching.wanted {
            Some(wanted) if !fetching.done => {
                if !self.desk.any_open(&[Kind::Gather]) {
                    self.desk.order(Command::Gather { limit: wanted.limit });
                }
                self.state = State::Gather(fetching);
            }
            Some(_) | None => self.end(Outcome::Completed),
        }
    }

    pub(super) fn gathered(&mut self) {
        match &mut self.state {
            State::Push(pushing) => pushing.fetching().is_done(),
            State::Release(fetching) => fetching.is_done(),
            State::Gather(_) => self.end(Outcome::Completed),
            State::Waiting
            | State::Preparation
            | State::Snapshots(_)
            | State::LiveCopy(_)
            | State::Switch(_)
            | State::Rollback(_)
            | State::Ended(_) => unreachable!("nothing is being gathered"),
        }
    }

    pub(super) fn gather_failed(&mut self, now: Time, failure: Failure) {
        match failure {
            Failure::PagesLost { .. } => self.end(Outcome::Lost),
            Failure::Refused(_) | Failure::Unreachable(_) | Failure::NeverStarted | Failure::AnswerLost => {
                if let State::Gather(fetching) = &mut self.state {
                    fetching.retry_at = Some(now + super::push::RETRY_AFTER);
                }
            }
        }
    }

    pub(super) fn retry_gather(&mut self, now: Time) {
        let State::Gather(fetching) = &mut self.state else { return };
        if fetching.retry_at.is_some_and(|at| now >= at) {
            fetching.retry_at = None;
            let limit = fetching.wanted.and_then(|w| w.limit);
            self.desk.order(Command::Gather { limit });
        }
    }
}

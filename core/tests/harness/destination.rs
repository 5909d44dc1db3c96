//! The destination: it takes pages, does what it is told once, and runs the guest when told so.

use std::collections::{BTreeMap, BTreeSet};

use livemig_core::units::PageIndex;
use livemig_core::vocabulary::CmdId;

use super::bugs::Bug;
use super::channel::Lane;
use super::memory::{Memory, ZEROS};
use super::wire::{Answer, Batch, Envelope, Message, Order};

/// The destination host and what it holds of the VM.
#[derive(Debug, Default)]
pub(crate) struct Destination {
    pub(crate) pages: u64,
    pub(crate) session: u32,
    pub(crate) epoch: u32,
    pub(crate) memory: Memory,
    /// It has given room and not been freed.
    pub(crate) holds: bool,
    /// The session has been aborted.
    over: bool,
    state: Option<u64>,
    /// The guest was started here, with this state of its CPUs.
    pub(crate) started: Option<u64>,
    /// It has promised not to start the guest in this session.
    pub(crate) never: bool,
    /// The source answers requests for pages, as far as anyone here knows.
    asks: bool,
    waiting_for: BTreeSet<PageIndex>,
    answered: BTreeMap<CmdId, Answer>,
    pub(crate) refuses_room: bool,
    pub(crate) refuses_resume: bool,
    pub(crate) bug: Option<Bug>,
}

/// What a message has changed.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    pub(crate) replies: Vec<(Lane, Message)>,
    pub(crate) touched: Vec<PageIndex>,
    pub(crate) started: bool,
    /// It was of a connection or a session that is over, and has been dropped.
    pub(crate) outdated: bool,
}

impl Destination {
    pub(crate) fn new(pages: u64) -> Destination {
        Destination { pages, memory: Memory::missing(pages), ..Destination::default() }
    }

    pub(crate) fn receive(&mut self, envelope: Envelope) -> Effect {
        if matches!(envelope.message, Message::Order { .. }) && envelope.session > self.session {
            self.begin_session(envelope.session);
        }
        let outdated = envelope.session != self.session || envelope.epoch < self.epoch;
        if outdated && self.bug != Some(Bug::StaleFrameApplied) {
            return Effect { outdated: true, ..Effect::default() };
        }
        self.epoch = self.epoch.max(envelope.epoch);
        match envelope.message {
            Message::Pages(batch) => self.apply(batch),
            Message::Order { id, order } => self.obey(id, &order),
            Message::Hello => self.ask_again(),
            Message::Ack { .. } | Message::Ask(_) | Message::LastAsk { .. } | Message::Answer { .. } => {
                unreachable!("a message to the source arrives at the destination")
            }
        }
    }

    /// What an earlier migration has left here is gone; so is what it was told.
    fn begin_session(&mut self, session: u32) {
        let kept = (self.refuses_room, self.refuses_resume, self.bug);
        *self = Destination::new(self.pages);
        (self.refuses_room, self.refuses_resume, self.bug) = kept;
        self.session = session;
    }

    fn apply(&mut self, batch: Batch) -> Effect {
        let mut effect = Effect::default();
        if self.holds {
            for (page, content) in batch.pages {
                // A running guest has newer versions of what it has; that a page comes twice is the rule after a broken connection.
                let own =
                    self.started.is_some() && self.memory.get(page).is_some() && self.bug != Some(Bug::RunningGuestOverwritten);
                if !own {
                    self.memory.put(page, content.unwrap_or(ZEROS));
                    self.waiting_for.remove(&page);
                    effect.touched.push(page);
                }
            }
        }
        effect.replies.push((Lane::Acks(batch.lane), Message::Ack { frame: batch.frame }));
        effect
    }

    /// Carries out an order, unless that has been done: then the answer was lost and is given again.
    fn obey(&mut self, id: CmdId, order: &Order) -> Effect {
        let mut effect = Effect::default();
        let answer = match self.answered.get(&id) {
            Some(&answer) => answer,
            None => self.carry_out(order, &mut effect),
        };
        self.answered.insert(id, answer);
        let redirected = matches!(order, Order::Redirect);
        effect.replies.push(if redirected {
            (Lane::Asks, Message::LastAsk { id })
        } else {
            (Lane::Answers, Message::Answer { id, answer })
        });
        effect
    }

    fn carry_out(&mut self, order: &Order, effect: &mut Effect) -> Answer {
        match order {
            // An order that comes out of an old connection after the end of its session.
            _ if self.over => return Answer::Never,
            Order::Reserve if self.refuses_room => return Answer::Refused,
            Order::Reserve => self.holds = true,
            Order::Prepare => self.asks = true,
            Order::State(steps) => self.state = Some(*steps),
            Order::Discard(pages) => {
                if self.bug != Some(Bug::DiscardIgnored) {
                    pages.iter().for_each(|&page| self.memory.discard(page));
                    effect.touched.extend(pages);
                }
            }
            Order::Resume if self.refuses_resume || self.never => {
                self.never = true;
                return Answer::Never;
            }
            Order::Resume => {
                self.started = Some(self.state.unwrap_or(u64::MAX));
                effect.started = true;
                return Answer::Started;
            }
            Order::Fence(_) if self.started.is_some() => return Answer::Started,
            Order::Fence(_) => {
                self.never = true;
                return Answer::Never;
            }
            Order::Redirect => self.asks = false,
            Order::Abort => {
                self.over = true;
                self.holds = false;
                self.memory = Memory::missing(self.pages);
            }
        }
        Answer::Done
    }

    /// Connections are new: requests that were on the old ones may be lost.
    fn ask_again(&mut self) -> Effect {
        let asked = if self.asks { self.waiting_for.iter().map(|&p| (Lane::Asks, Message::Ask(p))).collect() } else { Vec::new() };
        Effect { replies: asked, ..Effect::default() }
    }

    /// The guest waits for a page that is not here: the request, unless it is on its way already. `None` when there is nobody
    /// whom it could ask.
    pub(crate) fn ask(&mut self, page: PageIndex) -> Option<Vec<(Lane, Message)>> {
        let fresh = self.waiting_for.insert(page);
        self.asks.then(|| if fresh { vec![(Lane::Asks, Message::Ask(page))] } else { Vec::new() })
    }
}

//! The destination: it takes pages, does what it is told once, and runs the guest when told so.

use std::collections::{BTreeMap, BTreeSet};

use livemig_core::units::PageIndex;
use livemig_core::vocabulary::CmdId;

use super::bugs::Bug;
use super::channel::Lane;
use super::memory::{Content, Memory, ZEROS};
use super::places::{Place, Places};
use super::wire::{Answer, Batch, Envelope, Location, Message, Order};

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
    pub(crate) asks: bool,
    waiting_for: BTreeSet<PageIndex>,
    pub(crate) places: Places,
    /// Bytes that have come from intermediaries in this session.
    pub(crate) gathered: u64,
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
    /// Of so many pages it named a place that is of no interest any more.
    pub(crate) superseded: u64,
}

/// Requests to intermediaries without an answer, at most, while the destination gathers.
const WINDOW: usize = 3;

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
            Message::Locate(location) => self.locate(&location),
            other => unreachable!("{other:?} arrives at the destination on a connection from the source"),
        }
    }

    /// The source says where pages are staged. A version that came straight, or that is staged elsewhere, may be newer.
    fn locate(&mut self, location: &Location) -> Effect {
        let mut effect = Effect::default();
        for &page in &location.pages {
            // What a running guest has is newer than anything that is staged.
            if !self.holds || (self.started.is_some() && self.memory.get(page).is_some()) {
                continue;
            }
            let place = Place { frame: location.frame, holders: location.holders };
            if self.places.locate(page, place, self.bug == Some(Bug::OlderPlaceBelieved)) {
                self.memory.discard(page);
            } else {
                effect.superseded += 1;
            }
            effect.touched.push(page);
            if self.waiting_for.contains(&page) {
                effect.replies.extend(self.request(page));
            }
        }
        effect.replies.push((Lane::Answers, Message::Located { frame: location.frame }));
        effect
    }

    /// Asks for a page that the guest waits for: an intermediary that has it, or the source. Nobody at the moment, when the one
    /// is cut off and the other not to be asked.
    fn request(&mut self, page: PageIndex) -> Option<(Lane, Message)> {
        if self.places.has_holder(page) {
            self.places.fetch(page).map(|via| (Lane::Fetch(usize::from(via)), Message::Fetch(page)))
        } else {
            self.asks.then_some((Lane::Asks, Message::Ask(page)))
        }
    }

    /// A page comes from an intermediary; whether it is of use.
    pub(crate) fn fetched(&mut self, page: PageIndex, frame: u32, content: Content) -> bool {
        let wanted = self.places.get(page).is_some_and(|place| frame >= place.frame) && self.memory.get(page).is_none();
        if wanted {
            self.memory.put(page, content);
            self.places.arrived(page, frame);
            self.waiting_for.remove(&page);
        }
        wanted
    }

    /// Requests that an intermediary can be sent now: those of the guest first, then those of the gathering.
    pub(crate) fn requests(&mut self) -> Vec<(Lane, Message)> {
        let waiting: Vec<PageIndex> = self.waiting_for.iter().copied().filter(|&page| self.places.has_holder(page)).collect();
        let urgent: Vec<(PageIndex, u16)> = waiting.into_iter().filter_map(|p| Some((p, self.places.fetch(p)?))).collect();
        let gathered = self.places.gather(WINDOW);
        let all = urgent.into_iter().chain(gathered);
        all.map(|(page, via)| (Lane::Fetch(usize::from(via)), Message::Fetch(page))).collect()
    }

    /// An intermediary has failed: what the guest waits for there is asked of the source, if that may still be asked.
    pub(crate) fn ask_elsewhere(&mut self) -> Vec<(Lane, Message)> {
        self.ask_again().replies
    }

    /// What an earlier migration has left here is gone; so is what it was told.
    fn begin_session(&mut self, session: u32) {
        let kept = (self.refuses_room, self.refuses_resume, self.bug);
        let places = self.places.renewed();
        *self = Destination::new(self.pages);
        (self.refuses_room, self.refuses_resume, self.bug) = kept;
        self.places = places;
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
                    if self.bug != Some(Bug::OlderPlaceBelieved) {
                        self.places.arrived(page, batch.frame);
                    }
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
            Order::Discard { pages, below } => {
                if self.bug != Some(Bug::DiscardIgnored) {
                    pages.iter().for_each(|&page| self.memory.discard(page));
                    effect.touched.extend(pages);
                }
                if self.bug != Some(Bug::OlderPlaceBelieved) {
                    pages.iter().for_each(|&page| self.places.forget(page, *below));
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
            Order::Serve => {
                self.asks = true;
                effect.replies = self.ask_again().replies;
            }
            Order::Abort => {
                self.over = true;
                self.holds = false;
                self.memory = Memory::missing(self.pages);
                self.places = self.places.renewed();
            }
        }
        Answer::Done
    }

    /// Connections are new: requests that were on the old ones may be lost.
    fn ask_again(&mut self) -> Effect {
        let lacking = self.waiting_for.iter().filter(|&&page| self.asks && !self.places.has_holder(page));
        Effect { replies: lacking.map(|&p| (Lane::Asks, Message::Ask(p))).collect(), ..Effect::default() }
    }

    /// The guest waits for a page that is not here: the request, unless it is on its way already. `None` when nobody has told where
    /// it is and there is nobody whom it could ask.
    pub(crate) fn ask(&mut self, page: PageIndex) -> Option<Vec<(Lane, Message)>> {
        let fresh = self.waiting_for.insert(page);
        if !self.asks && self.places.get(page).is_none() {
            return None;
        }
        Some(if fresh { self.request(page).into_iter().collect() } else { Vec::new() })
    }
}

//! Gathering: the destination fetches what is staged. It is carried out there, also when the source is gone.

use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Rate, Span};
use livemig_core::vocabulary::{CmdId, Failure, Peer, Reply, Side};

use super::bugs::Bug;
use super::channel::Lane;
use super::memory::Content;
use super::places::Gathering;
use super::wire::{Envelope, Message};
use super::world::World;

impl World {
    /// The destination begins to fetch everything that is or will be staged.
    pub(crate) fn gather(&mut self, id: CmdId, limit: Option<Rate>) {
        if self.dead == Some(Side::Destination) {
            return self.fail(id, Failure::Unreachable(Peer::Destination));
        }
        let pace = limit.map_or(Span::ZERO, |rate| rate.time_for(PAGE_SIZE as f64));
        self.destination.places.gathering = Some(Gathering { id, pace });
        self.coverage.gatherings += 1;
        self.request_staged();
        self.check_gathering();
    }

    /// Requests what intermediaries can be asked for now.
    pub(crate) fn request_staged(&mut self) {
        if !self.vias.is_empty() && self.destination.started.is_some() {
            let requests = self.destination.requests();
            self.send_from_destination(requests);
        }
    }

    pub(crate) fn send_from_destination(&mut self, messages: Vec<(Lane, Message)>) {
        for (lane, message) in messages {
            self.post_as_destination(lane, message);
        }
    }

    /// A page comes from an intermediary.
    pub(crate) fn receive_fetched(&mut self, page: PageIndex, frame: u32, content: Content) {
        self.destination.gathered += PAGE_SIZE;
        self.run.conductor.observe(livemig_core::ledger::Observation::Gathered(Bytes(PAGE_SIZE)));
        if self.destination.fetched(page, frame, content) {
            self.coverage.fetched += 1;
            self.touched.push(page);
        } else {
            self.coverage.fetched_too_late += 1;
        }
        self.unblock();
        self.request_staged();
        self.check_gathering();
    }

    /// Whether gathering is over: everything is here, or something will never be.
    pub(crate) fn check_gathering(&mut self) {
        let Some(Gathering { id, .. }) = self.destination.places.gathering else { return };
        let source_gone = self.dead == Some(Side::Source);
        let missing = self.guest.pages() - self.destination.memory.present();
        if missing == 0 {
            if !self.destination.asks || source_gone {
                self.destination.places.gathering = None;
                self.free_intermediaries(Side::Destination);
                self.done(id, Reply::Gathered { at: self.now });
            }
        } else if source_gone || self.source.released {
            let located = self.destination.places.len();
            let lost = missing - located.min(missing) + self.destination.places.orphans();
            if lost > 0 && source_gone && self.bug == Some(Bug::LossDenied) {
                self.destination.places.gathering = None;
                self.done(id, Reply::Gathered { at: self.now });
            } else if lost > 0 {
                self.destination.places.gathering = None;
                self.run.pages_lost = true;
                self.coverage.pages_lost += lost;
                self.guest_died = true;
                self.stop_guest();
                self.fail(id, Failure::PagesLost { bytes: Bytes::from_pages(lost) });
            }
        }
    }

    /// Nothing is needed any more of what they stage.
    pub(crate) fn free_intermediaries(&mut self, by: Side) {
        for via in 0..self.vias.len() {
            let lane = if by == Side::Source { Lane::Stage(via) } else { Lane::Fetch(via) };
            let (session, epoch) = (self.run.session, 0);
            self.put_on_way(via, lane, Span::ZERO, Envelope { session, epoch, message: Message::Free });
        }
    }

    pub(crate) fn post_to_intermediary(&mut self, via: u16, delay: Span, message: Message) {
        let via = usize::from(via);
        let (session, epoch) = (self.run.session, self.source.epoch);
        self.put_on_way(via, Lane::Stage(via), delay, Envelope { session, epoch, message });
    }
}

//! Staging at the source: batches to intermediaries, and the one map that says which of them has the newest version of a page.
//!
//! A page of a send is acknowledged when all intermediaries that its batch went to have stored it. Its place is then entered in
//! the map and told to the destination, again with each new connection until the destination has said that it knows.

use std::collections::BTreeMap;

use livemig_core::machine::Phase;
use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, PageIndex, Span};
use livemig_core::vocabulary::{CmdId, Event, Failure, Peer, Reply};

use super::bugs::Bug;
use super::channel::Lane;
use super::faults::{Fault, FaultKind};
use super::intermediary::{ViaState, Vias};
use super::places::Place;
use super::sender::{Flight, Staged, Way};
use super::wire::{Location, Message, Order};
use super::world::{Happening, World};

/// What the source knows of staged pages.
#[derive(Debug, Default)]
pub(crate) struct SourcePlaces {
    /// Of each page the place of the newest version, if it is staged.
    staged: BTreeMap<PageIndex, Place>,
    /// What the destination has not been heard to know.
    announced: BTreeMap<u32, Location>,
    /// Intermediaries that have failed, with pages that have not been taken back.
    failed: Vec<u16>,
    /// The order to redirect faults, which waits until the destination knows every place.
    redirecting: Option<CmdId>,
    /// The destination has been told not to ask, and not since then to ask again.
    pub(crate) redirected: bool,
}

impl SourcePlaces {
    pub(crate) fn get(&self, page: PageIndex) -> Option<Place> {
        self.staged.get(&page).copied()
    }

    /// What is staged of these pages is not the newest version any more.
    pub(crate) fn newer_is_sent(&mut self, pages: &[PageIndex]) {
        if !self.staged.is_empty() {
            for page in pages {
                self.staged.remove(page);
            }
        }
    }

    /// Whether the page is staged, and every intermediary that had it has failed: it will be taken back.
    pub(crate) fn is_lost(&self, page: PageIndex) -> bool {
        self.get(page).is_some_and(|place| place.holders.iter().all(|via| self.failed.contains(&via)))
    }

    /// Takes an intermediary out of the map: the pages that no other has, with dirty ones left out, of which it had no newest version.
    fn take_from(&mut self, via: u16, is_dirty: impl Fn(PageIndex) -> bool) -> Bitmap {
        let mut alone = Bitmap::default();
        self.staged.retain(|&page, place| {
            place.holders.remove(via);
            if place.holders.is_empty() && !is_dirty(page) {
                alone.insert(page);
            }
            !place.holders.is_empty()
        });
        alone
    }
}

impl World {
    /// Stages what can be staged now.
    pub(crate) fn feed_intermediaries(&mut self) {
        if self.vias.is_empty() || self.dead.is_some() {
            return;
        }
        while let Some((index, holders)) = self.next_staging() {
            let extent = self.source.sends[index].plan.next(self.timing.batch).expect("pages are left");
            let pages: Vec<PageIndex> = extent.iter().collect();
            self.coverage.staged += extent.pages * holders.count();
            self.launch(index, pages.clone(), Way::Staged(Staged::at(holders)));
            if self.bug == Some(Bug::StagingTrusted) {
                let frame = self.source.next_frame - 1;
                self.source.sends[index].flights.remove(&frame);
                let pages = self.landed(index, &pages);
                self.located(frame, pages, holders);
            }
        }
        self.fail_sends_without_way();
    }

    /// The first send of which a batch may go to intermediaries, and which ones.
    fn next_staging(&mut self) -> Option<(usize, Vias)> {
        let first = self.choices.below(self.vias.len() as u64);
        for (index, send) in self.source.sends.iter().enumerate().filter(|(_, send)| send.has_more()) {
            let alive = send.via.iter().filter(|&&via| self.vias[usize::from(via)].state != ViaState::Dead).count();
            let mut ready: Vec<u16> = send.via.iter().copied().filter(|&via| self.has_room(via)).collect();
            let copies = send.copies.clamp(1, alive.max(1));
            if ready.len() >= copies {
                let shift = usize::try_from(first).unwrap() % ready.len();
                ready.rotate_left(shift);
                return Some((index, Vias::of(&ready[..copies])));
            }
        }
        None
    }

    fn has_room(&self, via: u16) -> bool {
        let under_way: usize = self.source.sends.iter().map(|s| s.flights.values().filter(|f| f.goes_to(via)).count()).sum();
        self.vias[usize::from(via)].state == ViaState::Up && under_way < self.timing.window
    }

    fn fail_sends_without_way(&mut self) {
        let vias = &self.vias;
        let dead = |via: u16| vias[usize::from(via)].state == ViaState::Dead;
        let stuck = self
            .source
            .sends
            .iter()
            .position(|s| !s.direct && s.has_more() && s.flights.is_empty() && s.via.iter().all(|&via| dead(via)));
        if let Some(index) = stuck {
            let via = self.source.sends[index].via.first().copied().unwrap_or(0);
            self.coverage.no_way += 1;
            self.fail_send(index, Failure::Unreachable(Peer::Intermediary(via)));
            self.fail_sends_without_way();
        }
    }

    /// An intermediary has taken a batch, in part perhaps.
    pub(crate) fn stored(&mut self, via: u16, frame: u32, refused: &[PageIndex], unknown: &[PageIndex]) {
        let Some(index) = self.source.sends.iter().position(|s| s.flights.contains_key(&frame)) else { return };
        let flight = self.source.sends[index].flights.get_mut(&frame).expect("just found");
        let Way::Staged(staged) = &mut flight.way else { unreachable!("intermediaries store what is staged") };
        staged.waits.remove(via);
        staged.refused.extend(refused.iter().map(|&page| (via, page)));
        if self.bug != Some(Bug::ProbeTrusted) {
            staged.unknown.insert_all(&unknown.iter().copied().collect());
        }
        if staged.waits.is_empty() {
            let Some(Flight { pages, way: Way::Staged(staged) }) = self.source.sends[index].flights.remove(&frame) else {
                unreachable!("just found")
            };
            let Staged { unknown, asked, .. } = &staged;
            let kept: Vec<PageIndex> = pages
                .into_iter()
                .filter(|page| !unknown.contains(*page) && staged.refused.iter().all(|(_, p)| p != page))
                .collect();
            let had = (asked.count() - unknown.count()) * staged.holders.count();
            self.source.deduplicated += Bytes::from_pages(had).0;
            self.coverage.deduplicated += had;
            self.coverage.asked_in_vain += unknown.count();
            self.source.sends[index].had(had);
            self.source.sends[index].asked_in_vain(unknown);
            let there = self.landed(index, &kept);
            self.located(frame, there, staged.holders);
            self.refused(index, &staged.refused);
        }
        self.go_on_sending();
    }

    /// Pages for which an intermediary has no room leave their send, which avoids it from now on.
    fn refused(&mut self, index: usize, refused: &[(u16, PageIndex)]) {
        for via in (0..8).filter(|&via| refused.iter().any(|&(v, _)| v == via)) {
            let send = &mut self.source.sends[index];
            send.via.retain(|&v| v != via);
            send.ordered = true;
            let set: Bitmap =
                refused.iter().filter(|&&(v, page)| v == via && send.airborne.remove(page)).map(|&(_, p)| p).collect();
            for page in set.iter() {
                send.again.remove(page);
            }
            self.coverage.refused += set.count();
            self.hand_over(&set);
            self.tell_in_order(Event::StageRefused { via, set });
        }
    }

    /// Pages are staged: the destination is told where.
    fn located(&mut self, frame: u32, pages: Vec<PageIndex>, holders: Vias) {
        for &page in &pages {
            self.source.places.staged.insert(page, Place { frame, holders });
        }
        let snapshot = self.bug == Some(Bug::SnapshotNotLocated) && !self.run.resume_issued;
        if pages.is_empty() || snapshot {
            return;
        }
        let location = Location { frame, pages, holders };
        self.source.places.announced.insert(frame, location.clone());
        self.post(self.place_lane(), Message::Locate(location));
    }

    /// The connections are new, and what the destination was told may be lost.
    pub(crate) fn locate_again(&mut self) {
        for location in self.source.places.announced.values().cloned().collect::<Vec<_>>() {
            self.post(self.place_lane(), Message::Locate(location));
        }
    }

    /// Places are told ahead of the order to start the guest: one that is started before would fetch an older version that is staged
    /// elsewhere. Once it runs no page has two versions.
    fn place_lane(&self) -> Lane {
        if self.run.resume_issued { Lane::Demand } else { Lane::Orders }
    }

    /// The destination knows where the pages of a frame are.
    pub(crate) fn location_known(&mut self, frame: u32) {
        self.source.places.announced.remove(&frame);
        self.redirect_when_located();
    }

    pub(crate) fn redirect(&mut self, id: CmdId) {
        self.source.places.redirecting = Some(id);
        if self.dead.is_some() {
            self.fail_redirect();
        }
        self.redirect_when_located();
    }

    fn redirect_when_located(&mut self) {
        let places = &mut self.source.places;
        if (places.announced.is_empty() || self.bug == Some(Bug::RedirectBeforeLocated))
            && let Some(id) = places.redirecting.take()
        {
            places.redirected = true;
            self.order(id, Order::Redirect);
            self.strike_early();
        }
    }

    /// An intermediary that is to fail while the source is released may do so a little before, when the last requests are answered.
    fn strike_early(&mut self) {
        let planned = |f: &Fault| f.phase == Phase::Release && matches!(f.kind, FaultKind::KillVia { .. });
        if let Some(index) = self.run.faults.iter().position(planned)
            && self.choices.percent(50)
        {
            let kind = self.run.faults.remove(index).kind;
            let at = self.now + Span(self.choices.below(2 * self.timing.latency.0 + self.timing.jitter.0));
            self.lanes.push(Lane::World, at, Happening::Strike(kind));
        }
    }

    /// An order to redirect that has not been given fails like those that have been.
    pub(crate) fn fail_redirect(&mut self) {
        if let Some(id) = self.source.places.redirecting.take() {
            self.fail(id, Failure::Unreachable(Peer::Destination));
        }
    }

    /// What only a failed intermediary had is the machine's again.
    pub(crate) fn reclaim(&mut self, id: CmdId, via: u16) {
        let tracker = &self.source.tracker;
        let mut set = self.source.places.take_from(via, |page| tracker.is_dirty(page));
        self.source.places.failed.retain(|&v| v != via);
        if self.bug == Some(Bug::ReclaimForgotten) {
            set = Bitmap::default();
        }
        self.coverage.reclaimed += set.count();
        self.hand_over(&set);
        self.done(id, Reply::Reclaimed(set));
    }

    /// What went to an intermediary is taken back, because it will not arrive.
    fn take_back_from(&mut self, via: u16) {
        for send in &mut self.source.sends {
            send.take_back(|flight| flight.goes_to(via));
        }
        self.go_on_sending();
    }

    /// An intermediary is gone, with everything that it had.
    pub(crate) fn kill_intermediary(&mut self, via: u16) -> bool {
        let Some(host) = self.vias.get_mut(usize::from(via)).filter(|v| v.state != ViaState::Dead) else { return false };
        host.die();
        self.lanes.set_via_down(usize::from(via), false);
        self.lanes.silence_via(usize::from(via));
        self.destination.places.link_changed(via, ViaState::Dead, true);
        self.source.places.failed.push(via);
        self.take_back_from(via);
        let asked = self.destination.ask_elsewhere();
        self.send_from_destination(asked);
        self.request_staged();
        self.check_gathering();
        let event = Event::PeerDead { peer: Peer::Intermediary(via), recoverable: false };
        if self.choices.percent(50) {
            self.tell(event);
        } else {
            self.tell_later(event);
        }
        true
    }

    /// The link to an intermediary is cut for a while; what is on it waits, or is lost in part.
    pub(crate) fn cut_intermediary(&mut self, via: u16, lossy: bool, outage: Span) -> bool {
        let Some(host) = self.vias.get_mut(usize::from(via)).filter(|v| v.state == ViaState::Up) else { return false };
        host.state = ViaState::Down;
        self.lanes.set_via_down(usize::from(via), true);
        self.lanes.push(Lane::World, self.now + outage, Happening::RestoreVia(via));
        self.destination.places.link_changed(via, ViaState::Down, lossy);
        if lossy {
            self.lanes.lose_some_of_via(usize::from(via), &mut self.choices);
            self.take_back_from(via);
        }
        let peer = Peer::Intermediary(via);
        let away = self.choices.percent(50);
        self.tell(if away { Event::PeerDead { peer, recoverable: true } } else { Event::LinkLost(peer) });
        self.request_staged();
        true
    }

    pub(crate) fn restore_intermediary(&mut self, via: u16) {
        let host = &mut self.vias[usize::from(via)];
        if host.state != ViaState::Down {
            return;
        }
        host.state = ViaState::Up;
        self.lanes.set_via_down(usize::from(via), false);
        self.destination.places.link_changed(via, ViaState::Up, false);
        if self.phase() != Phase::Ended {
            self.tell(Event::LinkRestored(Peer::Intermediary(via)));
        }
        self.request_staged();
        self.go_on_sending();
    }
}

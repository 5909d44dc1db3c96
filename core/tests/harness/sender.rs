//! The source's sender: outstanding sends, the connections that carry them, and the pages that the destination asks for.
//!
//! A page of a send is in one of three places: in the send's plan, on its way in a batch, or (when it has joined the send while
//! an older version of it was on its way) due *again* as soon as that batch is acknowledged. Two versions of a page are never
//! on their way at once. Batches to intermediaries are in `staging`.

use std::collections::BTreeMap;

use livemig_core::pages::Bitmap;
use livemig_core::push_plan::{Extent, PushPlan};
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Rate, Span};
use livemig_core::vocabulary::{CmdId, Event, Failure, Joined, Reply, Send, Sent};

use super::bugs::Bug;
use super::channel::{DEMAND_ACKS, Lane, MAX_STREAMS};
use super::intermediary::Vias;
use super::memory::{Content, Hash, ZEROS, hash, index};
use super::wire::{Batch, Message};
use super::world::{Happening, World};

/// Bytes on the wire that a page costs beside its content.
const MARK: u64 = 16;

/// A send that has not ended.
#[derive(Debug)]
pub(crate) struct OutSend {
    pub(crate) id: CmdId,
    pub(super) plan: PushPlan,
    pub(super) flights: BTreeMap<u32, Flight>,
    pub(super) airborne: Bitmap,
    pub(super) again: Bitmap,
    sent: Sent,
    skip_redirtied: bool,
    streams: usize,
    pub(super) direct: bool,
    /// Intermediaries to which its pages may go.
    pub(super) via: Vec<u16>,
    pub(super) copies: usize,
    /// Intermediaries are asked by hash whether they have a page's content.
    dedup: bool,
    /// Pages for which they were asked in vain: their content goes next.
    pub(super) in_vain: Bitmap,
    /// What the machine hears of it comes in order once an intermediary has refused pages of it.
    pub(super) ordered: bool,
    recalled: bool,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) pages: Vec<PageIndex>,
    pub(super) way: Way,
}

/// How a batch travels.
#[derive(Debug)]
pub(super) enum Way {
    /// To the destination, on this connection.
    Stream(usize),
    /// To the destination, which has asked for it.
    Demand,
    /// To intermediaries.
    Staged(Staged),
}

/// A batch on its way to intermediaries.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) holders: Vias,
    /// Those that have not answered.
    pub(super) waits: Vias,
    /// Pages for which there was no room, and where.
    pub(super) refused: Vec<(u16, PageIndex)>,
    /// Pages that went by hash.
    pub(super) asked: Bitmap,
    /// Of these, those whose content somebody does not have.
    pub(super) unknown: Bitmap,
}

impl Staged {
    pub(super) fn at(holders: Vias) -> Staged {
        Staged { holders, waits: holders, refused: Vec::new(), asked: Bitmap::default(), unknown: Bitmap::default() }
    }
}

impl Flight {
    fn is_direct(&self) -> bool {
        match self.way {
            Way::Stream(_) | Way::Demand => true,
            Way::Staged(_) => false,
        }
    }

    pub(super) fn goes_to(&self, via: u16) -> bool {
        match &self.way {
            Way::Staged(staged) => staged.holders.contains(via),
            Way::Stream(_) | Way::Demand => false,
        }
    }
}

impl OutSend {
    /// Whether the send is responsible for the page.
    pub(crate) fn holds(&self, page: PageIndex) -> bool {
        self.plan.contains(page) || self.airborne.contains(page) || self.again.contains(page)
    }

    pub(crate) fn pending(&self) -> Bytes {
        Bytes::from_pages(self.plan.left() + self.again.count())
    }

    fn batches_on(&self, stream: usize) -> usize {
        self.flights.values().filter(|f| matches!(f.way, Way::Stream(s) if s == stream)).count()
    }

    /// Whether it has pages that may be put on a way.
    pub(super) fn has_more(&self) -> bool {
        !self.recalled && self.plan.left() > 0
    }

    fn is_over(&self) -> bool {
        self.flights.is_empty() && (self.recalled || self.plan.left() + self.again.count() == 0)
    }

    /// Intermediaries were asked for these pages in vain: they go with their content.
    pub(super) fn asked_in_vain(&mut self, pages: &Bitmap) {
        for page in pages.iter().filter(|&page| self.airborne.contains(page)).collect::<Vec<_>>() {
            self.airborne.remove(page);
            self.again.remove(page);
            self.in_vain.insert(page);
            self.plan.requeue(Extent { first: page, pages: 1 });
        }
    }

    /// Intermediaries had the content of so many pages.
    pub(super) fn had(&mut self, pages: u64) {
        self.sent.deduplicated += Bytes::from_pages(pages);
    }

    /// What is on these ways has to be sent again; whether there was anything.
    pub(super) fn take_back(&mut self, ways: impl Fn(&Flight) -> bool) -> bool {
        let (back, flights) = std::mem::take(&mut self.flights).into_iter().partition(|(_, flight)| ways(flight));
        self.flights = flights;
        let found = !back.is_empty();
        for flight in back.into_values() {
            for page in flight.pages {
                self.airborne.remove(page);
                self.again.remove(page);
                self.plan.requeue(Extent { first: page, pages: 1 });
            }
        }
        found
    }

    fn into_unsent(self) -> Bitmap {
        let mut rest = self.plan.into_rest();
        for page in self.airborne.iter().chain(self.again.iter()) {
            rest.insert(page);
        }
        rest
    }
}

impl World {
    pub(crate) fn begin_send(&mut self, id: CmdId, send: Send<Bitmap>) {
        let Send { set, region, routes, streams, skip_redirtied, order, .. } = send;
        let asked_for: Vec<PageIndex> = self.source.wanted.iter().copied().filter(|&p| set.contains(p)).collect();
        let plan = PushPlan::new(set, order);
        let plan = match self.run.tasks {
            Some(tasks) => plan.in_tasks(tasks.pages(region)),
            None => plan,
        };
        self.source.sends.push(OutSend {
            id,
            plan,
            flights: BTreeMap::new(),
            airborne: Bitmap::default(),
            again: Bitmap::default(),
            sent: Sent::default(),
            skip_redirtied,
            streams: usize::from(streams).min(MAX_STREAMS),
            direct: routes.direct,
            via: routes.via,
            copies: usize::from(routes.copies),
            dedup: routes.dedup,
            in_vain: Bitmap::default(),
            ordered: false,
            recalled: false,
        });
        for page in asked_for {
            self.serve(page);
        }
        self.feed_all();
        self.end_sends();
    }

    /// Sends what can be sent, and completes the sends that are over.
    pub(crate) fn go_on_sending(&mut self) {
        self.serve_wanted();
        self.feed_all();
        self.end_sends();
    }

    pub(super) fn feed_all(&mut self) {
        for stream in 0..MAX_STREAMS {
            self.feed(stream);
        }
        self.feed_intermediaries();
    }

    /// Puts the next batch on a connection that has room.
    pub(crate) fn feed(&mut self, stream: usize) {
        while !self.source.busy[stream] && self.cut.is_none() && self.dead.is_none() {
            if self.source.sends.iter().map(|s| s.batches_on(stream)).sum::<usize>() >= self.timing.window {
                return;
            }
            let Some(index) = self.source.sends.iter().position(|s| s.direct && s.streams > stream && s.has_more()) else {
                return;
            };
            let extent = self.source.sends[index].plan.next_for(stream, self.timing.batch).expect("pages are left");
            let pages: Vec<PageIndex> = extent.iter().filter(|&page| !self.skips(index, page)).collect();
            if !pages.is_empty() {
                self.launch(index, pages, Way::Stream(stream));
            }
        }
    }

    /// Whether a page is left out because the dirty tracker has it again.
    fn skips(&mut self, index: usize, page: PageIndex) -> bool {
        let send = &mut self.source.sends[index];
        let skips = send.skip_redirtied && self.source.tracker.is_dirty(page);
        if skips {
            send.sent.skipped += Bytes(PAGE_SIZE);
            self.coverage.skipped += 1;
            if self.bug == Some(Bug::SkippedPageForgotten) {
                self.source.tracker.forget(page);
            }
        }
        skips
    }

    /// Reads pages as they are now and sends them.
    pub(super) fn launch(&mut self, index: usize, pages: Vec<PageIndex>, mut way: Way) {
        let frame = self.source.next_frame;
        self.source.next_frame += 1;
        let demanded = matches!(way, Way::Demand);
        let (mut content, mut size) = self.read(&pages, demanded);
        let dedup = self.source.sends[index].dedup;
        let mut hashes = Vec::new();
        if let Way::Staged(staged) = &mut way
            && dedup
        {
            hashes = self.take_hashes(index, &mut content);
            size -= PAGE_SIZE * hashes.len() as u64;
            staged.asked = hashes.iter().map(|h| h.0).collect();
        }
        self.note(|| format!("frame {frame} on {way:?}: {}", show(&pages)));
        let wire = match &way {
            Way::Stream(_) | Way::Demand => size,
            Way::Staged(staged) => size * staged.holders.count(),
        };
        let send = &mut self.source.sends[index];
        send.sent.wire += Bytes(wire);
        if demanded {
            send.sent.demand += Bytes(wire);
            self.coverage.demanded += 1;
        }
        for &page in &pages {
            let grounded = send.airborne.insert(page);
            debug_assert!(grounded, "two versions of a page on their way");
        }
        self.source.wire += wire;
        let cost = self.cost(size);
        let batch = |lane| Batch { frame, lane, pages: content.clone(), dedup, hashes: hashes.clone() };
        match &way {
            Way::Stream(stream) => {
                let stream = *stream;
                self.post_after(Lane::Data(stream), cost, Message::Pages(batch(stream)));
                if !self.choices.exhaustive() {
                    self.source.busy[stream] = true;
                    self.lanes.push(Lane::Room(stream), self.now + cost, Happening::Room(stream));
                }
            }
            Way::Demand => self.post_after(Lane::Demand, cost, Message::Pages(batch(DEMAND_ACKS))),
            Way::Staged(staged) => {
                for via in staged.holders.iter() {
                    self.post_to_intermediary(via, cost, Message::Stage(batch(usize::from(via))));
                }
            }
        }
        self.source.places.newer_is_sent(&pages);
        self.source.sends[index].flights.insert(frame, Flight { pages, way });
    }

    /// Of the pages that go to intermediaries, those that they have not been asked for; a page of zeros is not worth the question.
    fn take_hashes(&self, index: usize, content: &mut Vec<(PageIndex, Option<Content>)>) -> Vec<(PageIndex, Hash)> {
        let in_vain = &self.source.sends[index].in_vain;
        let mut hashes = Vec::new();
        content.retain(|&(page, bytes)| match bytes {
            Some(bytes) if !in_vain.contains(page) => {
                hashes.push((page, hash(bytes)));
                false
            }
            Some(_) | None => true,
        });
        hashes
    }

    /// Pages as they are now, and what they take on the wire.
    fn read(&mut self, pages: &[PageIndex], demanded: bool) -> (Vec<(PageIndex, Option<Content>)>, u64) {
        let mut size = 0;
        let mut content = Vec::with_capacity(pages.len());
        for &page in pages {
            let mut bytes = self.source.memory.get(page).expect("the source keeps every page");
            if demanded && self.bug == Some(Bug::FaultAnsweredWithZeros) {
                bytes = ZEROS;
            }
            let elided = self.run.elide_zero_pages && bytes == ZEROS;
            size += MARK + if elided { 0 } else { PAGE_SIZE };
            content.push((page, (!elided).then_some(bytes)));
        }
        (content, size)
    }

    fn cost(&self, wire: u64) -> Span {
        let own = Rate(PAGE_SIZE as f64 / self.timing.page.as_secs_f64());
        let rate = self.source.limit.map_or(own.0, |limit| limit.0.min(own.0));
        Rate(rate).time_for(wire as f64)
    }

    pub(crate) fn acknowledged(&mut self, frame: u32) {
        let Some(index) = self.source.sends.iter().position(|s| s.flights.contains_key(&frame)) else { return };
        let flight = self.source.sends[index].flights.remove(&frame).expect("just found");
        self.landed(index, &flight.pages);
        self.feed_all();
        self.end_sends();
    }

    /// A batch has come to its end: its pages are where they were sent, or are to go once more. These are the former.
    pub(super) fn landed(&mut self, index: usize, pages: &[PageIndex]) -> Vec<PageIndex> {
        let send = &mut self.source.sends[index];
        let (mut there, mut due) = (Vec::new(), Vec::new());
        for &page in pages {
            send.airborne.remove(page);
            self.touched.push(page);
            if send.again.remove(page) {
                send.plan.add(page);
                due.push(page);
            } else {
                self.source.wanted.remove(&page);
                there.push(page);
            }
        }
        for page in due {
            if self.source.wanted.contains(&page) {
                self.serve(page);
            }
        }
        there
    }

    /// The destination asks for a page.
    pub(crate) fn asked(&mut self, page: PageIndex) {
        self.coverage.asked += 1;
        if self.source.released {
            self.broken(format!("a released source is asked for page {}", page.0));
        } else if self.source.hands[index(page)] > 0
            || self.source.sends.iter().any(|s| s.holds(page))
            || self.source.places.is_lost(page)
        {
            self.source.wanted.insert(page);
            self.serve(page);
        }
        // Otherwise the page has been acknowledged: the request was on its way when it arrived.
    }

    /// Sends a page at once, if it has not been sent already.
    fn serve(&mut self, page: PageIndex) {
        if !self.source.serving || self.cut.is_some() || self.dead.is_some() {
            return;
        }
        let Some(index) = self.source.sends.iter().position(|s| s.holds(page)) else { return };
        if self.source.sends[index].plan.fault(page) {
            self.launch(index, vec![page], Way::Demand);
        }
    }

    pub(crate) fn serve_wanted(&mut self) {
        for page in self.source.wanted.clone() {
            self.serve(page);
        }
    }

    /// Pages out of the dirty tracker join a send. Those that it has still to send need no second place.
    pub(crate) fn join(&mut self, set: &Bitmap, into: CmdId) -> Joined {
        let forgets = self.bug == Some(Bug::JoinedPageForgotten);
        let send = self.source.sends.iter_mut().find(|s| s.id == into).expect("looked up before");
        let mut added = 0;
        for page in set.iter() {
            added += u64::from(if send.airborne.contains(page) {
                self.coverage.joined_airborne += 1;
                !forgets && send.again.insert(page)
            } else {
                send.plan.add(page)
            });
        }
        let joined = Joined { added: Bytes::from_pages(added), pending: send.pending(), sent: send.sent };
        self.feed_all();
        joined
    }

    /// Gives the connections up: what is on its way will not be taken, and is to be sent again.
    pub(crate) fn new_epoch(&mut self) {
        self.source.epoch += 1;
        let trusts = self.bug == Some(Bug::BrokenConnectionTrusted);
        for send in &mut self.source.sends {
            if trusts {
                send.flights.retain(|_, flight| !flight.is_direct());
                send.airborne = send.flights.values().flat_map(|f| f.pages.iter().copied()).collect();
                for page in std::mem::take(&mut send.again).iter() {
                    send.plan.add(page);
                }
            } else {
                send.take_back(Flight::is_direct);
            }
        }
        self.hello();
        self.locate_again();
    }

    pub(crate) fn recall(&mut self, of: CmdId) {
        let Some(index) = self.source.sends.iter().position(|s| s.id == of) else {
            if !self.end_watch(of) {
                self.coverage.recalled_late += 1;
            }
            return;
        };
        self.source.sends[index].recalled = true;
        let in_flight = self.source.sends[index].flights.values().any(Flight::is_direct);
        if in_flight && (self.cut.is_some() || self.choices.percent(self.timing.hasty_recalls_percent)) {
            self.coverage.hasty_recalls += 1;
            self.new_epoch();
        }
        self.go_on_sending();
    }

    /// Sends that wait for acknowledgements before they can be handed back need not wait for a cut link.
    pub(crate) fn hurry_recalls(&mut self) {
        if self.source.sends.iter().any(|s| s.recalled) {
            self.new_epoch();
            self.go_on_sending();
        }
    }

    /// Completes the sends that are over.
    pub(crate) fn end_sends(&mut self) {
        while let Some(index) = self.source.sends.iter().position(OutSend::is_over) {
            let send = self.source.sends.remove(index);
            let (id, sent, ordered) = (send.id, send.sent, send.ordered);
            let unsent = send.into_unsent();
            self.end_watches_of(id);
            if unsent.count() == 0 {
                self.complete_send(ordered, Event::Done { id, reply: Reply::Sent(sent) });
            } else if self.bug == Some(Bug::UnsentForgotten) {
                self.complete_send(ordered, Event::Recalled { id, sent, unsent: Bitmap::default() });
            } else {
                self.coverage.recalled_with_rest += 1;
                self.hand_over(&unsent);
                self.complete_send(ordered, Event::Recalled { id, sent, unsent });
            }
        }
    }

    pub(crate) fn fail_sends(&mut self, failure: Failure) {
        while !self.source.sends.is_empty() {
            self.fail_send(0, failure);
        }
    }

    pub(super) fn fail_send(&mut self, index: usize, failure: Failure) {
        let send = self.source.sends.remove(index);
        let (id, sent, ordered) = (send.id, send.sent, send.ordered);
        let unsent = send.into_unsent();
        self.end_watches_of(id);
        self.hand_over(&unsent);
        self.complete_send(ordered, Event::Failed { id, failure, sent, unsent });
    }
}

pub(crate) fn show(pages: &[PageIndex]) -> String {
    pages.iter().map(|p| p.0.to_string()).collect::<Vec<_>>().join(" ")
}

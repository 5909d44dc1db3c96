//! Pages with an identity, or device state, on their way over the migration's bandwidth, one page after the other.

use super::guest::Guest;
use super::places::Places;
use crate::dedup::Probe;
use crate::fidelity::{GuestModel, Lanes, Load, TransferModel, WirePrice};
use livemig_core::ledger::Observation;
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::push_plan::PushPlan;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Time};
use livemig_core::vocabulary::{CmdId, Prepaging, Send, Sent};
use std::collections::VecDeque;

const PAGE: f64 = PAGE_SIZE as f64;
/// A send of which intermediaries may have pages is looked at again after this part of it, and not before so many pages.
const LOOKS: u64 = 256;
const LEAST_PAGES: u64 = 16;

/// The wire bytes of pages.
#[derive(Clone, Copy, Debug)]
struct WireCost {
    page: f64,
    mark: f64,
    /// From this page on a mark is sent instead of the page.
    marks_from: u64,
}

impl WireCost {
    fn new(pages: u64, price: WirePrice) -> WireCost {
        let elided = ((price.elided / PAGE) as u64).min(pages);
        WireCost { page: PAGE * price.content + price.header.0 as f64, mark: price.mark.0 as f64, marks_from: pages - elided }
    }

    fn of(&self, page: PageIndex) -> f64 {
        if page.0 < self.marks_from { self.page } else { self.mark }
    }

    fn of_all(&self, set: &Bitmap) -> f64 {
        let mut marks = set.clone();
        let pages = marks.remove_run(PageIndex(0), self.marks_from);
        pages as f64 * self.page + marks.count() as f64 * self.mark
    }
}

/// The page, or the state, that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnWire {
    pub(super) page: Option<PageIndex>,
    pub(super) whole: f64,
    pub(super) left: f64,
    pub(super) asked: bool,
    /// Intermediaries have its content: what is on the wire is the time that it takes, and counts for nothing.
    pub(super) known: bool,
    /// Bytes of time in which nothing goes, because hashing takes longer.
    pub(super) idle: f64,
}

/// A way to an intermediary, with the page that is on it.
#[derive(Debug)]
pub(super) struct ScatterWire {
    pub(super) via: u16,
    pub(super) rate: f64,
    pub(super) on_wire: Option<OnWire>,
}

#[derive(Debug)]
pub(crate) struct Transfer {
    id: CmdId,
    load: Load,
    is_first: bool,
    skips: bool,
    cost: WireCost,
    plan: PushPlan,
    /// Pages that have joined behind the sender's back: it goes round in address order and comes to them later.
    joined: Bitmap,
    /// The page after the last that was taken in address order.
    reached: PageIndex,
    /// Pages that the guest waits for, taken out of the plan.
    asked: VecDeque<PageIndex>,
    on_wire: Option<OnWire>,
    /// The ways to intermediaries.
    pub(super) scatter: Vec<ScatterWire>,
    /// How many of them store each page.
    pub(super) copies: usize,
    /// Intermediaries are asked for each page.
    pub(super) probe: Option<Probe>,
    /// Bytes of pages that they had, each copy counted.
    deduplicated: f64,
    /// So many pages go, at least, before it is looked at again how many they had.
    grain: u64,
    wire_left: f64,
    sent: f64,
    demanded: f64,
    skipped: f64,
    /// The guest has not been told that this sender has taken over.
    new_to_guest: bool,
}

impl Transfer {
    /// Brings a transfer that is no push to the moment `to`, and the guest as far as it matters.
    pub(super) fn advance(&mut self, guest: &mut Guest, to: f64, lanes: &Lanes<'_>, observe: &mut impl FnMut(Observation)) {
        let mut at = guest.at;
        let rate = lanes.rate;
        if rate <= 0.0 {
            return;
        }
        if !lanes.via.is_empty() {
            self.set_lanes(lanes, &guest.places);
            return self.advance_scattering(guest, to, lanes.direct, observe);
        }
        while self.take_next(guest, at, observe) {
            let end = at + self.wire_time(rate);
            self.carry((end.min(to) - at) * rate);
            if end > to {
                break;
            }
            at = end;
            self.finish_page();
        }
    }

    /// Puts the next page on the wire if that is free: one that is not dirty again at this moment, if these are left out.
    pub(super) fn take_next(&mut self, guest: &mut Guest, at: f64, observe: &mut impl FnMut(Observation)) -> bool {
        while self.on_wire.is_none() {
            let Some(page) = self.next_page() else { return false };
            if self.skips {
                guest.run_to(at, None, &Lanes::NONE, observe);
                if guest.dirty.contains(page) {
                    self.skipped += PAGE;
                    self.wire_left -= self.cost.of(page);
                    continue;
                }
            }
            self.put_on_wire(page, false);
        }
        true
    }

    pub(super) fn next_page(&mut self) -> Option<PageIndex> {
        if self.plan.left() == 0 && self.joined.count() > 0 {
            self.plan = PushPlan::new(std::mem::take(&mut self.joined), Prepaging::AddressOrder);
        }
        let page = self.plan.next(1)?.first;
        self.reached = PageIndex(page.0 + 1);
        Some(page)
    }

    fn put_on_wire(&mut self, page: PageIndex, asked: bool) {
        self.on_wire = Some(self.wire_of(page, asked));
    }

    pub(super) fn wire_of(&self, page: PageIndex, asked: bool) -> OnWire {
        let whole = self.cost.of(page);
        OnWire { page: Some(page), whole, left: whole, asked, known: false, idle: 0.0 }
    }

    /// Puts the next page of a push on the wire if that is free: what is waited for goes first.
    pub(super) fn load_next(&mut self) {
        if self.on_wire.is_none() {
            match self.asked.pop_front() {
                Some(page) => self.put_on_wire(page, true),
                None => {
                    if let Some(page) = self.next_page() {
                        self.put_on_wire(page, false);
                    }
                }
            }
        }
    }

    /// Seconds until what is on the wire has gone.
    pub(super) fn wire_time(&self, rate: f64) -> f64 {
        match &self.on_wire {
            Some(on_wire) if rate > 0.0 => on_wire.left / rate,
            Some(_) | None => f64::INFINITY,
        }
    }

    /// So many bytes go.
    pub(super) fn carry(&mut self, bytes: f64) {
        if let Some(on_wire) = &mut self.on_wire {
            let gone = bytes.min(on_wire.left);
            on_wire.left -= gone;
            self.wire_left -= gone;
            self.sent += gone;
        }
    }

    fn finish_page(&mut self) -> Option<PageIndex> {
        let on_wire = self.on_wire.take()?;
        self.finish_wire(on_wire)
    }

    pub(super) fn finish_wire(&mut self, on_wire: OnWire) -> Option<PageIndex> {
        if !on_wire.known {
            self.wire_left -= on_wire.left;
            self.sent += on_wire.left - on_wire.idle;
        }
        if on_wire.asked {
            self.demanded += on_wire.whole;
        }
        if self.left_over() {
            self.wire_left = 0.0;
        }
        on_wire.page
    }

    /// The page on the way straight to the destination has gone.
    pub(super) fn finish_straight(&mut self) {
        self.finish_page();
    }

    /// So many more bytes have gone.
    pub(super) fn count_sent(&mut self, bytes: f64) {
        self.wire_left -= bytes;
        self.sent += bytes;
    }

    /// What is on a way that is closed goes again, from its beginning.
    pub(super) fn send_again(&mut self, on_wire: OnWire, places: &Places) {
        let Some(page) = on_wire.page else { return };
        if on_wire.known {
            self.wire_left += on_wire.whole;
            self.deduplicated -= PAGE * self.copies as f64;
            places.give_up(page);
        } else {
            self.wire_left += self.cost.of(page) - on_wire.left;
        }
        self.plan.add(page);
    }

    /// Whether a page is sent, and not a mark.
    pub(super) fn has_content(&self, page: PageIndex) -> bool {
        page.0 < self.cost.marks_from
    }

    /// Intermediaries have a page, which only costs a question.
    pub(super) fn is_known(&mut self, whole: f64, probe: f64) {
        self.wire_left -= whole;
        self.sent += probe;
        self.deduplicated += PAGE * self.copies as f64;
    }

    /// A page takes so much more than its wire bytes.
    pub(super) fn costs_more(&mut self, bytes: f64) {
        self.wire_left += bytes;
    }

    /// The next page that the guest waits for.
    pub(super) fn next_asked(&mut self) -> Option<PageIndex> {
        self.asked.pop_front()
    }

    /// What is on the wires.
    fn all_on_wire(&self) -> impl Iterator<Item = OnWire> {
        self.on_wire.iter().chain(self.scatter.iter().filter_map(|w| w.on_wire.as_ref())).copied()
    }

    /// Nothing is left but what rounding has left.
    fn left_over(&self) -> bool {
        let on_wire = self.on_wire.is_some() || self.scatter.iter().any(|w| w.on_wire.is_some());
        self.plan.left() == 0 && self.joined.count() == 0 && self.asked.is_empty() && !on_wire
    }

    /// The page on the wire has gone.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn unload(&mut self) -> PageIndex {
        self.finish_page().expect("a push has pages on the wire")
    }

    /// The guest waits for a page.
    pub(super) fn ask(&mut self, page: Option<PageIndex>) {
        if let Some(page) = page.filter(|&p| self.plan.fault(p)) {
            self.asked.push_back(page);
        }
    }

    /// Whether the guest has not met this sender before.
    pub(super) fn greet(&mut self) -> bool {
        std::mem::replace(&mut self.new_to_guest, false)
    }
}

impl TransferModel for Transfer {
    type Set = Bitmap;
    type Guest = Guest;

    fn of_pages(id: CmdId, send: &Send<Bitmap>, push: bool, price: WirePrice, guest: &Guest, _now: Time) -> Transfer {
        let cost = WireCost::new(guest.pages(), price);
        let order = if push { send.order } else { Prepaging::AddressOrder };
        Transfer {
            id,
            load: if push { Load::Push } else { Load::Pages },
            is_first: send.is_first_copy(),
            skips: send.skip_redirtied && !push,
            cost,
            plan: PushPlan::new(send.set.clone(), order),
            joined: Bitmap::default(),
            reached: PageIndex(0),
            asked: VecDeque::new(),
            on_wire: None,
            scatter: Vec::new(),
            copies: 1,
            probe: price.probe,
            deduplicated: 0.0,
            grain: (send.set.count() / LOOKS).max(LEAST_PAGES),
            wire_left: cost.of_all(&send.set),
            sent: 0.0,
            demanded: 0.0,
            skipped: 0.0,
            new_to_guest: push,
        }
    }

    fn of_state(id: CmdId, state: Bytes, _now: Time) -> Transfer {
        let whole = state.0 as f64;
        Transfer {
            id,
            load: Load::State,
            is_first: false,
            skips: false,
            cost: WireCost { page: PAGE, mark: 0.0, marks_from: 0 },
            plan: PushPlan::new(Bitmap::default(), Prepaging::AddressOrder),
            joined: Bitmap::default(),
            reached: PageIndex(0),
            asked: VecDeque::new(),
            on_wire: Some(OnWire { page: None, whole, left: whole, asked: false, known: false, idle: 0.0 }),
            scatter: Vec::new(),
            copies: 1,
            probe: None,
            deduplicated: 0.0,
            grain: 1,
            wire_left: whole,
            sent: 0.0,
            demanded: 0.0,
            skipped: 0.0,
            new_to_guest: false,
        }
    }

    /// It goes on from where its guest is.
    fn begin(&mut self, _now: Time) {}

    fn id(&self) -> CmdId {
        self.id
    }

    fn load(&self) -> Load {
        self.load
    }

    fn is_first(&self) -> bool {
        self.is_first
    }

    fn wire_sent(&self) -> f64 {
        self.sent
    }

    /// The page on the wire counts as far as it has not gone.
    fn pending(&self) -> f64 {
        let waiting = self.plan.left() + self.joined.count() + self.asked.len() as u64;
        let on_wire: f64 = self.all_on_wire().filter(|w| w.page.is_some() && w.whole > 0.0).map(|w| w.left / w.whole).sum();
        (waiting as f64 + on_wire) * PAGE
    }

    fn mean_factor(&self) -> f64 {
        let pages = self.pending();
        if pages > 0.0 && self.wire_left > 0.0 { self.wire_left / pages } else { 1.0 }
    }

    fn account(&self, _guest: &Guest) -> Sent {
        let partly = self.on_wire.filter(|w| w.asked).map_or(0.0, |w| w.whole - w.left);
        let wire = Bytes(self.sent.round() as u64);
        let demand = Bytes((self.demanded + partly).round() as u64);
        Sent {
            wire,
            demand: demand.min(wire),
            skipped: Bytes(self.skipped.round() as u64),
            deduplicated: Bytes(self.deduplicated.round() as u64),
        }
    }

    fn unsent(&self, _guest: &Guest) -> Bitmap {
        let mut unsent = self.plan.rest().clone();
        unsent.merge(self.joined.clone());
        for page in self.asked.iter().copied().chain(self.all_on_wire().filter_map(|w| w.page)) {
            unsent.insert(page);
        }
        unsent
    }

    fn take_out(&mut self, most: Bytes, guest: &Guest) -> Bitmap {
        let mut out = Bitmap::default();
        while out.len() < most
            && let Some(page) = self.next_page().or_else(|| self.scatter.iter_mut().find_map(|w| w.on_wire.take()?.page))
        {
            self.wire_left = (self.wire_left - self.cost.of(page)).max(0.0);
            guest.places.give_up(page);
            out.insert(page);
        }
        if self.left_over() {
            self.wire_left = 0.0;
        }
        out
    }

    /// What is left out makes room for what comes after it, so that the end cannot be foretold; it is looked for again when
    /// the pages that are clean now could have gone, while others become dirty as fast as they can, and at the end with every page.
    fn time_left(&self, rate: f64, guest: &Guest) -> f64 {
        if self.wire_left <= 0.0 {
            return 0.0;
        }
        if rate <= 0.0 {
            return f64::INFINITY;
        }
        if let Some(probe) = self.probe {
            // Perhaps intermediaries have all that is left.
            let known = (self.plan.left() + self.joined.count()) as f64 * probe.bytes;
            let grain = self.grain as f64 * self.cost.page;
            return (self.wire_left / rate).min(known.max(grain) / rate).max(1e-9);
        }
        if !self.skips {
            return self.wire_left / rate;
        }
        let rest = self.plan.rest();
        let all = rest.count() + self.joined.count();
        let clean = (all - rest.common(&guest.dirty) - self.joined.common(&guest.dirty)) as f64;
        let sure = clean - 6.0 * libm::sqrt(clean);
        let cheapest = self.cost.page.min(if self.cost.marks_from < guest.pages() { self.cost.mark } else { self.cost.page });
        let pass = rate / cheapest.max(1.0) + guest.sampler.most() * guest.speed();
        let wire = self.on_wire.map_or(0.0, |w| w.left / rate);
        // Not below a nanosecond, the grain of the engine's time.
        (sure / pass).max(wire).max(1e-9)
    }

    fn is_over(&self, rate: f64) -> bool {
        self.wire_left <= rate * 2e-9
    }

    fn finish(&mut self) {
        self.sent += self.wire_left;
        self.wire_left = 0.0;
    }

    fn join(&mut self, set: &Bitmap, _guest: &Guest) -> Bytes {
        let mut added = set.clone();
        added.remove_all(self.plan.rest());
        added.remove_all(&self.joined);
        for page in added.iter() {
            self.wire_left += self.cost.of(page);
            if page < self.reached {
                self.joined.insert(page);
            } else {
                self.plan.add(page);
            }
        }
        added.len()
    }

    fn remap(&mut self, (): &(), _price: WirePrice, _guest: &Guest) {}
}

//! Pages, or device state, on their way: what has gone and what is left between two changes of the rate.

use super::guest::{Guest, Remap};
use crate::fidelity::{GuestModel, Load, TransferModel, WirePrice};
use livemig_core::pages::{CLASSES, Counted, PageSet};
use livemig_core::units::{Bytes, PAGE_SIZE, Time};
use livemig_core::vocabulary::{CmdId, Send, Sent};

/// The wire bytes of pages.
#[derive(Clone, Copy, Debug)]
struct WireCost {
    /// Wire bytes per byte of pages, by class.
    factor: [f64; CLASSES],
}

impl WireCost {
    /// Pages with content: the page and its header. Of the memory `all`, what is elided takes only a mark per page.
    fn new(all: &Counted, price: WirePrice) -> WireCost {
        let page = PAGE_SIZE as f64;
        let full = (page * price.content + price.header.0 as f64) / page;
        let mark = price.mark.0 as f64 / page;
        let mut left = price.elided;
        let mut factor = [full; CLASSES];
        for (f, &size) in factor.iter_mut().zip(all.classes()).rev() {
            let size = size as f64;
            if size > 0.0 && left > 0.0 {
                let share = (left / size).min(1.0);
                *f = share * mark + (1.0 - share) * full;
                left -= size * share;
            }
        }
        WireCost { factor }
    }
}

/// One `Send` or `SendState` under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    id: CmdId,
    load: Load,
    is_first: bool,
    skips: bool,
    cost: WireCost,
    /// Bytes of pages not yet sent, by class; of a push, the guest knows which.
    left: [f64; CLASSES],
    /// Pages that have joined and come after those: a sender goes round in address order and does not start over.
    joined: [f64; CLASSES],
    /// Wire bytes not yet sent, if nothing is skipped.
    wire_left: f64,
    sent: f64,
    skipped: f64,
    /// As it was before the last step.
    skipped_before: f64,
    /// Of what goes next, the share that is not left out.
    clean: f64,
    since: Time,
}

impl Transfer {
    /// Whether it has been brought to `now`.
    pub(super) fn is_at(&self, now: Time) -> bool {
        self.since >= now
    }

    fn wire_of_left(&self) -> f64 {
        self.all_left().zip(&self.cost.factor).map(|(l, f)| l * f).sum()
    }

    /// Bytes of pages not yet sent, by class.
    fn all_left(&self) -> impl Iterator<Item = f64> {
        self.left.iter().zip(&self.joined).map(|(l, j)| l + j)
    }

    /// Bytes of pages not yet sent, by class.
    pub(super) fn left(&self) -> [f64; CLASSES] {
        let mut left = self.left;
        left.iter_mut().zip(&self.joined).for_each(|(l, j)| *l += j);
        left
    }

    /// The class of the pages that go next, as shares of what goes.
    pub(super) fn next_class(&self) -> [f64; CLASSES] {
        let mut parts = [0.0; CLASSES];
        if let Some(class) = self.left.iter().position(|&l| l > 0.0) {
            parts[class] = 1.0;
        }
        parts
    }

    /// Of the pages that were `left`, what has gone since then, by class; what was left out does not count.
    pub(super) fn gone_since(&self, left: &[f64; CLASSES]) -> [f64; CLASSES] {
        let mut gone = [0.0; CLASSES];
        for ((gone, before), now) in gone.iter_mut().zip(left).zip(self.left()) {
            *gone = (before - now).max(0.0);
        }
        let all: f64 = gone.iter().sum();
        let skipped = self.skipped - self.skipped_before;
        if all > 0.0 && skipped > 0.0 { gone.map(|g| g * (1.0 - skipped / all).max(0.0)) } else { gone }
    }

    /// Brings the transfer to `now` at `rate` wire bytes per second; returns how long it has had them. The guest must not have been
    /// advanced past the time of the last call.
    pub(super) fn advance(&mut self, now: Time, rate: f64, guest: &Guest) -> f64 {
        let elapsed = now.since(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.skipped_before = self.skipped;
        if elapsed <= 0.0 || rate <= 0.0 {
            return 0.0;
        }
        if self.skips {
            let walk = self.walk(guest, rate, elapsed);
            (self.left, self.joined) = (walk.left, walk.joined);
            self.sent += walk.wire;
            self.skipped += walk.skipped;
            self.clean = walk.clean;
            self.wire_left = self.wire_of_left();
            return elapsed;
        }
        let gone = (rate * elapsed).min(self.wire_left);
        self.sent += gone;
        self.wire_left -= gone;
        if self.load == Load::Pages {
            self.drop_first(gone);
        }
        elapsed
    }

    fn drop_first(&mut self, mut wire: f64) {
        let factors = self.cost.factor.iter().chain(&self.cost.factor);
        for (left, factor) in self.left.iter_mut().chain(&mut self.joined).zip(factors) {
            let here = (*left * factor).min(wire);
            wire -= here;
            *left = if here >= *left * factor { 0.0 } else { *left - here / factor };
            if wire <= 0.0 {
                break;
            }
        }
        self.move_up();
    }

    /// Of the missing pages that the source has, those of this push: all, unless others wait behind it.
    fn mine(&self, at_source: &Counted) -> Counted {
        let (mine, all) = (self.wire_left / self.mean_factor(), at_source.len().0 as f64);
        if all - mine < PAGE_SIZE as f64 {
            return *at_source;
        }
        Counted::new(at_source.classes().map(|b| (b as f64 * mine / all) as u64))
    }

    /// When the first pages have all gone, those that joined are first.
    fn move_up(&mut self) {
        if self.left.iter().all(|&l| l == 0.0) {
            self.left = std::mem::take(&mut self.joined);
        }
    }

    /// What happens within `until` seconds to pages that are sent unless they are dirty again.
    ///
    /// A page of a class of which the fraction x is dirty again goes with probability 1 - x, so that pages pass at
    /// rate / (factor (1 - x)). Steps are as long as x changes by little.
    fn walk(&self, guest: &Guest, rate: f64, until: f64) -> Walk {
        let mut w = Walk { left: self.left, joined: self.joined, time: 0.0, wire: 0.0, skipped: 0.0, clean: self.clean };
        for class in 0..2 * CLASSES {
            let (batch, class) = (class / CLASSES, class % CLASSES);
            let mut left = if batch == 0 { w.left[class] } else { w.joined[class] };
            while left > 0.0 && w.time < until {
                left -= w.step(left, class, self.cost.factor[class], guest, rate, until);
            }
            *(if batch == 0 { &mut w.left[class] } else { &mut w.joined[class] }) = left;
        }
        w
    }
}

impl TransferModel for Transfer {
    type Set = Counted;
    type Guest = Guest;

    fn of_pages(id: CmdId, send: &Send<Counted>, push: bool, price: WirePrice, guest: &Guest, now: Time) -> Transfer {
        let mut transfer = Transfer {
            id,
            load: if push { Load::Push } else { Load::Pages },
            is_first: send.is_first_copy(),
            skips: send.skip_redirtied && !push,
            cost: WireCost::new(&guest.memory(), price),
            left: send.set.classes().map(|b| b as f64),
            joined: [0.0; CLASSES],
            wire_left: 0.0,
            sent: 0.0,
            skipped: 0.0,
            skipped_before: 0.0,
            clean: 1.0,
            since: now,
        };
        transfer.wire_left = transfer.wire_of_left();
        transfer
    }

    fn of_state(id: CmdId, state: Bytes, now: Time) -> Transfer {
        Transfer {
            id,
            load: Load::State,
            is_first: false,
            skips: false,
            cost: WireCost { factor: [1.0; CLASSES] },
            left: [0.0; CLASSES],
            joined: [0.0; CLASSES],
            wire_left: state.0 as f64,
            sent: 0.0,
            skipped: 0.0,
            skipped_before: 0.0,
            clean: 1.0,
            since: now,
        }
    }

    fn begin(&mut self, now: Time) {
        self.since = self.since.max(now);
    }

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

    fn pending(&self) -> f64 {
        match self.load {
            Load::Pages => self.all_left().sum(),
            Load::Push => self.wire_left / self.mean_factor(),
            Load::State => 0.0,
        }
    }

    fn mean_factor(&self) -> f64 {
        let pages: f64 = self.all_left().sum();
        if pages > 0.0 { self.wire_of_left() / pages } else { 1.0 }
    }

    fn account(&self, guest: &Guest) -> Sent {
        let demanded = if self.load == Load::Push { guest.demanded() } else { 0.0 };
        let wire = Bytes(self.sent.round() as u64);
        let demand = Bytes((demanded * self.mean_factor()).round() as u64);
        Sent { wire, demand: demand.min(wire), skipped: Bytes(self.skipped.round() as u64), ..Sent::default() }
    }

    /// In whole bytes per class.
    fn unsent(&self, guest: &Guest) -> Counted {
        match self.load {
            Load::Pages => {
                let mut bytes = [0; CLASSES];
                for (b, left) in bytes.iter_mut().zip(self.all_left()) {
                    *b = left.ceil() as u64;
                }
                Counted::new(bytes)
            }
            Load::Push => self.mine(&guest.unsent()),
            Load::State => Counted::default(),
        }
    }

    fn take_out(&mut self, most: Bytes, guest: &Guest) -> Counted {
        let mut bytes = [0; CLASSES];
        let unsent = self.unsent(guest);
        if let Some(class) = unsent.classes().iter().position(|&b| b > 0) {
            bytes[class] = unsent.classes()[class].min(most.0);
            let mut left = bytes[class] as f64;
            let wire = left * self.cost.factor[class];
            if self.load == Load::Pages {
                for pages in [&mut self.left[class], &mut self.joined[class]] {
                    let here = pages.min(left);
                    *pages -= here;
                    left -= here;
                }
                self.wire_left = self.wire_of_left();
            } else {
                self.wire_left = (self.wire_left - wire).max(0.0);
            }
        }
        Counted::new(bytes)
    }

    fn time_left(&self, rate: f64, guest: &Guest) -> f64 {
        if self.wire_left <= 0.0 {
            0.0
        } else if rate <= 0.0 {
            f64::INFINITY
        } else if self.skips {
            self.walk(guest, rate, f64::INFINITY).time
        } else {
            self.wire_left / rate
        }
    }

    /// The time that was foretold is exact.
    fn is_over(&self, _rate: f64) -> bool {
        true
    }

    /// What is left has no time any more: a rounding, or pages that are all dirty again.
    fn finish(&mut self) {
        self.sent += self.wire_left * self.clean;
        self.skipped += self.all_left().sum::<f64>() * (1.0 - self.clean);
        self.wire_left = 0.0;
        (self.left, self.joined) = ([0.0; CLASSES], [0.0; CLASSES]);
    }

    fn join(&mut self, set: &Counted, guest: &Guest) -> Bytes {
        let added = guest.without_overlap(set, &self.unsent(guest));
        for (joined, &more) in self.joined.iter_mut().zip(added.classes()) {
            *joined += more as f64;
        }
        self.move_up();
        self.wire_left = self.wire_of_left();
        added.len()
    }

    fn remap(&mut self, remap: &Remap, price: WirePrice, guest: &Guest) {
        for pages in [&mut self.left, &mut self.joined] {
            let counted = Guest::remap(remap, &Counted::new(pages.map(|l| l.round() as u64)));
            *pages = counted.classes().map(|b| b as f64);
        }
        self.cost = WireCost::new(&guest.memory(), price);
    }
}

/// How far pages that may be skipped have come.
struct Walk {
    left: [f64; CLASSES],
    joined: [f64; CLASSES],
    time: f64,
    wire: f64,
    skipped: f64,
    clean: f64,
}

impl Walk {
    /// Passes some of the `left` bytes of a class, as many as can be taken to meet the same dirty fraction; returns how many.
    fn step(&mut self, left: f64, class: usize, factor: f64, guest: &Guest, rate: f64, until: f64) -> f64 {
        const CHANGE: f64 = 0.02;
        const LEAST_CLEAN: f64 = 1e-6;
        let dirty = |time: f64| guest.dirty_fraction_ahead(class, time);
        let x0 = dirty(self.time);
        let mut length = (left * factor * (1.0 - x0).max(LEAST_CLEAN) / rate).min(until - self.time);
        let mut x1 = dirty(self.time + length);
        while x1 - x0 > CHANGE {
            length /= 2.0;
            x1 = dirty(self.time + length);
        }
        let clean = (1.0 - 0.5 * (x0 + x1)).max(LEAST_CLEAN);
        let all = left * factor * clean / rate;
        let (pages, length) = if all <= length { (left, all) } else { (length * rate / (factor * clean), length) };
        self.time += length;
        self.wire += pages * clean * factor;
        self.skipped += pages * (1.0 - clean);
        self.clean = 1.0 - x1;
        pages
    }
}

//! A transfer at page fidelity whose pages go to intermediaries: one page at a time on each way.

use super::guest::Guest;
use super::places::Places;
use super::transfer::{OnWire, ScatterWire, Transfer};
use crate::fidelity::Lanes;
use livemig_core::ledger::Observation;
use livemig_core::units::PageIndex;

impl Transfer {
    /// The ways to intermediaries have these rates from now on. A page on a way that is closed is sent again.
    pub(super) fn set_lanes(&mut self, lanes: &Lanes<'_>, places: &Places) {
        self.copies = usize::from(lanes.copies.max(1)).min(lanes.via.len().max(1));
        for wire in &mut self.scatter {
            wire.rate = 0.0;
        }
        for &(via, rate) in lanes.via {
            match self.scatter.iter_mut().find(|w| w.via == via) {
                Some(wire) => wire.rate = rate,
                None => self.scatter.push(ScatterWire { via, rate, on_wire: None }),
            }
        }
        for i in 0..self.scatter.len() {
            if self.scatter[i].rate <= 0.0
                && let Some(on_wire) = self.scatter[i].on_wire.take()
            {
                self.send_again(on_wire, places);
            }
        }
        let open = |via: u16| lanes.via.iter().any(|l| l.0 == via);
        self.scatter.retain(|w| open(w.via));
    }

    /// Puts the next page on every free way to intermediaries: with `asked_too`, pages that are waited for go first, on their way to the
    /// guest.
    pub(super) fn load_scatter(&mut self, asked_too: bool, places: &Places) {
        for i in 0..self.scatter.len() {
            if self.scatter[i].on_wire.is_none() && self.scatter[i].rate > 0.0 {
                let asked = if asked_too { self.next_asked() } else { None };
                let next = asked.map(|page| (page, true)).or_else(|| Some((self.next_page()?, false)));
                self.scatter[i].on_wire = next.map(|(page, asked)| self.wire_to(i, page, asked, places));
            }
        }
    }

    /// A page on its way to intermediaries, which are asked for its content, if they are to be. What they have takes the time to hash it, and
    /// a question.
    fn wire_to(&mut self, way: usize, page: PageIndex, asked: bool, places: &Places) -> OnWire {
        let plain = self.wire_of(page, asked);
        let Some(probe) = self.probe.filter(|_| !asked && self.has_content(page)) else { return plain };
        // Pages are hashed for one way after the other.
        let hashed = self.scatter[way].rate * probe.hash * self.scatter.len() as f64;
        let copies = self.copies;
        if places.probe(page, self.scatter.iter().map(|w| w.via), copies) {
            self.is_known(plain.whole, probe.bytes);
            OnWire { left: probe.bytes.max(hashed), known: true, ..plain }
        } else {
            let idle = (hashed - plain.whole - probe.bytes).max(0.0);
            let whole = plain.whole + probe.bytes + idle;
            self.costs_more(probe.bytes + idle);
            OnWire { whole, left: whole, idle, ..plain }
        }
    }

    /// Seconds until the first page has reached intermediaries, and on which way.
    pub(super) fn next_scattered(&self) -> Option<(f64, usize)> {
        let times = self.scatter.iter().enumerate().filter(|(_, w)| w.rate > 0.0);
        times.filter_map(|(i, w)| Some((w.on_wire?.left / w.rate, i))).min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// So many seconds pass on the ways to intermediaries.
    pub(super) fn carry_scatter(&mut self, seconds: f64) {
        let mut gone = 0.0;
        for wire in &mut self.scatter {
            if let Some(on_wire) = &mut wire.on_wire {
                let here = (wire.rate * seconds).min(on_wire.left);
                on_wire.left -= here;
                gone += if on_wire.known { 0.0 } else { here };
            }
        }
        self.count_sent(gone);
    }

    /// The page on a way has gone; whether the guest waits for it, and who stores it otherwise: those that had its content, or the one that it
    /// went to and the next ones.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn unload_scattered(&mut self, wire: usize, places: &Places) -> (PageIndex, bool, Vec<u16>) {
        let on_wire: OnWire = self.scatter[wire].on_wire.take().expect("a page is on the way");
        let page = self.finish_wire(on_wire).expect("only pages are scattered");
        let via: Vec<u16> = self.scatter.iter().map(|w| w.via).collect();
        let holders = if on_wire.known {
            places.keepers(page, via.into_iter())
        } else {
            (0..self.copies).map(|k| via[(wire + k) % via.len()]).collect()
        };
        (page, on_wire.asked, holders)
    }

    /// Like `advance`, over several ways.
    pub(super) fn advance_scattering(&mut self, guest: &mut Guest, to: f64, direct: f64, observe: &mut impl FnMut(Observation)) {
        let mut at = guest.at;
        loop {
            if direct > 0.0 {
                self.take_next(guest, at, observe);
            }
            self.load_scatter(false, &guest.places);
            let straight = at + self.wire_time(direct);
            let scattered = self.next_scattered().map(|s| (at + s.0, s.1));
            let next = scattered.map_or(straight, |s| s.0.min(straight));
            let end = next.min(to);
            self.carry((end - at) * direct);
            self.carry_scatter(end - at);
            if next > to {
                return;
            }
            at = end;
            match scattered.filter(|s| s.0 <= straight) {
                Some((_, wire)) => {
                    let (page, _, holders) = self.unload_scattered(wire, &guest.places);
                    guest.places.store(page, holders.into_iter());
                }
                None => self.finish_straight(),
            }
        }
    }
}

//! A transfer at page fidelity whose pages go to intermediaries: one page at a time on each way.

use super::guest::Guest;
use super::transfer::{OnWire, ScatterWire, Transfer};
use crate::fidelity::Lanes;
use livemig_core::ledger::Observation;
use livemig_core::units::PageIndex;

impl Transfer {
    /// The ways to intermediaries have these rates from now on. A page on a way that is closed is sent again.
    pub(super) fn set_lanes(&mut self, lanes: &Lanes<'_>) {
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
                self.send_again(on_wire);
            }
        }
        let open = |via: u16| lanes.via.iter().any(|l| l.0 == via);
        self.scatter.retain(|w| open(w.via));
    }

    /// Puts the next page on every free way to intermediaries: with `asked_too`, pages that are waited for go first, on their way to the
    /// guest.
    pub(super) fn load_scatter(&mut self, asked_too: bool) {
        for i in 0..self.scatter.len() {
            if self.scatter[i].on_wire.is_none() && self.scatter[i].rate > 0.0 {
                let asked = if asked_too { self.next_asked() } else { None };
                let next = asked.map(|page| (page, true)).or_else(|| Some((self.next_page()?, false)));
                self.scatter[i].on_wire = next.map(|(page, asked)| self.wire_of(page, asked));
            }
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
                gone += here;
            }
        }
        self.count_sent(gone);
    }

    /// The page on a way has gone; whether the guest waits for it.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn unload_scattered(&mut self, wire: usize) -> (PageIndex, bool) {
        let on_wire: OnWire = self.scatter[wire].on_wire.take().expect("a page is on the way");
        let asked = on_wire.asked;
        (self.finish_wire(on_wire).expect("only pages are scattered"), asked)
    }

    /// The intermediaries that store what goes on a way: its own and the next ones.
    pub(super) fn holders(&self, wire: usize) -> impl Iterator<Item = u16> {
        let via: Vec<u16> = self.scatter.iter().map(|w| w.via).collect();
        (0..self.copies).map(move |k| via[(wire + k) % via.len()])
    }

    /// Like `advance`, over several ways.
    pub(super) fn advance_scattering(&mut self, guest: &mut Guest, to: f64, direct: f64, observe: &mut impl FnMut(Observation)) {
        let mut at = guest.at;
        loop {
            if direct > 0.0 {
                self.take_next(guest, at, observe);
            }
            self.load_scatter(false);
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
                    let (page, _) = self.unload_scattered(wire);
                    let holders = self.holders(wire);
                    guest.places.store(page, holders);
                }
                None => self.finish_straight(),
            }
        }
    }
}

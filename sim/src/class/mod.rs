//! Class fidelity: memory is bytes per region of the workload, and every quantity is its expectation.
//!
//! A round costs the same for 1 GiB and for 1 TiB.

mod guest;
mod places;
mod residency;
mod transfer;

use crate::fidelity::{Fidelity, GuestModel, Kept, Lanes, Load, TransferModel};
use guest::Guest;
use livemig_core::ledger::Observation;
use livemig_core::pages::Counted;
use livemig_core::units::Time;
use residency::Inflow;
use transfer::Transfer;

/// The model that counts bytes per region.
#[derive(Debug)]
pub(crate) struct Class;

impl Fidelity for Class {
    type Set = Counted;
    type Guest = Guest;
    type Transfer = Transfer;

    fn shared_next(guest: &Guest, transfer: &Transfer) -> Option<f64> {
        Some(match transfer.load() {
            Load::Push => guest.shared_of(&guest.pushed_next()),
            Load::Pages => guest.shared_of(&transfer.next_class()),
            Load::State => 0.0,
        })
    }

    fn advance(
        guest: &mut Guest,
        front: Option<&mut Transfer>,
        lanes: &Lanes<'_>,
        now: Time,
        observe: &mut impl FnMut(Observation),
    ) {
        // Several things mostly happen to a migration at one moment, and between them there is nothing to do.
        if guest.is_at(now) && front.as_ref().is_none_or(|t| t.is_at(now)) && guest.places.is_empty() {
            return;
        }
        let mut inflow = Inflow { gather: lanes.gather.iter().map(|l| l.1).sum(), ..Inflow::default() };
        let scatter: f64 = lanes.via.iter().map(|l| l.1).sum();
        if let Some(transfer) = front {
            let before = transfer.left();
            // What has been sent depends on how dirty memory was at the beginning.
            let elapsed = transfer.advance(now, lanes.rate, guest);
            match transfer.load() {
                Load::Push => {
                    let factor = transfer.mean_factor();
                    inflow = Inflow { direct: lanes.direct / factor, scatter: scatter / factor, ..inflow };
                }
                Load::Pages if elapsed > 0.0 && (scatter > 0.0 || !guest.places.is_empty()) => {
                    let share = scatter / lanes.rate;
                    let gone = transfer.gone_since(&before);
                    guest.place(&gone, share);
                    guest.places.add(gone.iter().sum::<f64>() * share, lanes.via, lanes.copies);
                }
                Load::Pages | Load::State => {}
            }
        }
        guest.advance(now, inflow, observe);
        let moved = guest.take_moved();
        if moved.scattered > 0.0 {
            guest.places.add(moved.scattered, lanes.via, lanes.copies);
        }
        if moved.fetched > 0.0 {
            guest.places.fetch(moved.fetched, lanes.gather);
        }
        if !guest.places.is_empty() {
            guest.places.set_total(guest.staged());
        }
    }
}

impl Kept for Counted {
    fn give(&mut self, given: &Counted) {
        let mut left = *self.classes();
        for (l, g) in left.iter_mut().zip(given.classes()) {
            *l = l.checked_sub(*g).expect("a migration gives away only what it has");
        }
        *self = Counted::new(left);
    }
}

//! Class fidelity: memory is bytes per region of the workload, and every quantity is its expectation.
//!
//! A round costs the same for 1 GiB and for 1 TiB.

mod guest;
mod residency;
mod transfer;

use crate::fidelity::{Fidelity, Kept, Load, TransferModel};
use guest::Guest;
use livemig_core::ledger::Observation;
use livemig_core::pages::Counted;
use livemig_core::units::Time;
use transfer::Transfer;

/// The model that counts bytes per region.
#[derive(Debug)]
pub(crate) struct Class;

impl Fidelity for Class {
    type Set = Counted;
    type Guest = Guest;
    type Transfer = Transfer;

    fn advance(guest: &mut Guest, front: Option<(&mut Transfer, f64)>, now: Time, observe: &mut impl FnMut(Observation)) {
        let mut arriving = 0.0;
        if let Some((transfer, rate)) = front {
            // What has been sent depends on how dirty memory was at the beginning.
            transfer.advance(now, rate, guest);
            if transfer.load() == Load::Push {
                arriving = rate / transfer.mean_factor();
            }
        }
        guest.advance(now, arriving, observe);
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

//! Page fidelity: every page has an identity, and accesses fall on pages one by one.
//!
//! Sets are bitmaps, the order of a push is that of [`PushPlan`](livemig_core::push_plan::PushPlan), a page is tested for being
//! dirty when its turn comes, and each vCPU waits for its own missing page. Everything happens at its own time, there are no time
//! steps. Accesses that change nothing (writes to dirty pages, touches of pages that were touched before) are not drawn: the time to the
//! next one that does change something has a known distribution ([`sampler`]), so that a run costs what it dirties, sends and
//! touches and not what it accesses.
//!
//! This is the judge of class fidelity. 1 GiB moved takes 2 to 30 ms.

mod access;
mod guest;
mod places;
mod residency;
mod sampler;
mod scatter;
mod transfer;

use crate::fidelity::{Fidelity, Kept, Lanes, Load, TransferModel};
use guest::Guest;
use livemig_core::ledger::Observation;
use livemig_core::pages::Bitmap;
use livemig_core::units::Time;
use transfer::Transfer;

/// The model in which pages have an identity.
#[derive(Debug)]
pub(crate) struct Page;

impl Fidelity for Page {
    type Set = Bitmap;
    type Guest = Guest;
    type Transfer = Transfer;

    fn shared_next(_guest: &Guest, _transfer: &Transfer) -> Option<f64> {
        None
    }

    fn advance(
        guest: &mut Guest,
        front: Option<&mut Transfer>,
        lanes: &Lanes<'_>,
        now: Time,
        observe: &mut impl FnMut(Observation),
    ) {
        if now > guest.since() {
            let to = guest::seconds(now);
            match front {
                Some(push) if push.load() == Load::Push => guest.run_to(to, Some(push), lanes, observe),
                Some(transfer) => transfer.advance(guest, to, lanes, observe),
                None => {}
            }
            guest.run_to(to, None, lanes, observe);
            guest.arrive_at(now, observe);
        }
    }
}

impl Kept for Bitmap {
    fn give(&mut self, given: &Bitmap) {
        assert!(self.remove_all(given) == given.count(), "a migration gives away only what it has");
    }
}

//! Network traffic of guests and hosts: bytes without meaning over real sockets, which compete with migrations for the NICs.
//!
//! A *flow* goes from a guest or a host to another one. Its sending end is a [`Tap`](tap::Tap) in the agent of the host where it begins: as
//! far as the guest's program has run ([`Doorbell`](crate::guest::Doorbell)) the tap may send. Its receiving end ([`Arrivals`]) reads and counts
//! while the guest there runs; what it reads goes nowhere, and never into guest memory. When a guest has moved, the coordinator closes
//! the flow's tap and opens one where the flow begins now, to where it ends now.

mod arrivals;
mod tap;

pub(crate) use arrivals::Arrivals;
pub(crate) use tap::Taps;

use crate::agent::Guests;
use crate::guest::Doorbell;
use crate::wire::auth::Key;
use crate::wire::dial::Way;
use livemig_core::units::Rate;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at whether something may be sent or read.
const TICK: Duration = Duration::from_millis(2);
/// A guest that has not rung for so long does not run; an end that was kept from sending for so long makes up for it, and not for more.
const STILL: Duration = Duration::from_millis(20);
/// What is sent or read at once, at most.
const PIECE: usize = 64 << 10;

/// A flow, as the agent is told of it where it begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Its number in the run.
    pub(crate) number: u32,
    /// The guest that sends; without, the host does.
    pub(crate) from: Option<u32>,
    /// The guest that receives.
    pub(crate) to: Option<u32>,
    /// What is offered; `None` for as much as gets through.
    pub(crate) rate: Option<Rate>,
    /// Where the receiving host is.
    pub(crate) way: Way,
    pub(crate) key: Key,
}

/// An end of a flow, as far as it is alive.
#[derive(Debug)]
enum Life {
    /// A host: from this moment on.
    Host(Instant),
    Guest(Arc<Doorbell>),
}

impl Life {
    /// Of a guest, or of the host; `None` when the guest is not here.
    fn of(guest: Option<u32>, guests: &Guests) -> Option<Life> {
        match guest {
            None => Some(Life::Host(Instant::now())),
            Some(vm) => guests.with(vm, |guest| Ok(Life::Guest(guest.doorbell()))).ok(),
        }
    }

    /// For how long it has lived.
    fn lived(&self) -> Duration {
        match self {
            Life::Host(since) => since.elapsed(),
            Life::Guest(bell) => bell.ran(),
        }
    }
}

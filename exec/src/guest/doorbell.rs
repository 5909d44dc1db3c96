//! The doorbell of a guest's network traffic: how long its program has run, by its own clock.
//!
//! The program rings it with every time stamp that leaves by a port, some thousand times a second: the time since the stamp before is what
//! its traffic goes on by. A guest that is paused, held, or waits for a page does not ring, and what it has missed is not caught up on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An interval between two stamps counts as no more than this: who rings later than that was not running.
const LONGEST: Duration = Duration::from_millis(20);

/// The doorbell of one vCPU.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    nanoseconds: AtomicU64,
}

impl Doorbell {
    /// The program has run for so long since it rang last.
    pub(super) fn ring(&self, since: Duration) {
        let counted = u64::try_from(since.min(LONGEST).as_nanos()).unwrap_or(0);
        self.nanoseconds.fetch_add(counted, Ordering::Relaxed);
    }

    /// For how long the program has run, as far as it has rung.
    pub(crate) fn ran(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_no_time_of_the_program() {
        let bell = Doorbell::default();
        [1, 3, 500].into_iter().for_each(|ms| bell.ring(Duration::from_millis(ms)));
        assert_eq!(bell.ran(), Duration::from_millis(24));
    }
}

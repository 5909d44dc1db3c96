//! Clocks of several processes, brought to one: the coordinator's.
//!
//! Every process reads its host's monotonic clock. The coordinator asks an agent for its time some times over; the answer with
//! the shortest round trip says how far the two are apart, to within half of that round trip.

use livemig_core::units::{Span, Time};
use std::time::{Duration, Instant};

/// The host's monotonic clock in nanoseconds; the same clock as `Instant`'s.
pub(crate) fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; the call cannot fail with this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The coordinator's clock, read in some process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What is added to the monotonic clock of this process' host.
    offset: i64,
}

impl Clock {
    /// A clock that starts now, and this process is the coordinator.
    pub(crate) fn starting_now() -> Clock {
        Clock { offset: -monotonic().cast_signed() }
    }

    /// The coordinator's clock, `offset` nanoseconds ahead of this host's monotonic clock.
    pub(crate) fn ahead_by(offset: i64) -> Clock {
        Clock { offset }
    }

    pub(crate) fn now(self) -> Time {
        self.of(monotonic())
    }

    /// When this host's monotonic clock showed `local`.
    pub(crate) fn of(self, local: u64) -> Time {
        Time(local.saturating_add_signed(self.offset))
    }

    /// The `Instant` of a moment that has passed; now for one that has not.
    pub(crate) fn instant(self, at: Time) -> Instant {
        let now = Instant::now();
        now.checked_sub(Duration::from_nanos(self.now().since(at).0)).unwrap_or(now)
    }
}

/// One exchange of times with another process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// When it was asked, on the coordinator's clock.
    pub(crate) asked: Time,
    /// What its monotonic clock said.
    pub(crate) theirs: u64,
    /// When the answer was here, on the coordinator's clock.
    pub(crate) answered: Time,
}

/// How far the coordinator's clock is ahead of the other one, by the exchange with the shortest round trip, and how wrong that
/// may be.
pub(crate) fn offset_of(exchanges: &[Exchange]) -> Option<(i64, Span)> {
    let best = exchanges.iter().min_by_key(|e| e.answered.since(e.asked))?;
    let trip = best.answered.since(best.asked);
    let middle = best.asked + Span(trip.0 / 2);
    Some((middle.0.cast_signed() - best.theirs.cast_signed(), Span(trip.0.div_ceil(2))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_exchange_counts_and_bounds_the_error() {
        // Their clock is 1000 behind; the way there takes longer than the way back.
        let slow = Exchange { asked: Time(2000), theirs: 1900, answered: Time(3000) };
        let quick = Exchange { asked: Time(5000), theirs: 4030, answered: Time(5040) };
        let (offset, error) = offset_of(&[slow, quick]).unwrap();
        assert_eq!((offset, error), (990, Span(20)));
        assert!(offset_of(&[]).is_none());
        assert_eq!(Clock::ahead_by(offset).of(4030), Time(5020));
    }

    #[test]
    fn instants_are_of_the_same_clock() {
        let clock = Clock::starting_now();
        let (at, instant) = (clock.now(), Instant::now());
        std::thread::sleep(Duration::from_millis(3));
        let back = clock.instant(at);
        let apart = back.max(instant).duration_since(back.min(instant));
        assert!(apart < Duration::from_millis(2), "{apart:?}");
    }
}

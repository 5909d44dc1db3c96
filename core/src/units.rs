//! The quantities of live migration as types, so that bytes, nanoseconds and rates cannot be mixed up.
//!
//! Time is counted in whole nanoseconds and memory in whole bytes; only rates and shares are floating point.
//! Rounding therefore happens in one place: when a rate turns bytes into time or time into bytes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// Bytes in one page: the granularity at which x86 hardware tracks writes and at which migration moves memory.
pub const PAGE_SIZE: u64 = 4096;

const NANOS_PER_SEC: f64 = 1e9;

/// A moment: nanoseconds since the driver's clock started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span(pub u64);

/// An amount of memory or traffic in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// The index of a page in a guest's memory (guest-physical address divided by [`PAGE_SIZE`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PageIndex(pub u64);

/// A rate in bytes per second; finite and not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Rate(pub f64);

/// A fraction of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Share(f64);

impl Time {
    /// The start of the driver's clock.
    pub const ZERO: Time = Time(0);
    /// Later than everything that happens.
    pub const MAX: Time = Time(u64::MAX);

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// Longer than every run.
    pub const MAX: Span = Span(u64::MAX);

    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Span {
        Span(ms * 1_000_000)
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(s: u64) -> Span {
        Span(s * 1_000_000_000)
    }

    /// The span nearest to `s` seconds; negative and NaN give zero, too large gives [`Span::MAX`].
    #[must_use]
    pub fn from_secs_f64(s: f64) -> Span {
        // A float-to-integer cast saturates and maps NaN to 0, which is what is promised.
        Span((s * NANOS_PER_SEC).round() as u64)
    }

    /// The span in seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_SEC
    }

    /// `self` repeated `n` times, saturating.
    #[must_use]
    pub fn times(self, n: u64) -> Span {
        Span(self.0.saturating_mul(n))
    }
}

impl Bytes {
    /// Nothing.
    pub const ZERO: Bytes = Bytes(0);

    /// `n` mebibytes.
    #[must_use]
    pub const fn from_mib(n: u64) -> Bytes {
        Bytes(n << 20)
    }

    /// `n` gibibytes.
    #[must_use]
    pub const fn from_gib(n: u64) -> Bytes {
        Bytes(n << 30)
    }

    /// `n` pages of [`PAGE_SIZE`].
    #[must_use]
    pub const fn from_pages(n: u64) -> Bytes {
        Bytes(n * PAGE_SIZE)
    }

    /// The number of pages that hold these bytes, the last one perhaps in part.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.0.div_ceil(PAGE_SIZE)
    }

    /// `self - other`, or zero when `other` is more.
    #[must_use]
    pub fn saturating_sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }

    /// Whether this is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The average rate of moving these bytes in `span`; [`Rate::ZERO`] when the span is zero.
    #[must_use]
    pub fn per(self, span: Span) -> Rate {
        if span == Span::ZERO { Rate::ZERO } else { Rate(self.0 as f64 / span.as_secs_f64()) }
    }
}

impl Rate {
    /// No movement.
    pub const ZERO: Rate = Rate(0.0);

    /// `b` bits per second.
    #[must_use]
    pub fn from_bits(b: f64) -> Rate {
        Rate(b / 8.0)
    }

    /// The bytes moved in `span`, not rounded.
    #[must_use]
    pub fn bytes_in(self, span: Span) -> f64 {
        self.0 * span.as_secs_f64()
    }

    /// The time to move `bytes`; zero for no bytes, [`Span::MAX`] when the rate is zero.
    #[must_use]
    pub fn time_for(self, bytes: f64) -> Span {
        if bytes <= 0.0 {
            Span::ZERO
        } else if self.0 > 0.0 {
            Span::from_secs_f64(bytes / self.0)
        } else {
            Span::MAX
        }
    }
}

impl Share {
    /// All of it.
    pub const FULL: Share = Share(1.0);
    /// None of it.
    pub const NONE: Share = Share(0.0);

    /// The share nearest to `x` within 0 to 1; NaN gives 0.
    #[must_use]
    pub fn new(x: f64) -> Share {
        Share(if x > 0.0 { x.min(1.0) } else { 0.0 })
    }

    /// The share as a number from 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for Share {
    fn from(x: f64) -> Share {
        Share::new(x)
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> f64 {
        share.get()
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, s: Span) -> Time {
        Time(self.0.saturating_add(s.0))
    }
}

impl Sub<Time> for Time {
    type Output = Span;
    /// The time from `earlier` to `self`.
    ///
    /// # Panics
    /// When `earlier` is later than `self`: clocks of one run never go back.
    fn sub(self, earlier: Time) -> Span {
        Span(self.0.checked_sub(earlier.0).expect("a time before its reference"))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, o: Span) -> Span {
        Span(self.0.saturating_add(o.0))
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, o: Span) {
        *self = *self + o;
    }
}

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, o: Bytes) -> Bytes {
        Bytes(self.0.checked_add(o.0).expect("more bytes than 64 bits count"))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, o: Bytes) {
        *self = *self + o;
    }
}

impl Sub for Bytes {
    type Output = Bytes;
    fn sub(self, o: Bytes) -> Bytes {
        Bytes(self.0.checked_sub(o.0).expect("fewer bytes than taken away"))
    }
}

impl SubAssign for Bytes {
    fn sub_assign(&mut self, o: Bytes) {
        *self = *self - o;
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes::ZERO, Add::add)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Time(self.0).fmt(f)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_turns_bytes_into_the_nearest_nanosecond() {
        assert_eq!(Rate(3.0).time_for(1.0), Span(333_333_333));
        assert_eq!(Rate(3.0).time_for(0.0), Span::ZERO);
        assert_eq!(Rate::ZERO.time_for(1.0), Span::MAX);
        assert_eq!(Rate::from_bits(1e9).time_for(125e6), Span::from_secs(1));
    }

    #[test]
    fn hostile_floats_do_not_escape() {
        assert_eq!(Span::from_secs_f64(f64::NAN), Span::ZERO);
        assert_eq!(Span::from_secs_f64(-1.0), Span::ZERO);
        assert_eq!(Span::from_secs_f64(1e300), Span::MAX);
        assert_eq!(Share::new(f64::NAN), Share::NONE);
        assert_eq!(Share::new(7.0), Share::FULL);
    }

    #[test]
    fn pages_are_counted_whole() {
        assert_eq!(Bytes(1).pages(), 1);
        assert_eq!(Bytes(4096).pages(), 1);
        assert_eq!(Bytes(4097).pages(), 2);
    }
}

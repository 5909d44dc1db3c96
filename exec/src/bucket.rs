//! Limits of rates: token buckets that several connections share.

use livemig_core::units::{PAGE_SIZE, Rate};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a sender that was idle may send at once.
const BURST: Duration = Duration::from_millis(5);

/// Bytes that may be sent, growing at a rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    burst: Duration,
    /// Negative after more was sent than was there: a page that somebody waits for does not wait, what follows makes up for it.
    tokens: f64,
    since: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, burst: BURST, tokens: 0.0, since: now }
    }

    /// One whose sender may have been idle for so long and make up for it.
    pub(crate) fn lenient(rate: Rate, now: Instant, burst: Duration) -> Bucket {
        Bucket { burst, ..Bucket::new(rate, now) }
    }

    /// How long until something may be sent; zero when it may be now.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        let most = self.rate.0 * self.burst.as_secs_f64();
        self.tokens = (self.tokens + self.rate.0 * now.saturating_duration_since(self.since).as_secs_f64()).min(most);
        self.since = now;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        // A limit so low that this is not a time is checked again now and then.
        Duration::try_from_secs_f64(-self.tokens / self.rate.0).unwrap_or(Duration::MAX).min(Duration::from_secs(1))
    }

    /// So much is being sent.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }

    /// How many pages a batch may have: not more than what a burst is.
    pub(crate) fn batch(&self) -> u64 {
        ((self.rate.0 * BURST.as_secs_f64() / PAGE_SIZE as f64) as u64).max(1)
    }
}

/// A rate of what comes in or goes out at a host, for all threads that move it.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Bucket>);

impl Pace {
    pub(crate) fn new(rate: Rate) -> Pace {
        Pace(Mutex::new(Bucket::new(rate, Instant::now())))
    }

    /// So much has moved that nobody waits for: waits until the rate allows for it.
    pub(crate) fn take(&self, bytes: u64) {
        self.count(bytes);
        loop {
            let wait = self.0.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now());
            if wait.is_zero() {
                return;
            }
            std::thread::sleep(wait);
        }
    }

    /// So much has moved that somebody waits for: it counts, and others make up for it.
    pub(crate) fn count(&self, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_any_time_longer_than_a_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate(1e6), start);
        let (mut now, mut sent) = (start, 0u64);
        while now < start + Duration::from_secs(2) {
            let wait = bucket.wait(now);
            if wait.is_zero() {
                bucket.spend(4096);
                sent += 4096;
            }
            now += wait.max(Duration::from_micros(10));
        }
        let rate = sent as f64 / 2.0;
        assert!((rate - 1e6).abs() < 1e4, "{rate}");
        // Idle for a minute: a burst and no more.
        now += Duration::from_secs(60);
        let mut at_once = 0;
        while bucket.wait(now).is_zero() {
            bucket.spend(1000);
            at_once += 1000;
        }
        assert!((5000..=6000).contains(&at_once), "{at_once}");
        assert_eq!((bucket.batch(), Bucket::new(Rate(1e9), start).batch()), (1, 1220));
    }
}

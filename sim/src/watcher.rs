//! A watch on a transfer: computed ahead instead of being evaluated at every tick.

use livemig_core::units::{Bytes, Rate, Time};
use livemig_core::vocabulary::{CmdId, Stall, Watch, WatchEnd, Watched};

/// The watched transfer at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) now: Time,
    /// Wire bytes sent so far.
    pub(crate) sent: f64,
    /// Bytes of pages not yet sent.
    pub(crate) pending: f64,
    /// Wire bytes per second from now on.
    pub(crate) rate: f64,
    /// Bytes of pages per second from now on.
    pub(crate) page_rate: f64,
}

#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: CmdId,
    watch: Watch,
    issued: Time,
    /// Wire bytes sent when the current window began.
    window_start: f64,
}

impl Watcher {
    pub(crate) fn new(id: CmdId, watch: Watch, at: Progress) -> Watcher {
        Watcher { id, watch, issued: at.now, window_start: at.sent }
    }

    pub(crate) fn send(&self) -> CmdId {
        self.watch.send
    }

    /// Whether it waits for progress to stop.
    pub(crate) fn minds_stalls(&self) -> bool {
        self.watch.stall.is_some()
    }

    /// The last tick at or before `t`; the time of the command when there was none.
    fn tick_before(&self, t: Time) -> Time {
        Time(t.0 - t.since(self.issued).0 % self.watch.every.0)
    }

    fn tick_after(&self, t: Time) -> Time {
        self.tick_before(t) + self.watch.every
    }

    /// Takes note of what happened from `from` on until `to`, at the rates of `from`.
    pub(crate) fn passed(&mut self, from: Progress, to: Time) {
        let tick = self.tick_before(to);
        if tick <= from.now {
            return;
        }
        let elapsed = tick.since(from.now).as_secs_f64();
        self.window_start = from.sent + from.rate * elapsed;
        if let Some(stall) = &mut self.watch.stall {
            let pending = Bytes((from.pending - from.page_rate * elapsed).max(0.0) as u64);
            if pending < stall.best {
                *stall = Stall { best: pending, since: tick, ..*stall };
            }
        }
    }

    /// The first tick after `at` at which a condition holds if the rates stay as they are.
    pub(crate) fn next(&self, at: Progress) -> Option<Time> {
        [self.next_below(at), self.next_stall(at)].into_iter().flatten().min()
    }

    fn next_below(&self, at: Progress) -> Option<Time> {
        let limit = self.watch.below?.as_secs_f64();
        let first = self.tick_after(at.now);
        let ahead = first.since(at.now).as_secs_f64();
        let window_rate = (at.sent + at.rate * ahead - self.window_start) / self.watch.every.as_secs_f64();
        if at.pending - at.page_rate * ahead <= window_rate * limit {
            return Some(first);
        }
        if at.page_rate <= 0.0 {
            return None;
        }
        let reached = at.now + livemig_core::units::Span::from_secs_f64((at.pending - at.rate * limit) / at.page_rate);
        Some(self.at_or_after(reached).max(first + self.watch.every))
    }

    fn next_stall(&self, at: Progress) -> Option<Time> {
        let stall = self.watch.stall?;
        let expires = self.at_or_after(stall.since + stall.patience).max(self.tick_after(at.now));
        let improves = if at.pending < stall.best.0 as f64 {
            at.now
        } else if at.page_rate > 0.0 {
            at.now + livemig_core::units::Span::from_secs_f64((at.pending - stall.best.0 as f64) / at.page_rate)
        } else {
            return Some(expires);
        };
        // Once it improves it does so at every tick, until the transfer is over.
        (at.page_rate <= 0.0 || self.tick_after(improves) > expires).then_some(expires)
    }

    fn at_or_after(&self, t: Time) -> Time {
        let tick = self.tick_before(t.max(self.issued));
        if tick == t { tick } else { tick + self.watch.every }
    }

    /// What the watch sees at a tick, if a condition holds.
    pub(crate) fn judge(&self, at: Progress, window: f64) -> Option<Watched> {
        let rate = Rate(window / self.watch.every.as_secs_f64());
        let below = self.watch.below.is_some_and(|limit| at.pending <= rate.0 * limit.as_secs_f64() + 0.5);
        let stalled = self.watch.stall.is_some_and(|s| at.now >= s.since + s.patience);
        let end = match (below, stalled) {
            (true, _) => WatchEnd::Below,
            (false, true) => WatchEnd::Stalled,
            (false, false) => return None,
        };
        Some(self.ended(end, at.pending, rate))
    }

    /// Wire bytes sent when the current window began.
    pub(crate) fn window_start(&self) -> f64 {
        self.window_start
    }

    pub(crate) fn ended(&self, end: WatchEnd, pending: f64, rate: Rate) -> Watched {
        Watched { end, pending: Bytes(pending.max(0.0) as u64), rate, stall: self.watch.stall }
    }
}

//! Watches: conditions on a send that are evaluated every tick.
//!
//! A stop rule takes the rate that a watch reports for the rate of the pause to come: what is left may take as long as the limit. That
//! must hold, so the rate reported is one that has held: the least mean over as long as a pause lasts, in the last second; and what a
//! switch takes beside sending the rest is taken off.

use super::sender::Sender;
use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Event, Reply, Sent, Stall, Watch, WatchEnd, Watched};

/// How many ticks make a mean: with QEMU's 100 ms, as long as its limit.
const MEAN: usize = 3;
/// How many ticks back the least mean is looked for.
const TICKS: usize = 10;
/// What a switch takes beside sending the rest: stopping the guest, reading the log, its state, the first step at the destination.
const SWITCH: Span = Span::from_millis(20);

/// Watches that have not ended.
#[derive(Debug, Default)]
pub(super) struct Watches {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    id: CmdId,
    watch: Watch,
    /// When the last tick was, and the bytes on the wire then.
    at: Time,
    wire: u64,
    /// The rates of the last ticks, the newest last.
    rates: Vec<Rate>,
    last: (Bytes, Rate),
}

impl Watches {
    pub(super) fn begin(&mut self, now: Time, id: CmdId, watch: Watch, sender: &Sender) {
        let (_, wire) = sender.pending(watch.send);
        self.open.push(Open { id, watch, at: now, wire, rates: Vec::new(), last: (Bytes::ZERO, Rate::ZERO) });
    }

    /// Ends a watch that is recalled, if there is one with this id.
    pub(super) fn recall(&mut self, id: CmdId) -> Option<Event<Bitmap>> {
        let index = self.open.iter().position(|w| w.id == id)?;
        self.open.remove(index);
        Some(Event::Recalled { id, sent: Sent::default(), unsent: Bitmap::default() })
    }

    /// When the next tick is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.open.iter().map(|w| w.at + w.watch.every).min()
    }

    /// Evaluates what is due; what has ended.
    pub(super) fn tick(&mut self, now: Time, sender: &Sender) -> Vec<Event<Bitmap>> {
        let mut ended = Vec::new();
        self.open.retain_mut(|open| match open.tick(now, sender) {
            Some(reply) => {
                ended.push(Event::Done { id: open.id, reply: Reply::Watched(reply) });
                false
            }
            None => true,
        });
        ended
    }
}

impl Open {
    fn tick(&mut self, now: Time, sender: &Sender) -> Option<Watched> {
        let (pending, wire) = sender.pending(self.watch.send);
        let Some(pending) = pending else { return Some(self.ended(WatchEnd::SendEnded)) };
        let window = now.since(self.at);
        if window < self.watch.every {
            return None;
        }
        let rate = self.sustained(Bytes(wire - self.wire).per(window));
        (self.at, self.wire, self.last) = (now, wire, (pending, rate));
        if let Some(stall) = &mut self.watch.stall
            && pending < stall.best
        {
            *stall = Stall { best: pending, since: now, ..*stall };
        }
        if self.watch.below.is_some_and(|limit| pending.0 as f64 <= rate.bytes_in(limit)) {
            return Some(self.ended(WatchEnd::Below));
        }
        let stalled = self.watch.stall.is_some_and(|s| now.since(s.since) >= s.patience);
        stalled.then(|| self.ended(WatchEnd::Stalled))
    }

    /// The rate that can be counted on in a pause, now that it has been this over the last window.
    fn sustained(&mut self, newest: Rate) -> Rate {
        if self.rates.len() == TICKS {
            self.rates.remove(0);
        }
        self.rates.push(newest);
        let mean = |rates: &[Rate]| rates.iter().map(|rate| rate.0).sum::<f64>() / rates.len() as f64;
        let least = self.rates.windows(MEAN.min(self.rates.len())).map(mean).fold(f64::MAX, f64::min);
        let limit = self.watch.below.map_or(1.0, |limit| limit.as_secs_f64() / (limit + SWITCH).as_secs_f64());
        Rate(least * limit)
    }

    fn ended(&self, end: WatchEnd) -> Watched {
        Watched { end, pending: self.last.0, rate: self.last.1, stall: self.watch.stall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_least_mean_of_the_last_second_less_what_a_switch_takes() {
        let watch = |below| Watch { send: CmdId(1), every: Span::from_millis(100), below, stall: None };
        let open = |below| Open {
            id: CmdId(2),
            watch: watch(below),
            at: Time::ZERO,
            wire: 0,
            rates: Vec::new(),
            last: (Bytes::ZERO, Rate::ZERO),
        };
        let mut plain = open(None);
        let told: Vec<f64> = [9.0, 6.0, 6.0, 9.0, 12.0].map(|rate| plain.sustained(Rate(rate)).0).to_vec();
        assert_eq!(told, [9.0, 7.5, 7.0, 7.0, 7.0]);
        let later: Vec<f64> = (0..9).map(|_| plain.sustained(Rate(12.0)).0).collect();
        assert_eq!(later[4..], [7.0, 7.0, 9.0, 11.0, 12.0], "what is a second ago is forgotten");
        // What may be left takes, at the true rate, what the limit leaves beside the switch; a limit that is shorter than a switch can
        // be asked for all the same.
        let limit = Span::from_millis(300);
        let rate = open(Some(limit)).sustained(Rate(1e9));
        assert!((rate.bytes_in(limit) / 1e9 - 0.28125).abs() < 1e-4);
        assert!(open(Some(Span::from_millis(5))).sustained(Rate(1e9)).0 > 0.0);
    }
}

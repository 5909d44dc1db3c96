//! Watches: conditions on a send that are evaluated every tick.

use super::sender::Sender;
use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, Rate, Time};
use livemig_core::vocabulary::{CmdId, Event, Reply, Sent, Stall, Watch, WatchEnd, Watched};

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
    last: (Bytes, Rate),
}

impl Watches {
    pub(super) fn begin(&mut self, now: Time, id: CmdId, watch: Watch, sender: &Sender) {
        let (_, wire) = sender.pending(watch.send);
        self.open.push(Open { id, watch, at: now, wire, last: (Bytes::ZERO, Rate::ZERO) });
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
        let rate = Bytes(wire - self.wire).per(window);
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

    fn ended(&self, end: WatchEnd) -> Watched {
        Watched { end, pending: self.last.0, rate: self.last.1, stall: self.watch.stall }
    }
}

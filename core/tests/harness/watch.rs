//! Watches: conditions on a send that are evaluated every tick.

use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, Rate};
use livemig_core::vocabulary::{CmdId, Event, Reply, Sent, Stall, Watch, WatchEnd, Watched};

use super::channel::Lane;
use super::world::{Happening, World};

/// A watch that has not ended.
#[derive(Debug)]
pub(crate) struct Watching {
    id: CmdId,
    watch: Watch,
    /// Bytes on the wire at the last tick.
    wire: u64,
    last: (Bytes, Rate),
}

impl World {
    pub(crate) fn begin_watch(&mut self, id: CmdId, watch: Watch) {
        let last = (Bytes::ZERO, Rate::ZERO);
        self.source.watches.push(Watching { id, watch, wire: self.source.wire, last });
        if self.source.sends.iter().any(|s| s.id == watch.send) {
            self.lanes.push(Lane::Watch, self.now + watch.every, Happening::Tick(id));
        } else {
            self.end_watches_of(watch.send);
        }
    }

    pub(crate) fn tick(&mut self, id: CmdId) {
        let Some(watching) = self.source.watches.iter_mut().find(|w| w.id == id) else { return };
        let Some(send) = self.source.sends.iter().find(|s| s.id == watching.watch.send) else { return };
        let pending = send.pending();
        let rate = Bytes(self.source.wire - watching.wire).per(watching.watch.every);
        watching.wire = self.source.wire;
        watching.last = (pending, rate);
        let stall = watching.watch.stall.map(|s| if pending < s.best { Stall { best: pending, since: self.now, ..s } } else { s });
        watching.watch.stall = stall;
        let every = watching.watch.every;
        if watching.watch.below.is_some_and(|limit| pending.0 as f64 <= rate.bytes_in(limit)) {
            self.end_watch_as(id, WatchEnd::Below);
        } else if stall.is_some_and(|s| self.now.since(s.since) >= s.patience) {
            self.end_watch_as(id, WatchEnd::Stalled);
        } else {
            self.lanes.push(Lane::Watch, self.now + every, Happening::Tick(id));
        }
    }

    fn end_watch_as(&mut self, id: CmdId, end: WatchEnd) {
        let Some(index) = self.source.watches.iter().position(|w| w.id == id) else { return };
        let Watching { watch, last: (pending, rate), .. } = self.source.watches.remove(index);
        self.coverage.watched(end);
        self.done(id, Reply::Watched(Watched { end, pending, rate, stall: watch.stall }));
    }

    pub(crate) fn end_watches_of(&mut self, send: CmdId) {
        while let Some(id) = self.source.watches.iter().find(|w| w.watch.send == send).map(|w| w.id) {
            self.end_watch_as(id, WatchEnd::SendEnded);
        }
    }

    /// Ends a watch that is recalled; whether there is one with this id.
    pub(crate) fn end_watch(&mut self, id: CmdId) -> bool {
        let before = self.source.watches.len();
        self.source.watches.retain(|w| w.id != id);
        let found = self.source.watches.len() < before;
        if found {
            self.complete(Event::Recalled { id, sent: Sent::default(), unsent: Bitmap::default() });
        }
        found
    }
}

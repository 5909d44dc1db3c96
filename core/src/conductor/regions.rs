//! Memory and disk, the two regions of a VM: collected, counted and sent side by side, the disk first (Song et al., VEE 2013).
//!
//! What belongs together is one group of commands, one per region, and the group is over when the last of them is: that is the
//! barrier between two rounds. A VM without a disk has groups of one.

use super::{Conductor, Kind};
use crate::pages::PageSet;
use crate::units::{Bytes, Time};
use crate::vocabulary::{CmdId, Command, Region, Sent};

/// One of each region.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Both<T> {
    pub(super) memory: T,
    pub(super) disk: T,
}

impl<T> Both<T> {
    pub(super) fn of(&mut self, region: Region) -> &mut T {
        match region {
            Region::Memory => &mut self.memory,
            Region::Disk => &mut self.disk,
        }
    }
}

impl<P: PageSet> Both<P> {
    pub(super) fn len(&self) -> Bytes {
        self.memory.len() + self.disk.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.disk.is_empty()
    }
}

/// The sends of a round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sends {
    /// Those that are not over.
    open: Both<Option<CmdId>>,
    /// What the send of memory had sent before the round began: pages have joined it since.
    before: Sent,
    /// What those that are over have sent in the round.
    pub(super) sent: Sent,
}

impl Sends {
    /// A send of memory alone that pages have joined, and what had gone out of it until then.
    pub(super) fn joined(send: CmdId, before: Sent) -> Sends {
        Sends { open: Both { memory: Some(send), disk: None }, before, sent: Sent::default() }
    }

    /// The send of memory, while it is not over.
    pub(super) fn memory(&self) -> Option<CmdId> {
        self.open.memory
    }

    /// A send is over; whether it is one of these, and the last.
    pub(super) fn closes(&mut self, id: CmdId, sent: Sent) -> bool {
        let before = if self.open.memory == Some(id) { std::mem::take(&mut self.before) } else { Sent::default() };
        let Some(mine) = [&mut self.open.memory, &mut self.open.disk].into_iter().find(|open| **open == Some(id)) else {
            return false;
        };
        *mine = None;
        self.sent.wire += sent.wire.saturating_sub(before.wire);
        self.sent.demand += sent.demand.saturating_sub(before.demand);
        self.sent.skipped += sent.skipped.saturating_sub(before.skipped);
        self.open.memory.is_none() && self.open.disk.is_none()
    }
}

impl<P: PageSet> Conductor<P> {
    pub(super) fn has_disk(&self) -> bool {
        !self.disk.is_zero()
    }

    /// Bytes of memory and disk.
    pub(super) fn size(&self) -> Bytes {
        self.memory + self.disk
    }

    /// Takes everything that is dirty out of the trackers.
    pub(super) fn collect_all(&mut self) {
        if self.has_disk() {
            self.desk.order(Command::Collect { region: Region::Disk, limit: None, into: None });
        }
        self.desk.order(Command::Collect { region: Region::Memory, limit: None, into: None });
    }

    /// Adds what is dirty of memory to a send that is under way.
    pub(super) fn collect_into(&mut self, send: CmdId) {
        self.desk.order(Command::Collect { region: Region::Memory, limit: None, into: Some(send) });
    }

    /// Takes at most so much of what was counted out of the trackers.
    pub(super) fn collect_some(&mut self, limit: Bytes) {
        let disk = limit.min(self.dirty.disk);
        if !disk.is_zero() {
            self.desk.order(Command::Collect { region: Region::Disk, limit: Some(disk), into: None });
        }
        let memory = limit.saturating_sub(disk);
        if disk.is_zero() || !memory.is_zero() {
            self.desk.order(Command::Collect { region: Region::Memory, limit: Some(memory), into: None });
        }
    }

    /// Pages have come out of the tracker of a region; the group acts when it is complete.
    pub(super) fn region_collected(&mut self, now: Time, region: Region, set: P) {
        self.gathered.of(region).merge(set);
        if !self.desk.any_open(&[Kind::Collect]) {
            let gathered = std::mem::take(&mut self.gathered);
            self.collected(now, gathered);
        }
    }

    /// The stage that wanted them is over: pages that have been collected of one region only are dirty again.
    pub(super) fn give_back_gathered(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        self.give_back_both(gathered);
    }

    pub(super) fn give_back_both(&mut self, sets: Both<P>) {
        self.give_back(Region::Disk, sets.disk);
        self.give_back(Region::Memory, sets.memory);
    }

    pub(super) fn count_dirty(&mut self) {
        self.dirty = Both::default();
        if self.has_disk() {
            self.desk.order(Command::PeekDirty { region: Region::Disk });
        }
        self.desk.order(Command::PeekDirty { region: Region::Memory });
    }

    /// Dirty pages of a region have been counted; the group acts when it is complete.
    pub(super) fn region_counted(&mut self, now: Time, region: Region, dirty: Bytes) {
        *self.dirty.of(region) = dirty;
        if !self.desk.any_open(&[Kind::PeekDirty]) {
            let all = self.dirty.memory + self.dirty.disk;
            self.snapshot_counted(now, all);
            self.counted(now, all);
        }
    }

    /// Sends what was collected of both regions as one round. A round of nothing is one of memory.
    pub(super) fn send_both(&mut self, sets: Both<P>, round: u32) -> Sends {
        let mut sends = Sends::default();
        let Both { memory, disk } = sets;
        if !disk.is_empty() {
            sends.open.disk = Some(self.send(Region::Disk, disk, round));
        }
        if sends.open.disk.is_none() || !memory.is_empty() {
            sends.open.memory = Some(self.send(Region::Memory, memory, round));
        }
        sends
    }
}

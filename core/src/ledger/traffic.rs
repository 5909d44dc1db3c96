//! What went over the wire: bytes by purpose, and the rounds of copying.
//!
//! A round begins with a send of memory or disk, or where dirty pages join a send that is under way; it ends where the next one begins
//! or with its last send. What is sent before the request is a snapshot and what is sent after the switch is the push: neither
//! is a round.

use super::metrics::{ByteCounts, RoundRecord};
use super::rounds::Rounds;
use crate::pages::PageSet;
use crate::units::{Bytes, Time};
use crate::vocabulary::{Joined, Region, Send, SendClass, Sent};

/// Why a send's bytes are on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Purpose {
    Snapshot,
    Disk,
    Memory,
}

/// A send that is not over.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenSend {
    purpose: Purpose,
    in_round: bool,
    /// A snapshot of memory, neither the first copy nor a pass straight after it.
    snapshot: bool,
    /// Of the pages that it still holds, the share that goes out for the first time.
    first: f64,
    /// What has been entered of it.
    entered: Sent,
}

/// A send that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    send: OpenSend,
    at: Time,
    /// Pages that came back, and how much of that the round has been relieved of.
    unsent: Bytes,
    relieved: Bytes,
}

/// When, in the life of a migration, something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before t0.
    BeforeRequest,
    /// While the guest runs at the source.
    Live,
    /// While it stands still.
    Stopped,
    /// After its start at the destination was ordered.
    Pushing,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes: ByteCounts,
    /// Bytes of pages that did not go because intermediaries had their content.
    pub(super) deduplicated: Bytes,
    /// Snapshots that were sent whole.
    pub(super) snapshots: u32,
    /// Dirty pages were counted before the request, as they are for snapshots and not for what goes before these.
    counted: bool,
    pub(super) rounds: Rounds,
    /// Sends of the last round that are not over; the round is open while there are any.
    sending: u16,
    /// Pages of the last round that a failure has brought back; a send with the round's number then belongs to it, too.
    came_back: bool,
    /// Dirty bytes of memory and of disk as last counted.
    dirty: (Bytes, Bytes),
    /// Bytes per link of the driver, in ascending order of links.
    pub(super) links: Vec<(u32, Bytes)>,
}

impl Traffic {
    /// Dirty pages are counted before the request: what is sent from now on until then is snapshots.
    pub(super) fn snapshots_begin(&mut self) {
        self.counted = true;
    }

    /// A send is ordered.
    pub(super) fn order<P: PageSet>(&mut self, now: Time, send: &Send<P>, stage: Stage) -> OpenSend {
        let purpose = match (send.class, stage, send.region) {
            (SendClass::Snapshot, _, _) | (_, Stage::BeforeRequest, _) => Purpose::Snapshot,
            (_, _, Region::Disk) => Purpose::Disk,
            (SendClass::First | SendClass::Resend, _, Region::Memory) => Purpose::Memory,
        };
        let in_round = purpose != Purpose::Snapshot && stage != Stage::Pushing;
        if in_round {
            let stopped = stage == Stage::Stopped;
            let goes_on = self.rounds.last().is_some_and(|last| last.index == send.round && last.stopped == stopped);
            if !(goes_on && (self.sending > 0 || self.came_back)) {
                self.rounds.begin(now, stopped);
            }
            self.came_back = false;
            self.sending += 1;
            self.last().pages += send.set.len();
        }
        let snapshot = purpose == Purpose::Snapshot && self.counted && send.region == Region::Memory;
        let first = if send.class == SendClass::First { 1.0 } else { 0.0 };
        OpenSend { purpose, in_round, snapshot, first, entered: Sent::default() }
    }

    /// So much of a send has gone out since it was ordered.
    pub(super) fn progress(&mut self, send: &mut OpenSend, sent: Sent) {
        let wire = sent.wire.saturating_sub(send.entered.wire);
        let demand = sent.demand.saturating_sub(send.entered.demand).min(wire);
        self.deduplicated += sent.deduplicated.saturating_sub(send.entered.deduplicated);
        send.entered = Sent { wire: send.entered.wire + wire, demand: send.entered.demand + demand, ..sent };
        match send.purpose {
            Purpose::Snapshot => self.bytes.snapshot += wire,
            Purpose::Disk => self.bytes.disk += wire,
            Purpose::Memory => {
                let first = share_of(wire - demand, send.first);
                self.bytes.demand += demand;
                self.bytes.first += first;
                self.bytes.resent += wire - demand - first;
            }
        }
        if send.in_round {
            self.last().wire += wire;
        }
    }

    /// A send is over; `unsent` bytes of pages came back.
    pub(super) fn over(&mut self, now: Time, mut send: OpenSend, sent: Sent, unsent: Bytes) -> Over {
        self.progress(&mut send, sent);
        self.snapshots = self.snapshots.saturating_add(u32::from(send.snapshot && unsent.is_zero()));
        let mut relieved = Bytes::ZERO;
        if send.in_round {
            self.sending -= 1;
            self.came_back |= !unsent.is_zero();
            let last = self.last();
            last.duration = now.since(last.started);
            relieved = unsent.min(last.pages);
            last.pages -= relieved;
        }
        Over { send, at: now, unsent, relieved }
    }

    /// Dirty pages have joined a send that is under way: a round ends and the next one begins.
    pub(super) fn joined(&mut self, now: Time, send: &mut OpenSend, joined: Joined, stage: Stage) {
        self.progress(send, joined.sent);
        let left = joined.pending.saturating_sub(joined.added);
        if send.in_round {
            let last = self.last();
            last.pages = last.pages.saturating_sub(left);
            last.duration = now.since(last.started);
            self.rounds.begin(now, stage == Stage::Stopped);
            self.last().pages = joined.pending;
        }
        send.first = first_after_join(send.first, left, joined.pending);
    }

    /// Dirty pages have joined a send that was over before this was known. What went out after they had joined is moved to a
    /// round of their own.
    pub(super) fn joined_late(&mut self, now: Time, over: &Over, joined: Joined, stage: Stage) {
        let send = &over.send;
        if !send.in_round {
            return;
        }
        let left = joined.pending.saturating_sub(joined.added);
        let wire = send.entered.wire.saturating_sub(joined.sent.wire);
        let last = self.last();
        last.wire = last.wire.saturating_sub(wire);
        last.pages = (last.pages + over.relieved).saturating_sub(left);
        let demand = send.entered.demand.saturating_sub(joined.sent.demand).min(wire);
        let as_first = share_of(wire - demand, send.first);
        let first = share_of(wire - demand, first_after_join(send.first, left, joined.pending));
        let again = as_first.saturating_sub(first).min(self.bytes.first);
        self.bytes.first -= again;
        self.bytes.resent += again;
        self.rounds.begin(over.at, stage == Stage::Stopped);
        let last = self.last();
        (last.wire, last.pages, last.duration) = (wire, joined.pending.saturating_sub(over.unsent), now.since(over.at));
    }

    /// So much of a region is dirty at the end of the round that is under way, or was the last one.
    pub(super) fn dirty(&mut self, region: Region, dirty: Bytes) {
        match region {
            Region::Memory => self.dirty.0 = dirty,
            Region::Disk => self.dirty.1 = dirty,
        }
        let dirty = self.dirty.0 + self.dirty.1;
        if let Some(last) = self.rounds.last_mut().filter(|last| !last.stopped) {
            last.dirty = Some(dirty);
        }
    }

    /// So much more has gone over a link.
    pub(super) fn over_link(&mut self, link: u32, bytes: Bytes) {
        match self.links.binary_search_by_key(&link, |l| l.0) {
            Ok(i) => self.links[i].1 += bytes,
            Err(i) => self.links.insert(i, (link, bytes)),
        }
    }

    /// The observation ends: a round that is under way has lasted until now.
    pub(super) fn finish(&mut self, now: Time) {
        if self.sending > 0 {
            let last = self.last();
            last.duration = now.since(last.started);
        }
        self.rounds.finish();
    }

    fn last(&mut self) -> &mut RoundRecord {
        self.rounds.last_mut().expect("a send in a round has begun one")
    }
}

/// Where `left` bytes of pages were still pending, of which `first` went out for the first time, and pages joined that had gone
/// out before, so that `pending` are: the share of these that goes out for the first time.
fn first_after_join(first: f64, left: Bytes, pending: Bytes) -> f64 {
    if pending.is_zero() { 0.0 } else { first * left.0 as f64 / pending.0 as f64 }
}

/// This share of `bytes`, to the nearest byte; exactly all for 1 and nothing for 0.
fn share_of(bytes: Bytes, share: f64) -> Bytes {
    if share >= 1.0 { bytes } else { Bytes((bytes.0 as f64 * share).round() as u64).min(bytes) }
}

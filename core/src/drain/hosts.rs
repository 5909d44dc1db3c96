//! The books on hosts: what is free, what is reserved, and who takes guests.

use super::rooms::Rooms;
use super::{Drain, NONE};
use crate::units::Bytes;

/// What a host does in the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// It takes guests and is not to be drained any more.
    Serves,
    /// It is to be drained, and its turn has not come.
    Waits,
    /// Its turn has come, but guests are still arriving.
    Closing,
    /// It is being drained.
    Draining,
    /// It was drained and is out of service.
    Empty,
    /// Its turn is over and not all its guests have left.
    Left,
}

#[derive(Clone, Debug)]
pub(super) struct Host {
    capacity: u64,
    /// What its guests take, and what is reserved for those on their way.
    used: u64,
    /// Something larger was refused; `u64::MAX` when nothing was.
    ceiling: u64,
    /// Migrations on their way to it.
    pub(super) incoming: u32,
    /// The first of its guests, which are linked through [`super::Guest::link`]; kept for hosts that are to be drained.
    pub(super) first: u32,
    /// Its turn among the hosts to drain, or [`NONE`].
    pub(super) turn: u32,
    /// Its number among the candidates, or [`NONE`].
    candidate: u32,
    pub(super) duty: Duty,
    pub(super) dead: bool,
    pub(super) cut: bool,
    /// It counts among those that are drained at once.
    pub(super) in_wave: bool,
    /// A guest must go to it.
    pub(super) given: bool,
}

impl Host {
    pub(super) fn new(capacity: Option<Bytes>) -> Host {
        Host {
            capacity: capacity.map_or(u64::MAX, |c| c.0),
            used: 0,
            ceiling: u64::MAX,
            incoming: 0,
            first: NONE,
            turn: NONE,
            candidate: NONE,
            duty: Duty::Serves,
            dead: false,
            cut: false,
            in_wave: false,
            given: false,
        }
    }

    /// Memory is taken by a guest, or reserved for it.
    pub(super) fn take(&mut self, memory: u64) {
        self.used = self.used.saturating_add(memory);
    }

    /// A guest, or its reservation, is gone.
    pub(super) fn free(&mut self, memory: u64) {
        self.used = self.used.saturating_sub(memory);
    }

    /// Whether the drain depends on it.
    pub(super) fn matters(&self) -> bool {
        self.given || self.turn != NONE || self.candidate != NONE
    }

    /// A guest of this size was refused.
    pub(super) fn refused(&mut self, memory: u64) {
        self.ceiling = self.ceiling.min(memory - 1);
    }

    /// What was refused may fit now.
    pub(super) fn reconsider(&mut self) {
        self.ceiling = u64::MAX;
    }
}

/// The candidates by the room that they have.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    hosts: Vec<u32>,
    /// Those that serve, by number.
    settled: Rooms,
    /// Those that wait for their turn, the last first.
    waiting: Rooms,
}

impl Candidates {
    pub(super) fn new(candidates: Vec<u32>, turns: usize, hosts: &mut [Host]) -> Candidates {
        for (i, &host) in candidates.iter().enumerate() {
            hosts[host as usize].candidate = i as u32;
        }
        Candidates { settled: Rooms::closed(candidates.len()), waiting: Rooms::closed(turns), hosts: candidates }
    }
}

impl Drain {
    /// The memory that a host would take a guest into now; `None` when it takes none.
    pub(super) fn room_at(&self, host: u32) -> Option<Bytes> {
        let h = &self.hosts[host as usize];
        let takes = match h.duty {
            Duty::Serves => true,
            Duty::Waits => self.onto_waiting,
            Duty::Closing | Duty::Draining | Duty::Empty | Duty::Left => false,
        };
        let full = self.limits.per_destination.is_some_and(|limit| h.incoming >= limit);
        (takes && !full && !h.dead && !h.cut).then(|| Bytes(h.capacity.saturating_sub(h.used).min(h.ceiling)))
    }

    /// Enters what has changed at a host as a destination.
    pub(super) fn room_changed(&mut self, host: u32) {
        let room = self.room_at(host);
        let h = &self.hosts[host as usize];
        let (number, turn, waits) = (h.candidate, h.turn, h.duty == Duty::Waits);
        if number != NONE {
            put(&mut self.candidates.settled, number as usize, room.filter(|_| !waits));
            if turn != NONE {
                let from_last = self.drained.len() - 1 - turn as usize;
                put(&mut self.candidates.waiting, from_last, room.filter(|_| waits));
            }
        }
        if h.given {
            for turn in self.bound_sources.get(&host).cloned().unwrap_or_default() {
                self.source_changed(turn);
            }
        }
    }

    /// The most room of any candidate.
    pub(super) fn largest_room(&self) -> Option<Bytes> {
        self.candidates.settled.largest().max(self.candidates.waiting.largest())
    }

    /// A host for a guest that may go anywhere.
    pub(super) fn choose_host(&self, memory: Bytes) -> Option<u32> {
        let settled = self.placement.choose(&self.candidates.settled, memory);
        settled.map(|i| self.candidates.hosts[i]).or_else(|| {
            let from_last = self.placement.choose(&self.candidates.waiting, memory)?;
            Some(self.drained[self.drained.len() - 1 - from_last])
        })
    }
}

fn put(rooms: &mut Rooms, i: usize, room: Option<Bytes>) {
    match room {
        Some(room) => rooms.open(i, room),
        None => rooms.close(i),
    }
}

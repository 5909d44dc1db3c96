//! The books on hosts: what is free, what is reserved, and who takes guests.

use super::loads::Loads;
use super::rooms::Rooms;
use super::{Drain, NONE, Rates, Step, VmIndex};
use crate::units::{Bytes, Rate};

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
    /// Bytes per second that its guests receive, and those on their way.
    received: u64,
    /// Bytes per second that it receives beside them.
    beside: u64,
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
            received: 0,
            beside: 0,
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
    fn free(&mut self, memory: u64) {
        self.used = self.used.saturating_sub(memory);
    }

    /// A guest that receives so much comes, or receives more.
    fn receives(&mut self, more: u64) {
        self.received = self.received.saturating_add(more);
    }

    /// A guest that receives so much goes, or receives less.
    fn receives_no_more(&mut self, less: u64) {
        self.received = self.received.saturating_sub(less);
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
    /// What the settled receive, and those that wait; nothing unless the placement asks for it.
    received: [Loads; 2],
}

impl Candidates {
    pub(super) fn new(candidates: Vec<u32>, turns: usize, hosts: &mut [Host], by_traffic: bool) -> Candidates {
        for (i, &host) in candidates.iter().enumerate() {
            hosts[host as usize].candidate = i as u32;
        }
        let received = [candidates.len(), turns].map(|count| Loads::none(if by_traffic { count } else { 0 }));
        Candidates { settled: Rooms::closed(candidates.len()), waiting: Rooms::closed(turns), received, hosts: candidates }
    }
}

impl Drain {
    /// Bytes per second that a guest receives.
    fn received_by(&self, vm: u32) -> u64 {
        // A float-to-integer cast saturates.
        self.rates(VmIndex(vm)).rx.0 as u64
    }

    /// A guest is on its way to a host: its memory is reserved there.
    pub(super) fn expect_guest(&mut self, host: u32, vm: u32) {
        let (memory, received) = (self.guests[vm as usize].memory, self.received_by(vm));
        let h = &mut self.hosts[host as usize];
        h.take(memory);
        h.receives(received);
    }

    /// A guest, or its reservation, is gone from a host.
    pub(super) fn dismiss_guest(&mut self, host: u32, vm: u32) {
        let (memory, received) = (self.guests[vm as usize].memory, self.received_by(vm));
        let h = &mut self.hosts[host as usize];
        h.free(memory);
        h.receives_no_more(received);
    }

    /// A guest's rates are measured.
    pub(super) fn measured(&mut self, vm: u32, rates: Rates) {
        if self.rates.is_empty() {
            self.rates = vec![Rates::default(); self.guests.len()];
        }
        let guest = &self.guests[vm as usize];
        let hosts = match guest.step {
            Step::Rests | Step::Pending => [Some(guest.host), None],
            Step::Running => [Some(guest.host), Some(guest.to)],
            Step::Evicted => [Some(guest.to), None],
            // Nothing is decided about it any more, and it may be gone.
            Step::GivenUp => return,
        };
        let before = self.received_by(vm);
        self.rates[vm as usize] = rates;
        let now = self.received_by(vm);
        for host in hosts.into_iter().flatten().filter(|_| now != before) {
            self.hosts[host as usize].receives_no_more(before);
            self.hosts[host as usize].receives(now);
            self.room_changed(host);
        }
    }

    /// A host's traffic beside that of its guests is measured.
    pub(super) fn measured_beside(&mut self, host: u32, received: Rate) {
        self.hosts[host as usize].beside = received.0 as u64;
        self.room_changed(host);
    }

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
        let received = h.received.saturating_add(h.beside);
        if number != NONE {
            put(&mut self.candidates.settled, number as usize, room.filter(|_| !waits));
            self.candidates.received[0].set(number as usize, received);
            if turn != NONE {
                let from_last = self.drained.len() - 1 - turn as usize;
                put(&mut self.candidates.waiting, from_last, room.filter(|_| waits));
                self.candidates.received[1].set(from_last, received);
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
        let [settled, waiting] = &self.candidates.received;
        let settled = self.placement.choose(&self.candidates.settled, settled, memory);
        settled.map(|i| self.candidates.hosts[i]).or_else(|| {
            let from_last = self.placement.choose(&self.candidates.waiting, waiting, memory)?;
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

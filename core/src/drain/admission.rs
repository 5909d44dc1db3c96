//! Admission: hosts' turns begin, migrations start, and what has no place is given up in the end.

use super::hosts::Duty;
use super::source::Source;
use super::{Command, Drain, Fate, HostIndex, NONE, NoPlace, Report, Step, VmIndex, WITHDRAWN};
use crate::policy::order::Traits;
use crate::units::{Bytes, Rate};
use std::collections::BTreeMap;

impl Drain {
    /// Starts whatever can start.
    pub(super) fn admit(&mut self) {
        if self.whole.requested.is_none() || self.cancelled || self.finished {
            return;
        }
        loop {
            self.begin_turns();
            while self.limits.per_cluster.is_none_or(|limit| self.running < limit) && self.start_next() {}
            // An ending, or a host that comes back, will change something.
            if self.running > 0 || self.expected > 0 || self.sources.is_empty() {
                return;
            }
            if (self.next_turn as usize) < self.drained.len() {
                self.stall();
            } else {
                self.give_up();
            }
        }
    }

    /// Begins turns as long as hosts may be drained at once.
    fn begin_turns(&mut self) {
        while (self.next_turn as usize) < self.drained.len() && self.limits.hosts_at_once.is_none_or(|limit| self.in_wave < limit) {
            let turn = self.next_turn;
            self.next_turn += 1;
            let host = self.drained[turn as usize];
            self.in_wave += 1;
            let h = &mut self.hosts[host as usize];
            (h.duty, h.in_wave) = (Duty::Closing, true);
            self.room_changed(host);
            self.open_source_if_still(host);
        }
    }

    /// Begins to move the guests of a host whose turn has come, once no more arrive there.
    pub(super) fn open_source_if_still(&mut self, host: u32) {
        let h = &mut self.hosts[host as usize];
        if h.duty != Duty::Closing || h.incoming > 0 {
            return;
        }
        h.duty = Duty::Draining;
        let turn = h.turn;
        let guests = self.guests_in_order(host);
        let source = self.new_source(host, guests);
        for to in source.bound_to() {
            self.bound_sources.entry(to).or_default().push(turn);
        }
        self.sources.insert(turn, source);
        self.withdraw_pending(turn);
        if self.hosts[host as usize].dead && self.sources.contains_key(&turn) {
            self.lose_pending(turn);
        }
    }

    pub(super) fn guests_in_order(&mut self, host: u32) -> Vec<u32> {
        let mut guests = Vec::new();
        let mut next = std::mem::replace(&mut self.hosts[host as usize].first, NONE);
        while next != NONE {
            guests.push(next);
            next = self.guests[next as usize].link;
        }
        guests.sort_by_cached_key(|&g| {
            let memory = Bytes(self.guests[g as usize].memory);
            let dirty = self.rates(VmIndex(g)).dirty;
            (self.order.rank(&Traits { memory, dirty }), g)
        });
        guests
    }

    fn new_source(&mut self, host: u32, guests: Vec<u32>) -> Source {
        let mut bound: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (place, &g) in guests.iter().enumerate() {
            let guest = &mut self.guests[g as usize];
            (guest.link, guest.step) = (place as u32, Step::Pending);
            if guest.given {
                bound.entry(guest.to).or_default().push(place as u32);
            }
        }
        let mut source = Source::new(host, guests, self.now);
        for (to, places) in bound {
            source.bind(to, places);
        }
        for place in 0..source.guests.len() {
            let guest = &self.guests[source.guests[place] as usize];
            source.put(place as u32, guest.given.then_some(guest.to), Bytes(guest.memory));
        }
        source
    }

    /// Enters what a host that is being drained could start.
    pub(super) fn source_changed(&mut self, turn: u32) {
        let Some(source) = self.sources.get(&turn) else { return };
        let h = &self.hosts[source.host as usize];
        let has_slot = !h.cut && !h.dead && (source.running.len() as u32) < self.limits.per_host;
        let need = if !has_slot {
            None
        } else if source.first_bound(|to| self.room_at(to)).is_some() {
            Some(Bytes::ZERO)
        } else {
            source.least_free()
        };
        match need {
            Some(need) => self.startable.put(turn as usize, need),
            None => self.startable.clear(turn as usize),
        }
    }

    /// Starts the first VM that can start; false when none can.
    fn start_next(&mut self) -> bool {
        let room = self.largest_room();
        // No guest needs nothing: only sources whose guests must go to a certain host, and can, are found without room elsewhere.
        let Some(turn) = self.startable.first(room.unwrap_or(Bytes::ZERO)) else { return false };
        let source = &self.sources[&(turn as u32)];
        let free = room.and_then(|room| source.first_free(room));
        let bound = source.first_bound(|to| self.room_at(to));
        let place = [free, bound].into_iter().flatten().min().expect("a source that could start something has a guest for it");
        let vm = source.guests[place as usize];
        let guest = &self.guests[vm as usize];
        let to =
            if guest.given { guest.to } else { self.choose_host(Bytes(guest.memory)).expect("the largest room is large enough") };
        self.start(turn as u32, vm, to);
        true
    }

    fn start(&mut self, turn: u32, vm: u32, to: u32) {
        let guest = &mut self.guests[vm as usize];
        let (place, given) = (guest.link, guest.given.then_some(to));
        (guest.step, guest.to) = (Step::Running, to);
        let source = self.sources.get_mut(&turn).expect("a VM starts while its host is drained");
        source.clear(place, given);
        source.running.push(vm);
        self.running += 1;
        self.expect_guest(to, vm);
        self.hosts[to as usize].incoming += 1;
        self.room_changed(to);
        self.source_changed(turn);
        let rate = self.share_rate(turn, Some(vm));
        self.commands.push_back(Command::Start {
            vm: VmIndex(vm),
            strategy: self.strategy,
            destination: HostIndex(to),
            via: self.via.clone(),
            rate,
        });
    }

    /// Spreads a host's rate over its migrations, and tells all of them but `starting`.
    pub(super) fn share_rate(&mut self, turn: u32, starting: Option<u32>) -> Option<Rate> {
        let whole = self.rate_per_host?;
        let running = &self.sources.get(&turn)?.running;
        let limit = Rate(whole.0 / running.len().max(1) as f64);
        let others = running.iter().filter(|&&vm| Some(vm) != starting);
        self.commands.extend(others.map(|&vm| Command::SetRate { vm: VmIndex(vm), limit }));
        Some(limit)
    }

    /// Hosts for whose guests nothing can be done leave the wave, but keep their turn.
    fn stall(&mut self) {
        for source in self.sources.values() {
            self.hosts[source.host as usize].in_wave = false;
        }
        self.in_wave = 0;
    }

    /// Nothing will change any more: those that wait have no place.
    fn give_up(&mut self) {
        let turns: Vec<u32> = self.sources.keys().copied().collect();
        for turn in turns {
            self.end_pending(turn, |drain, vm| Some(Fate::Unplaced(drain.no_place(vm))));
        }
    }

    fn no_place(&self, vm: u32) -> NoPlace {
        let guest = &self.guests[vm as usize];
        match (guest.given, guest.given && self.room_at(guest.to).is_some()) {
            (false, _) => NoPlace::NoRoom,
            (true, true) => NoPlace::DestinationFull,
            (true, false) => NoPlace::DestinationClosed,
        }
    }

    /// Ends the waiting of those of a host's guests that have a fate.
    pub(super) fn end_pending(&mut self, turn: u32, fate: impl Fn(&Drain, u32) -> Option<Fate>) {
        let host = self.sources[&turn].host;
        for place in 0..self.sources[&turn].guests.len() {
            let vm = self.sources[&turn].guests[place];
            let guest = &self.guests[vm as usize];
            // One that has left may be pending elsewhere.
            let here = guest.step == Step::Pending && guest.host == host;
            if let Some(fate) = fate(self, vm).filter(|_| here) {
                let guest = &self.guests[vm as usize];
                let given = guest.given.then_some(guest.to);
                self.sources.get_mut(&turn).expect("the source is there").clear(place as u32, given);
                self.leave_behind(turn, vm, fate);
            }
        }
        self.source_changed(turn);
        self.end_turn_if_done(turn);
    }

    /// The guests of a host that has failed are gone.
    pub(super) fn lose_pending(&mut self, turn: u32) {
        self.end_pending(turn, |_, _| Some(Fate::Lost));
    }

    /// Guests that are not to be moved any more stay.
    pub(super) fn withdraw_pending(&mut self, turn: u32) {
        self.end_pending(turn, |drain, vm| (drain.guests[vm as usize].failures == WITHDRAWN).then_some(Fate::Cancelled));
    }

    /// A VM of a host that is being drained will not leave it by this drain.
    pub(super) fn leave_behind(&mut self, turn: u32, vm: u32, fate: Fate) {
        self.guests[vm as usize].step = Step::GivenUp;
        let source = self.sources.get_mut(&turn).expect("the host of a VM in the drain is being drained");
        source.left -= 1;
        source.given_up += 1;
        let host = source.host;
        self.report(vm, host, fate);
    }

    pub(super) fn report(&mut self, vm: u32, host: u32, fate: Fate) {
        match fate {
            Fate::Moved { .. } => self.whole.moved += 1,
            _ => self.whole.not_moved += 1,
        }
        self.reports.push_back(Report::Vm { vm: VmIndex(vm), host: HostIndex(host), fate });
    }
}

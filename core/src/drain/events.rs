//! What a drain makes of its events.

use super::hosts::Duty;
use super::{Command, Drain, Event, Fate, HostIndex, HostReport, HostState, Left, NONE, Report, Step, VmIndex, WITHDRAWN};
use crate::units::{Bytes, Time};

impl Drain {
    /// Takes note of an event.
    ///
    /// # Panics
    /// When the event is about a migration that the drain has not started or that is over, or about a host's return that was not due:
    /// a defect of the driver, which is our own process.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.now = now;
        match event {
            Event::Requested => {
                self.whole.requested.get_or_insert(now);
                for host in 0..self.hosts.len() as u32 {
                    self.room_changed(host);
                }
            }
            Event::Rates { vm, rates } => self.measured(vm.0, rates),
            Event::HostTraffic { host, received } => self.measured_beside(host.0, received),
            Event::HostState { host, state } => self.host_state(host.0, state),
            Event::Evicted(vm) => self.evicted(vm.0),
            Event::Done(vm) => self.done(vm.0),
            Event::Failed { vm, left } => self.failed(vm.0, left),
            Event::Refused(vm) => {
                let guest = &self.guests[vm.0 as usize];
                let (to, memory) = (guest.to, guest.memory);
                self.back_at_source(vm.0, false);
                self.hosts[to as usize].refused(memory);
                self.room_changed(to);
            }
            Event::Withdrawn(vm) => self.withdrawn(vm.0),
            Event::Cancel => self.cancel(),
        }
        self.admit();
    }

    /// The source of a VM is released.
    fn evicted(&mut self, vm: u32) {
        let guest = &mut self.guests[vm as usize];
        assert_eq!(guest.step, Step::Running, "a VM is evicted once, by its migration");
        guest.step = Step::Evicted;
        let host = guest.host;
        self.dismiss_guest(host, vm);
        self.last_evicted = Some(self.now);
        let turn = self.leave_running(vm);
        let source = self.sources.get_mut(&turn).expect("the host of a migrating VM is being drained");
        source.left -= 1;
        source.evicted += 1;
        self.source_changed(turn);
        self.end_turn_if_done(turn);
    }

    /// A VM's migration no longer occupies its source.
    fn leave_running(&mut self, vm: u32) -> u32 {
        let turn = self.hosts[self.guests[vm as usize].host as usize].turn;
        let source = self.sources.get_mut(&turn).expect("the host of a migrating VM is being drained");
        source.running.retain(|&r| r != vm);
        self.share_rate(turn, None);
        turn
    }

    /// A migration no longer occupies its destination.
    fn leave_destination(&mut self, vm: u32) -> u32 {
        self.running -= 1;
        let to = self.guests[vm as usize].to;
        self.hosts[to as usize].incoming -= 1;
        to
    }

    fn done(&mut self, vm: u32) {
        if self.guests[vm as usize].step != Step::Evicted {
            self.evicted(vm);
        }
        let to = self.leave_destination(vm);
        let guest = &mut self.guests[vm as usize];
        let from = std::mem::replace(&mut guest.host, to);
        (guest.to, guest.given, guest.failures, guest.step) = (NONE, false, 0, Step::Rests);
        let h = &mut self.hosts[to as usize];
        if h.turn != NONE {
            guest.link = std::mem::replace(&mut h.first, vm);
        }
        self.report(vm, from, Fate::Moved { to: HostIndex(to) });
        self.room_changed(to);
        self.open_source_if_still(to);
    }

    fn failed(&mut self, vm: u32, left: Left) {
        match left {
            Left::AtSource => self.back_at_source(vm, true),
            Left::Nothing => {
                let to = self.leave_destination(vm);
                self.dismiss_guest(to, vm);
                self.gone(vm, Fate::Lost);
                self.room_changed(to);
                self.open_source_if_still(to);
            }
            Left::Undecided => {
                // It may be there: the memory stays reserved.
                let to = self.leave_destination(vm);
                self.gone(vm, Fate::Undecided);
                self.room_changed(to);
                self.open_source_if_still(to);
            }
        }
    }

    /// A migration has ended and its VM is not where it was.
    fn gone(&mut self, vm: u32, fate: Fate) {
        let host = self.guests[vm as usize].host;
        match self.guests[vm as usize].step {
            Step::Evicted => {
                self.guests[vm as usize].step = Step::GivenUp;
                self.report(vm, host, fate);
            }
            Step::Running => {
                if fate == Fate::Lost {
                    self.dismiss_guest(host, vm);
                }
                let turn = self.leave_running(vm);
                self.leave_behind(turn, vm, fate);
                self.source_changed(turn);
                self.end_turn_if_done(turn);
            }
            Step::Rests | Step::Pending | Step::GivenUp => panic!("a migration ends once"),
        }
    }

    /// A migration has ended and its VM is where it was; `failed` when that counts as a failure.
    fn back_at_source(&mut self, vm: u32, failed: bool) {
        assert_eq!(self.guests[vm as usize].step, Step::Running, "a VM that was evicted is not at its source");
        let to = self.leave_destination(vm);
        let turn = self.leave_running(vm);
        self.dismiss_guest(to, vm);
        let guest = &mut self.guests[vm as usize];
        if failed && guest.failures != WITHDRAWN {
            guest.failures += 1;
        }
        let (place, given, need) = (guest.link, guest.given.then_some(to), Bytes(guest.memory));
        if given.is_none() {
            guest.to = NONE;
        }
        let dead = self.hosts[guest.host as usize].dead;
        let fate = match () {
            () if dead => Some(Fate::Lost),
            () if self.cancelled || guest.failures == WITHDRAWN => Some(Fate::Cancelled),
            () if guest.failures > self.retries => Some(Fate::Failed),
            () => None,
        };
        match fate {
            Some(fate) => self.leave_behind(turn, vm, fate),
            None => {
                guest.step = Step::Pending;
                self.whole.retried += u32::from(failed);
                self.sources.get_mut(&turn).expect("the source is there").put(place, given, need);
            }
        }
        self.room_changed(to);
        self.open_source_if_still(to);
        self.source_changed(turn);
        self.end_turn_if_done(turn);
    }

    fn host_state(&mut self, host: u32, state: HostState) {
        let h = &mut self.hosts[host as usize];
        if h.dead {
            return;
        }
        let (awaited, turn) = (h.duty == Duty::Empty && self.returns, h.turn);
        let waited_for = h.cut && h.matters();
        match state {
            HostState::Reachable => {
                h.cut = false;
                h.reconsider();
            }
            HostState::Cut => h.cut = true,
            HostState::Dead => (h.dead, h.cut) = (true, false),
            HostState::Returned => {
                assert!(awaited, "a host returns once, after it was drained, if the plan says so");
                h.duty = Duty::Serves;
                h.reconsider();
            }
        }
        self.expected += u32::from(h.cut && h.matters());
        self.expected -= u32::from(waited_for);
        if awaited && matches!(state, HostState::Dead | HostState::Returned) {
            self.expected -= 1;
            self.leave_wave(host);
        }
        self.room_changed(host);
        if state == HostState::Dead && self.sources.contains_key(&turn) {
            self.lose_pending(turn);
        }
        self.source_changed(turn);
    }

    fn withdrawn(&mut self, vm: u32) {
        let guest = &mut self.guests[vm as usize];
        let turn = self.hosts[guest.host as usize].turn;
        if guest.step == Step::GivenUp || turn == NONE {
            return;
        }
        guest.failures = WITHDRAWN;
        match guest.step {
            Step::Running => self.commands.push_back(Command::Cancel(VmIndex(vm))),
            Step::Pending => self.withdraw_pending(turn),
            Step::Rests | Step::Evicted | Step::GivenUp => {}
        }
    }

    fn cancel(&mut self) {
        if self.cancelled {
            return;
        }
        self.cancelled = true;
        let running = self.guests.iter().enumerate().filter(|(_, g)| g.step == Step::Running);
        self.commands.extend(running.map(|(vm, _)| Command::Cancel(VmIndex(vm as u32))));
        self.end_all(Fate::Cancelled);
    }

    /// The observation is over: whatever has no result gets one.
    pub fn finish(&mut self, now: Time) {
        self.now = now;
        self.finished = true;
        for vm in 0..self.guests.len() as u32 {
            match self.guests[vm as usize].step {
                Step::Running | Step::Evicted => self.gone(vm, Fate::Unfinished),
                Step::Rests | Step::Pending | Step::GivenUp => {}
            }
        }
        self.end_all(Fate::Waiting);
        self.running = 0;
        self.commands.clear();
    }

    /// Ends everything that has not begun.
    fn end_all(&mut self, fate: Fate) {
        let turns: Vec<u32> = self.sources.keys().copied().collect();
        for turn in turns {
            self.end_pending(turn, |_, _| Some(fate));
        }
        for turn in self.next_turn..self.drained.len() as u32 {
            self.end_before_turn(self.drained[turn as usize], fate);
        }
        self.next_turn = self.drained.len() as u32;
        // Those whose turn had come, but where guests were still arriving.
        let closing = (0..self.hosts.len() as u32).filter(|&h| self.hosts[h as usize].duty == Duty::Closing);
        for host in closing.collect::<Vec<_>>() {
            self.end_before_turn(host, fate);
        }
    }

    /// A host's turn will not come.
    fn end_before_turn(&mut self, host: u32, fate: Fate) {
        let guests = self.guests_in_order(host);
        let fate = if self.hosts[host as usize].dead { Fate::Lost } else { fate };
        for &vm in &guests {
            self.guests[vm as usize].step = Step::GivenUp;
            self.report(vm, host, fate);
        }
        self.hosts[host as usize].duty = Duty::Left;
        self.room_changed(host);
        self.report_host(host, None, 0, guests.len() as u32);
    }

    /// A turn is over when every guest has left or was given up.
    pub(super) fn end_turn_if_done(&mut self, turn: u32) {
        if self.sources.get(&turn).is_none_or(|s| s.left > 0) {
            return;
        }
        let Some(source) = self.sources.remove(&turn) else { return };
        self.startable.clear(turn as usize);
        for to in source.bound_to() {
            if let Some(turns) = self.bound_sources.get_mut(&to) {
                turns.retain(|&t| t != turn);
                if turns.is_empty() {
                    self.bound_sources.remove(&to);
                }
            }
        }
        let h = &mut self.hosts[source.host as usize];
        let emptied = source.given_up == 0 && !h.dead;
        h.duty = if emptied { Duty::Empty } else { Duty::Left };
        if emptied && self.returns {
            self.expected += 1;
        } else {
            self.leave_wave(source.host);
        }
        self.report_host(source.host, Some(source.began), source.evicted, source.given_up);
    }

    /// A host no longer counts among those that are drained at once.
    fn leave_wave(&mut self, host: u32) {
        let counted = std::mem::replace(&mut self.hosts[host as usize].in_wave, false);
        self.in_wave -= u32::from(counted);
    }

    fn report_host(&mut self, host: u32, began: Option<Time>, evicted: u32, left: u32) {
        let emptied = (left == 0 && began.is_some()).then_some(self.now);
        let counted = if emptied.is_some() { &mut self.whole.hosts_emptied } else { &mut self.whole.hosts_left };
        *counted += 1;
        let requested = self.whole.requested.unwrap_or(self.now);
        self.reports.push_back(Report::Host(HostReport { host: HostIndex(host), requested, began, emptied, evicted, left }));
    }
}

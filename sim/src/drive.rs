//! One migration in the simulator: its commands carried out, each at its price in time.

use crate::carry::Carrier;
use crate::engine::{Engine, Happening};
use crate::fidelity::{FaultPath, Fidelity, GuestModel, Kept, Run, TransferModel};
use crate::gather::Gathering;
use crate::queue::Key;
use crate::watcher::Watcher;
use livemig_core::conductor::Conductor;
use livemig_core::drain::{self, VmIndex};
use livemig_core::ledger::{Ledger, Observation, Session};
use livemig_core::pages::PageSet;
use livemig_core::strategy::Spec;
use livemig_core::units::{Bytes, Rate, Span, Time};
use livemig_core::vocabulary::{
    Channels, CmdId, Command, Event, Failure, Joined, Peer, Prepaging, Region, Reply, Send, Sent, Side, WatchEnd,
};
use livemig_models::world::{HostId, Move, Vm, VmId};

pub(crate) struct Drive<F: Fidelity> {
    pub(crate) vm: VmId,
    pub(crate) source: HostId,
    pub(crate) destination: HostId,
    pub(crate) session: Session<F::Set, Conductor<F::Set>>,
    /// The hosts that stage its pages, in the order of their numbers.
    pub(crate) via: Vec<HostId>,
    pub(crate) carrier: Carrier<F::Transfer>,
    pub(crate) gathering: Gathering,
    /// Limit of the sending rate that the migration itself has set.
    pub(crate) limit: Option<Rate>,
    /// Limit of the sending rate that the drain has set.
    pub(crate) allowance: Option<Rate>,
    /// It is the drain's.
    pub(crate) drained: bool,
    /// 1, or more when it was made before and failed.
    pub(crate) attempt: u32,
    /// Pages that the migration has in its hands: collected, and neither sent nor given back.
    held: F::Set,
    /// Blocks of the disk that it has in its hands.
    held_blocks: F::Set,
    pub(crate) watcher: Option<Watcher>,
    pub(crate) watch_key: Option<Key>,
    pub(crate) wake_key: Option<Key>,
    pub(crate) elide_zero_pages: bool,
    /// How its connections are made and served.
    pub(crate) channels: Channels,
    /// The order of the push that the guest waits for.
    order: Prepaging,
    /// Pages have been collected, so that there is a dirty log to read.
    collected: bool,
    /// The guest has started at the destination.
    pub(crate) switched: bool,
    /// Commands that wait for a cut link.
    parked: Vec<(CmdId, Command<F::Set>)>,
    /// Bytes of the destination's memory that the arriving guest has taken.
    pub(crate) memory_taken: f64,
    pub(crate) observed: bool,
    pub(crate) over: bool,
}

/// What is done when a command is due.
#[derive(Debug)]
pub(crate) enum Task<S> {
    /// Nothing but the answer, which comes from another host.
    Answer(Reply<S>),
    Prepare {
        elide_zero_pages: bool,
        channels: Channels,
    },
    Peek(Region),
    Collect {
        region: Region,
        limit: Option<Bytes>,
        into: Option<CmdId>,
    },
    Pause,
    StartAtSource,
    StartAtDestination,
    /// The destination has forgotten the guest.
    Abort,
    /// Every page has been acknowledged.
    Acknowledged(Reply<S>),
    /// The destination asks the source no more.
    Redirect,
    /// The destination has had everything since then.
    Gathered(Time),
}

impl<F: Fidelity> Drive<F> {
    pub(crate) fn new(m: &Move, source: HostId, vm: &Vm, spec: &Spec, timeline: bool) -> Drive<F> {
        let intermediaries = (0..m.via.len() as u16).collect();
        let ledger = if timeline { Ledger::with_timeline() } else { Ledger::new() };
        let order = spec.push.map_or_else(Prepaging::default, |p| p.prepaging);
        let disk = vm.disk.as_ref().map_or(Bytes::ZERO, |disk| disk.size);
        let conductor = Conductor::new(spec.clone(), vm.memory, intermediaries).with_disk(disk);
        Drive {
            vm: m.vm,
            source,
            destination: m.to,
            session: Session::new(conductor, ledger),
            via: m.via.clone(),
            carrier: Carrier::default(),
            gathering: Gathering::default(),
            limit: None,
            allowance: None,
            drained: false,
            attempt: 1,
            held: F::Set::default(),
            held_blocks: F::Set::default(),
            watcher: None,
            watch_key: None,
            wake_key: None,
            elide_zero_pages: true,
            channels: Channels::default(),
            order,
            collected: false,
            switched: false,
            parked: Vec::new(),
            memory_taken: 0.0,
            observed: false,
            over: false,
        }
    }

    pub(crate) fn hold(&mut self, region: Region, set: &F::Set) {
        self.held(region).merge(set.clone());
    }

    fn held(&mut self, region: Region) -> &mut F::Set {
        match region {
            Region::Memory => &mut self.held,
            Region::Disk => &mut self.held_blocks,
        }
    }

    /// Whether the guest at the destination misses nothing that the source has: neither in a push nor in the migration's hands.
    pub(crate) fn source_has_sent_all(&self) -> bool {
        self.held.is_empty() && !self.carrier.pushes()
    }

    /// Which of its intermediaries a host is.
    pub(crate) fn via_number(&self, host: HostId) -> Option<u16> {
        (0..).zip(&self.via).find(|(_, h)| **h == host).map(|(i, _)| i)
    }

    pub(crate) fn remap_held(&mut self, region: Region, map: impl Fn(&F::Set) -> F::Set) {
        let held = self.held(region);
        *held = map(held);
    }
}

impl<F: Fidelity> Engine<'_, F> {
    pub(crate) fn execute(&mut self, m: u32, id: CmdId, command: Command<F::Set>) {
        let drive = &self.drives[m as usize];
        let (source, destination) = (self.source_state(drive), self.hosts_state(drive.destination));
        let remote = needs_destination(&command);
        // What is still to be fetched the destination fetches by itself.
        let source_dead = source.dead && !matches!(command, Command::Gather { .. });
        if source_dead || (remote && destination.dead) {
            let peer = if source_dead { Peer::Source } else { Peer::Destination };
            self.fail(m, id, command, Failure::Unreachable(peer));
        } else if matches!(command, Command::Abort) && (source.cut || destination.cut) {
            // Nobody waits for a link only to say that it is not needed any more.
            self.fail(m, id, command, Failure::Unreachable(Peer::Destination));
        } else if remote && ((source.cut && !source.dead) || destination.cut) {
            self.drives[m as usize].parked.push((id, command));
        } else {
            self.perform(m, id, command);
        }
    }

    fn hosts_state(&self, host: HostId) -> crate::engine::HostState {
        self.down[host.0 as usize]
    }

    /// Once released the source is needed for nothing.
    fn source_state(&self, drive: &Drive<F>) -> crate::engine::HostState {
        if drive.gathering.released { crate::engine::HostState::default() } else { self.hosts_state(drive.source) }
    }

    fn perform(&mut self, m: u32, id: CmdId, command: Command<F::Set>) {
        let c = &self.world.calibration;
        let (one_way, activation) = (c.latency, c.activation);
        let round_trip = one_way.times(2);
        let remote = needs_destination(&command);
        if remote {
            let bytes = Bytes(c.control_message.0 * 2);
            self.drives[m as usize].session.observe(Observation::Control(bytes));
        }
        match command {
            Command::Reserve { .. } => self.later(m, id, round_trip, Task::Answer(Reply::Reserved)),
            Command::Prepare { elide_zero_pages, channels } => {
                self.later(m, id, c.setup, Task::Prepare { elide_zero_pages, channels });
            }
            Command::PeekDirty { region } => self.later(m, id, self.scan_time(m, region), Task::Peek(region)),
            Command::Collect { region, limit, into } => {
                self.later(m, id, self.scan_time(m, region), Task::Collect { region, limit, into });
            }
            Command::ReturnDirty { region, set } => {
                self.sync(m);
                self.drives[m as usize].held(region).give(&set);
                let vm = self.drives[m as usize].vm;
                self.guests[vm.0 as usize].region_mut(region).return_dirty(&set);
                self.answer(m, id, Reply::Returned);
            }
            Command::Send(send) => self.start_send(m, id, &send),
            Command::SendState => self.start_state(m, id),
            Command::Recall { of } => {
                self.recall(m, of);
                self.answer(m, id, Reply::RecallNoted);
            }
            Command::SetRate { limit } => {
                self.drives[m as usize].limit = limit;
                self.cap_flows(m);
                self.answer(m, id, Reply::RateSet);
            }
            Command::Throttle { share } => {
                self.sync(m);
                let (vm, at) = (self.drives[m as usize].vm, self.now);
                self.guests[vm.0 as usize].guest.set_share(share);
                self.drives[m as usize].session.observe(Observation::ShareInForce { at, share });
                self.answer(m, id, Reply::Throttled);
            }
            Command::Pause => self.later(m, id, c.pause, Task::Pause),
            Command::DiscardStale { set } => {
                self.sync(m);
                let vm = self.drives[m as usize].vm.0 as usize;
                self.guests[vm].guest.supersede(&set);
                self.later(m, id, round_trip, Task::Answer(Reply::Discarded(set)));
            }
            Command::Resume { side: Side::Source } => self.later(m, id, Span::ZERO, Task::StartAtSource),
            Command::Resume { side: Side::Destination } => self.later(m, id, one_way + activation, Task::StartAtDestination),
            Command::ServeFaults => self.later(m, id, round_trip, Task::Answer(Reply::ServingFaults)),
            Command::RedirectFaults => self.later(m, id, round_trip, Task::Redirect),
            Command::Gather { limit } => self.start_gathering(m, id, limit),
            Command::Reclaim { via } => self.reclaim_stage(m, id, via),
            Command::Watch(watch) => self.start_watch(m, id, watch),
            Command::Release => {
                let drive = &self.drives[m as usize];
                let (source, memory) = (drive.source, self.world.vms[drive.vm.0 as usize].memory);
                let (vm, drained) = (drive.vm, drive.drained);
                self.drives[m as usize].gathering.released = true;
                self.memory_freed(source, memory.0 as f64);
                if drained {
                    self.tell_drain(drain::Event::Evicted(VmIndex(vm.0)));
                }
                self.answer(m, id, Reply::Released);
            }
            Command::Abort => self.later(m, id, round_trip, Task::Abort),
        }
    }

    pub(crate) fn later(&mut self, m: u32, id: CmdId, delay: Span, task: Task<F::Set>) {
        if delay == Span::ZERO {
            self.due(m, id, task);
        } else {
            self.queue.push(self.now + delay, Happening::Due(m, id, task));
        }
    }

    pub(crate) fn answer(&mut self, m: u32, id: CmdId, reply: Reply<F::Set>) {
        self.tell(m, Event::Done { id, reply });
    }

    /// Acknowledgement of what a transfer has carried, one round trip after its last byte left.
    pub(crate) fn acknowledge(&mut self, m: u32, id: CmdId, reply: Reply<F::Set>) {
        self.later(m, id, self.world.calibration.latency.times(2), Task::Acknowledged(reply));
    }

    /// The time to read the dirty log. Before the first collection there is nothing to read: every page counts as dirty. What a guest
    /// writes to its disk the hypervisor notes itself.
    fn scan_time(&self, m: u32, region: Region) -> Span {
        if region == Region::Disk || !self.drives[m as usize].collected {
            return Span::ZERO;
        }
        let memory = self.world.vms[self.drives[m as usize].vm.0 as usize].memory;
        let per_gib = self.world.calibration.dirty_log_per_gib.as_secs_f64();
        Span::from_secs_f64(per_gib * memory.0 as f64 / Bytes::from_gib(1).0 as f64)
    }

    /// A command is due: its effect takes place, and it is answered.
    pub(crate) fn due(&mut self, m: u32, id: CmdId, task: Task<F::Set>) {
        let drive = &self.drives[m as usize];
        let lost = self.source_state(drive).dead || self.hosts_state(drive.destination).dead;
        let vm = drive.vm.0 as usize;
        self.sync(m);
        match task {
            Task::StartAtDestination if lost => self.tell_failed(m, id, Failure::AnswerLost),
            Task::Answer(_) | Task::Acknowledged(_) | Task::Redirect | Task::Abort if lost => {
                self.tell_failed(m, id, Failure::Unreachable(Peer::Destination));
            }
            Task::Answer(reply) | Task::Acknowledged(reply) => self.answer(m, id, reply),
            Task::Redirect => {
                let at = Time(self.now.0 - self.world.calibration.latency.0);
                self.drives[m as usize].gathering.redirected = true;
                self.answer(m, id, Reply::FaultsRedirected { at });
                self.adjust_gathering(m);
            }
            Task::Gathered(at) => self.gathered(m, id, at),
            Task::Abort => {
                let drive = &mut self.drives[m as usize];
                let (to, taken) = (drive.destination, std::mem::take(&mut drive.memory_taken));
                self.memory_freed(to, taken);
                self.answer(m, id, Reply::Aborted);
            }
            Task::Prepare { elide_zero_pages, channels } => {
                self.drives[m as usize].elide_zero_pages = elide_zero_pages;
                self.drives[m as usize].channels = channels;
                let cost = self.world.calibration.tracking_fault.as_secs_f64();
                self.guests[vm].start_tracking(cost);
                self.answer(m, id, Reply::Prepared);
            }
            Task::Peek(region) => {
                let dirty = self.guests[vm].region(region).dirty();
                self.answer(m, id, Reply::DirtyCount(dirty));
            }
            Task::Collect { region, limit, into } => self.collect(m, id, region, limit, into),
            Task::Pause => {
                self.set_run(m, Run::Paused);
                self.answer(m, id, Reply::Paused);
            }
            Task::StartAtSource => {
                self.set_run(m, Run::Running);
                self.answer(m, id, Reply::Resumed { at: self.now });
            }
            Task::StartAtDestination => self.start_at_destination(m, id),
        }
    }

    fn collect(&mut self, m: u32, id: CmdId, region: Region, limit: Option<Bytes>, into: Option<CmdId>) {
        self.drives[m as usize].collected |= region == Region::Memory;
        let vm = self.drives[m as usize].vm.0 as usize;
        let draw = self.settings.sampled.then_some(&mut self.rng);
        let set = self.guests[vm].region_mut(region).collect(limit, draw);
        let target = into.filter(|&send| self.drives[m as usize].carrier.holds(send));
        let Some(send) = target else {
            self.drives[m as usize].hold(region, &set);
            return self.answer(m, id, Reply::Dirty(set));
        };
        let placed = &self.guests[vm];
        let drive = &mut self.drives[m as usize];
        let queued = drive.carrier.find(send).expect("the send is under way");
        let sent = queued.account(placed);
        let added = queued.transfer.join(&set, placed.region(region));
        let pending = Bytes(queued.transfer.pending() as u64);
        self.reschedule(m);
        self.answer(m, id, Reply::Joined(Joined { added, pending, sent }));
    }

    fn start_send(&mut self, m: u32, id: CmdId, send: &Send<F::Set>) {
        self.sync(m);
        self.drives[m as usize].held(send.region).give(&send.set);
        self.carry_pages(m, id, send);
    }

    fn set_run(&mut self, m: u32, run: Run) {
        let vm = self.drives[m as usize].vm;
        self.guests[vm.0 as usize].guest.set_run(run);
        self.route_traffic_of(vm);
    }

    fn start_at_destination(&mut self, m: u32, id: CmdId) {
        let drive = &mut self.drives[m as usize];
        let (vm, to) = (drive.vm, drive.destination);
        drive.switched = true;
        let c = &self.world.calibration;
        let placed = &mut self.guests[vm.0 as usize];
        placed.stop_tracking();
        placed.guest.set_share(livemig_core::units::Share::FULL);
        if !drive.held.is_empty() || placed.guest.staged() > 0.0 {
            let handling = |applies: bool, cost: Span| if applies { cost } else { Span::ZERO };
            let packing = handling(drive.channels.compress, c.compress_per_page + c.decompress_per_page);
            let sealing = handling(drive.channels.encrypt, c.encrypt_per_page.times(2));
            let service = c.fault_service + packing + sealing;
            let path = FaultPath { latency: c.latency, service, order: drive.order };
            placed.guest.become_incomplete(&drive.held, path);
        }
        let at = self.now;
        drive.session.observe(Observation::ShareInForce { at, share: livemig_core::units::Share::FULL });
        self.move_guest(vm, to);
        self.set_run(m, Run::Running);
        self.later(m, id, self.world.calibration.latency, Task::Answer(Reply::Resumed { at }));
    }

    /// Fails a command that cannot be carried out, and gives back its pages.
    fn fail(&mut self, m: u32, id: CmdId, command: Command<F::Set>, failure: Failure) {
        let unsent = match command {
            Command::Send(send) => send.set,
            Command::DiscardStale { set } => set,
            Command::ReturnDirty { region, set } => {
                self.drives[m as usize].held(region).give(&set);
                F::Set::default()
            }
            Command::Resume { side: Side::Destination } => return self.tell_failed(m, id, Failure::NeverStarted),
            _ => F::Set::default(),
        };
        self.tell(m, Event::Failed { id, failure, sent: Sent::default(), unsent });
    }

    pub(crate) fn tell_failed(&mut self, m: u32, id: CmdId, failure: Failure) {
        self.tell(m, Event::Failed { id, failure, sent: Sent::default(), unsent: F::Set::default() });
    }

    fn recall(&mut self, m: u32, of: CmdId) {
        self.sync(m);
        if self.drives[m as usize].watcher.as_ref().is_some_and(|w| w.id == of) {
            self.forget_watch(m);
            self.tell(m, Event::Recalled { id: of, sent: Sent::default(), unsent: F::Set::default() });
        } else if self.drives[m as usize].gathering.is(of) {
            self.recall_gathering(m, of);
        } else if let Some((sent, unsent)) = self.take_transfer(m, of) {
            self.end_watch(m, WatchEnd::SendEnded);
            self.tell(m, Event::Recalled { id: of, sent, unsent });
        }
    }

    /// Fails every transfer that is under way.
    pub(crate) fn fail_transfers(&mut self, m: u32, failure: Failure) {
        self.sync(m);
        while let Some(id) = self.drives[m as usize].carrier.first() {
            self.fail_transfer(m, id, failure);
        }
    }

    /// Fails one transfer. The migration is at the present.
    pub(crate) fn fail_transfer(&mut self, m: u32, id: CmdId, failure: Failure) {
        let Some((sent, unsent)) = self.take_transfer(m, id) else { return };
        self.end_watch(m, WatchEnd::SendEnded);
        self.tell(m, Event::Failed { id, failure, sent, unsent });
    }

    /// Carries out what has waited for the link.
    pub(crate) fn unpark(&mut self, m: u32) {
        for (id, command) in std::mem::take(&mut self.drives[m as usize].parked) {
            self.execute(m, id, command);
        }
    }
}

/// Whether carrying a command out needs the destination's help.
fn needs_destination<S>(command: &Command<S>) -> bool {
    match command {
        Command::Reserve { .. }
        | Command::Prepare { .. }
        | Command::Send(_)
        | Command::SendState
        | Command::DiscardStale { .. }
        | Command::ServeFaults
        | Command::RedirectFaults
        | Command::Gather { .. }
        | Command::Abort
        | Command::Resume { side: Side::Destination } => true,
        Command::PeekDirty { .. }
        | Command::Collect { .. }
        | Command::ReturnDirty { .. }
        | Command::Recall { .. }
        | Command::Reclaim { .. }
        | Command::SetRate { .. }
        | Command::Throttle { .. }
        | Command::Pause
        | Command::Resume { side: Side::Source }
        | Command::Watch(_)
        | Command::Release => false,
    }
}

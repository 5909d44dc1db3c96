//! Hosts that stage pages: their room, what becomes of it when they are full or fail, and what the ledger is told.

use crate::engine::{Engine, Happening};
use crate::fidelity::{Fidelity, GuestModel, Run, TransferModel};
use crate::queue::Key;
use livemig_core::ledger::Observation;
use livemig_core::pages::PageSet;
use livemig_core::units::{Bytes, PAGE_SIZE, Span};
use livemig_core::vocabulary::{CmdId, Event, Failure, Peer, Region, Reply, Routes};
use livemig_models::world::{HostId, Role, World};

/// The room for staged pages at one host.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Bytes; infinite without a limit.
    room: f64,
    /// Migrations that may stage pages here, and which of their intermediaries this host is.
    users: Vec<(u32, u16)>,
    /// When there will be no room left.
    full: Option<Key>,
}

/// Less room than this is none.
const PAGE: f64 = PAGE_SIZE as f64;

impl Stage {
    pub(crate) fn of(world: &World) -> Vec<Stage> {
        let stages = world.hosts.iter().map(|h| {
            let limit = h.memory.filter(|_| h.role != Role::Host);
            Stage { room: limit.map_or(f64::INFINITY, |m| m.0 as f64), users: Vec::new(), full: None }
        });
        stages.collect()
    }
}

impl<F: Fidelity> Engine<'_, F> {
    /// The routes that are open, of those that a migration names.
    pub(crate) fn open_routes(&mut self, m: u32, routes: &Routes) -> Routes {
        let drive = &self.drives[m as usize];
        let host = |via: u16| drive.via[usize::from(via)];
        let via: Vec<u16> = routes.via.iter().copied().filter(|&v| !self.down[host(v).0 as usize].dead).collect();
        for &via in &via {
            let users = &mut self.stages[self.drives[m as usize].via[usize::from(via)].0 as usize].users;
            if !users.contains(&(m, via)) {
                users.push((m, via));
            }
        }
        // Without an intermediary what cannot be staged goes straight.
        Routes { direct: routes.direct || via.is_empty(), via, ..*routes }
    }

    /// What goes to intermediaries has changed, or how fast. The migration is at the present.
    pub(crate) fn scatter_changed(&mut self, m: u32) {
        if self.drives[m as usize].via.is_empty() {
            return;
        }
        self.unbalanced.push(m);
        self.adjust_gathering(m);
        self.stage_rates_changed(m);
        self.note_stage(m);
    }

    /// Bytes that a migration takes at an intermediary.
    fn stored_of(&self, m: u32, via: u16) -> f64 {
        self.guests[self.drives[m as usize].vm.0 as usize].guest.stored(via) * self.charged(m, via)
    }

    /// Tells the ledger what is staged. The migration is at the present.
    pub(crate) fn note_stage(&mut self, m: u32) {
        let factor = self.page_factor(m);
        for via in 0..self.drives[m as usize].via.len() as u16 {
            let bytes = Bytes(self.stored_of(m, via).round() as u64);
            self.drives[m as usize].session.observe(Observation::Staged { via, bytes });
        }
        let drive = &mut self.drives[m as usize];
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let fetched = Bytes((guest.fetched() * factor).round() as u64);
        let more = fetched.saturating_sub(drive.gathering.told);
        drive.gathering.told += more;
        drive.session.observe(Observation::Gathered(more));
    }

    /// The destination is told where pages are that have gone to intermediaries, so many wire bytes of them.
    pub(crate) fn announce_locations(&mut self, m: u32, scattered: f64) {
        if scattered > 0.0 {
            let pages = (scattered / self.page_factor(m) / PAGE).ceil() as u64;
            let bytes = Bytes(pages * self.world.calibration.location_message.0);
            self.drives[m as usize].session.observe(Observation::Control(bytes));
            self.note_stage(m);
        }
    }

    /// The rates at which a migration's pages reach and leave intermediaries have changed.
    pub(crate) fn stage_rates_changed(&mut self, m: u32) {
        for i in 0..self.drives[m as usize].via.len() {
            let host = self.drives[m as usize].via[i];
            if self.stages[host.0 as usize].room.is_finite() {
                self.foretell_full(host);
            }
        }
    }

    /// Brings an intermediary's books to the present: bytes that it stores, bytes per second that they grow by, and bytes that may still
    /// come.
    fn look_at_stage(&mut self, host: HostId) -> (f64, f64, f64) {
        let (mut stored, mut growth, mut to_come) = (0.0, 0.0, 0.0);
        for i in 0..self.stages[host.0 as usize].users.len() {
            let (m, via) = self.stages[host.0 as usize].users[i];
            self.sync(m);
            let drive = &self.drives[m as usize];
            let guest = &self.guests[drive.vm.0 as usize].guest;
            let charged = self.charged(m, via);
            stored += guest.stored(via) * charged;
            if let Some(front) = drive.carrier.front().filter(|q| q.routes.via.contains(&via)) {
                let copies = f64::from(front.routes.copies.max(1));
                growth += drive.carrier.ways.via_rate(via) / front.transfer.mean_factor() * copies * drive.carrier.ways.new_share();
                to_come += drive.carrier.pending();
            }
            let all: f64 = drive.gathering.lanes().iter().map(|l| l.1).sum();
            if all > 0.0 {
                // Where pages are stored several times, all of their holders drop them.
                let replicated = guest.stored(via) > guest.backlog(via) * (1.0 + 1e-9);
                let share = if replicated { all * guest.stored(via) / guest.staged() } else { drive.gathering.rate_from(via) };
                growth -= share * charged;
            }
        }
        (stored, growth, to_come)
    }

    fn foretell_full(&mut self, host: HostId) {
        let (stored, growth, to_come) = self.look_at_stage(host);
        let free = self.stages[host.0 as usize].room - stored;
        let at = (growth > 0.0 && to_come > free).then(|| self.now + Span::from_secs_f64((free / growth).max(0.0)).max(Span(1)));
        let key = self.stages[host.0 as usize].full;
        let key = self.reset(key, at, || Happening::StageFull(host));
        self.stages[host.0 as usize].full = key;
    }

    /// An intermediary should be full.
    pub(crate) fn stage_full(&mut self, host: HostId) {
        self.stages[host.0 as usize].full = None;
        let (stored, ..) = self.look_at_stage(host);
        if self.stages[host.0 as usize].room - stored >= PAGE {
            return self.foretell_full(host);
        }
        for (m, via) in self.stages[host.0 as usize].users.clone() {
            self.refuse_pages(m, via);
        }
    }

    /// An intermediary takes no more of a migration's pages: sends go round it. Those that had come to it, and everything that has no other
    /// way, are the migration's again.
    fn refuse_pages(&mut self, m: u32, via: u16) {
        let drive = &mut self.drives[m as usize];
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let mut refused = F::Set::default();
        let mut concerned = false;
        for queued in drive.carrier.queued().filter(|q| q.routes.via.contains(&via)) {
            queued.routes.via.retain(|&v| v != via);
            let most = if queued.routes.direct || !queued.routes.via.is_empty() { Bytes(PAGE_SIZE) } else { Bytes(u64::MAX) };
            concerned = true;
            loop {
                let set = queued.transfer.take_out(most, guest);
                let none = set.is_empty();
                refused.merge(set);
                if none || most.0 == PAGE_SIZE {
                    break;
                }
            }
        }
        if concerned {
            drive.hold(Region::Memory, &refused);
            self.ways_changed(m);
            self.tell(m, Event::StageRefused { via, set: refused });
        }
    }

    /// The routes of the transfers of a migration have changed.
    fn ways_changed(&mut self, m: u32) {
        self.need_flows(m);
        self.reschedule(m);
        self.scatter_changed(m);
    }

    /// An intermediary has failed: sends go round it, and those that cannot fail. Without the source, what only it had is lost.
    pub(crate) fn intermediary_dead(&mut self, m: u32, via: u16) {
        self.sync(m);
        self.stop_fetching_from(m, via);
        let drive = &mut self.drives[m as usize];
        drive.carrier.queued().for_each(|q| q.routes.via.retain(|&v| v != via));
        let stuck: Vec<CmdId> =
            drive.carrier.queued().filter(|q| !q.routes.direct && q.routes.via.is_empty()).map(|q| q.transfer.id()).collect();
        for id in stuck {
            self.fail_transfer(m, id, Failure::Unreachable(Peer::Intermediary(via)));
        }
        self.ways_changed(m);
        self.tell(m, Event::PeerDead { peer: Peer::Intermediary(via), recoverable: false });
        if self.drives[m as usize].gathering.released || self.source_is_gone(m) {
            self.lose_pages(m, via);
        }
    }

    fn lose_pages(&mut self, m: u32, via: u16) {
        let vm = self.drives[m as usize].vm;
        let bytes = self.guests[vm.0 as usize].guest.lose_stage(via).len();
        self.note_stage(m);
        if bytes.is_zero() {
            self.adjust_gathering(m);
        } else {
            self.declare_lost(m, bytes);
        }
    }

    /// Pages of a guest at the destination are nowhere any more, and so is the guest.
    pub(crate) fn declare_lost(&mut self, m: u32, bytes: Bytes) {
        let vm = self.drives[m as usize].vm;
        self.drives[m as usize].gathering.lost += bytes;
        self.guests[vm.0 as usize].guest.set_run(Run::Dead);
        self.route_traffic_of(vm);
        self.fail_gathering(m, Failure::PagesLost { bytes });
    }

    /// The pages that only an intermediary had are the migration's again.
    pub(crate) fn reclaim_stage(&mut self, m: u32, id: CmdId, via: u16) {
        self.sync(m);
        let drive = &mut self.drives[m as usize];
        let set = self.guests[drive.vm.0 as usize].guest.lose_stage(via);
        drive.hold(Region::Memory, &set);
        self.note_stage(m);
        self.answer(m, id, Reply::Reclaimed(set));
        self.adjust_gathering(m);
    }

    /// Nothing of a migration is staged any more, and nothing will be.
    pub(crate) fn leave_stages(&mut self, m: u32) {
        let drive = &mut self.drives[m as usize];
        if drive.via.is_empty() {
            return;
        }
        let guest = &mut self.guests[drive.vm.0 as usize].guest;
        for via in 0..drive.via.len() as u16 {
            guest.lose_stage(via);
        }
        self.note_stage(m);
        for host in self.drives[m as usize].via.clone() {
            self.stages[host.0 as usize].users.retain(|u| u.0 != m);
            if self.stages[host.0 as usize].room.is_finite() {
                self.foretell_full(host);
            }
        }
    }
}

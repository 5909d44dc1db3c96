//! Transfers on flows: which transfer has the migration's bandwidth, when it is over, and who watches it.

use crate::engine::{Engine, Happening};
use crate::fidelity::{Fidelity, GuestModel, Lanes, Load, TransferModel, WirePrice};
use crate::network::FlowId;
use crate::placed::Placed;
use crate::queue::Key;
use crate::watcher::{Progress, Watcher};
use crate::ways::Ways;
use livemig_core::ledger::Observation;
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Region, Reply, Routes, Send, Sent, Watch, WatchEnd};
use std::collections::VecDeque;

/// A transfer, with what the engine keeps about it.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) transfer: T,
    pub(crate) region: Region,
    pub(crate) streams: u16,
    pub(crate) routes: Routes,
    /// Wire bytes that have gone to intermediaries, each page counted once.
    pub(crate) scattered: f64,
    /// Wire bytes that have gone beside these for replicas.
    replicated: f64,
    /// Wire bytes of these that did not go, because intermediaries had the pages; and bytes of these pages.
    saved: f64,
    deduplicated: f64,
    /// After how many wire bytes it is looked at again for what intermediaries know of it.
    pub(crate) look: Option<f64>,
    /// The share of it that intermediaries had at the last look.
    pub(crate) known: f64,
}

impl<T: TransferModel> Queued<T> {
    /// What has become of it so far, replicas included.
    pub(crate) fn account(&self, placed: &Placed<T::Guest>) -> Sent {
        let sent = self.transfer.account(placed.region(self.region));
        let wire = sent.wire + Bytes(self.replicated.round() as u64);
        let saved = self.saved.round();
        let wire = if saved < 0.0 { wire + Bytes(-saved as u64) } else { wire.saturating_sub(Bytes(saved as u64)) };
        Sent { wire, deduplicated: sent.deduplicated + Bytes(self.deduplicated.round() as u64), ..sent }
    }
}

/// The transfers of one migration, first come first served, and the flows that carry them.
#[derive(Debug)]
pub(crate) struct Carrier<T> {
    queue: VecDeque<Queued<T>>,
    pub(crate) ways: Ways,
    /// Until when the transfers were brought.
    since: Time,
    /// Since then, until `noted`: wire bytes carried at rates that were not looked at one by one.
    carried: f64,
    noted: Time,
    /// The rate for which the end of the transfer in front was foretold.
    planned: f64,
    /// The end was foretold early enough for rates up to [`BAND`] above it: at that time it is foretold again.
    early: bool,
    /// What the flow carries stands in its [`Line`](crate::engine::Line).
    followed: bool,
    arrival: Option<Key>,
}

/// How far a rate may move from the one for which the end of a transfer was foretold, relatively, until that is done again. Where many
/// migrations share links, each event moves the rates of all by a little; what they carry is exact all the same.
const BAND: f64 = 0.05;

/// Whether a rate is so near to the planned one that nothing is foretold again.
pub(crate) fn differs_little(rate: f64, planned: f64) -> bool {
    (rate - planned).abs() <= BAND * planned
}

impl<T> Default for Carrier<T> {
    fn default() -> Carrier<T> {
        Carrier {
            // The rest of memory and the state are mostly all that is on its way at once.
            queue: VecDeque::with_capacity(2),
            ways: Ways::default(),
            since: Time::ZERO,
            carried: 0.0,
            noted: Time::ZERO,
            planned: 0.0,
            early: false,
            followed: false,
            arrival: None,
        }
    }
}

impl<T: TransferModel> Carrier<T> {
    /// Wire bytes per second of the transfer in front, each page counted once.
    pub(crate) fn rate(&self) -> f64 {
        self.ways.rate()
    }

    pub(crate) fn holds(&self, id: CmdId) -> bool {
        self.queue.iter().any(|q| q.transfer.id() == id)
    }

    pub(crate) fn find(&mut self, id: CmdId) -> Option<&mut Queued<T>> {
        self.queue.iter_mut().find(|q| q.transfer.id() == id)
    }

    pub(crate) fn front(&self) -> Option<&Queued<T>> {
        self.queue.front()
    }

    fn front_transfer(&self) -> Option<&T> {
        self.queue.front().map(|q| &q.transfer)
    }

    pub(crate) fn first(&self) -> Option<CmdId> {
        self.front_transfer().map(TransferModel::id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the guest, which runs at the destination, waits for pages of a transfer.
    pub(crate) fn pushes(&self) -> bool {
        self.queue.iter().any(|q| q.transfer.load() == Load::Push)
    }

    /// Whether new pages are on their way to a host that must find memory for them.
    pub(crate) fn brings_new_pages(&self) -> bool {
        self.queue.front().is_some_and(|q| q.region == Region::Memory && q.transfer.is_first())
    }

    /// The mean rate since the transfers were brought up to date.
    fn mean_rate(&self, now: Time) -> f64 {
        let rate = self.rate();
        // Without a change in between it is the rate itself, to the last bit.
        if self.noted <= self.since || now <= self.since {
            return rate;
        }
        let carried = self.carried + rate * now.since(self.noted).as_secs_f64();
        carried / now.since(self.since).as_secs_f64()
    }

    /// A flow has another rate.
    fn set_rate(&mut self, now: Time, flow: FlowId, rate: f64) {
        self.carried += self.rate() * now.since(self.noted).as_secs_f64();
        self.noted = now;
        self.ways.set_rate(flow, rate);
    }

    /// The rate for which the end of the transfer in front is foretold.
    fn foretold_rate(&self) -> f64 {
        if self.early { self.planned * (1.0 + BAND) } else { self.planned }
    }

    /// Whether the rate would move by little if that of `flow` were this. Where several ways share a transfer every change matters.
    fn moves_little(&self, flow: FlowId, rate: f64) -> bool {
        let after = self.ways.rate_with(flow, rate);
        after.is_some_and(|after| differs_little(after, self.planned))
    }

    /// Bytes of pages of the transfer in front that are not yet sent.
    pub(crate) fn pending(&self) -> f64 {
        self.front_transfer().map_or(0.0, TransferModel::pending)
    }

    /// What has gone so far of every send that is not over.
    pub(crate) fn under_way(&self, placed: &Placed<T::Guest>) -> Vec<(CmdId, Sent)> {
        let sends = self.queue.iter().filter(|q| q.transfer.load() != Load::State);
        sends.map(|q| (q.transfer.id(), q.account(placed))).collect()
    }

    pub(crate) fn transfers(&mut self, region: Region) -> impl Iterator<Item = &mut T> {
        self.queue.iter_mut().filter(move |q| q.region == region).map(|q| &mut q.transfer)
    }

    /// Of the transfer in front intermediaries have this share.
    pub(crate) fn front_is_known(&mut self, share: f64) {
        if let Some(front) = self.queue.front_mut() {
            front.known = share;
        }
    }

    /// All that is not over.
    pub(crate) fn queued(&mut self) -> impl Iterator<Item = &mut Queued<T>> {
        self.queue.iter_mut()
    }

    /// How far the transfer is that a watch is on. What goes before it is pending too, so that progress is seen.
    fn watched(&self, send: CmdId, rate: f64, now: Time) -> Option<Progress> {
        let at = self.queue.iter().position(|q| q.transfer.id() == send)?;
        let front = progress(&self.queue[0].transfer, rate, now);
        if at == 0 {
            return Some(front);
        }
        let pending = self.queue.iter().take(at + 1).map(|q| q.transfer.pending()).sum();
        Some(Progress { sent: self.queue[at].transfer.wire_sent(), pending, rate: 0.0, ..front })
    }

    /// The transfer that has the bandwidth, and what it has had, which is still to be brought to `now`; what watches it is. Beside it,
    /// pages were fetched at the rates of `gather`.
    pub(crate) fn bring<'a>(
        &'a mut self,
        watcher: Option<&mut Watcher>,
        gather: &'a [(u16, f64)],
        now: Time,
    ) -> (Option<(Region, &'a mut T)>, Lanes<'a>) {
        let (since, rate) = (self.since, self.mean_rate(now));
        (self.since, self.noted, self.carried) = (now, now, 0.0);
        if let Some(watcher) = watcher
            && let Some(progress) = self.watched(watcher.send(), rate, since)
        {
            watcher.passed(progress, now);
        }
        let Some(front) = self.queue.front_mut() else {
            return (None, Lanes { rate: 0.0, direct: 0.0, via: &[], copies: 0, gather });
        };
        let elapsed = now.since(since).as_secs_f64();
        front.scattered += self.ways.scatter_rate() * elapsed;
        front.replicated += self.ways.replica_rate() * elapsed;
        if front.look.is_some() {
            front.saved += self.ways.saved_rate() * elapsed;
            front.deduplicated += self.ways.known_rate() * elapsed / front.transfer.mean_factor();
        }
        (Some((front.region, &mut front.transfer)), self.ways.lanes(rate, gather))
    }
}

fn progress(transfer: &impl TransferModel, rate: f64, now: Time) -> Progress {
    let page_rate = rate / transfer.mean_factor();
    Progress { now, sent: transfer.wire_sent(), pending: transfer.pending(), rate, page_rate }
}

impl<F: Fidelity> Engine<'_, F> {
    /// Puts pages on their way.
    pub(crate) fn carry_pages(&mut self, m: u32, id: CmdId, send: &Send<F::Set>) {
        let push = self.drives[m as usize].switched;
        let price = self.wire_price(m, send.region, send.is_first_copy());
        let vm = self.drives[m as usize].vm.0 as usize;
        if send.region == Region::Memory && !send.is_first_copy() {
            self.guests[vm].guest.supersede(&send.set);
        } else if !send.routes.via.is_empty() {
            self.drives[m as usize].gathering.new_pages = true;
        }
        let price = WirePrice { probe: send.routes.dedup.then(|| self.probe(send.streams)), ..price };
        if send.routes.dedup {
            self.deduplicate(m);
        }
        let transfer = F::Transfer::of_pages(id, send, push, price, self.guests[vm].region(send.region), self.now);
        let routes = self.open_routes(m, &send.routes);
        self.enqueue(m, transfer, send.region, send.streams, routes);
    }

    /// Wire bytes of a guest's pages, or blocks; those of zeros are there to be elided at the first copy only.
    pub(crate) fn wire_price(&self, m: u32, region: Region, first: bool) -> WirePrice {
        let drive = &self.drives[m as usize];
        let (vm, c) = (&self.world.vms[drive.vm.0 as usize], &self.world.calibration);
        let (zeros, compressed) = match (region, &vm.disk) {
            (Region::Disk, Some(disk)) => (disk.zero_share * disk.size.0 as f64, disk.compressed),
            (Region::Memory | Region::Disk, _) => (vm.zero_share * vm.memory.0 as f64, vm.compressed),
        };
        let elided = if first && drive.elide_zero_pages { zeros } else { 0.0 };
        let content = if drive.channels.compress { compressed } else { 1.0 };
        WirePrice { elided, content, header: c.page_header, mark: c.zero_page, probe: None }
    }

    pub(crate) fn start_state(&mut self, m: u32, id: CmdId) {
        let state = self.world.calibration.device_state;
        self.sync(m);
        let streams = self.drives[m as usize].carrier.ways.streams().max(1);
        self.enqueue(m, F::Transfer::of_state(id, state, self.now), Region::Memory, streams, Routes::direct());
    }

    fn enqueue(&mut self, m: u32, transfer: F::Transfer, region: Region, streams: u16, routes: Routes) {
        let guest = &self.guests[self.drives[m as usize].vm.0 as usize].guest;
        let expects = routes.dedup && !routes.via.is_empty() && F::shared_next(guest, &transfer).is_some();
        let look = expects.then(|| self.look_after(&transfer));
        let carrier = &mut self.drives[m as usize].carrier;
        let (scattered, replicated, saved, deduplicated) = (0.0, 0.0, 0.0, 0.0);
        carrier.queue.push_back(Queued {
            transfer,
            region,
            streams,
            routes,
            scattered,
            replicated,
            saved,
            deduplicated,
            look,
            known: 0.0,
        });
        if carrier.queue.len() == 1 {
            self.need_flows(m);
            self.transfer_changed(m);
        }
    }

    /// The network gives a migration's flow another rate.
    pub(crate) fn rate_changed(&mut self, m: u32, flow: FlowId, rate: f64) {
        let now = self.now;
        if self.drives[m as usize].gathering.carries(flow) {
            return self.fetch_rate_changed(m, flow, rate);
        }
        self.stop_following(m);
        let drive = &mut self.drives[m as usize];
        // A stall is a matter of time, which an early forecast would miss.
        let watched_for_stalls = drive.watcher.as_ref().is_some_and(Watcher::minds_stalls);
        let little = drive.carrier.moves_little(flow, rate) && !watched_for_stalls;
        if little && drive.carrier.early {
            drive.carrier.set_rate(now, flow, rate);
            self.note_rate(m);
            return self.follow(m);
        }
        self.sync(m);
        self.drives[m as usize].carrier.set_rate(now, flow, rate);
        self.note_rate(m);
        self.foretell(m, little);
        self.arrivals_changed(self.drives[m as usize].destination, m);
        self.scatter_changed(m);
    }

    /// From now on rates that make little difference are not told to the migration, if that is all the same to it.
    fn follow(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        let watched_for_stalls = drive.watcher.as_ref().is_some_and(Watcher::minds_stalls);
        if !drive.carrier.early || watched_for_stalls || drive.session.keeps_timeline() || self.uses_cores(m) {
            return;
        }
        let carrier = &mut self.drives[m as usize].carrier;
        if let Some(flow) = carrier.ways.only_flow() {
            self.lines[flow.index()].follow(carrier.planned, carrier.rate(), carrier.carried, carrier.noted);
            carrier.followed = true;
        }
    }

    /// Brings what the flow's line knows to the migration, which is told of every change from now on.
    pub(crate) fn stop_following(&mut self, m: u32) {
        let carrier = &mut self.drives[m as usize].carrier;
        if !std::mem::take(&mut carrier.followed) {
            return;
        }
        if let Some(flow) = carrier.ways.only_flow() {
            let line = self.lines[flow.index()].stop_following();
            (carrier.carried, carrier.noted) = (line.carried, line.noted);
            carrier.ways.set_rate(flow, line.rate);
        }
    }

    pub(crate) fn note_rate(&mut self, m: u32) {
        self.load_changed(m);
        let (now, drive) = (self.now, &mut self.drives[m as usize]);
        if drive.session.keeps_timeline() {
            let rate = Rate(if drive.carrier.queue.is_empty() { 0.0 } else { drive.carrier.ways.wire_rate() });
            drive.session.observe(Observation::Bandwidth { at: now, rate });
        }
    }

    /// What has the bandwidth, or how much there is, has changed: what follows from it is computed again.
    fn transfer_changed(&mut self, m: u32) {
        self.reschedule(m);
        self.arrivals_changed(self.drives[m as usize].destination, m);
    }

    /// Computes again when the transfer in front will be over and when its watch will hold.
    pub(crate) fn reschedule(&mut self, m: u32) {
        self.foretell(m, false);
    }

    /// Foretells when the transfer in front will be over and when its watch will hold; `early`, for the highest rate at which that is not
    /// foretold again.
    fn foretell(&mut self, m: u32, early: bool) {
        self.stop_following(m);
        let carrier = &mut self.drives[m as usize].carrier;
        (carrier.planned, carrier.early) = (carrier.rate(), early);
        let drive = &self.drives[m as usize];
        let rate = drive.carrier.foretold_rate();
        let placed = &self.guests[drive.vm.0 as usize];
        let left = drive.carrier.front().map(|q| q.transfer.time_left(rate, placed.region(q.region)));
        let left = left.map(|seconds| self.next_look(m, rate, seconds));
        let over = left.filter(|s| s.is_finite()).map(|seconds| self.now + Span::from_secs_f64(seconds));
        let tick = drive.watcher.as_ref().and_then(|w| w.next(drive.carrier.watched(w.send(), rate, self.now)?));
        let (arrival, watch) = (drive.carrier.arrival, drive.watch_key);
        let arrival = self.reset(arrival, over, || Happening::Arrived(m));
        let watch = self.reset(watch, tick, || Happening::Watch(m));
        let drive = &mut self.drives[m as usize];
        (drive.carrier.arrival, drive.watch_key) = (arrival, watch);
        self.follow(m);
    }

    /// Moves something in the queue to another time, or takes it out.
    pub(crate) fn reset(&mut self, key: Option<Key>, at: Option<Time>, what: impl FnOnce() -> Happening<F::Set>) -> Option<Key> {
        match (key, at) {
            (Some(key), Some(at)) if self.queue.reschedule(key, at) => Some(key),
            (Some(key), None) => {
                self.queue.cancel(key);
                None
            }
            (_, Some(at)) => Some(self.queue.push(at, what())),
            (None, None) => None,
        }
    }

    /// The transfer in front is over.
    pub(crate) fn arrived(&mut self, m: u32) {
        self.drives[m as usize].carrier.arrival = None;
        self.sync(m);
        let vm = self.drives[m as usize].vm.0 as usize;
        let carrier = &mut self.drives[m as usize].carrier;
        let rate = carrier.rate();
        if carrier.early || carrier.front_transfer().is_some_and(|t| !t.is_over(rate)) {
            return self.reschedule(m);
        }
        if carrier.front().is_some_and(|q| q.look.is_some() && q.transfer.pending() >= 0.5 * PAGE_SIZE as f64) {
            self.look_at_contents(m);
            self.note_rate(m);
            self.transfer_changed(m);
            return self.scatter_changed(m);
        }
        let Some(mut queued) = carrier.queue.pop_front() else { return };
        queued.transfer.finish();
        let sent = queued.account(&self.guests[vm]);
        let reply = match queued.transfer.load() {
            Load::State => Reply::StateSent { wire: sent.wire },
            Load::Pages | Load::Push => Reply::Sent(sent),
        };
        if queued.transfer.load() == Load::Push && self.drives[m as usize].source_has_sent_all() {
            self.guests[vm].guest.source_sent();
        }
        self.announce_locations(m, queued.scattered);
        self.next_transfer(m);
        self.end_watch(m, WatchEnd::SendEnded);
        self.acknowledge(m, queued.transfer.id(), reply);
        self.adjust_gathering(m);
    }

    /// The bandwidth goes to the next transfer, if there is one.
    fn next_transfer(&mut self, m: u32) {
        let now = self.now;
        match self.drives[m as usize].carrier.queue.front_mut() {
            Some(front) => {
                front.transfer.begin(now);
                self.need_flows(m);
            }
            None => self.loose.push(m),
        }
        self.transfer_changed(m);
    }

    /// Takes a transfer off its way: what has gone, and what has not, which the migration has in its hands again.
    pub(crate) fn take_transfer(&mut self, m: u32, id: CmdId) -> Option<(Sent, F::Set)> {
        let drive = &mut self.drives[m as usize];
        let placed = &self.guests[drive.vm.0 as usize];
        let at = drive.carrier.queue.iter().position(|q| q.transfer.id() == id)?;
        let queued = drive.carrier.queue.remove(at)?;
        let taken = (queued.account(placed), queued.transfer.unsent(placed.region(queued.region)));
        drive.hold(queued.region, &taken.1);
        self.announce_locations(m, queued.scattered);
        self.next_transfer(m);
        Some(taken)
    }

    /// A migration that is over sends nothing more.
    pub(crate) fn abandon_transfers(&mut self, m: u32) {
        self.sync(m);
        self.drives[m as usize].carrier.queue.clear();
        self.forget_watch(m);
        self.next_transfer(m);
        self.stop_gathering(m);
        self.leave_stages(m);
    }

    pub(crate) fn start_watch(&mut self, m: u32, id: CmdId, watch: Watch) {
        self.sync(m);
        let drive = &mut self.drives[m as usize];
        let rate = drive.carrier.rate();
        match drive.carrier.watched(watch.send, rate, self.now) {
            Some(progress) => {
                drive.watcher = Some(Watcher::new(id, watch, progress));
                self.reschedule(m);
            }
            None => {
                let nothing = Progress { now: self.now, sent: 0.0, pending: 0.0, rate, page_rate: rate };
                let watched = Watcher::new(id, watch, nothing).ended(WatchEnd::SendEnded, 0.0, Rate(rate));
                self.answer(m, id, Reply::Watched(watched));
            }
        }
    }

    /// A tick at which a watch was expected to hold.
    pub(crate) fn watch_tick(&mut self, m: u32) {
        self.drives[m as usize].watch_key = None;
        self.stop_following(m);
        let now = self.now;
        let drive = &mut self.drives[m as usize];
        let (since, rate) = (drive.carrier.since, drive.carrier.mean_rate(now));
        let Some(watcher) = drive.watcher.as_mut() else { return };
        let Some(before) = drive.carrier.watched(watcher.send(), rate, since) else { return };
        // The window that ends now began with the tick before.
        watcher.passed(before, Time(now.0 - 1));
        let window_start = watcher.window_start();
        self.sync(m);
        let drive = &mut self.drives[m as usize];
        let Some(watcher) = drive.watcher.as_ref() else { return };
        let Some(at) = drive.carrier.watched(watcher.send(), rate, now) else { return };
        match watcher.judge(at, at.sent - window_start) {
            Some(watched) => {
                let id = watcher.id;
                drive.watcher = None;
                self.answer(m, id, Reply::Watched(watched));
            }
            None => self.reschedule(m),
        }
    }

    /// Ends the watch on a transfer that is no longer there.
    pub(crate) fn end_watch(&mut self, m: u32, end: WatchEnd) {
        let drive = &mut self.drives[m as usize];
        let gone = drive.watcher.as_ref().is_some_and(|w| !drive.carrier.holds(w.send()));
        if let Some(watcher) = drive.watcher.take_if(|_| gone) {
            let watched = watcher.ended(end, 0.0, Rate(drive.carrier.rate()));
            self.forget_watch(m);
            self.answer(m, watcher.id, Reply::Watched(watched));
        }
    }

    pub(crate) fn forget_watch(&mut self, m: u32) {
        let drive = &mut self.drives[m as usize];
        drive.watcher = None;
        if let Some(key) = drive.watch_key.take() {
            self.queue.cancel(key);
        }
    }

    /// Bytes per second of new pages that reach the destination, at most until the migration's end is foretold again; used by the memory
    /// model.
    pub(crate) fn inflow(&self, m: u32) -> f64 {
        let drive = &self.drives[m as usize];
        let direct = match drive.carrier.front_transfer() {
            Some(t) if drive.carrier.brings_new_pages() => {
                drive.carrier.foretold_rate() * drive.carrier.ways.direct_share() / t.mean_factor()
            }
            Some(_) | None => 0.0,
        };
        direct + drive.gathering.new_pages_rate()
    }
}

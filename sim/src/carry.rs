//! Transfers on flows: which transfer has the migration's bandwidth, when it is over, and who watches it.

use crate::engine::{Engine, Happening, Owner};
use crate::fidelity::{Fidelity, GuestModel, Load, TransferModel, WirePrice};
use crate::network::FlowId;
use crate::queue::Key;
use crate::watcher::{Progress, Watcher};
use livemig_core::ledger::Observation;
use livemig_core::units::{PAGE_SIZE, Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Reply, Send, Sent, Watch, WatchEnd};
use std::collections::VecDeque;

/// The transfers of one migration, first come first served, and the flows that carry them.
#[derive(Debug)]
pub(crate) struct Carrier<T> {
    queue: VecDeque<T>,
    flows: Vec<(FlowId, f64)>,
    streams: u16,
    /// Until when the transfers were brought.
    since: Time,
    /// Since then, until `noted`: wire bytes carried at rates that were not looked at one by one.
    carried: f64,
    noted: Time,
    /// The rate for which the end of the transfer in front was foretold.
    planned: f64,
    /// The end was foretold early enough for rates up to [`BAND`] above it: at that time it is foretold again.
    early: bool,
    arrival: Option<Key>,
}

/// How far a rate may move from the one for which the end of a transfer was foretold, relatively, until that is done again. Where many
/// migrations share links, each event moves the rates of all by a little; what they carry is exact all the same.
const BAND: f64 = 0.05;

impl<T> Default for Carrier<T> {
    fn default() -> Carrier<T> {
        Carrier {
            queue: VecDeque::new(),
            flows: Vec::new(),
            streams: 0,
            since: Time::ZERO,
            carried: 0.0,
            noted: Time::ZERO,
            planned: 0.0,
            early: false,
            arrival: None,
        }
    }
}

impl<T: TransferModel> Carrier<T> {
    pub(crate) fn rate(&self) -> f64 {
        self.flows.iter().map(|f| f.1).sum()
    }

    pub(crate) fn holds(&self, id: CmdId) -> bool {
        self.queue.iter().any(|t| t.id() == id)
    }

    pub(crate) fn find(&mut self, id: CmdId) -> Option<&mut T> {
        self.queue.iter_mut().find(|t| t.id() == id)
    }

    pub(crate) fn first(&self) -> Option<CmdId> {
        self.queue.front().map(TransferModel::id)
    }

    /// Whether new pages are on their way to a host that must find memory for them.
    pub(crate) fn brings_new_pages(&self) -> bool {
        self.queue.front().is_some_and(TransferModel::is_first)
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
        if let Some(entry) = self.flows.iter_mut().find(|f| f.0 == flow) {
            entry.1 = rate;
        }
    }

    /// The rate for which the end of the transfer in front is foretold.
    fn foretold_rate(&self) -> f64 {
        if self.early { self.planned * (1.0 + BAND) } else { self.planned }
    }

    /// Whether the rate would move by little if that of `flow` were this.
    fn moves_little(&self, flow: FlowId, rate: f64) -> bool {
        let before = self.flows.iter().find(|f| f.0 == flow).map_or(0.0, |f| f.1);
        let after = self.rate() - before + rate;
        (after - self.planned).abs() <= BAND * self.planned
    }

    /// Bytes of pages of the transfer in front that are not yet sent.
    pub(crate) fn pending(&self) -> f64 {
        self.queue.front().map_or(0.0, TransferModel::pending)
    }

    /// What has gone so far of every send that is not over.
    pub(crate) fn under_way(&self, guest: &T::Guest) -> Vec<(CmdId, Sent)> {
        self.queue.iter().filter(|t| t.load() != Load::State).map(|t| (t.id(), t.account(guest))).collect()
    }

    pub(crate) fn transfers(&mut self) -> impl Iterator<Item = &mut T> {
        self.queue.iter_mut()
    }

    /// The transfer that has the bandwidth, and how much it has had, which is still to be brought to `now`. What watches it is.
    pub(crate) fn bring(&mut self, watcher: Option<&mut Watcher>, now: Time) -> Option<(&mut T, f64)> {
        let (since, rate) = (self.since, self.mean_rate(now));
        (self.since, self.noted, self.carried) = (now, now, 0.0);
        let transfer = self.queue.front_mut()?;
        if let Some(watcher) = watcher.filter(|w| w.send() == transfer.id()) {
            watcher.passed(progress(transfer, rate, since), now);
        }
        Some((transfer, rate))
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
        let price = self.wire_price(m, send.is_first_copy());
        let guest = &self.guests[self.drives[m as usize].vm.0 as usize].guest;
        let transfer = F::Transfer::of_pages(id, send, push, price, guest, self.now);
        self.enqueue(m, transfer, send.streams);
    }

    /// Wire bytes of a guest's pages; pages of zeros are there to be elided at the first copy only.
    pub(crate) fn wire_price(&self, m: u32, first: bool) -> WirePrice {
        let drive = &self.drives[m as usize];
        let (vm, c) = (&self.world.vms[drive.vm.0 as usize], &self.world.calibration);
        let elided = if first && drive.elide_zero_pages { vm.zero_share * vm.memory.0 as f64 } else { 0.0 };
        WirePrice { elided, header: c.page_header, mark: c.zero_page }
    }

    pub(crate) fn start_state(&mut self, m: u32, id: CmdId) {
        let state = self.world.calibration.device_state;
        self.sync(m);
        let streams = self.drives[m as usize].carrier.streams.max(1);
        self.enqueue(m, F::Transfer::of_state(id, state, self.now), streams);
    }

    fn enqueue(&mut self, m: u32, transfer: F::Transfer, streams: u16) {
        let carrier = &mut self.drives[m as usize].carrier;
        carrier.queue.push_back(transfer);
        if carrier.queue.len() == 1 {
            self.need_flows(m, streams);
            self.transfer_changed(m);
        }
    }

    /// Makes sure that the migration has its flows. Those that have just become unused are used again, which changes no rate.
    fn need_flows(&mut self, m: u32, streams: u16) {
        let drive = &self.drives[m as usize];
        if !drive.carrier.flows.is_empty() && drive.carrier.streams == streams {
            return;
        }
        self.drop_flows(m);
        let drive = &self.drives[m as usize];
        let routes = self.wiring.migration(drive.source, drive.destination, streams, drive.vm.0 as usize);
        let weight = f64::from(streams) / routes.len() as f64;
        let cap = self.flow_cap(m, streams, routes.len());
        for route in routes {
            let flow = self.add_flow(&route, weight, cap, Owner::Migration(m));
            self.drives[m as usize].carrier.flows.push((flow, 0.0));
        }
        self.drives[m as usize].carrier.streams = streams;
    }

    /// What each of `flows` flows may carry: its share of the migration's limit and of what its streams can process.
    fn flow_cap(&self, m: u32, streams: u16, flows: usize) -> Option<f64> {
        let per_page = self.world.calibration.send_per_page.as_secs_f64();
        let processed = (per_page > 0.0).then(|| f64::from(streams) * PAGE_SIZE as f64 / per_page);
        let drive = &self.drives[m as usize];
        let [limit, allowance] = [drive.limit, drive.allowance].map(|limit| limit.map(|l| l.0));
        [processed, limit, allowance].into_iter().flatten().min_by(f64::total_cmp).map(|cap| cap / flows as f64)
    }

    /// The migration's limit has changed.
    pub(crate) fn cap_flows(&mut self, m: u32) {
        let carrier = &self.drives[m as usize].carrier;
        let cap = self.flow_cap(m, carrier.streams, carrier.flows.len().max(1));
        for i in 0..carrier.flows.len() {
            self.net.set_cap(self.drives[m as usize].carrier.flows[i].0, cap);
            self.net_changed = true;
        }
    }

    pub(crate) fn drop_unused_flows(&mut self, m: u32) {
        if self.drives.has(m) && self.drives[m as usize].carrier.queue.is_empty() {
            self.drop_flows(m);
        }
    }

    fn drop_flows(&mut self, m: u32) {
        if self.drives[m as usize].carrier.flows.is_empty() {
            return;
        }
        self.sync(m);
        for (flow, _) in std::mem::take(&mut self.drives[m as usize].carrier.flows) {
            self.remove_flow(flow);
        }
        self.note_rate(m);
    }

    /// The network gives a migration's flow another rate.
    pub(crate) fn rate_changed(&mut self, m: u32, flow: FlowId, rate: f64) {
        let now = self.now;
        let drive = &mut self.drives[m as usize];
        // A stall is a matter of time, which an early forecast would miss.
        let watched_for_stalls = drive.watcher.as_ref().is_some_and(Watcher::minds_stalls);
        let little = drive.carrier.moves_little(flow, rate) && !watched_for_stalls;
        if little && drive.carrier.early {
            drive.carrier.set_rate(now, flow, rate);
            return self.note_rate(m);
        }
        self.sync(m);
        self.drives[m as usize].carrier.set_rate(now, flow, rate);
        self.note_rate(m);
        self.foretell(m, little);
        self.arrivals_changed(self.drives[m as usize].destination, m);
    }

    fn note_rate(&mut self, m: u32) {
        let (now, drive) = (self.now, &mut self.drives[m as usize]);
        if drive.session.keeps_timeline() {
            let rate = Rate(if drive.carrier.queue.is_empty() { 0.0 } else { drive.carrier.rate() });
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
        let carrier = &mut self.drives[m as usize].carrier;
        (carrier.planned, carrier.early) = (carrier.rate(), early);
        let drive = &self.drives[m as usize];
        let rate = drive.carrier.foretold_rate();
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let over = drive.carrier.queue.front().map(|t| t.time_left(rate, guest)).filter(|s| s.is_finite());
        let over = over.map(|seconds| self.now + Span::from_secs_f64(seconds));
        let tick = drive.carrier.queue.front().and_then(|t| {
            let watcher = drive.watcher.as_ref().filter(|w| w.send() == t.id())?;
            watcher.next(progress(t, rate, self.now))
        });
        let (arrival, watch) = (drive.carrier.arrival, drive.watch_key);
        let arrival = self.reset(arrival, over, || Happening::Arrived(m));
        let watch = self.reset(watch, tick, || Happening::Watch(m));
        let drive = &mut self.drives[m as usize];
        (drive.carrier.arrival, drive.watch_key) = (arrival, watch);
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
        if carrier.early || carrier.queue.front().is_some_and(|t| !t.is_over(rate)) {
            return self.reschedule(m);
        }
        let Some(mut transfer) = carrier.queue.pop_front() else { return };
        transfer.finish();
        let sent = transfer.account(&self.guests[vm].guest);
        let reply = match transfer.load() {
            Load::State => Reply::StateSent { wire: sent.wire },
            Load::Pages => Reply::Sent(sent),
            Load::Push => {
                self.guests[vm].guest.become_complete();
                Reply::Sent(sent)
            }
        };
        self.next_transfer(m);
        self.end_watch(m, WatchEnd::SendEnded);
        self.acknowledge(m, transfer.id(), reply);
    }

    /// The bandwidth goes to the next transfer, if there is one.
    fn next_transfer(&mut self, m: u32) {
        if self.drives[m as usize].carrier.queue.is_empty() {
            self.loose.push(m);
        }
        self.transfer_changed(m);
    }

    /// Takes a transfer off its way: what has gone, and what has not.
    pub(crate) fn take_transfer(&mut self, m: u32, id: CmdId) -> Option<(Sent, F::Set)> {
        let drive = &mut self.drives[m as usize];
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let at = drive.carrier.queue.iter().position(|t| t.id() == id)?;
        let transfer = drive.carrier.queue.remove(at)?;
        let taken = (transfer.account(guest), transfer.unsent(guest));
        self.next_transfer(m);
        Some(taken)
    }

    /// A migration that is over sends nothing more.
    pub(crate) fn abandon_transfers(&mut self, m: u32) {
        self.sync(m);
        self.drives[m as usize].carrier.queue.clear();
        self.forget_watch(m);
        self.next_transfer(m);
    }

    pub(crate) fn start_watch(&mut self, m: u32, id: CmdId, watch: Watch) {
        self.sync(m);
        let drive = &mut self.drives[m as usize];
        let rate = drive.carrier.rate();
        match drive.carrier.queue.front().filter(|t| t.id() == watch.send) {
            Some(transfer) => {
                drive.watcher = Some(Watcher::new(id, watch, progress(transfer, rate, self.now)));
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
        let now = self.now;
        let drive = &mut self.drives[m as usize];
        let (since, rate) = (drive.carrier.since, drive.carrier.mean_rate(now));
        let Some(transfer) = drive.carrier.queue.front() else { return };
        let Some(watcher) = drive.watcher.as_mut() else { return };
        // The window that ends now began with the tick before.
        watcher.passed(progress(transfer, rate, since), Time(now.0 - 1));
        let window_start = watcher.window_start();
        self.sync(m);
        let drive = &mut self.drives[m as usize];
        let (Some(transfer), Some(watcher)) = (drive.carrier.queue.front(), drive.watcher.as_ref()) else { return };
        let at = progress(transfer, rate, now);
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

    /// Bytes per second of new pages, at most until the migration's end is foretold again; used by the memory model.
    pub(crate) fn inflow(&self, m: u32) -> f64 {
        let carrier = &self.drives[m as usize].carrier;
        match carrier.queue.front() {
            Some(t) if carrier.brings_new_pages() => carrier.foretold_rate() / t.mean_factor(),
            Some(_) | None => 0.0,
        }
    }
}

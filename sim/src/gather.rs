//! Gathering: the destination fetches what intermediaries stage.
//!
//! Each intermediary's pages come over a flow of their own. Where there is a backlog it takes what the network gives; where there is none, what
//! the intermediary gets is passed on as it comes. One thread at the destination reads block after block, so that its time per page
//! (`gather_per_page`) adds to that of the transfer instead of overlapping it: of a flow with rate `R` it makes `R / (1 + R t / page)`.

use crate::drive::Task;
use crate::engine::{Engine, Happening, Owner};
use crate::fidelity::{Fidelity, GuestModel, TransferModel};
use crate::network::FlowId;
use crate::queue::Key;
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span, Time};
use livemig_core::vocabulary::{CmdId, Event, Failure, Peer, Region, Reply, Sent};

/// Fewer bytes than this are nothing: rounding.
const NOTHING: f64 = 1.0;

/// The flow of one intermediary's pages.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    via: u16,
    flow: FlowId,
    rate: f64,
    cap: Option<f64>,
}

/// What a migration fetches.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    /// The command, while it is not done.
    id: Option<CmdId>,
    limit: Option<Rate>,
    fetches: Vec<Fetch>,
    /// Bytes of pages per second from each intermediary.
    lanes: Vec<(u16, f64)>,
    /// When a backlog will be empty.
    key: Option<Key>,
    /// Pages are new to the destination: it needs memory for them.
    pub(crate) new_pages: bool,
    /// The destination asks the source no more.
    pub(crate) redirected: bool,
    /// The source is released.
    pub(crate) released: bool,
    /// Bytes of pages that are nowhere any more.
    pub(crate) lost: Bytes,
    /// Wire bytes from intermediaries that the ledger knows of.
    pub(crate) told: Bytes,
}

impl Gathering {
    pub(crate) fn carries(&self, flow: FlowId) -> bool {
        self.fetches.iter().any(|f| f.flow == flow)
    }

    /// Whether the destination is fetching.
    pub(crate) fn is_open(&self) -> bool {
        self.id.is_some()
    }

    pub(crate) fn is(&self, id: CmdId) -> bool {
        self.id == Some(id)
    }

    pub(crate) fn lanes(&self) -> &[(u16, f64)] {
        &self.lanes
    }

    /// Bytes per second of new pages.
    pub(crate) fn new_pages_rate(&self) -> f64 {
        if self.new_pages { self.lanes.iter().map(|l| l.1).sum() } else { 0.0 }
    }

    /// Bytes of pages per second from an intermediary.
    pub(crate) fn rate_from(&self, via: u16) -> f64 {
        self.lanes.iter().filter(|l| l.0 == via).map(|l| l.1).sum()
    }
}

impl<F: Fidelity> Engine<'_, F> {
    /// Wire bytes per byte of a page of a migration, with its header.
    pub(crate) fn page_factor(&self, m: u32) -> f64 {
        let price = self.wire_price(m, Region::Memory, false);
        price.content + price.header.0 as f64 / PAGE_SIZE as f64
    }

    /// Bytes of pages per second that a reader makes of a flow's wire bytes per second.
    fn read_rate(&self, m: u32, wire: f64) -> f64 {
        let pages = wire / self.page_factor(m);
        pages / (1.0 + pages * self.world.calibration.gather_per_page.as_secs_f64() / PAGE_SIZE as f64)
    }

    /// The wire rate of which a reader makes so many bytes of pages per second; `None` when it never makes so many.
    fn wire_rate_to_read(&self, m: u32, pages: f64) -> Option<f64> {
        let idle = 1.0 - pages * self.world.calibration.gather_per_page.as_secs_f64() / PAGE_SIZE as f64;
        (idle > 0.0).then(|| pages / idle * self.page_factor(m))
    }

    /// The destination begins to fetch.
    pub(crate) fn start_gathering(&mut self, m: u32, id: CmdId, limit: Option<Rate>) {
        self.sync(m);
        let drive = &mut self.drives[m as usize];
        if !drive.gathering.lost.is_zero() {
            let bytes = drive.gathering.lost;
            return self.tell_failed(m, id, Failure::PagesLost { bytes });
        }
        drive.gathering.id = Some(id);
        drive.gathering.limit = limit;
        let (to, vm) = (drive.destination, drive.vm.0 as usize);
        let streams = drive.carrier.ways.streams().max(1);
        let hosts: Vec<_> = (0_u16..).zip(drive.via.clone()).filter(|(_, h)| !self.down[h.0 as usize].dead).collect();
        for &(via, host) in &hosts {
            let routes = self.wiring.migration(Region::Memory, host, to, streams, vm);
            let weight = f64::from(streams) / hosts.len() as f64 / routes.len() as f64;
            for route in routes {
                let flow = self.add_flow(&route, weight, Some(0.0), Owner::Migration(m));
                self.drives[m as usize].gathering.fetches.push(Fetch { via, flow, rate: 0.0, cap: Some(0.0) });
            }
        }
        if self.source_is_gone(m) {
            self.go_on_without_source(m);
        } else {
            self.adjust_gathering(m);
        }
    }

    /// Whether the source has failed before it was released.
    pub(crate) fn source_is_gone(&self, m: u32) -> bool {
        let drive = &self.drives[m as usize];
        self.down[drive.source.0 as usize].dead && !drive.gathering.released
    }

    /// The destination, which is fetching, has learnt that the source is gone: what it misses and nobody else has is lost.
    pub(crate) fn go_on_without_source(&mut self, m: u32) {
        self.fail_transfers(m, Failure::Unreachable(Peer::Source));
        let drive = &mut self.drives[m as usize];
        let guest = &mut self.guests[drive.vm.0 as usize].guest;
        for (via, host) in (0..).zip(&drive.via) {
            if self.down[host.0 as usize].dead {
                guest.lose_stage(via);
            }
        }
        let missing = guest.at_source();
        if missing >= 0.5 * PAGE_SIZE as f64 {
            return self.declare_lost(m, Bytes(missing.round() as u64));
        }
        guest.source_sent();
        drive.gathering.redirected = true;
        self.adjust_gathering(m);
    }

    /// The network gives a fetch another rate.
    pub(crate) fn fetch_rate_changed(&mut self, m: u32, flow: FlowId, rate: f64) {
        self.sync(m);
        let read = self.read_rate(m, rate);
        let gathering = &mut self.drives[m as usize].gathering;
        if let Some(fetch) = gathering.fetches.iter_mut().find(|f| f.flow == flow) {
            fetch.rate = read;
        }
        gathering.lanes.clear();
        for f in &gathering.fetches {
            match gathering.lanes.last_mut().filter(|l| l.0 == f.via) {
                Some(lane) => lane.1 += f.rate,
                None => gathering.lanes.push((f.via, f.rate)),
            }
        }
        self.foretell_gathering(m);
        self.stage_rates_changed(m);
        self.arrivals_changed(self.drives[m as usize].destination, m);
    }

    /// What is staged, or how fast, has changed: fetches get what there is to fetch. The migration and its guest are at the present.
    pub(crate) fn adjust_gathering(&mut self, m: u32) {
        if self.drives[m as usize].gathering.id.is_none() || self.finish_gathering(m) {
            return;
        }
        let drive = &self.drives[m as usize];
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let factor = drive.carrier.front().map_or(1.0, |q| q.transfer.mean_factor());
        let count = |via: u16| drive.gathering.fetches.iter().filter(|f| f.via == via).count() as f64;
        let waiting = |via: u16| guest.backlog(via) >= NOTHING;
        let busy: f64 = drive.gathering.fetches.iter().filter(|f| waiting(f.via)).count() as f64;
        let limit = drive.gathering.limit.map(|l| l.0 / if busy > 0.0 { busy } else { 1.0 });
        let caps: Vec<(FlowId, Option<f64>)> = drive
            .gathering
            .fetches
            .iter()
            .map(|f| {
                let passing = || self.wire_rate_to_read(m, drive.carrier.ways.via_rate(f.via) / factor / count(f.via));
                let there = if waiting(f.via) { None } else { passing() };
                (f.flow, [limit, there].into_iter().flatten().min_by(f64::total_cmp))
            })
            .collect();
        for (i, (flow, cap)) in caps.into_iter().enumerate() {
            if std::mem::replace(&mut self.drives[m as usize].gathering.fetches[i].cap, cap) != cap {
                self.net.set_cap(flow, cap);
                self.net_changed = true;
            }
        }
        self.foretell_gathering(m);
    }

    /// Foretells when the first backlog will be empty.
    fn foretell_gathering(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        let guest = &self.guests[drive.vm.0 as usize].guest;
        let factor = drive.carrier.front().map_or(1.0, |q| q.transfer.mean_factor());
        let empty = |&(via, rate): &(u16, f64)| {
            let net = rate - drive.carrier.ways.via_rate(via) / factor;
            let backlog = guest.backlog(via);
            (backlog >= NOTHING && net > 0.0).then(|| backlog / net)
        };
        // The last of it may have come while the rate was changing.
        let over = drive.gathering.redirected && !drive.carrier.pushes() && guest.staged() < NOTHING;
        let first = drive.gathering.lanes.iter().filter_map(empty).min_by(f64::total_cmp).or(over.then_some(0.0));
        let at = first.map(|seconds| self.now + Span::from_secs_f64(seconds).max(Span(1)));
        let key = drive.gathering.key;
        let key = self.reset(key, at, || Happening::BacklogEmpty(m));
        self.drives[m as usize].gathering.key = key;
    }

    /// A backlog should be empty.
    pub(crate) fn backlog_empty(&mut self, m: u32) {
        self.drives[m as usize].gathering.key = None;
        self.sync(m);
        self.adjust_gathering(m);
    }

    /// Ends gathering when the destination has everything; whether it has.
    fn finish_gathering(&mut self, m: u32) -> bool {
        let drive = &self.drives[m as usize];
        let vm = drive.vm.0 as usize;
        if !drive.gathering.redirected || drive.carrier.pushes() || self.guests[vm].guest.staged() >= NOTHING {
            return false;
        }
        self.guests[vm].guest.stage_fetched();
        let Some(id) = self.drives[m as usize].gathering.id else { return false };
        self.note_stage(m);
        self.stop_gathering(m);
        let at = self.now;
        self.later(m, id, self.world.calibration.latency, Task::Gathered(at));
        true
    }

    /// Fetches nothing more.
    pub(crate) fn stop_gathering(&mut self, m: u32) {
        let gathering = &mut self.drives[m as usize].gathering;
        gathering.id = None;
        gathering.lanes.clear();
        let (key, fetches) = (gathering.key.take(), std::mem::take(&mut gathering.fetches));
        if let Some(key) = key {
            self.queue.cancel(key);
        }
        for fetch in fetches {
            self.remove_flow(fetch.flow);
        }
        self.stage_rates_changed(m);
        self.arrivals_changed(self.drives[m as usize].destination, m);
    }

    /// The fetches from one intermediary end.
    pub(crate) fn stop_fetching_from(&mut self, m: u32, via: u16) {
        self.sync(m);
        let gathering = &mut self.drives[m as usize].gathering;
        let (gone, left) = std::mem::take(&mut gathering.fetches).into_iter().partition::<Vec<_>, _>(|f| f.via == via);
        gathering.fetches = left;
        gathering.lanes.retain(|l| l.0 != via);
        for fetch in gone {
            self.remove_flow(fetch.flow);
        }
    }

    /// Gathering fails.
    pub(crate) fn fail_gathering(&mut self, m: u32, failure: Failure) {
        self.sync(m);
        if let Some(id) = self.drives[m as usize].gathering.id {
            self.stop_gathering(m);
            self.tell_failed(m, id, failure);
        }
    }

    /// Gathering is recalled.
    pub(crate) fn recall_gathering(&mut self, m: u32, id: CmdId) {
        self.stop_gathering(m);
        self.tell(m, Event::Recalled { id, sent: Sent::default(), unsent: F::Set::default() });
    }

    /// The destination has everything, and says so.
    pub(crate) fn gathered(&mut self, m: u32, id: CmdId, at: Time) {
        let drive = &self.drives[m as usize];
        if self.down[drive.destination.0 as usize].dead {
            self.tell_failed(m, id, Failure::Unreachable(Peer::Destination));
        } else {
            self.answer(m, id, Reply::Gathered { at });
        }
    }
}

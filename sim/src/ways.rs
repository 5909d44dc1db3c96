//! The flows of one migration's sends: straight to the destination, to intermediaries, or both.
//!
//! A send fills its direct way first and gives intermediaries what that does not take. In the network both are flows that share the
//! source's links, so that their weights have to say it: the direct flow weighs as much as the migration, and those to intermediaries weigh
//! next to nothing as long as it is held by the source. When it is held by the destination, its level there is below that of the source and
//! intermediaries get the weight that it leaves unused: `X = w v / (d + v)`, with `w` the migration's weight and `d`, `v` the rates of the
//! direct way and of all others. At its fixed point the migration as a whole has its fair share of the source, `d + v = w x level`.

use crate::dedup::Known;
use crate::engine::{Engine, Owner};
use crate::fidelity::{Fidelity, Lanes};
use crate::network::FlowId;
use livemig_core::vocabulary::{Region, Routes};

/// One flow of the network.
#[derive(Clone, Copy, Debug)]
struct Lane {
    flow: FlowId,
    rate: f64,
    /// The intermediary that it leads to; `None` straight to the destination.
    via: Option<u16>,
}

/// The flows of a migration and how fast they are.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    flows: Vec<Lane>,
    streams: u16,
    /// What the transfer is of for which they were made.
    region: Option<Region>,
    routes: Routes,
    /// Weight of the flows to intermediaries together.
    via_weight: f64,
    /// Wire bytes per second straight to the destination, and to each intermediary, each page counted once.
    direct: f64,
    via: Vec<(u16, f64)>,
    /// Wire bytes per second for replicas.
    replicas: f64,
    /// What intermediaries should have already of what goes to them. Rates to them are those of the pages, known or not.
    known: Known,
    /// What a flow straight to the destination, and another one, may carry; as last set.
    caps: [Option<f64>; 2],
}

/// Of the migration's weight, what flows to intermediaries have while they are only to be ready.
const READY: f64 = 1e-3;
/// Pages that intermediaries have pass as if at least this part of them went: what passes in a nanosecond, the grain of the engine's time, is
/// then less than a page.
const LEAST_SENT: f64 = 1e-4;
/// How far weights may be from their fixed point, relatively.
const WEIGHT_ERROR: f64 = 1e-3;
/// At which relative difference two levels are the same.
const SAME_LEVEL: f64 = 1e-6;

impl Ways {
    pub(crate) fn streams(&self) -> u16 {
        self.streams
    }

    /// What the transfer is of for which they were made.
    pub(crate) fn region(&self) -> Option<Region> {
        self.region
    }

    /// Wire bytes per second straight to the destination.
    pub(crate) fn direct_rate(&self) -> f64 {
        self.direct
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Wire bytes per second, each page counted once.
    pub(crate) fn rate(&self) -> f64 {
        if self.via.is_empty() { self.direct } else { self.direct + self.scatter_rate() }
    }

    /// What goes to intermediaries, each page counted once.
    pub(crate) fn scatter_rate(&self) -> f64 {
        self.via.iter().map(|v| v.1).sum()
    }

    /// What goes beside that for replicas.
    pub(crate) fn replica_rate(&self) -> f64 {
        self.replicas
    }

    /// Of that, what need not go because intermediaries have it.
    pub(crate) fn saved_rate(&self) -> f64 {
        self.scatter_rate() * self.known.wire
    }

    /// Wire bytes per second of pages that intermediaries have, each copy counted.
    pub(crate) fn known_rate(&self) -> f64 {
        self.scatter_rate() * self.known.pages * self.copies()
    }

    /// The share of the pages that is new to intermediaries.
    pub(crate) fn new_share(&self) -> f64 {
        1.0 - self.known.pages
    }

    pub(crate) fn set_known(&mut self, known: Known) {
        self.known = known;
        self.add_up();
    }

    fn copies(&self) -> f64 {
        f64::from(self.routes.copies.max(1)).min(self.via.len() as f64)
    }

    /// Everything that leaves the source.
    pub(crate) fn wire_rate(&self) -> f64 {
        self.rate() + self.replicas - self.saved_rate()
    }

    /// The share of the pages that goes straight to the destination.
    pub(crate) fn direct_share(&self) -> f64 {
        let rate = self.rate();
        if self.via.is_empty() || rate <= 0.0 { 1.0 } else { self.direct / rate }
    }

    /// What an intermediary gets, each page counted once.
    pub(crate) fn via_rate(&self, via: u16) -> f64 {
        self.via.iter().filter(|v| v.0 == via).map(|v| v.1).sum()
    }

    pub(crate) fn lanes<'a>(&'a self, rate: f64, gather: &'a [(u16, f64)]) -> Lanes<'a> {
        let direct = if self.via.is_empty() { rate } else { self.direct };
        Lanes { rate, direct, via: &self.via, copies: self.routes.copies, gather }
    }

    /// The flow that carries everything, if there is just one, straight to the destination.
    pub(crate) fn only_flow(&self) -> Option<FlowId> {
        match self.flows.as_slice() {
            [lane] if self.routes.via.is_empty() => Some(lane.flow),
            _ => None,
        }
    }

    /// The rate if that of `flow` were this; `None` where there are several ways.
    pub(crate) fn rate_with(&self, flow: FlowId, rate: f64) -> Option<f64> {
        if !self.routes.via.is_empty() {
            return None;
        }
        let before = self.flows.iter().find(|l| l.flow == flow).map_or(0.0, |l| l.rate);
        Some(self.rate() - before + rate)
    }

    pub(crate) fn set_rate(&mut self, flow: FlowId, rate: f64) {
        if let Some(lane) = self.flows.iter_mut().find(|l| l.flow == flow) {
            lane.rate = rate;
        }
        self.add_up();
    }

    /// Works out the rates by way.
    fn add_up(&mut self) {
        self.direct = self.flows.iter().filter(|l| l.via.is_none()).map(|l| l.rate).sum();
        self.replicas = 0.0;
        self.via.clear();
        if self.routes.via.is_empty() {
            return;
        }
        for &via in &self.routes.via {
            let rate = self.flows.iter().filter(|l| l.via == Some(via)).map(|l| l.rate).sum();
            self.via.push((via, rate));
        }
        let scatter = self.scatter_rate();
        if scatter <= 2.0 * READY * self.direct {
            // They are only ready: their bytes go straight.
            self.direct += scatter;
            self.via.iter_mut().for_each(|v| v.1 = 0.0);
        } else if self.known != Known::default() {
            let faster = 1.0 / (1.0 - self.known.wire).max(LEAST_SENT);
            let faster = if self.known.fastest > 0.0 { faster.min(self.known.fastest / scatter) } else { faster };
            self.via.iter_mut().for_each(|v| v.1 *= faster);
        }
        self.replicate();
    }

    /// With replicas, every intermediary stores the same share of the pages, so that the slowest sets the pace.
    fn replicate(&mut self) {
        let copies = self.copies();
        if copies > 1.0 {
            let slowest = self.via.iter().map(|v| v.1).fold(f64::INFINITY, f64::min);
            self.via.iter_mut().for_each(|v| v.1 = slowest / copies);
            self.replicas = self.scatter_rate() * (copies - 1.0) * (1.0 - self.known.wire);
        }
    }

    fn rates(&self) -> (f64, f64) {
        let sum = |direct: bool| self.flows.iter().filter(|l| l.via.is_none() == direct).map(|l| l.rate).sum();
        (sum(true), sum(false))
    }

    fn is_mixed(&self) -> bool {
        self.routes.direct && !self.routes.via.is_empty()
    }

    /// The weight that flows to intermediaries should have together.
    fn fitting_weight(&self) -> f64 {
        let w = f64::from(self.streams);
        let (direct, scatter) = self.rates();
        let held_by_source = (direct / w - scatter / self.via_weight).abs() <= SAME_LEVEL * direct / w;
        if held_by_source || direct + scatter <= 0.0 { w * READY } else { (w * scatter / (direct + scatter)).max(w * READY) }
    }
}

impl<F: Fidelity> Engine<'_, F> {
    /// Makes sure that the transfer in front has its flows. Those that have just become unused are used again, which changes no rate.
    pub(crate) fn need_flows(&mut self, m: u32) {
        let drive = &self.drives[m as usize];
        let Some(front) = drive.carrier.front() else { return };
        let (streams, region, ways) = (front.streams, front.region, &drive.carrier.ways);
        if !ways.is_empty() && ways.streams == streams && ways.region == Some(region) && ways.routes == front.routes {
            return;
        }
        let routes = front.routes.clone();
        self.drop_flows(m);
        self.drives[m as usize].carrier.ways = Ways { streams, region: Some(region), routes: routes.clone(), ..Ways::default() };
        if routes.direct {
            self.add_lanes(m, None, f64::from(streams));
        }
        let weight = f64::from(streams) * if routes.direct { READY } else { 1.0 };
        self.drives[m as usize].carrier.ways.via_weight = weight;
        for &via in &routes.via {
            self.add_lanes(m, Some(via), weight / routes.via.len() as f64);
        }
        self.look_at_contents(m);
        self.drives[m as usize].carrier.ways.add_up();
        self.claim_cores(m);
        self.cap_flows(m);
    }

    fn add_lanes(&mut self, m: u32, via: Option<u16>, weight: f64) {
        let drive = &self.drives[m as usize];
        let to = via.map_or(drive.destination, |i| drive.via[usize::from(i)]);
        let nics = drive.channels.nics.unwrap_or(u16::MAX).min(drive.carrier.ways.streams);
        let region = drive.carrier.ways.region.unwrap_or(Region::Memory);
        let routes = self.wiring.migration(region, drive.source, to, nics, drive.vm.0 as usize);
        let weight = weight / routes.len() as f64;
        for route in routes {
            let flow = self.add_flow(&route, weight, None, Owner::Migration(m));
            self.drives[m as usize].carrier.ways.flows.push(Lane { flow, rate: 0.0, via });
        }
    }

    /// The migration's limit has changed, or its flows.
    pub(crate) fn cap_flows(&mut self, m: u32) {
        let processed = self.processing_rate(m);
        let drive = &self.drives[m as usize];
        let ways = &drive.carrier.ways;
        let limit = [drive.limit, drive.allowance].into_iter().flatten().map(|l| l.0).min_by(f64::total_cmp);
        // What the direct way does not use of the limit is left for the others.
        let rest = limit.map(|l| if ways.is_mixed() { (l - ways.rates().0).max(0.0) } else { l });
        let direct = [processed, limit].into_iter().flatten().min_by(f64::total_cmp);
        let others = [processed, rest].into_iter().flatten().min_by(f64::total_cmp);
        let count = |direct: bool| ways.flows.iter().filter(|l| l.via.is_none() == direct).count().max(1) as f64;
        let caps = [direct.map(|c| c / count(true)), others.map(|c| c / count(false))];
        if std::mem::replace(&mut self.drives[m as usize].carrier.ways.caps, caps) == caps {
            return;
        }
        for i in 0..self.drives[m as usize].carrier.ways.flows.len() {
            let lane = self.drives[m as usize].carrier.ways.flows[i];
            self.net.set_cap(lane.flow, caps[usize::from(lane.via.is_some())]);
            self.net_changed = true;
        }
    }

    /// Gives the flows to intermediaries the weight, and under a limit the rate, that the direct way leaves them.
    pub(crate) fn balance_ways(&mut self, m: u32) {
        if !self.drives.has(m) || !self.drives[m as usize].carrier.ways.is_mixed() {
            return;
        }
        let drive = &mut self.drives[m as usize];
        let limited = drive.limit.is_some() || drive.allowance.is_some();
        let ways = &mut drive.carrier.ways;
        let weight = ways.fitting_weight();
        if (weight - ways.via_weight).abs() > WEIGHT_ERROR * ways.via_weight {
            ways.via_weight = weight;
            let flows = ways.flows.iter().filter(|l| l.via.is_some());
            let each = weight / flows.clone().count() as f64;
            for lane in flows {
                self.net.set_weight(lane.flow, each);
            }
            self.net_changed = true;
        }
        if limited {
            self.cap_flows(m);
        }
    }

    pub(crate) fn drop_unused_flows(&mut self, m: u32) {
        if self.drives.has(m) && self.drives[m as usize].carrier.is_empty() {
            self.drop_flows(m);
        }
    }

    fn drop_flows(&mut self, m: u32) {
        if self.drives[m as usize].carrier.ways.is_empty() {
            return;
        }
        self.sync(m);
        self.leave_cores(m);
        for lane in std::mem::take(&mut self.drives[m as usize].carrier.ways).flows {
            self.remove_flow(lane.flow);
        }
        self.note_rate(m);
        // What is staged does not grow any more.
        self.adjust_gathering(m);
    }
}

//! Application traffic: flows that move with their guests and share the network with migrations.

use crate::engine::{Engine, Happening, Owner};
use crate::fidelity::{Fidelity, GuestModel, Run};
use crate::network::FlowId;
use livemig_core::units::{Span, Time};
use livemig_models::world::{Endpoint, Traffic, VmId};

/// One flow between guests, hosts and the outside.
#[derive(Debug)]
pub(crate) struct TrafficFlow {
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    /// Offered rate; `None` takes whatever it gets.
    offered: Option<f64>,
    weight: f64,
    /// Its number in the scenario's list of flows; `None` for a guest's traffic with the outside.
    pub(crate) listed: Option<u32>,
    flow: Option<FlowId>,
    rate: f64,
    carried: f64,
    since: Time,
    /// Bytes carried, and when, at the first request and at the end of the time over which the mean rate is taken: the last ending of a
    /// migration, or when `measured_for` is over.
    marks: [(Time, f64); 2],
    /// For how long from the first request on its mean rate is taken.
    measured_for: Option<Span>,
    /// Bytes carried until rates were last begun to be measured.
    before: f64,
}

impl TrafficFlow {
    fn new(from: Endpoint, to: Endpoint, offered: Option<f64>, weight: f64, listed: Option<u32>) -> TrafficFlow {
        let marks = [(Time::ZERO, 0.0); 2];
        let (since, before) = (Time::ZERO, 0.0);
        TrafficFlow {
            from,
            to,
            offered,
            weight,
            listed,
            flow: None,
            rate: 0.0,
            carried: 0.0,
            since,
            marks,
            measured_for: None,
            before,
        }
    }

    pub(crate) fn set_rate(&mut self, now: Time, rate: f64) {
        self.carried += self.rate * now.since(self.since).as_secs_f64();
        self.since = now;
        self.rate = rate;
    }

    /// Remembers what has been carried until now: at the first request (0) or an ending (1).
    pub(crate) fn mark(&mut self, which: usize, now: Time) {
        self.set_rate(now, self.rate);
        self.marks[which] = (now, self.carried);
    }

    /// From now on its rate is measured.
    pub(crate) fn begin_measuring(&mut self, now: Time) {
        self.set_rate(now, self.rate);
        self.before = self.carried;
    }

    /// Mean rate in bytes per second since `begun`, when it was begun to be measured; at that moment itself, the rate then.
    pub(crate) fn measured(&self, begun: Time, now: Time) -> f64 {
        let carried = self.carried + self.rate * now.since(self.since).as_secs_f64() - self.before;
        let seconds = now.since(begun).as_secs_f64();
        if seconds > 0.0 { carried / seconds } else { self.rate }
    }

    /// Mean rate between the marks, in bytes per second.
    pub(crate) fn mean(&self) -> f64 {
        let [(from, before), (to, after)] = self.marks;
        let seconds = to.since(from).as_secs_f64();
        if seconds > 0.0 { (after - before) / seconds } else { self.rate }
    }

    /// Mean rate from the beginning of the run to the first request, in bytes per second; `None` when that is the same moment.
    pub(crate) fn mean_before(&self) -> Option<f64> {
        let (requested, carried) = self.marks[0];
        let seconds = requested.since(Time::ZERO).as_secs_f64();
        (seconds > 0.0).then(|| carried / seconds)
    }
}

impl<F: Fidelity> Engine<'_, F> {
    pub(crate) fn start_traffic(&mut self) {
        for (i, vm) in self.world.vms.iter().enumerate() {
            self.add_outside_traffic(VmId(i as u32), vm.traffic);
        }
        // Behind the guests' own, which may be many.
        self.listed = self.traffic.len()..self.traffic.len() + self.world.flows.len();
        for (i, f) in self.world.flows.iter().enumerate() {
            let flow = TrafficFlow::new(f.from, f.to, f.rate.map(|r| r.0), f.weight, Some(i as u32));
            self.add_traffic(TrafficFlow { measured_for: f.measured_for, ..flow });
        }
        for t in 0..self.traffic.len() {
            self.route_traffic(t as u32);
        }
    }

    fn add_outside_traffic(&mut self, vm: VmId, traffic: Traffic) {
        for (from, to, rate) in
            [(Endpoint::Vm(vm), Endpoint::Outside, traffic.tx), (Endpoint::Outside, Endpoint::Vm(vm), traffic.rx)]
        {
            if rate.0 > 0.0 {
                self.add_traffic(TrafficFlow::new(from, to, Some(rate.0), 1.0, None));
            }
        }
    }

    fn add_traffic(&mut self, flow: TrafficFlow) {
        let index = self.traffic.len() as u32;
        for end in [flow.from, flow.to] {
            if let Endpoint::Vm(vm) = end {
                self.traffic_of[vm.0 as usize].push(index);
            }
        }
        self.traffic.push(flow);
    }

    /// A guest's traffic with the outside changes.
    pub(crate) fn change_traffic(&mut self, vm: VmId, traffic: Traffic) {
        for t in std::mem::take(&mut self.traffic_of[vm.0 as usize]) {
            if self.traffic[t as usize].listed.is_some() {
                self.traffic_of[vm.0 as usize].push(t);
            } else if let Some(flow) = self.traffic[t as usize].flow.take() {
                self.traffic[t as usize].set_rate(self.now, 0.0);
                self.remove_flow(flow);
            }
        }
        self.add_outside_traffic(vm, traffic);
        self.route_traffic_of(vm);
    }

    /// A guest has moved, stopped or started.
    pub(crate) fn route_traffic_of(&mut self, vm: VmId) {
        for i in 0..self.traffic_of[vm.0 as usize].len() {
            self.route_traffic(self.traffic_of[vm.0 as usize][i]);
        }
    }

    fn route_traffic(&mut self, t: u32) {
        let flow = &self.traffic[t as usize];
        let (from, to) = (self.locate(flow.from), self.locate(flow.to));
        if let Some(old) = self.traffic[t as usize].flow.take() {
            self.traffic[t as usize].set_rate(self.now, 0.0);
            self.remove_flow(old);
        }
        let (Some((from, choice)), Some((to, other))) = (from, to) else { return };
        let links = self.wiring.traffic(from, to, choice.or(other).unwrap_or(0));
        if links.is_empty() {
            // Inside one host nothing limits a flow but what it offers.
            let rate = self.traffic[t as usize].offered.unwrap_or(0.0);
            self.traffic[t as usize].set_rate(self.now, rate);
            return;
        }
        let (weight, offered) = (self.traffic[t as usize].weight, self.traffic[t as usize].offered);
        let id = self.add_flow(&links, weight, offered, Owner::Traffic(t));
        self.traffic[t as usize].flow = Some(id);
    }

    /// The host of an end, with the number that chooses its NIC; `None` when nothing comes from there or goes there now.
    fn locate(&self, end: Endpoint) -> Option<(Option<livemig_models::world::HostId>, Option<usize>)> {
        match end {
            Endpoint::Outside => Some((None, None)),
            Endpoint::Host(h) => (!self.down[h.0 as usize].dead).then_some((Some(h), Some(0))),
            Endpoint::Vm(vm) => {
                let placed = &self.guests[vm.0 as usize];
                (placed.guest.run() == Run::Running).then_some((Some(placed.host), Some(vm.0 as usize)))
            }
        }
    }

    /// The first migration is requested: mean rates are taken from now on.
    pub(crate) fn begin_means(&mut self) {
        let now = self.now;
        for t in self.listed.clone() {
            let flow = &mut self.traffic[t];
            flow.mark(0, now);
            if let Some(span) = flow.measured_for {
                self.queue.push(now + span, Happening::MeanOver(t as u32));
                self.means_under_way += 1;
            }
        }
    }

    /// A migration has ended: so far go the means of the flows that have no time of their own.
    pub(crate) fn extend_means(&mut self) {
        let now = self.now;
        for flow in self.traffic[self.listed.clone()].iter_mut().filter(|flow| flow.measured_for.is_none()) {
            flow.mark(1, now);
        }
    }

    /// The time of one flow is over.
    pub(crate) fn end_mean(&mut self, t: u32) {
        self.traffic[t as usize].mark(1, self.now);
        self.means_under_way -= 1;
    }

    /// The run is over before the times of some flows.
    pub(crate) fn end_means_under_way(&mut self) {
        let now = self.now;
        for flow in &mut self.traffic[self.listed.clone()] {
            if flow.measured_for.is_some_and(|span| self.requested && flow.marks[0].0 + span > now) {
                flow.mark(1, now);
            }
        }
    }
}

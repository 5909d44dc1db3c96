//! Network traffic in a run: where each flow begins and ends while guests move, and what it has carried when.

use super::cast::{Cast, End, Stream};
use super::coordinator::Coordinator;
use super::launch::unexpected;
use crate::agent::message::ToAgent;
use crate::error::ExecError;
use crate::traffic::Flow;
use livemig_core::policy::selection::Measured;
use livemig_core::units::{Rate, Span, Time};
use std::collections::{BTreeMap, VecDeque};

/// What a flow of the scenario has carried.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowResult {
    /// The flow's name; of a guest's own traffic, the guest's and the direction (`vm1 tx`).
    pub name: String,
    /// Whether it is a `[[flow]]` of the scenario, rather than a guest's own traffic.
    pub listed: bool,
    /// Its mean rate from the first request to the last ending of a migration, or for the time that the scenario gives it.
    pub mean: Rate,
    /// Its mean rate from the moment at which every guest ran to the first request; `None` when that is the same moment.
    pub before: Option<Rate>,
}

/// What has come of one flow, wherever it came to.
#[derive(Debug, Default)]
struct Carried {
    /// By host, as it was last reported.
    by_host: BTreeMap<usize, u64>,
    /// How much there was altogether, and when; the first is older than what is asked for, or the beginning.
    seen: VecDeque<(Time, u64)>,
    /// How much when its mean begins and ends to be taken.
    marks: [Option<(Time, u64)>; 2],
}

/// The flows of a run.
#[derive(Debug)]
pub(super) struct Flows {
    /// In the order of the cast's.
    carried: Vec<Carried>,
    /// What each offers at present.
    offered: Vec<Option<Rate>>,
    /// The host of each guest.
    places: Vec<usize>,
    /// What is older than this is not asked for.
    window: Span,
    began: Time,
}

impl Flows {
    pub(super) fn of(cast: &Cast, window: Span) -> Flows {
        Flows {
            carried: cast.flows.iter().map(|_| Carried::default()).collect(),
            offered: cast.flows.iter().map(|flow| flow.rate).collect(),
            places: cast.guests.iter().map(|guest| guest.host).collect(),
            window,
            began: Time::ZERO,
        }
    }

    /// Every guest runs.
    pub(super) fn begin(&mut self, now: Time) {
        self.began = now;
    }

    /// The host of an end.
    pub(super) fn host_of(&self, end: End) -> usize {
        match end {
            End::Guest(guest) => self.places[guest],
            End::Host(host) => host,
        }
    }

    /// The guests of a host, by their numbers in the cast.
    pub(super) fn guests_of(&self, host: usize) -> impl Iterator<Item = usize> {
        self.places.iter().enumerate().filter(move |(_, place)| **place == host).map(|(guest, _)| guest)
    }

    /// So much of a flow had come to a host at this time.
    fn arrived(&mut self, flow: usize, host: usize, at: Time, bytes: u64) {
        let Some(carried) = self.carried.get_mut(flow) else { return };
        carried.by_host.insert(host, bytes);
        let all = carried.by_host.values().sum();
        // Two hosts' reports may overtake each other.
        let at = carried.seen.back().map_or(at, |last| last.0.max(at));
        carried.seen.push_back((at, all));
        while carried.seen.get(1).is_some_and(|second| at.since(second.0) > self.window) {
            carried.seen.pop_front();
        }
    }

    /// How much a flow had carried at a time within the window: between two reports, in proportion.
    fn carried_at(&self, flow: usize, at: Time) -> u64 {
        let seen = &self.carried[flow].seen;
        let next = seen.partition_point(|(when, _)| *when <= at);
        let before = next.checked_sub(1).map_or((self.began, 0), |last| seen[last]);
        let Some(&after) = seen.get(next) else { return before.1 };
        let (part, whole) = (at.since(before.0).0, after.0.since(before.0).0.max(1));
        before.1 + ((after.1 - before.1) as f64 * part as f64 / whole as f64) as u64
    }

    /// What guests and hosts have sent and received beyond their own hosts, over this time until now.
    pub(super) fn measured(&self, cast: &Cast, window: Span, now: Time) -> Measured {
        let since = Time(now.0.saturating_sub(window.0)).max(self.began);
        let seconds = now.since(since).as_secs_f64();
        let mut measured = Measured::default();
        for (index, flow) in cast.flows.iter().enumerate() {
            if self.host_of(flow.from) == self.host_of(flow.to) || seconds <= 0.0 {
                continue;
            }
            let bytes = self.carried_at(index, now) - self.carried_at(index, since);
            measured.add(cast.counted(flow.from), cast.counted(flow.to), bytes as f64 / seconds);
        }
        measured
    }

    /// The first migration is requested: mean rates are taken from now on.
    pub(super) fn begin_means(&mut self, now: Time) {
        self.mark(0, now, |_| true);
    }

    /// A migration has ended: so far go the means of flows that have no time of their own.
    pub(super) fn extend_means(&mut self, flows: &[Stream], now: Time) {
        self.mark(1, now, |flow| flows[flow].measured_for.is_none());
    }

    /// Ends the means whose time is over; whether there are others, whose time is not.
    pub(super) fn end_means(&mut self, flows: &[Stream], now: Time) -> bool {
        let over = |carried: &Carried, flow: &Stream| {
            let begun = carried.marks[0].map(|mark| mark.0);
            flow.measured_for.zip(begun).filter(|_| carried.marks[1].is_none()).map(|(span, begun)| begun + span <= now)
        };
        let due: Vec<Option<bool>> = self.carried.iter().zip(flows).map(|(carried, flow)| over(carried, flow)).collect();
        self.mark(1, now, |flow| due[flow] == Some(true));
        due.contains(&Some(false))
    }

    fn mark(&mut self, which: usize, now: Time, of: impl Fn(usize) -> bool) {
        for flow in (0..self.carried.len()).filter(|&flow| of(flow)) {
            self.carried[flow].marks[which] = Some((now, self.carried_at(flow, now)));
        }
    }

    /// What came of every flow.
    pub(super) fn results(&self, flows: &[Stream], now: Time) -> Vec<FlowResult> {
        let mean = |from: (Time, u64), to: (Time, u64)| {
            let seconds = to.0.since(from.0).as_secs_f64();
            (seconds > 0.0).then(|| Rate(to.1.saturating_sub(from.1) as f64 / seconds))
        };
        let one = |(index, flow): (usize, &Stream)| {
            let begin = (self.began, 0);
            let [requested, ended] = self.carried[index].marks;
            let requested = requested.unwrap_or(begin);
            let ended = ended.unwrap_or_else(|| (now, self.carried_at(index, now)));
            FlowResult {
                name: flow.name.clone(),
                listed: flow.listed,
                mean: mean(requested, ended).unwrap_or_default(),
                before: mean(begin, requested),
            }
        };
        flows.iter().enumerate().map(one).collect()
    }
}

impl Coordinator<'_> {
    /// A host says what has come to it.
    pub(super) fn arrived(&mut self, host: usize, at: Time, flows: &[(u32, u64)]) {
        for &(flow, bytes) in flows {
            self.flows.arrived(flow as usize, host, at, bytes);
        }
    }

    /// Opens every flow, where its guests are now.
    pub(super) fn open_flows(&mut self) -> Result<(), ExecError> {
        (0..self.cast.flows.len()).try_for_each(|flow| self.open_flow(flow))
    }

    fn open_flow(&mut self, index: usize) -> Result<(), ExecError> {
        let cast = self.cast;
        let flow = &cast.flows[index];
        let (from, to) = (self.flows.host_of(flow.from), self.flows.host_of(flow.to));
        let (rate, number) = (self.flows.offered[index], u32::try_from(index).map_err(|_| unexpected())?);
        if rate == Some(Rate::ZERO) {
            return self.tell(from, &ToAgent::CloseFlow { flow: number });
        }
        let guest = |end: End| match end {
            End::Guest(guest) => Some(cast.guests[guest].vm.0),
            End::Host(_) => None,
        };
        let (sender, receiver) = (guest(flow.from), guest(flow.to));
        let door = self.doors[to].as_ref().ok_or_else(unexpected)?;
        // As in the simulator a guest has one of the NICs, chosen by its number.
        let choice = sender.or(receiver).unwrap_or(0) as usize;
        let way = self.one_way((from, to), door, choice);
        let flow = Flow { number, from: sender, to: receiver, rate, way, key: self.key.ok_or_else(unexpected)? };
        self.tell(from, &ToAgent::OpenFlow(Box::new(flow)))
    }

    /// From now on a flow offers so much.
    pub(super) fn offer(&mut self, flow: usize, rate: Rate) -> Result<(), ExecError> {
        self.flows.offered[flow] = Some(rate);
        self.open_flow(flow)
    }

    /// A guest runs at another host: its traffic goes on there.
    pub(super) fn follow_guest(&mut self, vm: u32, host: usize) -> Result<(), ExecError> {
        let cast = self.cast;
        let Some(guest) = cast.guests.iter().position(|guest| guest.vm.0 == vm) else { return Err(unexpected()) };
        let left = std::mem::replace(&mut self.flows.places[guest], host);
        if left == host {
            return Ok(());
        }
        for (index, flow) in cast.flows.iter().enumerate() {
            let number = u32::try_from(index).map_err(|_| unexpected())?;
            if flow.from == End::Guest(guest) {
                self.tell(left, &ToAgent::CloseFlow { flow: number })?;
            }
            if [flow.from, flow.to].contains(&End::Guest(guest)) {
                self.open_flow(index)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cast::Guest;
    use super::*;
    use crate::content::Content;
    use crate::guest::{GuestSpec, Phase};
    use livemig_core::units::Bytes;
    use livemig_models::world::VmId;

    const MS: u64 = 1_000_000;

    /// One flow between two guests on hosts 0 and 1, 1000 bytes per millisecond, of which half a second is kept.
    fn flowing(until: u64) -> (Flows, Cast) {
        let guest = |number: u32| {
            let phases = vec![Phase { until: None, regions: Vec::new() }];
            let spec = GuestSpec { memory: Bytes::from_mib(1), vcpus: 1, seed: 0, content: Content::new(0), phases };
            Guest { vm: VmId(number), host: number as usize, spec }
        };
        let flow = Stream {
            name: "flow".to_owned(),
            listed: true,
            from: End::Guest(0),
            to: End::Guest(1),
            rate: None,
            measured_for: None,
        };
        let cast = Cast { guests: vec![guest(0), guest(1)], flows: vec![flow], ..Cast::default() };
        let mut flows = Flows::of(&cast, Span(500 * MS));
        flows.begin(Time(100 * MS));
        for ms in (110..=until).step_by(10) {
            flows.arrived(0, 1, Time(ms * MS), (ms - 100) * 1000);
        }
        (flows, cast)
    }

    #[test]
    fn rates_are_those_of_the_window_and_of_what_there_was_of_it() {
        for (until, window) in [(2000, 500), (2000, 100), (400, 500)] {
            let (flows, cast) = flowing(until);
            let measured = flows.measured(&cast, Span(window * MS), Time(until * MS));
            let (tx, rx) = (measured.guests[&0].tx, measured.guests[&1].rx);
            assert!((tx - 1e6).abs() < 1e3 && (tx - rx).abs() < 1e-9, "{measured:?}");
            assert!(flows.carried[0].seen.len() <= 52, "{}", flows.carried[0].seen.len());
        }
        let (mut flows, cast) = flowing(2000);
        // It has stood still for half of the window.
        let tx = flows.measured(&cast, Span(500 * MS), Time(2250 * MS)).guests[&0].tx;
        assert!((tx - 0.5e6).abs() < 1e4, "{tx}");
        flows.places[1] = 0;
        assert_eq!(flows.measured(&cast, Span(500 * MS), Time(2000 * MS)), Measured::default(), "inside a host");
    }

    #[test]
    fn what_comes_to_two_hosts_is_one_flow_with_a_mean() {
        let (mut flows, cast) = flowing(1000);
        let mut streams = cast.flows;
        flows.begin_means(Time(1000 * MS));
        flows.arrived(0, 2, Time(1100 * MS), 400_000);
        flows.extend_means(&streams, Time(1200 * MS));
        assert!(!flows.end_means(&streams, Time(1300 * MS)));
        let [result] = &flows.results(&streams, Time(5000 * MS))[..] else { panic!("one flow") };
        assert!((result.before.unwrap().0 - 1e6).abs() < 1e-3 && (result.mean.0 - 2e6).abs() < 1e-3, "{result:?}");
        // With a time of its own, its mean goes until that is over.
        streams[0].measured_for = Some(Span(400 * MS));
        flows.carried[0].marks[1] = None;
        flows.extend_means(&streams, Time(1250 * MS));
        assert!(flows.end_means(&streams, Time(1399 * MS)) && !flows.end_means(&streams, Time(1400 * MS)));
        assert!((flows.results(&streams, Time(5000 * MS))[0].mean.0 - 1e6).abs() < 1e-3);
    }
}

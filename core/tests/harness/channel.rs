//! Lanes: everything that is going to happen, in queues that keep their own order and know nothing of each other's.
//!
//! A connection is a lane in each direction; so is every independent activity of a host. What leaves different lanes is
//! interleaved by time in drawn runs, and in every possible way in exhaustive ones.

use std::collections::VecDeque;
use std::fmt;

use livemig_core::units::{Span, Time};
use livemig_core::vocabulary::Side;

use super::choice::Choices;

/// A queue of things to happen one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What befalls the world from outside: restored links, timeouts.
    World,
    /// Steps of a vCPU.
    Vcpu(usize),
    /// The source agent carries out commands, in the order in which they were given.
    Agent,
    /// Completions on their way to the machine; there are two such lanes, so that completions overtake each other.
    Completion(usize),
    /// Ticks of watches.
    Watch,
    /// A data connection has room for the next batch.
    Room(usize),
    /// Batches of pages on a data connection.
    Data(usize),
    /// Pages that the destination has asked for.
    Demand,
    /// Orders to the destination.
    Orders,
    /// Acknowledgements of batches.
    Acks(usize),
    /// Requests for pages.
    Asks,
    /// Answers to orders.
    Answers,
    /// What lingers in the buffers of old connections to the destination.
    Late,
    /// Batches of pages from the source to an intermediary.
    Stage(usize),
    /// What an intermediary has stored.
    Stored(usize),
    /// Requests of the destination to an intermediary.
    Fetch(usize),
    /// Pages from an intermediary to the destination.
    Fetched(usize),
}

pub(crate) const MAX_VCPUS: usize = 2;
pub(crate) const MAX_STREAMS: usize = 4;
pub(crate) const MAX_VIAS: usize = 3;

const ROOM: usize = 5 + MAX_VCPUS;
const DATA: usize = ROOM + MAX_STREAMS;
const ACKS: usize = DATA + MAX_STREAMS;
/// Acknowledgements of demanded pages have a lane of their own.
pub(crate) const DEMAND_ACKS: usize = MAX_STREAMS;
/// The last lane: what is put there while connections break is not lost once more.
const LATE: usize = REST + 4;
const REST: usize = ACKS + MAX_STREAMS + 1;
/// Four lanes for each intermediary.
const VIA: usize = LATE + 1;
const PER_VIA: usize = 4;
const LANES: usize = VIA + PER_VIA * MAX_VIAS;

impl Lane {
    fn index(self) -> usize {
        match self {
            Lane::World => 0,
            Lane::Agent => 1,
            Lane::Completion(i) => 2 + i,
            Lane::Watch => 4,
            Lane::Vcpu(i) => 5 + i,
            Lane::Room(i) => ROOM + i,
            Lane::Data(i) => DATA + i,
            Lane::Acks(i) => ACKS + i,
            Lane::Demand => REST,
            Lane::Orders => REST + 1,
            Lane::Asks => REST + 2,
            Lane::Answers => REST + 3,
            Lane::Late => LATE,
            Lane::Stage(i) => VIA + PER_VIA * i,
            Lane::Stored(i) => VIA + PER_VIA * i + 1,
            Lane::Fetch(i) => VIA + PER_VIA * i + 2,
            Lane::Fetched(i) => VIA + PER_VIA * i + 3,
        }
    }
}

/// Whether the lane with this index is a connection between source and destination.
fn is_connection(index: usize) -> bool {
    (DATA..VIA).contains(&index)
}

/// The intermediary to or from which a lane leads.
fn via_of(index: usize) -> Option<usize> {
    index.checked_sub(VIA).map(|i| i / PER_VIA)
}

/// The host on the other side of an intermediary's lane.
fn side_of(index: usize) -> Side {
    if (index - VIA) % PER_VIA < 2 { Side::Source } else { Side::Destination }
}

fn leads_to_destination(index: usize) -> bool {
    index < ACKS || index == Lane::Demand.index() || index == Lane::Orders.index()
}

struct Due<T> {
    at: Time,
    seq: u64,
    what: T,
}

/// Without the time, which has no influence on an exhaustive run.
impl<T: fmt::Debug> fmt::Debug for Due<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.fmt(f)
    }
}

/// All lanes of a world.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: [VecDeque<Due<T>>; LANES],
    seq: u64,
    link_up: bool,
    /// Intermediaries to which nothing gets through.
    via_down: [bool; MAX_VIAS],
    away: Option<Side>,
    /// Which lanes may have something on them, as bits.
    busy: u64,
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Lanes<T> {
        Lanes {
            lanes: std::array::from_fn(|_| VecDeque::new()),
            seq: 0,
            link_up: true,
            via_down: [false; MAX_VIAS],
            away: None,
            busy: 0,
        }
    }

    pub(crate) fn push(&mut self, lane: Lane, at: Time, what: T) {
        self.seq += 1;
        self.busy |= 1 << lane.index();
        let queue = &mut self.lanes[lane.index()];
        let at = queue.back().map_or(at, |last| last.at.max(at));
        queue.push_back(Due { at, seq: self.seq, what });
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<Time> {
        self.open().filter_map(|i| self.lanes[i].front()).map(|due| due.at).min()
    }

    /// The next thing to happen, and when.
    pub(crate) fn pop(&mut self, now: Time, choices: &mut Choices) -> Option<(Time, T)> {
        let lane = if choices.exhaustive() {
            let open: Vec<usize> = self.open().collect();
            *open.get(usize::try_from(choices.decide(open.len() as u64)).unwrap())?
        } else {
            self.open().filter_map(|i| self.lanes[i].front().map(|due| (due.at, due.seq, i))).min()?.2
        };
        let due = self.lanes[lane].pop_front()?;
        if self.lanes[lane].is_empty() {
            self.busy &= !(1 << lane);
        }
        Some((if choices.exhaustive() { now + Span(1) } else { due.at.max(now) }, due.what))
    }

    /// Lanes in which something can happen, of those that are not empty: those of a cut link stand still.
    fn open(&self) -> impl Iterator<Item = usize> + '_ {
        let mut left = self.busy;
        let busy = std::iter::from_fn(move || {
            let lane = left.trailing_zeros() as usize;
            left &= left.checked_sub(1)?;
            Some(lane)
        });
        busy.filter(|&i| !self.lanes[i].is_empty()).filter(|&i| match via_of(i) {
            Some(via) => !self.via_down[via] && self.away != Some(side_of(i)),
            None => self.link_up || !is_connection(i),
        })
    }

    pub(crate) fn cut_link(&mut self) {
        self.link_up = false;
    }

    pub(crate) fn restore_link(&mut self) {
        self.link_up = true;
    }

    /// Connections break: what is on them is lost from a random place on, in each direction of each. What goes to the destination
    /// may also linger in the buffers of an old connection, and come out of them at some time `within`.
    pub(crate) fn lose_some(&mut self, now: Time, within: Span, choices: &mut Choices) {
        for lane in DATA..LATE {
            let kept = usize::try_from(choices.below(self.lanes[lane].len() as u64 + 1)).unwrap();
            for due in self.lanes[lane].split_off(kept) {
                if leads_to_destination(lane) && choices.percent(60) {
                    self.push(Lane::Late, now + Span(choices.below(within.0)), due.what);
                }
            }
        }
    }

    /// Nothing is on the connections between source and destination any more.
    pub(crate) fn silence_connections(&mut self) {
        self.lanes[DATA..VIA].iter_mut().for_each(VecDeque::clear);
    }

    /// Nothing gets through to or from an intermediary, or everything again.
    pub(crate) fn set_via_down(&mut self, via: usize, down: bool) {
        self.via_down[via] = down;
    }

    pub(crate) fn via_is_down(&self, via: usize) -> bool {
        self.via_down[via]
    }

    /// Nothing is on the connections of an intermediary any more.
    pub(crate) fn silence_via(&mut self, via: usize) {
        let first = VIA + PER_VIA * via;
        self.lanes[first..first + PER_VIA].iter_mut().for_each(VecDeque::clear);
    }

    /// What is on the connections of an intermediary is lost from a random place on, in each direction of each.
    pub(crate) fn lose_some_of_via(&mut self, via: usize, choices: &mut Choices) {
        let first = VIA + PER_VIA * via;
        for queue in &mut self.lanes[first..first + PER_VIA] {
            let kept = usize::try_from(choices.below(queue.len() as u64 + 1)).unwrap();
            queue.truncate(kept);
        }
    }

    /// Nothing is on the way between a host and the intermediaries any more.
    pub(crate) fn silence_side(&mut self, side: Side) {
        let first = if side == Side::Source { VIA } else { VIA + 2 };
        for via in 0..MAX_VIAS {
            self.lanes[first + PER_VIA * via..][..2].iter_mut().for_each(VecDeque::clear);
        }
    }

    /// A host is away: nothing passes between it and intermediaries.
    pub(crate) fn set_away(&mut self, side: Option<Side>) {
        self.away = side;
    }

    /// What was going to happen on a lane, and will not.
    pub(crate) fn drain(&mut self, lane: Lane) -> Vec<T> {
        self.lanes[lane.index()].drain(..).map(|due| due.what).collect()
    }

    pub(crate) fn clear(&mut self, lane: Lane) {
        self.lanes[lane.index()].clear();
    }
}

//! A host while it is drained: its guests in their order, and which of them wait.

use super::rooms::Needs;
use crate::units::{Bytes, Time};

/// The guests of a host whose turn has come.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) host: u32,
    /// Its guests in the order in which they leave: a guest's place is its index here.
    pub(super) guests: Vec<u32>,
    /// Of those that may go anywhere, the pending ones, by place.
    free: Needs,
    /// Those that must go to certain hosts.
    bound: Vec<Bound>,
    /// Those that migrate.
    pub(super) running: Vec<u32>,
    /// How many are neither evicted nor given up.
    pub(super) left: u32,
    pub(super) evicted: u32,
    pub(super) given_up: u32,
    pub(super) began: Time,
}

/// Guests that must go to the same host.
#[derive(Clone, Debug)]
struct Bound {
    to: u32,
    /// Their places, ascending.
    places: Vec<u32>,
    /// The pending ones, by index in `places`.
    pending: Needs,
}

impl Source {
    /// A host with `guests` in the order in which they leave, all pending.
    pub(super) fn new(host: u32, guests: Vec<u32>, began: Time) -> Source {
        let left = guests.len() as u32;
        let free = Needs::none(guests.len());
        Source { host, guests, free, bound: Vec::new(), running: Vec::new(), left, evicted: 0, given_up: 0, began }
    }

    /// The guests at these places, ascending, must go to `to`.
    pub(super) fn bind(&mut self, to: u32, places: Vec<u32>) {
        let pending = Needs::none(places.len());
        self.bound.push(Bound { to, places, pending });
    }

    /// The hosts that guests must go to.
    pub(super) fn bound_to(&self) -> impl Iterator<Item = u32> {
        self.bound.iter().map(|b| b.to)
    }

    /// The guest at `place`, which must go to `to` if that is given, is pending.
    pub(super) fn put(&mut self, place: u32, to: Option<u32>, need: Bytes) {
        let (needs, i) = self.queue(place, to);
        needs.put(i, need);
    }

    /// The guest at `place`, which must go to `to` if that is given, is not pending.
    pub(super) fn clear(&mut self, place: u32, to: Option<u32>) {
        let (needs, i) = self.queue(place, to);
        needs.clear(i);
    }

    fn queue(&mut self, place: u32, to: Option<u32>) -> (&mut Needs, usize) {
        let Some(to) = to else { return (&mut self.free, place as usize) };
        let bound = self.bound.iter_mut().find(|b| b.to == to).expect("its destination was given when the turn began");
        let i = bound.places.binary_search(&place).expect("it was there when the turn began");
        (&mut bound.pending, i)
    }

    /// The least need of those that may go anywhere.
    pub(super) fn least_free(&self) -> Option<Bytes> {
        self.free.least()
    }

    /// The first place among those that may go anywhere and fit into `room`.
    pub(super) fn first_free(&self, room: Bytes) -> Option<u32> {
        self.free.first(room).map(|place| place as u32)
    }

    /// The first place among those that must go to a certain host where there is room now.
    pub(super) fn first_bound(&self, room_at: impl Fn(u32) -> Option<Bytes>) -> Option<u32> {
        let startable = |b: &Bound| Some(b.places[b.pending.first(room_at(b.to)?)?]);
        self.bound.iter().filter_map(startable).min()
    }
}

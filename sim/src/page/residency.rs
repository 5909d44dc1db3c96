//! A guest whose memory is still arriving, and the push that brings it.
//!
//! The first touch of a page that has not arrived makes its vCPU wait. The request takes one way and the service to reach the sender;
//! there the page is sent next if it has not been sent already, behind the page on the wire and earlier requests; it arrives one way
//! after its last byte left. The page is a pivot of the push from the moment at which the sender learns of the fault.

use super::guest::Guest;
use super::sampler::Hit;
use super::transfer::Transfer;
use crate::fidelity::{FaultPath, GuestModel, Lanes};
use livemig_core::ledger::Observation;
use livemig_core::pages::Bitmap;
use livemig_core::units::{PageIndex, Span};
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Residency {
    /// Pages that have not arrived.
    missing: Bitmap,
    /// Pages touched since the guest runs without all of its memory.
    touched: Bitmap,
    /// Pages that arrive at these moments.
    in_flight: VecDeque<(f64, PageIndex)>,
    /// Requests that reach the sender at these moments.
    requests: VecDeque<(f64, PageIndex)>,
    waiters: Vec<Waiter>,
    latency: f64,
    service: f64,
    /// First touches of pages that were there, not yet reported.
    present: u64,
}

/// A page that is waited for.
#[derive(Debug)]
struct Waiter {
    page: PageIndex,
    since: f64,
    vcpus: u32,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Arrival,
    Sent,
    /// A page has left the source for intermediaries.
    Scattered,
    /// A page has left an intermediary.
    Fetched,
    Request,
    Access,
    End,
}

impl Residency {
    pub(super) fn new(missing: Bitmap, path: FaultPath) -> Residency {
        Residency {
            missing,
            touched: Bitmap::default(),
            in_flight: VecDeque::new(),
            requests: VecDeque::new(),
            waiters: Vec::new(),
            latency: path.latency.as_secs_f64(),
            service: path.service.as_secs_f64(),
            present: 0,
        }
    }

    pub(super) fn touched(&self) -> &Bitmap {
        &self.touched
    }

    /// A page has left the source.
    fn sent(&mut self, at: f64, page: PageIndex) {
        self.in_flight.push_back((at + self.latency, page));
    }

    /// What is missing and is neither on its way nor `staged`.
    pub(super) fn at_source(&self, staged: &Bitmap) -> Bitmap {
        let on_their_way: Bitmap = self.in_flight.iter().map(|f| f.1).collect();
        let mut rest = self.missing.clone();
        rest.remove_all(&on_their_way);
        rest.remove_all(staged);
        rest
    }

    /// What rounding has left has left the source too; all that is missing but not `staged` is on its way.
    pub(super) fn all_sent(&mut self, at: f64, staged: &Bitmap) {
        for page in self.at_source(staged).iter() {
            self.sent(at, page);
        }
    }

    fn waiting(&self) -> u32 {
        self.waiters.iter().map(|w| w.vcpus).sum()
    }

    /// A new sender knows nothing of earlier requests.
    fn ask_again(&mut self, at: f64) {
        let reaches = at + self.latency + self.service;
        for waiter in &self.waiters {
            if !self.requests.iter().any(|r| r.1 == waiter.page) {
                self.requests.push_back((reaches, waiter.page));
            }
        }
    }

    fn begin_wait(&mut self, at: f64, page: PageIndex) {
        self.waiters.push(Waiter { page, since: at, vcpus: 1 });
        self.requests.push_back((at + self.latency + self.service, page));
    }

    /// Another vCPU touches a page that is waited for.
    fn join_wait(&mut self, page: PageIndex) {
        if let Some(waiter) = self.waiters.iter_mut().find(|w| w.page == page) {
            waiter.vcpus += 1;
        }
    }

    /// A page arrives; which, and how long the guest has waited for it, if it has.
    fn arrival(&mut self, at: f64) -> Option<(PageIndex, f64)> {
        let (_, page) = self.in_flight.pop_front()?;
        self.missing.remove(page);
        let waiter = self.waiters.iter().position(|w| w.page == page)?;
        Some((page, at - self.waiters.swap_remove(waiter).since))
    }

    fn is_over(&self) -> bool {
        self.missing.count() == 0
    }
}

impl Guest {
    pub(super) fn run_incomplete(
        &mut self,
        to: f64,
        push: Option<&mut Transfer>,
        lanes: &Lanes<'_>,
        observe: &mut impl FnMut(Observation),
    ) {
        let Some(mut residency) = self.residency.take() else { return };
        let mut push = push;
        let (rate, scatter) = (lanes.direct, lanes.rate - lanes.direct);
        if let Some(push) = push.as_deref_mut() {
            if push.greet() {
                residency.ask_again(self.at);
            }
            push.set_lanes(lanes, &self.places);
        }
        // Pages that are waited for share the way of those that come straight, while nothing is fetched.
        let otherwise = if push.is_some() && rate > 0.0 { rate } else { scatter };
        while !residency.is_over() {
            if let Some(push) = push.as_deref_mut().filter(|_| rate > 0.0) {
                push.load_next();
            }
            if let Some(push) = push.as_deref_mut().filter(|_| scatter > 0.0) {
                push.load_scatter(rate <= 0.0, &self.places);
            }
            self.places.set_rates(lanes.gather, otherwise);
            let running = self.vcpus - residency.waiting();
            let speed = self.speed() * f64::from(running) / f64::from(self.vcpus);
            let ahead = if speed > 0.0 { self.sampler.ahead(&residency.touched) } else { f64::INFINITY };
            let access = if speed > 0.0 { self.at + ahead / speed } else { f64::INFINITY };
            let sent = push.as_deref().map_or(f64::INFINITY, |p| self.at + p.wire_time(rate));
            let scattered = push.as_deref().and_then(Transfer::next_scattered);
            let fetched = self.places.next();
            let asked = residency.requests.front().filter(|r| push.is_some() || self.places.staged().contains(r.1));
            let request = asked.map_or(f64::INFINITY, |r| r.0);
            let arrival = residency.in_flight.front().map_or(f64::INFINITY, |f| f.0);
            let (next, at) = first_of(&[
                (Next::Arrival, arrival),
                (Next::Sent, sent),
                (Next::Scattered, scattered.map_or(f64::INFINITY, |s| self.at + s.0)),
                (Next::Fetched, fetched.map_or(f64::INFINITY, |f| self.at + f.0)),
                (Next::Request, request),
                (Next::Access, access),
                (Next::End, to),
            ]);
            let at = at.max(self.at);
            if let Some(push) = push.as_deref_mut() {
                push.carry((at - self.at) * rate);
                push.carry_scatter(at - self.at);
            }
            self.places.pass(at - self.at);
            let work = if next == Next::Access { ahead } else { ((at - self.at) * speed).min(ahead) };
            if speed > 0.0 {
                self.sampler.pass(work);
            }
            self.worked(at, work, observe);
            match (next, push.as_deref_mut()) {
                (Next::Arrival, _) => self.page_arrives(&mut residency, observe),
                (Next::Access, _) => self.access(&mut residency),
                (Next::Sent, Some(push)) => residency.sent(at, push.unload()),
                (Next::Scattered, Some(push)) => self.page_scattered(&mut residency, push, scattered.map_or(0, |s| s.1)),
                (Next::Fetched, _) => {
                    let page = fetched.and_then(|f| self.places.unload(f.1));
                    page.into_iter().for_each(|page| residency.sent(at, page));
                }
                (Next::Request, push) => {
                    let page = residency.requests.pop_front().map(|r| r.1);
                    match page.filter(|&p| self.places.staged().contains(p)) {
                        Some(page) => self.places.ask(page),
                        None => push.into_iter().for_each(|push| push.ask(page)),
                    }
                }
                (Next::Sent | Next::Scattered, None) => unreachable!("nobody sends"),
                (Next::End, _) => break,
            }
        }
        if residency.present > 0 {
            observe(Observation::FirstTouches(std::mem::take(&mut residency.present)));
        }
        if !residency.is_over() {
            self.residency = Some(residency);
        }
    }

    /// A page has left the source on the way to intermediaries, or, where nothing goes straight, to the guest that waits for it.
    fn page_scattered(&mut self, residency: &mut Residency, push: &mut Transfer, wire: usize) {
        let (page, asked, holders) = push.unload_scattered(wire, &self.places);
        if asked {
            return residency.sent(self.at, page);
        }
        self.places.store(page, holders.into_iter());
        if residency.waiters.iter().any(|w| w.page == page) {
            self.places.ask(page);
        }
    }

    fn page_arrives(&mut self, residency: &mut Residency, observe: &mut impl FnMut(Observation)) {
        if let Some((page, wait)) = residency.arrival(self.at) {
            self.sampler.has_come(page);
            observe(Observation::Faults { count: 1, stall: Span::from_secs_f64(wait) });
        }
    }

    fn access(&mut self, residency: &mut Residency) {
        match self.sampler.hit(&residency.touched) {
            Hit::Nothing => {}
            Hit::New(page) => {
                residency.touched.insert(page);
                if residency.missing.contains(page) {
                    residency.begin_wait(self.at, page);
                    self.sampler.wait_for(page);
                } else {
                    residency.present += 1;
                }
            }
            Hit::Waited(page) => residency.join_wait(page),
        }
    }
}

/// What comes first; of two at the same moment the one that is named first.
fn first_of(all: &[(Next, f64); 7]) -> (Next, f64) {
    all.iter().copied().fold((Next::End, f64::INFINITY), |first, other| if other.1 < first.1 { other } else { first })
}

//! The guest executes: its vCPUs touch pages at one of the hosts, and wait for those that are not there.

use livemig_core::units::PageIndex;
use livemig_core::vocabulary::{Region, Side};

use super::channel::Lane;
use super::guest::{Access, Deed};
use super::memory::{ZEROS, index, version, written};
use super::world::{Happening, World};

impl World {
    pub(crate) fn vcpu_step(&mut self, vcpu: usize) {
        let access = self.guest.next(vcpu, &mut self.choices);
        if self.perform(access) {
            self.arm(vcpu);
        } else {
            self.guest.blocked[vcpu] = Some(access);
        }
    }

    /// Reads or writes a page where the guest executes; whether the page was there.
    pub(crate) fn perform(&mut self, access: Access) -> bool {
        let Some(side) = self.guest.runs_at else { unreachable!("a stopped guest makes no steps") };
        let Access { page, deed } = access;
        let memory = if side == Side::Source { &mut self.source.memory } else { &mut self.destination.memory };
        let Some(old) = memory.get(page) else {
            self.page_is_missing(page);
            return false;
        };
        let ideal = self.ideal[index(page)];
        let step = self.guest.steps;
        let after = |before| match deed {
            Deed::Read => before,
            Deed::Write => written(before, page, step),
            Deed::Clear => ZEROS,
        };
        memory.put(page, after(old));
        self.ideal[index(page)] = after(ideal);
        self.guest.steps += 1;
        if deed != Deed::Read && side == Side::Source {
            self.source.tracker.wrote(page);
        }
        self.touched.push(page);
        if old != ideal {
            self.broken(format!(
                "at the {side:?} the guest finds version {} of page {}, not {}",
                version(old),
                page.0,
                version(ideal)
            ));
        }
        self.note(|| format!("guest: {deed:?} {} at the {side:?}", page.0));
        true
    }

    fn page_is_missing(&mut self, page: PageIndex) {
        self.note(|| format!("guest waits for {}", page.0));
        if self.guest.region(Region::Disk).contains(&page.0) {
            self.broken(format!("the guest runs without block {} of its disk", page.0));
            return;
        }
        match self.destination.ask(page) {
            Some(requests) => requests.into_iter().for_each(|(lane, message)| self.post_as_destination(lane, message)),
            None => self.broken(format!("page {} is missing and the destination may ask nobody", page.0)),
        }
    }

    /// vCPUs that waited for pages go on.
    pub(crate) fn unblock(&mut self) {
        for vcpu in 0..self.guest.vcpus() {
            if let Some(access) = self.guest.blocked[vcpu].filter(|a| self.destination.memory.get(a.page).is_some())
                && self.guest.runs_at == Some(Side::Destination)
            {
                self.guest.blocked[vcpu] = None;
                self.perform(access);
                self.arm(vcpu);
            }
        }
    }

    pub(crate) fn arm_vcpus(&mut self) {
        for vcpu in 0..self.guest.vcpus() {
            self.lanes.clear(Lane::Vcpu(vcpu));
            self.arm(vcpu);
        }
    }

    fn arm(&mut self, vcpu: usize) {
        let away = self.cut.and_then(|cut| cut.away);
        if self.guest.runs_at.is_some_and(|side| Some(side) != away)
            && let Some(pace) = self.guest.pace(vcpu, &mut self.choices)
        {
            self.lanes.push(Lane::Vcpu(vcpu), self.now + pace, Happening::Step(vcpu));
        }
    }

    /// The guest of a host that is away stands still.
    pub(crate) fn park_guest(&mut self) {
        if self.cut.and_then(|cut| cut.away) == self.guest.runs_at {
            (0..self.guest.vcpus()).for_each(|vcpu| self.lanes.clear(Lane::Vcpu(vcpu)));
        }
    }

    pub(crate) fn start_guest(&mut self, side: Side) {
        self.guest.runs_at = Some(side);
        if side == Side::Destination {
            self.guest.rouse();
        }
        self.arm_vcpus();
    }

    pub(crate) fn stop_guest(&mut self) {
        self.guest.runs_at = None;
        (0..self.guest.vcpus()).for_each(|vcpu| self.lanes.clear(Lane::Vcpu(vcpu)));
    }
}

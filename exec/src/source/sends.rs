//! Outstanding sends, and where each of their pages is.
//!
//! A page of a send is in one of three places: in the send's plan, on its way in a frame, or (when it has joined the send while
//! an older version of it was on its way) due *again* as soon as that frame is acknowledged. Two versions of a page are never on
//! their way at once.

use livemig_core::pages::Bitmap;
use livemig_core::push_plan::{Extent, PushPlan};
use livemig_core::tasks::TaskSizes;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex};
use livemig_core::vocabulary::{CmdId, Event, Failure, Joined, Reply, Send, Sent};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What carries pages: a stream with its index, the fault connection, or connections to intermediaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    Stream(u16),
    Fault,
    /// To one intermediary or several; its frames have numbers of their own.
    Staged,
}

impl Lane {
    pub(super) fn is_direct(self) -> bool {
        match self {
            Lane::Stream(_) | Lane::Fault => true,
            Lane::Staged => false,
        }
    }
}

/// A frame on its way.
pub(super) type Frame = (Lane, u32);

/// What is in a frame, and since when it is on its way.
#[derive(Debug)]
struct Flight {
    extents: Vec<Extent>,
    since: Instant,
}

/// A send that has not ended.
#[derive(Debug)]
pub(super) struct OutSend {
    pub(super) id: CmdId,
    pub(super) plan: PushPlan,
    pub(super) streams: u16,
    pub(super) recalled: bool,
    /// Whether its pages may go straight to the destination.
    pub(super) direct: bool,
    /// The intermediaries to which they may go.
    pub(super) via: Vec<u16>,
    /// How many intermediaries are to keep each page that goes there.
    pub(super) copies: u16,
    /// Intermediaries are asked for pages by their content before these are sent.
    pub(super) dedup: bool,
    flights: BTreeMap<Frame, Flight>,
    airborne: Bitmap,
    again: Bitmap,
    sent: Sent,
    skip_redirtied: bool,
}

impl OutSend {
    pub(super) fn new(id: CmdId, send: Send<Bitmap>, tasks: Option<TaskSizes>) -> OutSend {
        let plan = PushPlan::new(send.set, send.order);
        OutSend {
            id,
            plan: match tasks {
                Some(tasks) => plan.in_tasks(tasks.pages(send.region)),
                None => plan,
            },
            streams: send.streams,
            recalled: false,
            direct: send.routes.direct,
            via: send.routes.via,
            copies: send.routes.copies,
            dedup: send.routes.dedup,
            flights: BTreeMap::new(),
            airborne: Bitmap::default(),
            again: Bitmap::default(),
            sent: Sent::default(),
            skip_redirtied: send.skip_redirtied,
        }
    }

    /// Bytes of pages not yet sent.
    pub(super) fn pending(&self) -> Bytes {
        Bytes::from_pages(self.plan.left() + self.again.count())
    }

    /// Whether the send is responsible for the page.
    pub(super) fn holds(&self, page: PageIndex) -> bool {
        self.plan.contains(page) || self.airborne.contains(page) || self.again.contains(page)
    }

    pub(super) fn skips_redirtied(&self) -> bool {
        self.skip_redirtied
    }

    /// Takes the next pages for a stream, or for whoever has none, out of the plan, at most `most`; those that are dirty again are left out.
    pub(super) fn next(&mut self, stream: Option<u16>, most: u64, dirty: Option<&Bitmap>) -> Vec<Extent> {
        let (mut taken, mut pages) = (Vec::new(), 0);
        while pages < most {
            let extent = match stream {
                Some(stream) => self.plan.next_for(usize::from(stream), most - pages),
                None => self.plan.next(most - pages),
            };
            let Some(extent) = extent else { break };
            match dirty {
                None => {
                    pages += extent.pages;
                    taken.push(extent);
                }
                Some(dirty) => {
                    let kept = clean_parts(extent, dirty);
                    let clean: u64 = kept.iter().map(|e| e.pages).sum();
                    self.sent.skipped += Bytes((extent.pages - clean) * PAGE_SIZE);
                    pages += clean;
                    taken.extend(kept);
                }
            }
        }
        taken
    }

    /// Pages leave in a frame.
    pub(super) fn launch(&mut self, frame: Frame, extents: Vec<Extent>) {
        for extent in &extents {
            let fresh = self.airborne.insert_run(extent.first, extent.pages);
            debug_assert_eq!(fresh, extent.pages, "two versions of a page on their way");
        }
        self.flights.insert(frame, Flight { extents, since: Instant::now() });
    }

    /// What is on its way in a frame goes on in these.
    pub(super) fn divide(&mut self, frame: Frame, parts: impl IntoIterator<Item = (Frame, Vec<Extent>)>) {
        let Some(Flight { since, .. }) = self.flights.remove(&frame) else { return };
        self.flights.extend(parts.into_iter().map(|(frame, extents)| (frame, Flight { extents, since })));
    }

    /// What a frame takes on the wire.
    pub(super) fn count(&mut self, bytes: Bytes, lane: Lane) {
        self.sent.wire += bytes;
        if lane == Lane::Fault {
            self.sent.demand += bytes;
        }
    }

    /// Intermediaries had the content of so many pages, each copy counted.
    pub(super) fn had(&mut self, pages: u64) {
        self.sent.deduplicated += Bytes::from_pages(pages);
    }

    /// A frame has been applied: its pages and how long that took, if it was one of this send. Pages that have joined meanwhile are
    /// due again.
    pub(super) fn acknowledged(&mut self, frame: Frame) -> Option<(Vec<Extent>, Duration)> {
        let Flight { extents, since } = self.flights.remove(&frame)?;
        for extent in &extents {
            self.airborne.remove_run(extent.first, extent.pages);
            if self.again.count() > 0 {
                for page in extent.iter().filter(|&page| self.again.contains(page)).collect::<Vec<_>>() {
                    self.again.remove(page);
                    self.plan.add(page);
                }
            }
        }
        Some((extents, since.elapsed()))
    }

    /// What is on its way in these frames has to be sent again.
    pub(super) fn take_back(&mut self, which: impl Fn(Frame) -> bool) {
        let back = self.flights.extract_if(.., |&frame, _| which(frame)).flat_map(|(_, flight)| flight.extents).collect::<Vec<_>>();
        for extent in back {
            for page in extent.iter() {
                self.airborne.remove(page);
                self.again.remove(page);
                self.plan.requeue(Extent { first: page, pages: 1 });
            }
        }
    }

    /// There was no room for a frame, at these intermediaries: its pages leave the send, which avoids them from now on. `None` when
    /// the frame is none of this send's.
    pub(super) fn refuse(&mut self, frame: Frame, by: &[u16]) -> Option<Bitmap> {
        let Flight { extents, .. } = self.flights.remove(&frame)?;
        let mut refused = Bitmap::default();
        for extent in extents {
            self.airborne.remove_run(extent.first, extent.pages);
            self.again.remove_run(extent.first, extent.pages);
            refused.insert_run(extent.first, extent.pages);
        }
        self.via.retain(|via| !by.contains(via));
        Some(refused)
    }

    /// Whether it has pages that may be put on a way.
    pub(super) fn has_more(&self) -> bool {
        !self.recalled && self.plan.left() > 0
    }

    /// Whether it has pages that can go nowhere: none of its intermediaries is left.
    pub(super) fn is_stuck(&self, is_gone: impl Fn(u16) -> bool) -> bool {
        !self.direct && self.has_more() && self.flights.is_empty() && self.via.iter().all(|&via| is_gone(via))
    }

    /// Pages out of the dirty tracker join. Those that are still to be sent need no second place.
    pub(super) fn join(&mut self, set: &Bitmap) -> Joined {
        let mut added = 0;
        for page in set.iter() {
            let fresh = if self.airborne.contains(page) { self.again.insert(page) } else { self.plan.add(page) };
            added += u64::from(fresh);
        }
        Joined { added: Bytes::from_pages(added), pending: self.pending(), sent: self.sent }
    }

    pub(super) fn is_over(&self) -> bool {
        self.flights.is_empty() && (self.recalled || self.pending().is_zero())
    }

    /// How it ended: done, or recalled with what was not sent.
    pub(super) fn into_completion(self) -> Event<Bitmap> {
        let (id, sent) = (self.id, self.sent);
        let unsent = self.into_unsent();
        if unsent.count() == 0 { Event::Done { id, reply: Reply::Sent(sent) } } else { Event::Recalled { id, sent, unsent } }
    }

    pub(super) fn into_failure(self, failure: Failure) -> Event<Bitmap> {
        let (id, sent) = (self.id, self.sent);
        Event::Failed { id, failure, sent, unsent: self.into_unsent() }
    }

    fn into_unsent(self) -> Bitmap {
        let mut rest = self.plan.into_rest();
        rest.insert_all(&self.airborne);
        rest.insert_all(&self.again);
        rest
    }
}

/// The parts of an extent that are not dirty.
fn clean_parts(extent: Extent, dirty: &Bitmap) -> Vec<Extent> {
    let (mut parts, mut at, end) = (Vec::new(), extent.first.0, extent.first.0 + extent.pages);
    while at < end {
        let next = dirty.next_at(PageIndex(at)).map_or(end, |page| page.0.min(end));
        if next > at {
            parts.push(Extent { first: PageIndex(at), pages: next - at });
        }
        at = next + if next < end { dirty.run_from(PageIndex(next), end - next) } else { 0 };
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_core::vocabulary::{Prepaging, Region, Routes, SendClass};
    use proptest::prelude::*;

    fn set(pages: impl IntoIterator<Item = u64>) -> Bitmap {
        pages.into_iter().map(PageIndex).collect()
    }

    fn send(pages: Bitmap) -> OutSend {
        let send = Send {
            set: pages,
            region: Region::Memory,
            routes: Routes::direct(),
            streams: 1,
            class: SendClass::First,
            round: 0,
            skip_redirtied: true,
            order: Prepaging::AddressOrder,
        };
        OutSend::new(CmdId(1), send, None)
    }

    #[test]
    fn streams_go_through_tasks_of_their_own_and_intermediaries_take_the_next_pages() {
        let mut send = send(set(0..16));
        send.plan = send.plan.in_tasks(4);
        let mut take = |stream, most| send.next(stream, most, None).iter().flat_map(|e| e.iter()).map(|p| p.0).collect::<Vec<_>>();
        assert_eq!(take(Some(0), 3), [0, 1, 2]);
        assert_eq!(take(Some(1), 3), [4, 5, 6]);
        assert_eq!(take(None, 3), [3, 7, 8]);
        assert_eq!(take(Some(1), 3), [9, 10, 11]);
        assert_eq!(take(Some(0), 8), [12, 13, 14, 15]);
        assert!(take(Some(1), 8).is_empty());
    }

    #[test]
    fn a_page_that_joins_while_it_is_on_its_way_goes_again_and_only_then() {
        let mut send = send(set(0..10));
        let first = send.next(Some(0), 4, None);
        send.launch((Lane::Stream(0), 0), first);
        let joined = send.join(&set([2, 5, 20]));
        assert_eq!((joined.added.pages(), joined.pending.pages()), (2, 8));
        assert!(send.holds(PageIndex(2)) && !send.is_over());
        assert!(send.acknowledged((Lane::Stream(0), 7)).is_none());
        send.acknowledged((Lane::Stream(0), 0)).unwrap();
        let rest = send.next(Some(0), 100, None);
        assert_eq!(rest.iter().flat_map(|e| e.iter()).map(|p| p.0).collect::<Vec<_>>(), [2, 4, 5, 6, 7, 8, 9, 20]);
        send.launch((Lane::Fault, 0), rest);
        send.count(Bytes(99), Lane::Fault);
        send.acknowledged((Lane::Fault, 0)).unwrap();
        assert!(send.is_over());
        let Event::Done { reply: Reply::Sent(sent), .. } = send.into_completion() else { panic!("everything was sent") };
        assert_eq!((sent.wire, sent.demand), (Bytes(99), Bytes(99)));
    }

    #[test]
    fn what_a_broken_connection_carried_is_sent_again_or_handed_back() {
        let mut send = send(set(0..10));
        let first = send.next(Some(0), 6, Some(&set([1, 2, 5])));
        assert_eq!(first.iter().map(|e| (e.first.0, e.pages)).collect::<Vec<_>>(), [(0, 1), (3, 2), (6, 3)]);
        send.launch((Lane::Stream(0), 0), first);
        let _ = send.join(&set([3]));
        send.take_back(|frame| frame.0.is_direct());
        send.recalled = true;
        let Event::Recalled { unsent, sent, .. } = send.into_completion() else { panic!("it was recalled") };
        assert_eq!((unsent, sent.skipped.pages()), (set([0, 3, 4, 6, 7, 8, 9]), 3));
    }

    #[test]
    fn what_has_no_room_leaves_its_send_and_what_has_no_way_is_stuck() {
        let mut send = send(set(0..10));
        (send.direct, send.via, send.copies) = (false, vec![0, 2], 1);
        let first = send.next(Some(0), 4, None);
        send.launch((Lane::Staged, 7), first);
        assert!(send.refuse((Lane::Stream(0), 7), &[2]).is_none());
        assert_eq!(send.refuse((Lane::Staged, 7), &[2]), Some(set(0..4)));
        assert_eq!((send.via.as_slice(), send.holds(PageIndex(3))), (&[0][..], false));
        assert!(send.is_stuck(|via| via == 0) && !send.is_stuck(|via| via == 2));
        let second = send.next(Some(0), 100, None);
        send.launch((Lane::Staged, 6), second);
        let part = |first, pages| vec![Extent { first: PageIndex(first), pages }];
        send.divide((Lane::Staged, 6), [((Lane::Staged, 8), part(4, 5)), ((Lane::Staged, 9), part(9, 1))]);
        assert!(send.acknowledged((Lane::Staged, 6)).is_none());
        assert_eq!(send.acknowledged((Lane::Staged, 9)).map(|(extents, _)| extents), Some(part(9, 1)));
        send.had(1);
        assert!(!send.is_stuck(|_| true), "its last pages are on their way");
        send.take_back(|frame| frame.0.is_direct());
        assert!(!send.has_more());
        send.take_back(|frame| frame == (Lane::Staged, 8));
        let Event::Failed { unsent, sent, .. } = send.into_failure(Failure::NeverStarted) else { panic!("it failed") };
        assert_eq!((unsent, sent.deduplicated.pages()), (set(4..9), 1));
    }

    proptest! {
        #[test]
        fn clean_parts_are_what_is_not_dirty(first in 0u64..80, pages in 1u64..80, dirty in proptest::collection::btree_set(0u64..160, 0..80)) {
            let parts = clean_parts(Extent { first: PageIndex(first), pages }, &set(dirty.iter().copied()));
            let got: Vec<u64> = parts.iter().flat_map(|e| e.iter()).map(|p| p.0).collect();
            prop_assert_eq!(got, (first..first + pages).filter(|p| !dirty.contains(p)).collect::<Vec<_>>());
        }
    }
}

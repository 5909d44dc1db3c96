//! Where pages are staged, as the destination knows it, and which of them it has to fetch.
//!
//! It is told of places once the guest has stopped at the source: from then on every page has one version, wherever it comes from.
//! Several intermediaries may have a page; it is fetched from one of them, and from another when that one fails.

use crate::bucket::Bucket;
use crate::wire::dial::Way;
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{PageIndex, Rate, Time};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the destination knows of intermediaries.
#[derive(Debug, Default)]
pub(super) struct Places {
    hosts: Vec<Host>,
    /// What is staged is fetched; perhaps with a limit.
    begun: bool,
    limit: Option<(Rate, Bucket)>,
    /// The source is not to be asked.
    pub(super) redirected: bool,
    /// The source is free: what nobody here has is lost.
    pub(super) released: bool,
    /// The source's order to gather.
    pub(super) order: Option<u32>,
    /// How gathering has ended.
    pub(super) end: Option<End>,
    /// Nothing more is fetched.
    pub(super) closed: bool,
}

/// How gathering has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything is here since then.
    Gathered { at: Time },
    /// So many pages are nowhere any more.
    Lost { pages: u64 },
}

#[derive(Debug)]
struct Host {
    way: Way,
    staged: Bitmap,
    /// What is to be fetched from here, in the order in which it was announced.
    queue: VecDeque<Extent>,
    gone: bool,
}

impl Places {
    /// Intermediaries that are reached like this, by number.
    pub(super) fn of(ways: Vec<Way>) -> Places {
        let host = |way| Host { way, staged: Bitmap::default(), queue: VecDeque::new(), gone: false };
        Places { hosts: ways.into_iter().map(host).collect(), ..Places::default() }
    }

    pub(super) fn count(&self) -> usize {
        self.hosts.len()
    }

    pub(super) fn way(&self, via: u16) -> Option<Way> {
        self.host(via).filter(|host| !host.gone).map(|host| host.way.clone())
    }

    fn host(&self, via: u16) -> Option<&Host> {
        self.hosts.get(usize::from(via))
    }

    pub(super) fn is_gone(&self, via: u16) -> bool {
        self.host(via).is_none_or(|host| host.gone)
    }

    /// A page is staged at all of these, and nowhere else. It will be fetched from the one that has least to be fetched.
    pub(super) fn locate(&mut self, via: &[u16], extent: Extent) {
        for (v, host) in (0..).zip(&mut self.hosts) {
            if via.contains(&v) {
                host.staged.insert_run(extent.first, extent.pages);
            } else {
                host.staged.remove_run(extent.first, extent.pages);
            }
        }
        let alive = self.hosts.iter_mut().enumerate().filter(|(v, host)| !host.gone && via.iter().any(|&u| usize::from(u) == *v));
        if let Some((_, host)) = alive.min_by_key(|(_, host)| host.queue.len()) {
            host.queue.push_back(extent);
        }
    }

    /// An intermediary that has the page.
    pub(super) fn holder(&self, page: PageIndex) -> Option<u16> {
        let found = self.hosts.iter().position(|host| !host.gone && host.staged.contains(page));
        found.and_then(|via| u16::try_from(via).ok())
    }

    /// Fetching begins, or goes on with another limit.
    pub(super) fn begin(&mut self, limit: Option<Rate>) {
        self.begun = true;
        let same = self.limit.as_ref().map(|(rate, _)| *rate) == limit;
        if !same {
            self.limit = limit.map(|rate| (rate, Bucket::new(rate, Instant::now())));
        }
    }

    /// How long the limit lets nothing be fetched.
    pub(super) fn wait(&mut self) -> Duration {
        self.limit.as_mut().map_or(Duration::ZERO, |(_, bucket)| bucket.wait(Instant::now()))
    }

    /// So much has been asked for.
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some((_, bucket)) = &mut self.limit {
            bucket.spend(bytes);
        }
    }

    /// The next pages to fetch from an intermediary, at most `most`; none of those that are `needless`.
    pub(super) fn next(&mut self, via: u16, most: u64, needless: impl Fn(PageIndex) -> bool) -> Vec<Extent> {
        let most = self.limit.as_ref().map_or(most, |(_, bucket)| most.min(bucket.batch()));
        let (mut taken, mut pages) = (Vec::<Extent>::new(), 0);
        if !self.begun || self.closed {
            return taken;
        }
        let Some(host) = self.hosts.get_mut(usize::from(via)).filter(|host| !host.gone) else { return taken };
        while pages < most
            && let Some(mut extent) = host.queue.pop_front()
        {
            let first = extent.first;
            extent = Extent { first: PageIndex(first.0 + 1), pages: extent.pages - 1 };
            if extent.pages > 0 {
                host.queue.push_front(extent);
            }
            if !host.staged.contains(first) || needless(first) {
                continue;
            }
            pages += 1;
            match taken.last_mut() {
                Some(last) if last.first.0 + last.pages == first.0 => last.pages += 1,
                _ => taken.push(Extent { first, pages: 1 }),
            }
        }
        taken
    }

    /// What was asked for has to be asked for again.
    pub(super) fn give_back(&mut self, via: u16, extents: Vec<Extent>) {
        if self.is_gone(via) {
            return self.fetch_elsewhere(extents);
        }
        if let Some(host) = self.hosts.get_mut(usize::from(via)) {
            extents.into_iter().rev().for_each(|extent| host.queue.push_front(extent));
        }
    }

    /// These pages are not where they were said to be.
    pub(super) fn absent(&mut self, via: u16, extent: Extent) {
        if let Some(host) = self.hosts.get_mut(usize::from(via)) {
            host.staged.remove_run(extent.first, extent.pages);
        }
        self.fetch_elsewhere(vec![extent]);
    }

    /// An intermediary is gone; whether that is news.
    pub(super) fn gone(&mut self, via: u16) -> bool {
        let Some(host) = self.hosts.get_mut(usize::from(via)).filter(|host| !host.gone) else { return false };
        host.gone = true;
        let queue = std::mem::take(&mut host.queue);
        self.fetch_elsewhere(queue.into());
        true
    }

    /// Pages are fetched from others that have them.
    fn fetch_elsewhere(&mut self, extents: Vec<Extent>) {
        for page in extents.into_iter().flat_map(Extent::iter) {
            if let Some(via) = self.holder(page) {
                self.hosts[usize::from(via)].queue.push_back(Extent { first: page, pages: 1 });
            }
        }
    }

    /// How many of this many pages are neither here nor at an intermediary.
    pub(super) fn nowhere(&self, of: u64, received: &Bitmap) -> u64 {
        let mut known = received.clone();
        for host in self.hosts.iter().filter(|host| !host.gone) {
            known.insert_all(&host.staged);
        }
        of - known.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn extent(first: u64, pages: u64) -> Extent {
        Extent { first: PageIndex(first), pages }
    }

    fn three() -> Places {
        let mut places = Places::of((1..=3).map(|port| Way::to(SocketAddr::from(([127, 0, 0, 1], port)))).collect());
        places.begin(None);
        places
    }

    #[test]
    fn pages_are_fetched_once_in_the_order_announced_without_what_is_here() {
        let mut places = three();
        places.locate(&[0], extent(10, 5));
        places.locate(&[0], extent(0, 3));
        assert_eq!(places.next(0, 4, |page| page.0 == 12), [extent(10, 2), extent(13, 2)]);
        let rest = places.next(0, 100, |_| false);
        assert_eq!(rest, [extent(0, 3)]);
        assert!(places.next(0, 100, |_| false).is_empty() && places.next(1, 100, |_| false).is_empty());
        places.give_back(0, rest);
        // A newer place is the only one.
        places.locate(&[1], extent(1, 1));
        assert_eq!(places.next(0, 100, |_| false), [extent(0, 1), extent(2, 1)]);
        assert_eq!(
            (places.holder(PageIndex(1)), places.holder(PageIndex(2)), places.holder(PageIndex(9))),
            (Some(1), Some(0), None)
        );
    }

    #[test]
    fn replicas_share_the_work_and_stand_in_for_each_other() {
        let mut places = three();
        places.locate(&[0, 2], extent(0, 2));
        places.locate(&[0, 2], extent(4, 2));
        let first = places.next(0, 100, |_| false);
        assert_eq!((first.as_slice(), places.next(2, 100, |_| false)), (&[extent(0, 2)][..], vec![extent(4, 2)]));
        assert!(places.gone(0) && !places.gone(0));
        places.give_back(0, first);
        assert_eq!(places.next(2, 100, |_| false), [extent(0, 2)]);
        let received: Bitmap = [PageIndex(9)].into_iter().collect();
        assert_eq!(places.nowhere(10, &received), 5);
        places.absent(2, extent(5, 1));
        assert_eq!((places.nowhere(10, &received), places.holder(PageIndex(5))), (6, None));
        assert!(places.gone(2));
        assert_eq!(places.nowhere(10, &received), 9);
    }

    #[test]
    fn nothing_is_fetched_before_it_is_time_or_faster_than_allowed() {
        let mut places = Places::of(vec![Way::to(SocketAddr::from(([127, 0, 0, 1], 1)))]);
        places.locate(&[0], extent(0, 100));
        assert!(places.next(0, 64, |_| false).is_empty());
        places.begin(Some(Rate(4.096e6)));
        assert!(places.wait().is_zero());
        let batch = places.next(0, 64, |_| false);
        assert_eq!(batch, [extent(0, 5)], "what 5 ms are good for");
        places.spend(5 * 4096);
        assert!(places.wait() > Duration::from_millis(2));
        // The same order again changes nothing.
        places.begin(Some(Rate(4.096e6)));
        assert!(places.wait() > Duration::from_millis(2));
    }
}

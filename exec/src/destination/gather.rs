//! Gathering: the destination fetches what intermediaries stage, for the guest that waits for it at once and the rest as fast as it may.
//!
//! There are two connections to every intermediary, made when something is first said to be there ([`fetch`](super::fetch)). Here is what
//! they have in common, and how it ends: everything is here, or pages are nowhere any more.

use super::fetch::Lane;
use super::places::{End, Places};
use super::session::Session;
use crate::agent::message::{FromAgent, Record};
use crate::error::ExecError;
use crate::wire::frame::FrameWriter;
use crate::wire::message::{Answer, Message};
use crate::wire::stage::StageMessage;
use livemig_core::ledger::Observation;
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Rate};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that are fetched before the coordinator hears of them.
const REPORT: u64 = 4 << 20;

/// What is fetched, and by whom.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    places: Mutex<Places>,
    /// There may be something to fetch, or it is over.
    pub(super) news: Condvar,
    lanes: Mutex<Lanes>,
    /// Bytes on the wire that have not been reported.
    fetched: AtomicU64,
}

#[derive(Debug, Default)]
struct Lanes {
    started: bool,
    /// Connections in use, with the intermediary.
    sockets: Vec<(u16, bool, TcpStream)>,
    urgent: Vec<(u16, Arc<Mutex<FrameWriter<TcpStream>>>)>,
}

impl Gathering {
    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an intermediary is connected.
    pub(super) fn is_connected(&self) -> bool {
        !self.lanes().sockets.is_empty()
    }

    /// Waits until gathering has ended, for at most so long.
    pub(super) fn wait_for_end(&self, limit: Duration) -> Option<End> {
        let places = self.places();
        if places.end.is_some() {
            return places.end;
        }
        self.news.wait_timeout(places, limit).unwrap_or_else(PoisonError::into_inner).0.end
    }

    /// A connection to an intermediary is in use; not if nothing more is fetched.
    pub(super) fn opened(&self, via: u16, urgent: bool, socket: TcpStream, writer: &Arc<Mutex<FrameWriter<TcpStream>>>) -> bool {
        let mut lanes = self.lanes();
        let open = !self.places().closed;
        if open {
            lanes.sockets.push((via, urgent, socket));
            if urgent {
                lanes.urgent.push((via, writer.clone()));
            }
        }
        open
    }

    /// It is not any more.
    pub(super) fn ended(&self, via: u16, urgent: bool) {
        let mut lanes = self.lanes();
        lanes.sockets.retain(|(v, u, _)| (*v, *u) != (via, urgent));
        lanes.urgent.retain(|(v, _)| !urgent || *v != via);
    }

    /// Nothing more is fetched. With `free`, intermediaries are told that nothing is needed of what they keep.
    fn close(&self, free: bool) {
        self.places().closed = true;
        self.news.notify_all();
        let mut lanes = self.lanes();
        if free {
            for (_, writer) in &lanes.urgent {
                // One that has hung up keeps nothing for long, or is told by somebody else.
                let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).message(&StageMessage::Free);
            }
        }
        lanes.urgent.clear();
        for (_, _, socket) in lanes.sockets.drain(..) {
            // What was written is sent before the end; already closed is as good.
            let _ = socket.shutdown(if free { Shutdown::Write } else { Shutdown::Both });
        }
    }
}

impl Session {
    /// Pages are staged.
    pub(super) fn locate(self: &Arc<Session>, started: bool, via: &[u16], runs: &[(u64, u64)]) -> Result<(), ExecError> {
        let pages = self.pages();
        let (mut old, mut wanted) = (Bitmap::default(), Vec::new());
        {
            let mut places = self.gathering.places();
            let book = self.book();
            for &(first, count) in runs {
                if count == 0 || first.checked_add(count).is_none_or(|end| end > pages) {
                    return Err(ExecError::State("pages beyond memory are said to be staged".to_owned()));
                }
                let extent = Extent { first: PageIndex(first), pages: count };
                // What a running guest has is the only version that there is; before, what is here is older.
                if !started {
                    for page in extent.iter().filter(|&page| book.is_here(page)) {
                        old.insert(page);
                    }
                }
                places.locate(via, extent);
                wanted.extend(book.waiting_in(extent));
            }
        }
        if old.count() > 0 {
            self.discard(&old)?;
        }
        self.start_lanes();
        self.gathering.news.notify_all();
        wanted.into_iter().for_each(|page| self.request(page));
        Ok(())
    }

    /// Fetching begins.
    pub(super) fn begin_gathering(&self, limit: Option<Rate>) {
        self.gathering.places().begin(limit);
        self.gathering.news.notify_all();
    }

    /// The guest waits for a page: whoever has it is asked, if that can be reached; otherwise the next connection asks again.
    pub(super) fn request(&self, page: u64) {
        let (holder, ask_source) = {
            let mut places = self.gathering.places();
            let holder = places.holder(PageIndex(page));
            if holder.is_some() {
                places.spend(PAGE_SIZE);
            }
            (holder, !places.redirected)
        };
        match holder {
            Some(via) => {
                let writer = self.gathering.lanes().urgent.iter().find(|(v, _)| *v == via).map(|(_, writer)| writer.clone());
                if let Some(writer) = writer {
                    let fetch = StageMessage::Fetch { runs: vec![(page, 1)] };
                    // A connection that is broken is asked again when it is mended.
                    let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).message(&fetch);
                }
            }
            None if ask_source => self.ask(page),
            None => {}
        }
    }

    /// Asks again for everything that the guest waits for.
    pub(super) fn request_again(&self) {
        let waiting = self.book().waiting();
        waiting.into_iter().for_each(|page| self.request(page));
    }

    /// An intermediary is gone, with all that it had.
    pub(super) fn stage_gone(&self, via: u16) {
        if !self.gathering.places().gone(via) {
            return;
        }
        let idle = {
            let lanes = self.gathering.lanes();
            let own = || lanes.sockets.iter().filter(|(v, _, _)| *v == via);
            // What has come is taken before the end is met.
            own().for_each(|(_, _, socket)| drop(socket.shutdown(Shutdown::Read)));
            own().next().is_none()
        };
        self.gathering.news.notify_all();
        self.request_again();
        if idle {
            self.check_losses();
        }
    }

    /// Once the source is free, pages that nobody has are lost: the guest is stopped, and that is said.
    pub(super) fn check_losses(&self) {
        let pages = self.pages();
        let lost = {
            let mut places = self.gathering.places();
            let lost = if places.released && !places.closed { places.nowhere(pages, self.book().received()) } else { 0 };
            if lost > 0 {
                places.closed = true;
            }
            lost
        };
        if lost > 0 {
            self.stop_guest();
            self.setup.reports.send(FromAgent::Lost { session: self.id, missing: lost });
            self.gathering.places().end = Some(End::Lost { pages: lost });
            self.close_gathering(true);
        }
    }

    /// Whether everything is here, which ends gathering.
    pub(super) fn check_gathered(&self) {
        let pages = self.pages();
        let at = self.setup.clock.now();
        let order = {
            let mut places = self.gathering.places();
            if !places.redirected || places.end.is_some() || self.book().missing(pages) > 0 {
                return;
            }
            places.end = Some(End::Gathered { at });
            places.order
        };
        self.room_alone().end_watch();
        self.close_gathering(true);
        self.report_stalls();
        if let Some(id) = order {
            self.post(&Message::Answer { id, answer: Answer::Gathered { at } });
        }
    }

    /// The order of the source to gather: answered now if that is over, and otherwise when it is.
    pub(super) fn gather(&self, id: u32, limit: Option<Rate>) -> Answer {
        self.begin_gathering(limit);
        let mut places = self.gathering.places();
        places.order = Some(id);
        match places.end {
            Some(End::Gathered { at }) => Answer::Gathered { at },
            Some(End::Lost { .. }) | None => Answer::Done,
        }
    }

    pub(super) fn close_gathering(&self, free: bool) {
        self.gathering.close(free);
        self.report_fetched(0);
    }

    fn pages(&self) -> u64 {
        self.room().memory.as_ref().map_or(0, |memory| memory.pages())
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.gathering.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.report_fetched(REPORT);
    }

    /// Reports what was fetched, if it is so much.
    fn report_fetched(&self, least: u64) {
        if self.gathering.fetched.load(Ordering::Relaxed) >= least.max(1) {
            let bytes = self.gathering.fetched.swap(0, Ordering::Relaxed);
            let observed = Record::Observed(Observation::Gathered(Bytes(bytes)));
            self.setup.reports.record(self.id, observed);
        }
    }

    /// Starts the threads that fetch, once.
    fn start_lanes(self: &Arc<Session>) {
        if std::mem::replace(&mut self.gathering.lanes().started, true) {
            return;
        }
        let count = self.gathering.places().count();
        for via in (0..).take(count) {
            for urgent in [true, false] {
                if let Err(error) = Lane::start(self.clone(), via, urgent) {
                    self.setup.reports.warn(format!("a thread that fetches from intermediary {via}: {error}"));
                }
            }
        }
    }
}

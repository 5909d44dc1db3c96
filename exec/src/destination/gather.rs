//! Gathering: the destination fetches what intermediaries stage, for the guest that waits for it at once and the rest as fast as it may.
//!
//! There are two connections to every intermediary, made when something is first said to be there: one for pages that the guest waits
//! for, which nothing stands in front of, and one for all others. Each has a thread, which makes its connection again when it breaks.

use super::places::{End, Places};
use super::session::{Session, place};
use crate::agent::message::{FromAgent, Record};
use crate::error::ExecError;
use crate::wire::WireError;
use crate::wire::auth::{Greeting, Role};
use crate::wire::dial::Way;
use crate::wire::frame::{FrameReader, FrameWriter, HEADER, Header, SILENCE};
use crate::wire::message::{Answer, Message};
use crate::wire::pages::{Buffer, MAX_DATA, PIECE, Table, new_buffer};
use crate::wire::stage::{StageMessage, connect};
use livemig_core::ledger::Observation;
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex, Rate};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests without an answer on one connection: one being read from the socket, one on its way, one being asked for.
const WINDOW: usize = 4;
/// How long a thread waits before it looks again whether there is something to do.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// An intermediary that refuses connections for this long is gone.
const REFUSED: Duration = Duration::from_secs(1);
/// Bytes that are fetched before the coordinator hears of them.
const REPORT: u64 = 4 << 20;

/// What is fetched, and by whom.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    places: Mutex<Places>,
    /// There may be something to fetch, or it is over.
    news: Condvar,
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

/// One connection to an intermediary.
#[derive(Debug)]
struct Lane {
    session: Arc<Session>,
    via: u16,
    urgent: bool,
    table: Table,
    buffer: Box<Buffer>,
}

impl Gathering {
    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until gathering has ended, for at most so long.
    pub(super) fn wait_for_end(&self, limit: Duration) -> Option<End> {
        let places = self.places();
        if places.end.is_some() {
            return places.end;
        }
        self.news.wait_timeout(places, limit).unwrap_or_else(PoisonError::into_inner).0.end
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

    fn fetched(&self, bytes: u64) {
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
                let lane = Lane { session: self.clone(), via, urgent, table: Table::default(), buffer: new_buffer() };
                let name = if urgent { "fetch urgent" } else { "fetch" };
                if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(move || lane.run()) {
                    self.setup.reports.warn(format!("a thread that fetches from intermediary {via}: {error}"));
                }
            }
        }
    }
}

impl Lane {
    /// Until nothing more is fetched from this intermediary.
    fn run(mut self) {
        let mut refused: Option<Instant> = None;
        let mut epoch = 0;
        while let Some(way) = self.way() {
            epoch += 1;
            let greeting = Greeting { role: Role::Fetch { urgent: self.urgent }, session: self.session.id, epoch };
            let connected = connect(&way, &self.session.setup.security, greeting, &self.session.setup.key);
            let ended = match connected {
                Ok(stream) => {
                    refused = None;
                    self.serve(stream, epoch)
                }
                Err(WireError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    if refused.get_or_insert_with(Instant::now).elapsed() > REFUSED {
                        self.session.stage_gone(self.via);
                    }
                    Err(WireError::Io(error))
                }
                Err(error) => Err(error),
            };
            if self.way().is_none() {
                break;
            }
            if let Err(error) = ended
                && refused.is_none()
            {
                self.session.setup.reports.warn(format!("fetching from intermediary {}: {error}", self.via));
            }
            std::thread::sleep(RETRY);
        }
        // The last that could still come has come.
        if self.session.gathering.places().is_gone(self.via) {
            self.session.check_losses();
        }
    }

    /// Where the intermediary is, as long as anything is to be fetched there. Waits until there is.
    fn way(&self) -> Option<Way> {
        let places = self.session.gathering.places();
        if places.closed { None } else { places.way(self.via) }
    }

    fn serve(&mut self, stream: TcpStream, epoch: u32) -> Result<(), WireError> {
        let (id, gathering) = (self.session.id, &self.session.gathering);
        let writer = Arc::new(Mutex::new(FrameWriter::new(stream.try_clone()?, id, epoch)));
        {
            let mut lanes = gathering.lanes();
            if gathering.places().closed {
                return Ok(());
            }
            lanes.sockets.push((self.via, self.urgent, stream.try_clone()?));
            if self.urgent {
                lanes.urgent.push((self.via, writer.clone()));
            }
        }
        let reader = FrameReader::new(stream, MAX_DATA);
        let ended = if self.urgent { self.serve_urgent(reader, epoch) } else { self.serve_bulk(reader, &writer, epoch) };
        let mut lanes = self.session.gathering.lanes();
        lanes.sockets.retain(|(via, urgent, _)| (*via, *urgent) != (self.via, self.urgent));
        if self.urgent {
            lanes.urgent.retain(|(via, _)| *via != self.via);
        }
        ended
    }

    /// Pages that the guest waits for: they are asked for as it does, by whoever sees that.
    fn serve_urgent(&mut self, mut reader: FrameReader<TcpStream>, epoch: u32) -> Result<(), WireError> {
        self.session.request_again();
        let mut heard = Instant::now();
        loop {
            if let Some(header) = reader.next()? {
                self.take_in(&header, &mut reader, epoch)?;
                heard = Instant::now();
            } else if self.session.gathering.places().closed {
                return Ok(());
            } else if heard.elapsed() > SILENCE && self.is_owed() {
                return Err(WireError::Silence);
            }
        }
    }

    /// Whether the guest waits too long for a page that is here.
    fn is_owed(&self) -> bool {
        let late = self.session.book().waiting_for(SILENCE);
        let places = self.session.gathering.places();
        late.into_iter().any(|page| places.holder(PageIndex(page)) == Some(self.via))
    }

    /// All others, as long as the limit allows for it.
    fn serve_bulk(
        &mut self,
        mut reader: FrameReader<TcpStream>,
        writer: &Mutex<FrameWriter<TcpStream>>,
        epoch: u32,
    ) -> Result<(), WireError> {
        let mut asked = VecDeque::new();
        let ended = self.fetch(&mut reader, writer, epoch, &mut asked);
        self.session.gathering.places().give_back(self.via, asked.into_iter().flatten().collect());
        self.session.gathering.news.notify_all();
        ended
    }

    fn fetch(
        &mut self,
        reader: &mut FrameReader<TcpStream>,
        writer: &Mutex<FrameWriter<TcpStream>>,
        epoch: u32,
        asked: &mut VecDeque<Vec<Extent>>,
    ) -> Result<(), WireError> {
        let mut heard = Instant::now();
        loop {
            while asked.len() < WINDOW
                && let Some(extents) = self.next(asked.is_empty())
            {
                if asked.is_empty() {
                    heard = Instant::now();
                }
                asked.push_back(extents.clone());
                writer.lock().unwrap_or_else(PoisonError::into_inner).message(&StageMessage::fetch(&extents))?;
            }
            if self.session.gathering.places().closed {
                return Ok(());
            }
            if asked.is_empty() {
                continue;
            }
            match reader.next()? {
                Some(header) => {
                    heard = Instant::now();
                    let here = self.take_in(&header, reader, epoch)?;
                    let wanted = asked.pop_front().unwrap_or_default();
                    self.note_absent(&wanted, &here);
                }
                None if heard.elapsed() > SILENCE => return Err(WireError::Silence),
                None => {}
            }
        }
    }

    /// The next pages to ask for. With `wait`, it is waited for them for a while.
    fn next(&self, wait: bool) -> Option<Vec<Extent>> {
        let gathering = &self.session.gathering;
        let mut places = gathering.places();
        let pause = places.wait();
        if pause.is_zero() {
            let extents = {
                let book = self.session.book();
                places.next(self.via, PIECE, |page| book.is_here(page) || book.is_waited_for(page))
            };
            if !extents.is_empty() {
                places.spend(extents.iter().map(|e| e.pages * PAGE_SIZE).sum());
                return Some(extents);
            }
        }
        if wait && !places.closed {
            let limit = if pause.is_zero() { LOOK } else { pause };
            drop(gathering.news.wait_timeout(places, limit));
        }
        None
    }

    /// Takes a frame of pages in; which pages they were.
    fn take_in(&mut self, header: &Header, reader: &mut FrameReader<TcpStream>, epoch: u32) -> Result<Vec<Extent>, WireError> {
        let session = self.session.clone();
        if header.session != session.id || header.epoch != epoch {
            return Err(WireError::Outdated);
        }
        let here: Vec<Extent> = {
            let room = session.room();
            let (Some(memory), Some(watch), true) = (&room.memory, &room.filler, room.watched && !room.over) else {
                return Err(WireError::Outdated);
            };
            self.table.read(reader, header, memory.pages())?;
            place(watch, &reader.input, memory, &self.table, &mut self.buffer, |extent| session.book().fetched(extent))?;
            self.table.runs.iter().map(|run| run.extent).collect()
        };
        let bytes = HEADER as u64 + u64::from(header.body) + u64::from(header.data);
        session.fetched(bytes);
        match &session.setup.reception {
            Some(pace) if self.urgent => pace.count(bytes),
            Some(pace) => pace.take(bytes),
            None => {}
        }
        session.check_gathered();
        Ok(here)
    }

    /// Pages that were asked for and did not come are not there.
    fn note_absent(&self, wanted: &[Extent], here: &[Extent]) {
        let came = |page: PageIndex| here.iter().any(|e| (e.first.0..e.first.0 + e.pages).contains(&page.0));
        let absent: Vec<PageIndex> = wanted.iter().flat_map(|e| e.iter()).filter(|&page| !came(page)).collect();
        if absent.is_empty() {
            return;
        }
        let via = self.via;
        self.session.setup.reports.warn(format!("intermediary {via} does not have {} pages that it had", absent.len()));
        let mut places = self.session.gathering.places();
        absent.into_iter().for_each(|page| places.absent(via, Extent { first: page, pages: 1 }));
        drop(places);
        self.session.check_losses();
    }
}

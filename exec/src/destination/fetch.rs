//! Connections to intermediaries, on which the destination fetches what they stage.
//!
//! There are two to each: one for pages that the guest waits for, which nothing stands in front of, and one for all others. Each has a
//! thread, which makes its connection again when it breaks.

use super::intake::{place, place_zeros};
use super::session::Session;
use crate::wire::WireError;
use crate::wire::auth::{Greeting, Role};
use crate::wire::dial::{REFUSED, RETRY, Way};
use crate::wire::frame::{FrameReader, FrameWriter, HEADER, Header, SILENCE};
use crate::wire::landing::Landing;
use crate::wire::pages::{MAX_DATA, PIECE};
use crate::wire::stage::{StageMessage, connect};
use crate::wire::table::Table;
use livemig_core::push_plan::Extent;
use livemig_core::units::{PAGE_SIZE, PageIndex};
use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests without an answer on one connection: one being read from the socket, one on its way, one being asked for.
const WINDOW: usize = 4;
/// How long a thread waits before it looks again whether there is something to do.
const LOOK: Duration = Duration::from_millis(500);

/// One connection to an intermediary.
#[derive(Debug)]
pub(super) struct Lane {
    session: Arc<Session>,
    via: u16,
    urgent: bool,
    table: Table,
    landing: Landing,
}

impl Lane {
    /// Fetches from an intermediary, on a thread of its own, until nothing more is to be fetched there.
    pub(super) fn start(session: Arc<Session>, via: u16, urgent: bool) -> io::Result<()> {
        let lane = Lane { session, via, urgent, table: Table::default(), landing: Landing::default() };
        let name = if urgent { "fetch urgent" } else { "fetch" };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || lane.run()).map(drop)
    }

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

    /// Where the intermediary is, as long as anything is to be fetched there.
    fn way(&self) -> Option<Way> {
        let places = self.session.gathering.places();
        if places.closed { None } else { places.way(self.via) }
    }

    fn serve(&mut self, stream: TcpStream, epoch: u32) -> Result<(), WireError> {
        let (id, gathering) = (self.session.id, &self.session.gathering);
        let writer = Arc::new(Mutex::new(FrameWriter::new(stream.try_clone()?, id, epoch)));
        if !gathering.opened(self.via, self.urgent, stream.try_clone()?, &writer) {
            return Ok(());
        }
        let reader = FrameReader::new(stream, MAX_DATA);
        let ended = if self.urgent { self.serve_urgent(reader, epoch) } else { self.serve_bulk(reader, &writer, epoch) };
        self.session.gathering.ended(self.via, self.urgent);
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
            let come = |extent| session.book().fetched(extent);
            self.table.receive(&reader.input, memory, &mut self.landing, false, |piece, pages| place(watch, piece, pages, come))?;
            place_zeros(watch, &self.table.zeros().collect::<Vec<_>>(), come)?;
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

//! One migration at the destination: its connections, its memory, and how pages get there.

use super::Setup;
use super::book::Book;
use super::gather::Gathering;
use super::intake::Intake;
use super::orders::Orders;
use crate::guest::Guest;
use crate::memory::{GuestMemory, Userfault};
use crate::wire::WireError;
use crate::wire::auth::{Greeting, Role};
use crate::wire::frame::{FrameReader, FrameWriter, Header, SILENCE};
use crate::wire::message::Message;
use crate::wire::pages::MAX_DATA;
use livemig_core::units::PageIndex;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// How often a control connection that is silent is given a sign of life.
const PING: Duration = Duration::from_millis(500);

/// One migration at the destination.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u32,
    pub(super) setup: Setup,
    connections: Mutex<Connections>,
    gate: RwLock<Room>,
    pub(super) orders: Mutex<Orders>,
    book: Mutex<Book>,
    pub(super) gathering: Gathering,
}

/// The connections of the newest epoch.
#[derive(Debug, Default)]
struct Connections {
    epoch: u32,
    sockets: Vec<TcpStream>,
    control: Option<Arc<Mutex<FrameWriter<TcpStream>>>>,
    /// Where pages are asked for.
    fault: Option<Arc<Mutex<FrameWriter<TcpStream>>>>,
}

/// What is held of the guest. Pages are applied under a shared lock; what changes how they are applied takes it alone.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Frames of other epochs are not applied.
    pub(super) epoch: u32,
    pub(super) memory: Option<Arc<GuestMemory>>,
    /// The guest, until it starts.
    pub(super) guest: Option<Guest>,
    /// Puts pages into memory that was never touched. Where the kernel does not let us, they are written there.
    pub(super) filler: Option<Arc<Userfault>>,
    /// The guest may run and wait for pages that are missing; they are asked for.
    pub(super) watched: bool,
    /// Nothing of this session is wanted any more.
    pub(super) over: bool,
}

impl Session {
    pub(super) fn new(id: u32, setup: Setup) -> Session {
        Session {
            id,
            setup,
            connections: Mutex::default(),
            gate: RwLock::default(),
            orders: Mutex::default(),
            book: Mutex::default(),
            gathering: Gathering::default(),
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn room(&self) -> RwLockReadGuard<'_, Room> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn room_alone(&self) -> RwLockWriteGuard<'_, Room> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the source is connected.
    pub(super) fn is_connected(&self) -> bool {
        self.connections().control.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.room().over
    }

    /// Whether a connection may come in. If it begins an epoch, nothing of an older one is being applied when this returns.
    pub(super) fn admit(&self, stream: &TcpStream, greeting: Greeting) -> Result<bool, WireError> {
        let mut connections = self.connections();
        if greeting.epoch < connections.epoch {
            return Ok(false);
        }
        if greeting.epoch > connections.epoch {
            connections.hang_up();
            connections.epoch = greeting.epoch;
            self.room_alone().epoch = greeting.epoch;
        }
        connections.sockets.push(stream.try_clone()?);
        Ok(true)
    }

    /// Serves a connection that was let in, to its end.
    pub(super) fn serve(self: &Arc<Session>, stream: TcpStream, greeting: Greeting) -> Result<(), WireError> {
        stream.set_read_timeout(Some(PING))?;
        let writer = Arc::new(Mutex::new(FrameWriter::new(stream.try_clone()?, self.id, greeting.epoch)));
        let mut reader = FrameReader::new(stream, MAX_DATA);
        let served = match greeting.role {
            Role::Control => {
                self.connections().control = Some(writer.clone());
                self.serve_control(&mut reader, &writer, greeting.epoch)
            }
            Role::Fault => {
                self.connections().fault = Some(writer.clone());
                self.ask_again(&writer).and_then(|()| Intake::new(self, greeting, reader, &writer)?.serve())
            }
            Role::Stream(_) => Intake::new(self, greeting, reader, &writer).and_then(|intake| intake.serve()),
            Role::Stage | Role::Fetch { .. } | Role::Traffic { .. } => Err(WireError::Malformed("role")),
        };
        // One connection that is broken takes the others of its epoch with it: the source sets all of them up again.
        let mut connections = self.connections();
        if connections.epoch == greeting.epoch {
            connections.hang_up();
        }
        match served {
            Err(WireError::Closed | WireError::Outdated) => Ok(()),
            // A socket that somebody has shut down or reset is one that is closed.
            Err(WireError::Io(_)) => Ok(()),
            other => other,
        }
    }

    pub(super) fn disconnect(&self) {
        self.connections().hang_up();
    }

    fn serve_control(
        self: &Arc<Session>,
        reader: &mut FrameReader<TcpStream>,
        writer: &Mutex<FrameWriter<TcpStream>>,
        epoch: u32,
    ) -> Result<(), WireError> {
        let write = |message: &Message| writer.lock().unwrap_or_else(PoisonError::into_inner).message(message);
        let mut heard = Instant::now();
        loop {
            let Some(header) = reader.next()? else {
                if heard.elapsed() > SILENCE {
                    return Err(WireError::Silence);
                }
                write(&Message::Ping)?;
                continue;
            };
            heard = Instant::now();
            self.check(&header, epoch)?;
            match reader.message(&header)? {
                Message::Order { id, order } => {
                    let answer = self.obey(id, order);
                    write(&Message::Answer { id, answer })?;
                }
                // Whoever asks often is never met by silence here, and must hear all the same.
                Message::Ping => {
                    write(&Message::Ping)?;
                }
                Message::Answer { .. } | Message::Ack { .. } | Message::Ask { .. } => return Err(WireError::Malformed("message")),
            }
        }
    }

    pub(super) fn check(&self, header: &Header, epoch: u32) -> Result<(), WireError> {
        if header.session == self.id && header.epoch == epoch { Ok(()) } else { Err(WireError::Outdated) }
    }

    /// Asks the source for a page that the guest waits for, if it can be reached; otherwise the next connection does.
    pub(super) fn ask(&self, page: u64) {
        let fault = self.connections().fault.clone();
        if let Some(writer) = fault {
            // A connection that is broken is somebody else's to mend; the page is asked for again on the next one.
            let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).message(&Message::Ask { page });
        }
    }

    /// Says something to the source that it will be told again if it does not hear it.
    pub(super) fn post(&self, message: &Message) {
        let control = self.connections().control.clone();
        if let Some(writer) = control {
            let _ = writer.lock().unwrap_or_else(PoisonError::into_inner).message(message);
        }
    }

    /// Requests that were on an older connection may be lost.
    fn ask_again(&self, writer: &Mutex<FrameWriter<TcpStream>>) -> Result<(), WireError> {
        let mut waiting = self.book().waiting();
        let places = self.gathering.places();
        waiting.retain(|&page| !places.redirected && places.holder(PageIndex(page)).is_none());
        drop(places);
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.into_iter().try_for_each(|page| writer.message(&Message::Ask { page }).map(drop))
    }

    /// Reports how long the guest has waited for pages.
    pub(super) fn report_stalls(&self) {
        let stalls = self.book().take_stalls();
        if !stalls.is_empty() {
            self.setup.reports.stalls(self.id, stalls);
        }
    }
}

impl Room {
    /// All memory is here, or what is missing is zero.
    pub(super) fn end_watch(&mut self) {
        self.filler = None;
        self.watched = false;
        if let Some(memory) = &self.memory {
            memory.allow_huge_pages();
        }
    }

    /// Nothing of this session is wanted any more.
    pub(super) fn clear(&mut self) {
        *self = Room { epoch: self.epoch, over: true, ..Room::default() };
    }
}

impl Connections {
    fn hang_up(&mut self) {
        (self.control, self.fault) = (None, None);
        for socket in self.sockets.drain(..) {
            // Already closed is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

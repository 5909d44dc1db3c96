//! Pages that come on a connection, and how they get into memory.
//!
//! Threads take turns at a stream: whoever has the turn receives one piece, and hands the turn on before it compares the piece's
//! checksum and puts it into memory. So as many pieces are being placed as there are threads, none waits for another, and each
//! stays in the cache of the core that received it. A frame is acknowledged by the thread that puts the last of its pieces into
//! memory; the frames of a stream may be acknowledged in another order than they came in.
//!
//! Whether a piece may still be put into memory is looked at piece by piece, under the lock that a new epoch takes alone.

use super::session::{Room, Session};
use crate::content::Page;
use crate::memory::{GuestMemory, Userfault};
use crate::wire::WireError;
use crate::wire::auth::{Greeting, Role};
use crate::wire::frame::{FrameReader, FrameWriter, HEADER, Header, Kind};
use crate::wire::landing::{Landing, receive_aside, receive_in_place, write_pages};
use crate::wire::message::Message;
use crate::wire::table::{Piece, Table};
use livemig_core::push_plan::Extent;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

/// Threads that take turns at a stream. Receiving a piece takes less than half of the time that summing and placing it does, so that
/// two are hardly ever in each other's way, and a core is left for the sender where there are few.
const THREADS: usize = 2;

/// A connection on which pages come.
pub(super) struct Intake<'a> {
    session: &'a Session,
    greeting: Greeting,
    writer: &'a Mutex<FrameWriter<TcpStream>>,
    socket: TcpStream,
    turn: Mutex<Turn>,
    /// Why it ended.
    ended: Mutex<Option<WireError>>,
}

/// What belongs to whoever has the turn.
struct Turn {
    reader: FrameReader<TcpStream>,
    table: Table,
    /// The frame being received, with its pieces that have not come yet.
    frame: Option<Arc<Frame>>,
    pieces: vec::IntoIter<Piece>,
    over: bool,
}

/// A frame on its way into memory.
struct Frame {
    header: Header,
    memory: Arc<GuestMemory>,
    /// Pages that are zero, of which nothing comes but their place.
    zeros: Vec<Extent>,
    /// Pieces that are not in memory.
    left: AtomicUsize,
}

impl<'a> Intake<'a> {
    pub(super) fn new(
        session: &'a Session,
        greeting: Greeting,
        reader: FrameReader<TcpStream>,
        writer: &'a Mutex<FrameWriter<TcpStream>>,
    ) -> Result<Intake<'a>, WireError> {
        let socket = reader.input.try_clone()?;
        let turn = Turn { reader, table: Table::default(), frame: None, pieces: Vec::new().into_iter(), over: false };
        Ok(Intake { session, greeting, writer, socket, turn: Mutex::new(turn), ended: Mutex::default() })
    }

    /// Takes pages in until the connection ends; why it did.
    pub(super) fn serve(&self) -> Result<(), WireError> {
        // A page that the guest waits for comes alone, and a host that takes in little by little needs no second thread for it.
        let busy = matches!(self.greeting.role, Role::Stream(_)) && self.session.setup.reception.is_none();
        let others = if busy { THREADS - 1 } else { 0 };
        std::thread::scope(|scope| {
            for _ in 0..others {
                let spawned = std::thread::Builder::new().name("connection".to_owned()).spawn_scoped(scope, || self.work());
                if let Err(error) = spawned {
                    self.end(WireError::Io(error));
                }
            }
            self.work();
        });
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn work(&self) {
        let mut landing = Landing::default();
        loop {
            match self.take(&mut landing) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.end(error),
            }
        }
    }

    /// Ends the connection; the first reason counts.
    fn end(&self, why: WireError) {
        let closed = matches!(why, WireError::Closed);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        if !closed {
            // Whoever has the turn may be waiting for bytes. What the other end has closed, it finds closed too, and what came before
            // is still acknowledged.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        self.turn().over = true;
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next piece in; `false` when there will be none.
    fn take(&self, landing: &mut Landing) -> Result<bool, WireError> {
        let mut turn = self.turn();
        if turn.over {
            return Ok(false);
        }
        if turn.pieces.len() == 0 && !self.begin(&mut turn)? {
            return Ok(true);
        }
        let Some(frame) = turn.frame.clone() else { return Ok(true) };
        // A frame of marks alone has no piece.
        if let Some(piece) = turn.pieces.next() {
            self.receive(turn, &frame, &piece, landing)?;
            if frame.left.fetch_sub(1, Ordering::AcqRel) > 1 {
                return Ok(true);
            }
        } else {
            drop(turn);
        }
        self.finish(&frame)?;
        Ok(true)
    }

    /// Begins with the next frame; `false` when none has come for a while.
    fn begin(&self, turn: &mut Turn) -> Result<bool, WireError> {
        let Some(header) = turn.reader.next()? else { return Ok(false) };
        self.session.check(&header, self.greeting.epoch)?;
        if header.kind != Kind::Pages {
            return Err(WireError::Malformed("message"));
        }
        let memory = self.session.room().of_epoch(header.epoch)?.0.clone();
        turn.table.read(&turn.reader, &header, memory.pages())?;
        let pieces = turn.table.pieces();
        let zeros = turn.table.zeros().collect();
        turn.frame = Some(Arc::new(Frame { header, memory, zeros, left: AtomicUsize::new(pieces.len()) }));
        turn.pieces = pieces.into_iter();
        Ok(true)
    }

    /// Receives a piece, hands the turn on, and puts the piece into memory.
    fn receive(&self, turn: MutexGuard<'_, Turn>, frame: &Frame, piece: &Piece, landing: &mut Landing) -> Result<(), WireError> {
        let session = self.session;
        let room = session.room();
        room.of_epoch(frame.header.epoch)?;
        if !piece.is_packed() && session.may_write(&room, &piece.extents) {
            let received = receive_in_place(&turn.reader.input, &frame.memory, piece)?;
            drop(turn);
            received.check(&frame.memory, piece, landing)?;
            session.note_written(&piece.extents);
            return Ok(());
        }
        drop(room);
        let received = receive_aside(&turn.reader.input, piece, landing)?;
        drop(turn);
        session.put(frame.header.epoch, &piece.extents, received.check()?)
    }

    /// Everything of a frame is in memory but for its zeros.
    fn finish(&self, frame: &Frame) -> Result<(), WireError> {
        let header = &frame.header;
        self.session.put_zeros(header.epoch, &frame.zeros)?;
        let bytes = HEADER as u64 + u64::from(header.body) + u64::from(header.data);
        match &self.session.setup.reception {
            Some(pace) if self.greeting.role == Role::Fault => pace.count(bytes),
            // What is acknowledged late is followed late.
            Some(pace) => pace.take(bytes),
            None => {}
        }
        let ack = Message::Ack { seq: header.seq };
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).message(&ack).map(drop)
    }
}

impl Room {
    /// Memory, and what fills or watches it, for pages of an epoch: if they are still wanted and there is room for them.
    fn of_epoch(&self, epoch: u32) -> Result<(&Arc<GuestMemory>, Option<&Userfault>), WireError> {
        if self.epoch != epoch || self.over {
            return Err(WireError::Outdated);
        }
        let memory = self.memory.as_ref().ok_or(WireError::Malformed("frame of pages for which there is no room"))?;
        Ok((memory, self.filler.as_deref()))
    }
}

impl Session {
    /// Whether a piece may be written where it belongs: memory has pages there, or is to get them that way, and nobody uses them.
    fn may_write(&self, room: &Room, piece: &[Extent]) -> bool {
        if room.watched {
            return false;
        }
        let mut book = self.book();
        if room.filler.is_none() {
            // Also by what turns out to be wrong.
            piece.iter().for_each(|&extent| book.touch(extent));
        }
        book.are_touched(piece)
    }

    /// A piece is in memory that nobody uses yet.
    fn note_written(&self, piece: &[Extent]) {
        let mut book = self.book();
        for &extent in piece {
            book.touch(extent);
            book.arrived(extent);
        }
    }

    /// Puts a piece into memory, for a guest that may be waiting for it or before it has started.
    fn put(&self, epoch: u32, piece: &[Extent], pages: &[Page]) -> Result<(), WireError> {
        let room = self.room();
        let (memory, filler) = room.of_epoch(epoch)?;
        if let Some(watch) = filler.filter(|_| room.watched) {
            return place(watch, piece, pages, |extent| self.book().arrived(extent));
        }
        if room.guest.is_none() {
            // It has started, and nobody watches any more: everything is here.
            return Err(WireError::Outdated);
        }
        let may_write = self.may_write(&room, piece);
        match filler {
            Some(filler) if !may_write => each_of(piece, pages, |extent, pages| Ok(filler.fill(extent.first, pages)?))?,
            _ => write_pages(memory, piece, pages),
        }
        self.note_written(piece);
        Ok(())
    }

    /// Puts zeros into memory.
    fn put_zeros(&self, epoch: u32, zeros: &[Extent]) -> Result<(), WireError> {
        if zeros.is_empty() {
            return Ok(());
        }
        let room = self.room();
        let (memory, filler) = room.of_epoch(epoch)?;
        if let Some(watch) = filler.filter(|_| room.watched) {
            return place_zeros(watch, zeros, |extent| self.book().arrived(extent));
        }
        for &extent in zeros {
            for page in extent.iter() {
                // Memory that nothing was written to is zero, and need not be backed.
                if self.book().are_touched(&[Extent { first: page, pages: 1 }]) {
                    memory.write_page(page, &Page::ZERO);
                }
            }
            self.book().arrived(extent);
        }
        Ok(())
    }
}

/// Places a piece for a guest that may be waiting for it, and tells what has `come`. What the guest has already is newer.
pub(super) fn place(watch: &Userfault, piece: &[Extent], pages: &[Page], mut come: impl FnMut(Extent)) -> Result<(), WireError> {
    each_of(piece, pages, |extent, pages| {
        watch.place(extent.first, pages)?;
        come(extent);
        Ok(())
    })
}

/// Places zeros for a guest that may be waiting for them, and tells which have `come`.
pub(super) fn place_zeros(watch: &Userfault, zeros: &[Extent], mut come: impl FnMut(Extent)) -> Result<(), WireError> {
    for &extent in zeros {
        watch.place_zeros(extent.first, extent.pages)?;
        come(extent);
    }
    Ok(())
}

/// Does something with each extent of a piece and its pages.
fn each_of(
    piece: &[Extent],
    mut pages: &[Page],
    mut what: impl FnMut(Extent, &[Page]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    for &extent in piece {
        let (these, rest) = pages.split_at(extent.pages as usize);
        what(extent, these)?;
        pages = rest;
    }
    Ok(())
}

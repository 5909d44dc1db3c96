//! The pages that are kept for one migration: where they lie in the guest, or by their content, shared with other migrations.

use super::Room;
use super::contents::{Contents, Handful};
use crate::content::Page;
use crate::memory::{GuestMemory, ReadPages};
use crate::wire::WireError;
use crate::wire::fingerprint::Fingerprint;
use crate::wire::frame::{FrameReader, Header};
use crate::wire::landing::Landing;
use crate::wire::stage::{Found, MOST_PAGES, probed, requested};
use crate::wire::table::Table;
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PageIndex};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Pages kept for one migration.
#[derive(Debug)]
pub(super) struct Deposit {
    session: u32,
    room: Arc<Room>,
    contents: Arc<Contents>,
    shelf: RwLock<Shelf>,
    kept: Mutex<Kept>,
    connections: Mutex<Connections>,
    /// Pages came packed: they are handed out packed.
    packs: AtomicBool,
}

/// Pages are put down under a shared lock; what changes who may do so takes it alone.
#[derive(Debug, Default)]
struct Shelf {
    /// Frames of other epochs are not taken.
    epoch: u32,
    /// Each page where it lies in the guest: memory that nothing was written to is not backed.
    memory: Option<Arc<GuestMemory>>,
    /// Pages are kept by their content, and nothing is written to memory.
    shared: bool,
    /// Nothing of this session is needed any more.
    over: bool,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whole, in the version that came last.
    stored: Bitmap,
    /// Written to: room is taken for them. None of them are shared.
    backed: Bitmap,
    /// Asked for, and to be sent as they are not here.
    promised: Bitmap,
}

#[derive(Debug, Default)]
struct Connections {
    epoch: u32,
    /// From the source, of the newest epoch.
    stage: Option<TcpStream>,
    fetch: Vec<TcpStream>,
}

/// What became of a frame of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PutDown {
    /// There was room for it.
    pub(super) stored: bool,
    /// Bytes that are kept now.
    pub(super) held: Bytes,
}

/// Buffers that live as long as a connection.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    table: Table,
    landing: Landing,
}

/// Where pages that are handed out are.
pub(super) enum Store {
    Own(Arc<GuestMemory>),
    Shared(Handful),
}

impl Store {
    pub(super) fn pages(&self) -> &dyn ReadPages {
        match self {
            Store::Own(memory) => &**memory,
            Store::Shared(handful) => handful,
        }
    }
}

impl Deposit {
    pub(super) fn new(session: u32, room: Arc<Room>, contents: Arc<Contents>) -> Deposit {
        let (shelf, kept, connections, packs) = Default::default();
        Deposit { session, room, contents, shelf, kept, connections, packs }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the source's connection of this epoch may come in. When this returns nothing of an older one is being put down.
    pub(super) fn admit_source(&self, stream: &TcpStream, epoch: u32) -> Result<bool, WireError> {
        let mut connections = self.connections();
        if epoch <= connections.epoch {
            return Ok(false);
        }
        hang_up(connections.stage.take());
        connections.epoch = epoch;
        connections.stage = Some(stream.try_clone()?);
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        shelf.epoch = epoch;
        Ok(!shelf.over)
    }

    pub(super) fn admit_destination(&self, stream: &TcpStream) -> Result<bool, WireError> {
        self.connections().fetch.push(stream.try_clone()?);
        Ok(!self.shelf.read().unwrap_or_else(PoisonError::into_inner).over)
    }

    /// Makes ready for pages of a guest with so many: whether there is any room, and whether that had been done before.
    pub(super) fn keep(&self, pages: u64, shared: bool) -> Result<(bool, bool), WireError> {
        if pages > MOST_PAGES {
            return Err(WireError::Malformed("number of pages"));
        }
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = &shelf.memory {
            let same = memory.pages() == pages && shelf.shared == shared;
            return if same { Ok((true, true)) } else { Err(WireError::Malformed("number of pages")) };
        }
        if !self.room.is_left() {
            return Ok((false, false));
        }
        shelf.memory = Some(Arc::new(GuestMemory::allocate(Bytes::from_pages(pages), false)?));
        shelf.shared = shared;
        Ok((true, false))
    }

    /// The shelf, for what the source sends in this epoch.
    fn open(&self, epoch: u32) -> Result<RwLockReadGuard<'_, Shelf>, WireError> {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        if shelf.epoch == epoch && !shelf.over { Ok(shelf) } else { Err(WireError::Outdated) }
    }

    /// Takes the pages of a frame, all of them or none.
    pub(super) fn put_down(
        &self,
        header: &Header,
        reader: &mut FrameReader<TcpStream>,
        buffers: &mut Buffers,
    ) -> Result<PutDown, WireError> {
        let shelf = self.open(header.epoch)?;
        let Some(memory) = &shelf.memory else { return Err(WireError::Malformed("frame of pages that nobody was asked to keep")) };
        let Buffers { table, landing } = buffers;
        table.read(reader, header, memory.pages())?;
        if table.packed {
            self.packs.store(true, Ordering::Relaxed);
        }
        if shelf.shared {
            return self.put_down_shared(reader, memory, table, landing);
        }
        if !self.back(table) {
            table.receive(&reader.input, memory, landing, false, |_, _| Ok(()))?;
            return Ok(PutDown { stored: false, held: self.held() });
        }
        table.receive(&reader.input, memory, landing, true, |_, _| Ok(()))?;
        let mut kept = self.kept();
        for run in &table.runs {
            if run.zero {
                // What was never written to is zero.
                run.extent.iter().filter(|&page| kept.backed.contains(page)).for_each(|page| memory.write_page(page, &Page::ZERO));
            }
            kept.stored.insert_run(run.extent.first, run.extent.pages);
        }
        drop(kept);
        Ok(PutDown { stored: true, held: self.held() })
    }

    /// Takes the pages of a frame to be kept by their content.
    fn put_down_shared(
        &self,
        reader: &FrameReader<TcpStream>,
        memory: &GuestMemory,
        table: &Table,
        landing: &mut Landing,
    ) -> Result<PutDown, WireError> {
        let mut came = Vec::new();
        table.receive(&reader.input, memory, landing, false, |piece, pages| {
            let copies = pages.iter().map(|page| Arc::new(*page));
            came.extend(piece.iter().flat_map(|e| e.iter()).zip(copies));
            Ok(())
        })?;
        let extents = || table.runs.iter().map(|run| run.extent);
        let remove = |set: &mut Bitmap| {
            for e in extents() {
                set.remove_run(e.first, e.pages);
            }
        };
        // From here on nothing of the frame is whole.
        remove(&mut self.kept().stored);
        let zeros: Vec<Extent> = table.runs.iter().filter(|run| run.zero).map(|run| run.extent).collect();
        let stored = self.contents.keep(self.session, came, &zeros);
        let mut kept = self.kept();
        remove(&mut kept.promised);
        for e in extents().filter(|_| stored) {
            kept.stored.insert_run(e.first, e.pages);
        }
        drop(kept);
        Ok(PutDown { stored, held: self.contents.held(self.session) })
    }

    /// Whether the contents of these pages are here, and how much is kept.
    pub(super) fn probe(
        &self,
        epoch: u32,
        runs: &[(u64, u32)],
        fingerprints: &[Fingerprint],
    ) -> Result<(Vec<Found>, Bytes), WireError> {
        let shelf = self.open(epoch)?;
        let Some(memory) = shelf.memory.as_ref().filter(|_| shelf.shared) else {
            return Err(WireError::Malformed("question for contents that nobody was asked to share"));
        };
        let asked = probed(runs, fingerprints, memory.pages())?;
        let found = self.contents.probe(self.session, &asked);
        let mut kept = self.kept();
        for (&(page, _), found) in asked.iter().zip(&found) {
            if *found == Found::Unknown {
                kept.promised.insert(page);
            } else {
                kept.promised.remove(page);
            }
            if *found == Found::Here {
                kept.stored.insert(page);
            }
        }
        drop(kept);
        Ok((found, self.contents.held(self.session)))
    }

    /// The source's connection has ended: what it was to send on it does not come.
    pub(super) fn give_up(&self) {
        let promised = std::mem::take(&mut self.kept().promised);
        self.contents.give_up(self.session, &promised);
    }

    /// Takes room for what a frame will be written to; whether there is so much. From then on nothing of the frame is whole.
    fn back(&self, table: &Table) -> bool {
        let mut kept = self.kept();
        let data = || table.runs.iter().filter(|run| !run.zero).map(|run| run.extent);
        let fresh = data().map(|e| e.iter().filter(|&page| !kept.backed.contains(page)).count() as u64).sum();
        let claimed = self.room.claim(fresh);
        if claimed {
            data().for_each(|e| {
                kept.backed.insert_run(e.first, e.pages);
                kept.stored.remove_run(e.first, e.pages);
            });
        }
        claimed
    }

    /// Whether pages travel packed.
    pub(super) fn packs(&self) -> bool {
        self.packs.load(Ordering::Relaxed)
    }

    /// Bytes that are kept where they lie in the guest.
    fn held(&self) -> Bytes {
        Bytes::from_pages(self.kept().backed.count())
    }

    /// Those of the pages that are here, and where they come from.
    pub(super) fn hand_out(&self, runs: &[(u64, u32)]) -> Result<(Vec<Extent>, Store), WireError> {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        // Whoever is told where pages are is told after they have been kept.
        let Some(memory) = &shelf.memory else { return Err(WireError::Outdated) };
        let wanted = requested(runs, memory.pages())?;
        let kept = self.kept();
        let here = kept.here(&wanted);
        let shared = || Store::Shared(self.contents.of(self.session, &here));
        let store = if shelf.shared { shared() } else { Store::Own(memory.clone()) };
        Ok((here, store))
    }

    /// Nothing of this session is needed any more.
    pub(super) fn clear(&self) {
        let mut connections = self.connections();
        hang_up(connections.stage.take());
        connections.fetch.drain(..).for_each(|socket| hang_up(Some(socket)));
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        shelf.over = true;
        shelf.memory = None;
        let kept = std::mem::take(&mut *self.kept());
        self.room.give_back(kept.backed.count());
        if shelf.shared {
            self.contents.give_up(self.session, &kept.promised);
            self.contents.forget(self.session, &kept.stored);
            self.contents.end(self.session);
        }
    }
}

impl Kept {
    /// Those of the pages that are here.
    fn here(&self, wanted: &[Extent]) -> Vec<Extent> {
        let mut here = Vec::new();
        for extent in wanted {
            let (mut at, end) = (extent.first.0, extent.first.0 + extent.pages);
            while let Some(first) = self.stored.next_at(PageIndex(at)).filter(|first| first.0 < end) {
                let pages = self.stored.run_from(first, end - first.0);
                here.push(Extent { first, pages });
                at = first.0 + pages;
            }
        }
        here
    }
}

fn hang_up(socket: Option<TcpStream>) {
    if let Some(socket) = socket {
        // Already closed is as good.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

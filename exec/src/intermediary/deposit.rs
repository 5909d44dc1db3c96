//! The pages that are kept for one migration.

use super::Room;
use crate::content::Page;
use crate::memory::GuestMemory;
use crate::wire::WireError;
use crate::wire::frame::{FrameReader, Header};
use crate::wire::pages::{Buffer, Table, new_buffer};
use crate::wire::stage::MOST_PAGES;
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PageIndex};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Pages kept for one migration, each where it lies in the guest: memory that nothing was written to is not backed.
#[derive(Debug)]
pub(super) struct Deposit {
    room: Arc<Room>,
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
    memory: Option<Arc<GuestMemory>>,
    /// Nothing of this session is needed any more.
    over: bool,
}

#[derive(Debug, Default)]
struct Kept {
    /// Whole, in the version that came last.
    stored: Bitmap,
    /// Written to: room is taken for them.
    backed: Bitmap,
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
#[derive(Debug)]
pub(super) struct Buffers {
    table: Table,
    buffer: Box<Buffer>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { table: Table::default(), buffer: new_buffer() }
    }
}

impl Deposit {
    pub(super) fn new(room: Arc<Room>) -> Deposit {
        Deposit {
            room,
            shelf: RwLock::default(),
            kept: Mutex::default(),
            connections: Mutex::default(),
            packs: AtomicBool::new(false),
        }
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
    pub(super) fn keep(&self, pages: u64) -> Result<(bool, bool), WireError> {
        if pages > MOST_PAGES {
            return Err(WireError::Malformed("number of pages"));
        }
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = &shelf.memory {
            return if memory.pages() == pages { Ok((true, true)) } else { Err(WireError::Malformed("number of pages")) };
        }
        if !self.room.is_left() {
            return Ok((false, false));
        }
        shelf.memory = Some(Arc::new(GuestMemory::allocate(Bytes::from_pages(pages), false)?));
        Ok((true, false))
    }

    /// Takes the pages of a frame, all of them or none.
    pub(super) fn put_down(
        &self,
        header: &Header,
        reader: &mut FrameReader<TcpStream>,
        buffers: &mut Buffers,
    ) -> Result<PutDown, WireError> {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        if shelf.epoch != header.epoch || shelf.over {
            return Err(WireError::Outdated);
        }
        let Some(memory) = &shelf.memory else { return Err(WireError::Malformed("frame of pages that nobody was asked to keep")) };
        let Buffers { table, buffer } = buffers;
        table.read(reader, header, memory.pages())?;
        if table.packed {
            self.packs.store(true, Ordering::Relaxed);
        }
        if !self.back(table) {
            table.receive(&reader.input, memory, buffer, |_| false, |_, _| Ok(()))?;
            return Ok(PutDown { stored: false, held: self.held() });
        }
        table.receive(&reader.input, memory, buffer, |_| true, |_, _| Ok(()))?;
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

    /// Bytes that are kept.
    pub(super) fn held(&self) -> Bytes {
        Bytes::from_pages(self.kept().backed.count())
    }

    /// Where the pages lie, and how many a guest has.
    pub(super) fn memory(&self) -> Option<Arc<GuestMemory>> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner).memory.clone()
    }

    /// Those of the pages that are here.
    pub(super) fn here(&self, wanted: &[Extent]) -> Vec<Extent> {
        let kept = self.kept();
        let mut here = Vec::new();
        for extent in wanted {
            let (mut at, end) = (extent.first.0, extent.first.0 + extent.pages);
            while let Some(first) = kept.stored.next_at(PageIndex(at)).filter(|first| first.0 < end) {
                let pages = kept.stored.run_from(first, end - first.0);
                here.push(Extent { first, pages });
                at = first.0 + pages;
            }
        }
        here
    }

    /// Nothing of this session is needed any more.
    pub(super) fn clear(&self) {
        let mut connections = self.connections();
        hang_up(connections.stage.take());
        connections.fetch.drain(..).for_each(|socket| hang_up(Some(socket)));
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        shelf.over = true;
        shelf.memory = None;
        let mut kept = self.kept();
        self.room.give_back(kept.backed.count());
        *kept = Kept::default();
    }
}

fn hang_up(socket: Option<TcpStream>) {
    if let Some(socket) = socket {
        // Already closed is as good.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

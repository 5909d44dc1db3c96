//! The sending end of [frames of pages](super::pages).

use super::WireError;
use super::frame::{FrameWriter, HEADER, Kind};
use super::packing::Packer;
use super::pages::{Buffer, Direction, bytes_of, copy_out, new_buffer, part, sum_of, transfer};
use super::table::{Form, Run, pieces, plain_data};
use crate::memory::{GuestMemory, ReadPages, Windows};
use livemig_core::push_plan::Extent;
use livemig_core::units::PageIndex;
use std::net::TcpStream;

/// Makes frames of pages.
pub(crate) struct PageSender {
    /// Copies of the pages of a piece.
    copies: Box<Buffer>,
    runs: Vec<Run>,
    body: Vec<u8>,
    /// Through which guest memory is read; without, where it is.
    windows: Option<Windows>,
    /// What has packed the pages of the frame, if they are.
    packer: Option<Packer>,
    packed: bool,
}

/// What is done to pages before they are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Treatment {
    /// Those that are zero become marks.
    pub(crate) elide: bool,
    /// They are packed, one by one.
    pub(crate) pack: bool,
}

impl PageSender {
    pub(crate) fn new() -> PageSender {
        PageSender { copies: new_buffer(), runs: Vec::new(), body: Vec::new(), windows: None, packer: None, packed: false }
    }

    /// One that maps what it reads, and unmaps it when it goes on.
    pub(crate) fn through(windows: Windows) -> PageSender {
        PageSender { windows: Some(windows), ..PageSender::new() }
    }

    /// Takes the pages for a frame. Of those that are to be elided, the ones that are zero just now become marks. (If the guest writes
    /// to one of them, it has been collected before, and will be again.) Returns the bytes that the frame takes on the wire.
    pub(crate) fn take(&mut self, memory: &GuestMemory, extents: &[Extent], treatment: Treatment) -> Result<u64, WireError> {
        if let Some(windows) = &mut self.windows {
            windows.cover(memory, extents)?;
        }
        let windows = self.windows.take();
        let bytes = self.take_from(readable(windows.as_ref(), memory), extents, treatment);
        self.windows = windows;
        Ok(bytes)
    }

    /// The same out of what is no guest memory, and cannot fail.
    pub(crate) fn take_from(&mut self, pages: &dyn ReadPages, extents: &[Extent], treatment: Treatment) -> u64 {
        self.runs.clear();
        if treatment.elide {
            extents.iter().flat_map(|e| e.iter()).for_each(|page| append(&mut self.runs, page, pages.is_zero(page)));
        } else {
            self.runs.extend(extents.iter().map(|&extent| Run { extent, zero: false }));
        }
        self.packed = treatment.pack;
        if self.packed {
            self.pack(pages);
        }
        self.write_table();
        (HEADER + self.body.len()) as u64 + self.data()
    }

    /// Packs the pages as they are now.
    fn pack(&mut self, pages: &dyn ReadPages) {
        let packer = self.packer.get_or_insert_default();
        packer.clear();
        for piece in pieces(&self.runs) {
            packer.add(copy_out(pages, &piece, &mut self.copies));
        }
    }

    /// The packed pages, if they are packed.
    fn pack_of(&self) -> Option<&Packer> {
        self.packer.as_ref().filter(|_| self.packed)
    }

    fn write_table(&mut self) {
        let packer = self.packer.as_ref().filter(|_| self.packed);
        let mut sizes = packer.map_or(&[][..], |packer| packer.sizes.as_slice());
        self.body.clear();
        for Run { extent, zero } in &self.runs {
            let form = match (zero, packer) {
                (true, _) => Form::Zero,
                (false, None) => Form::Plain,
                (false, Some(_)) => Form::Packed,
            };
            self.body.extend_from_slice(&extent.first.0.to_le_bytes());
            self.body.extend_from_slice(&u32::try_from(extent.pages).unwrap_or(u32::MAX).to_le_bytes());
            self.body.extend_from_slice(&(form as u32).to_le_bytes());
            if form == Form::Packed {
                let (these, rest) = sizes.split_at(extent.pages as usize);
                self.body.extend(these.iter().flat_map(|size| size.to_le_bytes()));
                sizes = rest;
            }
        }
    }

    /// Bytes behind the table.
    fn data(&self) -> u64 {
        let plain = || plain_data(self.runs.iter().filter(|r| !r.zero).map(|r| r.extent.pages).sum());
        self.pack_of().map_or_else(plain, |packer| packer.data.len() as u64)
    }

    /// Sends what was taken: packed pages as they were then, others as they are now.
    pub(crate) fn send(&mut self, memory: &GuestMemory, out: &mut FrameWriter<TcpStream>) -> Result<(), WireError> {
        let windows = self.windows.take();
        let sent = self.send_from(readable(windows.as_ref(), memory), out);
        self.windows = windows;
        sent
    }

    /// The same for what was taken out of no guest memory.
    pub(crate) fn send_from(&mut self, pages: &dyn ReadPages, out: &mut FrameWriter<TcpStream>) -> Result<(), WireError> {
        let header = out.header(Kind::Pages, &self.body, self.data() as usize);
        let mut parts = vec![part(&header), part(&self.body)];
        if let Some(packer) = self.pack_of() {
            parts.push(part(&packer.data));
        } else {
            for piece in pieces(&self.runs) {
                let parts_of_piece = still(pages, &piece).unwrap_or_else(|| {
                    // The guest may be writing.
                    vec![bytes_of(copy_out(pages, &piece, &mut self.copies))]
                });
                let sum = sum_of(&parts_of_piece);
                parts.extend(parts_of_piece.iter().map(|bytes| part(bytes)).chain([part(&sum)]));
                // SAFETY: header, body, pages and sum live until the call returns, and are only read.
                unsafe { transfer(&out.out, &mut parts, Direction::Out)? };
                parts.clear();
            }
        }
        // What is packed, or a frame of marks alone.
        // SAFETY: as above.
        unsafe { transfer(&out.out, &mut parts, Direction::Out) }
    }
}

/// Where guest memory is read.
fn readable<'a>(windows: Option<&'a Windows>, memory: &'a GuestMemory) -> &'a dyn ReadPages {
    match windows {
        Some(windows) => windows,
        None => memory,
    }
}

/// The pages of a piece where they are, if nobody writes to them any more.
fn still<'a>(pages: &'a dyn ReadPages, piece: &[Extent]) -> Option<Vec<&'a [u8]>> {
    piece.iter().map(|&extent| pages.still(extent)).collect()
}

fn append(runs: &mut Vec<Run>, page: PageIndex, zero: bool) {
    match runs.last_mut() {
        Some(Run { extent, zero: same }) if *same == zero && extent.first.0 + extent.pages == page.0 => extent.pages += 1,
        _ => runs.push(Run { extent: Extent { first: page, pages: 1 }, zero }),
    }
}

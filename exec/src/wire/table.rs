//! The table of a frame of pages: which pages it has, which of them are zero, and in what pieces the others come.

use super::WireError;
use super::frame::{FrameReader, Header, Kind};
use super::packing::WHOLE;
use super::pages::{MAX_PAGES, PIECE, SUM};
use livemig_core::push_plan::Extent;
use livemig_core::units::{PAGE_SIZE, PageIndex};

/// Bytes of an entry of the table.
pub(super) const ENTRY: usize = 16;

/// Pages of a frame that follow each other and are all zero, or all not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) extent: Extent,
    pub(crate) zero: bool,
}

/// The pages of these runs that have data, in pieces.
pub(super) fn pieces(runs: &[Run]) -> Vec<Vec<Extent>> {
    let (mut pieces, mut room) = (Vec::new(), 0);
    for &Run { mut extent, .. } in runs.iter().filter(|r| !r.zero) {
        while extent.pages > 0 {
            if room == 0 {
                pieces.push(Vec::<Extent>::new());
                room = PIECE;
            }
            let pages = extent.pages.min(room);
            pieces.last_mut().expect("there is room").push(Extent { pages, ..extent });
            extent = Extent { first: PageIndex(extent.first.0 + pages), pages: extent.pages - pages };
            room -= pages;
        }
    }
    pieces
}

/// Bytes that a frame has behind its table when so many pages go as they are.
pub(super) fn plain_data(pages: u64) -> u64 {
    pages * PAGE_SIZE + pages.div_ceil(PIECE) * SUM as u64
}

/// The table of a frame of pages, in the order in which the data comes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) runs: Vec<Run>,
    /// Whether the pages with data are packed.
    pub(crate) packed: bool,
    /// Bytes of each packed page.
    pub(super) sizes: Vec<u16>,
}

/// What the pages of an entry are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain = 0,
    Zero = 1,
    /// Packed, with the bytes that each takes behind the entry.
    Packed = 2,
}

impl Table {
    /// Reads the table in the body of the frame just read; every page must lie below `pages`.
    pub(crate) fn read<R>(&mut self, reader: &FrameReader<R>, header: &Header, pages: u64) -> Result<(), WireError> {
        let bad = || WireError::Malformed("table of pages");
        if header.kind != Kind::Pages {
            return Err(bad());
        }
        self.runs.clear();
        self.sizes.clear();
        let (mut all, mut plain, mut rest) = (0, 0, reader.body.as_slice());
        while let Some((entry, behind)) = rest.split_first_chunk::<ENTRY>() {
            let first = u64::from_le_bytes(entry[..8].try_into().expect("8 of 16 bytes"));
            let count = u64::from(u32::from_le_bytes(entry[8..12].try_into().expect("4 of 16 bytes")));
            if count == 0 || count > MAX_PAGES || first.checked_add(count).is_none_or(|end| end > pages) {
                return Err(bad());
            }
            all += count;
            rest = behind;
            let zero = match entry[12..] {
                [0, 0, 0, 0] => {
                    plain += count;
                    false
                }
                [1, 0, 0, 0] => true,
                [2, 0, 0, 0] => {
                    rest = self.read_sizes(rest, count as usize).ok_or_else(bad)?;
                    false
                }
                _ => return Err(bad()),
            };
            self.runs.push(Run { extent: Extent { first: PageIndex(first), pages: count }, zero });
        }
        self.packed = !self.sizes.is_empty();
        let data = if self.packed { self.packed_data() } else { plain_data(plain) };
        // Pages are packed all or none.
        if !rest.is_empty() || all > MAX_PAGES || (self.packed && plain > 0) || data != u64::from(header.data) {
            return Err(bad());
        }
        Ok(())
    }

    /// Reads the sizes of packed pages; what is behind them, if they are there and may be.
    fn read_sizes<'a>(&mut self, bytes: &'a [u8], pages: usize) -> Option<&'a [u8]> {
        let (sizes, rest) = bytes.split_at_checked(2 * pages)?;
        for &size in sizes.as_chunks::<2>().0 {
            let size = u16::from_le_bytes(size);
            if size == 0 || size > WHOLE {
                return None;
            }
            self.sizes.push(size);
        }
        Some(rest)
    }

    /// The pages that are zero.
    pub(crate) fn zeros(&self) -> impl Iterator<Item = Extent> {
        self.runs.iter().filter(|run| run.zero).map(|run| run.extent)
    }

    /// The pages that have data, in the pieces in which it comes.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let mut sizes = self.sizes.as_slice();
        let piece = |extents: Vec<Extent>| {
            let pages: u64 = extents.iter().map(|e| e.pages).sum();
            let these = if self.packed { sizes.split_off(..pages as usize).unwrap_or_default() } else { &[] };
            Piece { extents, sizes: these.to_vec() }
        };
        pieces(&self.runs).into_iter().map(piece).collect()
    }
}

/// Pages whose data comes together.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) extents: Vec<Extent>,
    /// Bytes of each page, if they are packed.
    pub(super) sizes: Vec<u16>,
}

impl Piece {
    pub(crate) fn is_packed(&self) -> bool {
        !self.sizes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameWriter;
    use super::super::pages::MAX_DATA;
    use super::*;

    /// A frame with this table, and so much said to be behind it.
    fn table(body: &[u8], data: u64) -> Result<Table, WireError> {
        let header = FrameWriter::new(Vec::new(), 1, 1).header(Kind::Pages, body, data as usize);
        let bytes = [header.as_slice(), body].concat();
        let mut reader = FrameReader::new(bytes.as_slice(), MAX_DATA);
        let header = reader.next()?.expect("no timeout");
        let mut table = Table::default();
        table.read(&reader, &header, 100)?;
        Ok(table)
    }

    #[test]
    fn tables_that_do_not_say_what_comes_are_refused() {
        let entry =
            |first: u64, count: u32, form: u32| [&first.to_le_bytes()[..], &count.to_le_bytes(), &form.to_le_bytes()].concat();
        let sizes = |sizes: &[u16]| sizes.iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<u8>>();
        let packed = |of: &[u16]| [entry(3, 2, 2), sizes(of)].concat();
        assert_eq!(table(&packed(&[10, 4096]), 10 + 4096 + 16).unwrap().sizes, [10, 4096]);
        assert_eq!(table(&[entry(3, 2, 1), entry(9, 1, 0)].concat(), 4096 + 8).unwrap().runs.len(), 2);
        let bad = [
            (packed(&[10, 4096]), 10 + 4096 + 8),
            (packed(&[0, 4096]), 4096 + 16),
            (packed(&[10, 4097]), 10 + 4097 + 16),
            (packed(&[10]), 10 + 16),
            (packed(&[10, 10, 10]), 30 + 16),
            ([packed(&[10, 10]), entry(9, 1, 0)].concat(), 20 + 16 + 4096 + 8),
            (entry(3, 2, 3), 8192 + 8),
            (entry(99, 2, 1), 0),
            (entry(3, 2, 1)[..15].to_vec(), 0),
        ];
        for (body, data) in bad {
            assert!(matches!(table(&body, data), Err(WireError::Malformed(_))), "{body:?}");
        }
    }
}

//! Pages packed one by one: LZ4 blocks, which whoever receives them knows the size of, packed and unpacked.
//!
//! A page that does not get smaller goes as it is. What a page is packed from is a copy: the guest may write the page meanwhile.

use super::WireError;
use super::pages::{PIECE, SUM, bytes_of, check, sum_of};
use super::table::Table;
use crate::content::Page;
use livemig_core::units::PAGE_SIZE;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a page that was not packed.
pub(super) const WHOLE: u16 = PAGE_SIZE as u16;
/// Bytes behind a piece of packed pages: the checksum of what travels, and that of what it is unpacked to.
pub(super) const SUMS: usize = 2 * SUM;

/// Packs pages.
pub(super) struct Packer {
    table: CompressTable,
    packed: Vec<u8>,
    /// Bytes of each page of the frame.
    pub(super) sizes: Vec<u16>,
    /// The pages of the frame, packed, with the checksums of each piece behind it.
    pub(super) data: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Packer {
        let packed = vec![0; get_maximum_output_size(PAGE_SIZE as usize)];
        Packer { table: CompressTable::small(), packed, sizes: Vec::new(), data: Vec::new() }
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("pages", &self.sizes.len()).field("bytes", &self.data.len()).finish_non_exhaustive()
    }
}

impl Packer {
    /// Begins a frame.
    pub(super) fn clear(&mut self) {
        self.sizes.clear();
        self.data.clear();
    }

    /// Adds a piece.
    pub(super) fn add(&mut self, pages: &[Page]) {
        let from = self.data.len();
        for page in pages {
            self.pack(bytes_of(std::slice::from_ref(page)));
        }
        let sum = xxh3_64(&self.data[from..]).to_le_bytes();
        self.data.extend_from_slice(&sum);
        self.data.extend_from_slice(&sum_of(&[bytes_of(pages)]));
    }

    fn pack(&mut self, page: &[u8]) {
        let packed = compress_into_with_table(page, &mut self.packed, &mut self.table);
        match packed.ok().and_then(|size| u16::try_from(size).ok()).filter(|&size| size < WHOLE) {
            Some(size) => {
                self.sizes.push(size);
                self.data.extend_from_slice(&self.packed[..usize::from(size)]);
            }
            None => {
                self.sizes.push(WHOLE);
                self.data.extend_from_slice(page);
            }
        }
    }
}

/// Unpacks a page, which must be all that comes of these bytes.
fn unpack(bytes: &[u8], into: &mut Page) -> Result<(), WireError> {
    // SAFETY: a page is 512 words without padding, any bytes are one, and nobody else has it.
    let page = unsafe { std::slice::from_raw_parts_mut(into.0.as_mut_ptr().cast::<u8>(), size_of::<Page>()) };
    if bytes.len() == page.len() {
        page.copy_from_slice(bytes);
        return Ok(());
    }
    // It is never written beyond the page.
    match decompress_into(bytes, page) {
        Ok(size) if size == page.len() => Ok(()),
        Ok(_) | Err(_) => Err(WireError::Malformed("packed page")),
    }
}

impl Table {
    /// Bytes that a frame of packed pages has behind its table.
    pub(super) fn packed_data(&self) -> u64 {
        let pages = self.sizes.len() as u64;
        self.sizes.iter().map(|&size| u64::from(size)).sum::<u64>() + pages.div_ceil(PIECE) * SUMS as u64
    }
}

/// Unpacks a piece with its checksums behind it.
pub(super) fn unpack_piece(piece: &[u8], sizes: &[u16], into: &mut [Page]) -> Result<(), WireError> {
    let (mut data, sums) = piece.split_last_chunk::<SUMS>().ok_or(WireError::Malformed("packed pages"))?;
    let (travelled, unpacked) = sums.split_first_chunk::<SUM>().ok_or(WireError::Malformed("packed pages"))?;
    check(*travelled, xxh3_64(data).to_le_bytes())?;
    for (page, &size) in into.iter_mut().zip(sizes) {
        let (bytes, rest) = data.split_at_checked(usize::from(size)).ok_or(WireError::Malformed("packed pages"))?;
        unpack(bytes, page)?;
        data = rest;
    }
    if unpacked == sum_of(&[bytes_of(into)]) { Ok(()) } else { Err(WireError::Checksum("unpacked pages")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A page of which so many words are chance and the rest repeats one.
    fn page(seed: u64, words: usize, filler: u64) -> Page {
        let mut page = Page([filler; crate::content::WORDS]);
        (0..)
            .zip(&mut page.0[..words])
            .for_each(|(i, word)| *word = crate::mix::mix(seed.wrapping_add(crate::mix::GAMMA.wrapping_mul(i))));
        page
    }

    fn packed(pages: &[Page]) -> Packer {
        let mut packer = Packer::default();
        packer.add(pages);
        packer
    }

    #[test]
    fn what_does_not_get_smaller_goes_as_it_is() {
        let packer = packed(&[page(1, 512, 0), page(2, 0, 7), page(3, 511, 0)]);
        assert_eq!(packer.sizes[0], WHOLE);
        assert!(packer.sizes[1] < 60, "{:?}", packer.sizes);
        assert!(packer.sizes.iter().all(|&size| size <= WHOLE) && packer.data.len() <= 3 * 4096 + SUMS);
    }

    #[test]
    fn a_page_that_unpacks_to_more_or_less_is_refused() {
        let mut short = Packer::default();
        short.pack(&[7; 4095]);
        // A few bytes that stand for a hundred pages.
        let mut long = Packer { packed: vec![0; get_maximum_output_size(100 * 4096)], ..Packer::default() };
        long.pack(&vec![7; 100 * 4096]);
        for packer in [short, long] {
            let mut into = [Page::ZERO, Page([u64::MAX; 512])];
            let (target, beyond) = into.split_at_mut(1);
            assert!(unpack(&packer.data, &mut target[0]).is_err());
            assert_eq!(beyond[0], Page([u64::MAX; 512]), "it wrote beyond its page");
        }
        let mut page = Page::ZERO;
        assert!(unpack(&[], &mut page).is_err());
    }

    #[test]
    fn a_guests_pages_take_what_the_scenario_says_also_when_they_have_been_written() {
        for share in [0.1, 0.476, 0.7, 0.95] {
            let mut page = Page::ZERO;
            crate::content::Content::new(4).with_compressed(share).make(livemig_core::units::PageIndex(7), &mut page);
            let mut written = page;
            for (at, value) in [(0, page.0[0].wrapping_add(3)), (1, 0x1234_5678), (510, 3), (511, 0x1234_5678)] {
                written.0[at] = value;
            }
            for size in packed(&[page, written]).sizes {
                assert!((f64::from(size) / 4096.0 - share).abs() < 0.008, "{share}: {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn pages_come_back(pages in proptest::collection::vec((any::<u64>(), 0usize..513, any::<u64>()), 1..PIECE as usize)) {
            let pages: Vec<Page> = pages.into_iter().map(|(seed, words, filler)| page(seed, words, filler)).collect();
            let packer = packed(&pages);
            let mut into = vec![Page::ZERO; pages.len()];
            prop_assert!(unpack_piece(&packer.data, &packer.sizes, &mut into).is_ok());
            prop_assert!(into == pages);
        }

        #[test]
        fn damage_is_found(words in 0usize..513, bit in any::<proptest::sample::Index>(), cut in 1usize..100) {
            let packer = packed(&[page(5, words, 1), page(6, 3, 0)]);
            let mut into = [Page::ZERO; 2];
            let mut damaged = packer.data.clone();
            let bit = bit.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unpack_piece(&damaged, &packer.sizes, &mut into).is_err());
            let short = packer.data.len().saturating_sub(cut);
            prop_assert!(unpack_piece(&packer.data[..short], &packer.sizes, &mut into).is_err());
            let swapped: Vec<u16> = packer.sizes.iter().rev().copied().collect();
            prop_assert!(swapped == packer.sizes || unpack_piece(&packer.data, &swapped, &mut into).is_err());
        }

        /// Whatever comes, a page is filled or refused.
        #[test]
        fn any_bytes_are_a_page_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let mut page = Page::ZERO;
            let _ = unpack(&bytes, &mut page);
        }
    }
}

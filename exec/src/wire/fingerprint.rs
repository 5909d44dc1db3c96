//! Fingerprints of pages: by what an intermediary tells contents apart.
//!
//! Pages with the same fingerprint are taken for the same without a look at their bytes: BLAKE3, keyed, of which 160 bits are kept. Of 2^36
//! pages, which are 256 TiB, two that differ agree with a probability of 2^-89. Nor can a guest make two such pages: it does not know the
//! key, which is derived from that of the run.

use super::auth::Key;
use super::pages::bytes_of;
use crate::content::Page;
use serde::{Deserialize, Serialize};

/// Bytes of a fingerprint.
const BYTES: usize = 20;

/// What stands for the content of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Fingerprint([u8; BYTES]);

/// How fingerprints are taken in a run.
#[derive(Clone, Copy)]
pub(crate) struct Fingerprints([u8; 32]);

impl std::fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprints")
    }
}

impl Fingerprint {
    /// A number that is as good as random.
    pub(crate) fn number(&self) -> u64 {
        u64::from_le_bytes(*self.0.first_chunk().expect("20 bytes are at least 8"))
    }
}

impl Fingerprints {
    /// Those of the run with this key.
    pub(crate) fn of_run(key: &Key) -> Fingerprints {
        Fingerprints(blake3::derive_key("livemig 2026-11-26 fingerprints of pages", &key.0))
    }

    pub(crate) fn take(&self, page: &Page) -> Fingerprint {
        let hash = blake3::keyed_hash(&self.0, bytes_of(std::slice::from_ref(page)));
        Fingerprint(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_the_key_count() {
        let (one, other) = (Fingerprints::of_run(&Key([1; 32])), Fingerprints::of_run(&Key([2; 32])));
        let zero = one.take(&Page::ZERO);
        assert_eq!(zero, one.take(&Page::ZERO));
        assert_ne!(zero, other.take(&Page::ZERO));
        for bit in (0..4096 * 8).step_by(97) {
            let mut page = Page::ZERO;
            page.0[bit / 64] ^= 1 << (bit % 64);
            assert_ne!(zero, one.take(&page), "bit {bit}");
        }
    }
}

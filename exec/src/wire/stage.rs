//! What an intermediary hears and says: from the source, which leaves pages there, and from the destination, which fetches them.
//!
//! Pages come and go in [frames of pages](super::pages). On one connection they arrive in the order in which they were sent, and a
//! new connection is let in only when nothing of the one before is being applied, so that the version that arrives last is the
//! newest that was sent there: versions need no numbers.

use super::WireError;
use super::auth::{self, Greeting, Key};
use super::dial::Way;
use super::fingerprint::Fingerprint;
use super::frame::SILENCE;
use super::pages::MAX_PAGES;
use crate::tls::Security;
use livemig_core::push_plan::Extent;
use livemig_core::units::{Bytes, PAGE_SIZE, PageIndex};
use serde::{Deserialize, Serialize};
use std::net::TcpStream;
use std::time::Duration;

/// Most pages of a guest of which an intermediary keeps some: 256 GiB, the most that a guest may have.
pub(crate) const MOST_PAGES: u64 = (256 << 30) / PAGE_SIZE;

/// How long a read waits before it looks whether there has been silence.
const LOOK: Duration = Duration::from_millis(500);

/// Everything but pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StageMessage {
    /// From the source, first on its connection: keep pages of a guest that has so many, those with equal contents (also those of other
    /// guests) once if they are `shared`.
    Keep { pages: u64, shared: bool },
    /// To the source: whether there is any room, and whether pages of this session have been kept before.
    Kept { room: bool, known: bool },
    /// To the source: the pages of the frame with this number are kept, or none of them for lack of room; how much is kept now.
    Stored { seq: u32, stored: bool, held: Bytes },
    /// From the destination: hand these out; a frame of pages with those of them that are here is the answer.
    Fetch { runs: Vec<(u64, u32)> },
    /// From either: nothing of this session is needed any more.
    Free,
    /// From the source: whether the contents of these pages are here. The pages refer to those that are.
    Probe { runs: Vec<(u64, u32)>, fingerprints: Vec<Fingerprint> },
    /// To the source: the answer to the frame with this number, page by page; how much is kept now.
    Probed { seq: u32, found: Vec<Found>, held: Bytes },
}

/// What an intermediary knows of the content of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    /// It is here, and the page refers to it.
    Here,
    /// It is not here, and nobody else is about to send it.
    Unknown,
    /// Somebody else has been told that it is not here: it is worth asking again.
    Coming,
}

impl StageMessage {
    /// A request for pages.
    pub(crate) fn fetch(extents: &[Extent]) -> StageMessage {
        StageMessage::Fetch { runs: runs(extents) }
    }

    /// A question for pages with these contents.
    pub(crate) fn probe(extents: &[Extent], fingerprints: Vec<Fingerprint>) -> StageMessage {
        StageMessage::Probe { runs: runs(extents), fingerprints }
    }
}

fn runs(extents: &[Extent]) -> Vec<(u64, u32)> {
    extents.iter().map(|e| (e.first.0, u32::try_from(e.pages).unwrap_or(u32::MAX))).collect()
}

/// Connects to an intermediary.
pub(crate) fn connect(way: &Way, security: &Security, greeting: Greeting, key: &Key) -> Result<TcpStream, WireError> {
    let mut stream = way.dial(security)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    auth::introduce(&mut stream, greeting, key)?;
    stream.set_read_timeout(Some(LOOK))?;
    Ok(stream)
}

/// The pages of a request, of a guest with so many: not more than a frame may have.
pub(crate) fn requested(runs: &[(u64, u32)], pages: u64) -> Result<Vec<Extent>, WireError> {
    let bad = || WireError::Malformed("request for staged pages");
    let mut all = 0;
    let mut extents = Vec::with_capacity(runs.len().min(MAX_PAGES as usize));
    for &(first, count) in runs {
        let count = u64::from(count);
        all += count;
        if count == 0 || all > MAX_PAGES || first.checked_add(count).is_none_or(|end| end > pages) {
            return Err(bad());
        }
        extents.push(Extent { first: PageIndex(first), pages: count });
    }
    Ok(extents)
}

/// The pages of a question, of a guest with so many, with their contents.
pub(crate) fn probed(
    runs: &[(u64, u32)],
    fingerprints: &[Fingerprint],
    pages: u64,
) -> Result<Vec<(PageIndex, Fingerprint)>, WireError> {
    let asked: Vec<PageIndex> = requested(runs, pages)?.into_iter().flat_map(Extent::iter).collect();
    if asked.len() != fingerprints.len() {
        return Err(WireError::Malformed("question for contents"));
    }
    Ok(asked.into_iter().zip(fingerprints.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded() {
        let good = [Extent { first: PageIndex(3), pages: 60 }, Extent { first: PageIndex(99), pages: 1 }];
        let StageMessage::Fetch { runs } = StageMessage::fetch(&good) else { panic!("a request") };
        assert_eq!(requested(&runs, 100).unwrap(), good);
        for bad in [&[(3, 60), (99, 2)][..], &[(0, 100); 3], &[(5, 0)], &[(u64::MAX, 2)]] {
            assert!(requested(bad, 100).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_question_names_as_many_contents_as_pages() {
        use crate::wire::fingerprint::Fingerprints;
        let content = Fingerprints::of_run(&Key([1; 32])).take(&crate::content::Page::ZERO);
        let asked = probed(&[(3, 2), (9, 1)], &[content; 3], 100).unwrap();
        assert_eq!(asked.iter().map(|a| a.0.0).collect::<Vec<_>>(), [3, 4, 9]);
        for (runs, contents) in [(&[(3, 2)][..], 3), (&[(3, 2)], 1), (&[(99, 2)], 2), (&[(0, 300)], 300)] {
            assert!(probed(runs, &vec![content; contents], 100).is_err(), "{runs:?}");
        }
    }
}

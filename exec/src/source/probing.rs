//! Deduplication at the source: intermediaries are asked for pages by their content before any are sent, a batch at a time.
//!
//! A batch is a *parcel* with an errand. Its pages are sorted first: which intermediary is asked for a page follows from its content, so that
//! all guests look for equal pages in the same place (by rendezvous hashing: Thaler, Ravishankar, "Using name-based mappings to increase hit
//! rates", IEEE/ACM ToN 1998), unless that place has too much to do. Then they are asked for, which the stream of pages does not wait for,
//! and those that are not there are sent. Pages of zeros are not worth a question. What another guest is just about to send is asked for
//! again in a while; for how long is bounded, and whoever waits for the page ends it.

use super::sender::{Batch, Sender, State};
use super::sends::Lane;
use crate::memory::ReadPages;
use crate::mix::mix;
use crate::wire::WireError;
use crate::wire::fingerprint::{Fingerprint, Fingerprints};
use crate::wire::stage::Found;
use livemig_core::push_plan::Extent;
use livemig_core::units::PageIndex;
use livemig_core::vocabulary::CmdId;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After how long a page that is coming is asked for again; twice that the next time, and so on.
const AGAIN: Duration = Duration::from_millis(4);
/// After so many questions a page is sent, even if it is coming: after half a second.
const MOST_QUESTIONS: u32 = 8;
/// Most parcels that wait until they are asked for again: with more, pages are sent.
const MOST_WAITING: usize = 256;
/// Parcels at an intermediary that make others be asked in its place: sorted batches are small.
const MOST_LOAD: usize = 32;

/// Pages for one intermediary.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    /// The number of the batch on its way.
    pub(super) flight: u32,
    pub(super) batch: Batch,
    pub(super) errand: Errand,
}

/// What is to be done with a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Find out whom to ask for its pages.
    Sort,
    /// Ask for its pages, which have these contents, after so many questions.
    Ask { questions: u32, fingerprints: Vec<Fingerprint> },
    /// Send them.
    Send,
}

/// A parcel that waits until its pages have come from elsewhere.
#[derive(Debug)]
pub(super) struct Waiting {
    parcel: Parcel,
    due: Instant,
}

/// Pages of a batch that go the same way.
#[derive(Debug, Default)]
struct Part {
    extents: Vec<Extent>,
    fingerprints: Vec<Fingerprint>,
}

/// What becomes of a parcel once its question has been answered.
#[derive(Debug, Default)]
struct Answered {
    /// Pages whose content is there.
    had: u64,
    /// What is to be sent.
    rest: Option<Parcel>,
    /// What is to be asked for again.
    later: Option<Waiting>,
}

/// The contents of a batch, page by page; none of pages of zeros, if these go as marks.
pub(super) fn contents_of(
    memory: &impl ReadPages,
    batch: &Batch,
    fingerprints: &Fingerprints,
) -> Vec<(PageIndex, Option<Fingerprint>)> {
    let mut copy = crate::content::Page::ZERO;
    let mut content = |page| {
        if batch.treatment.elide && memory.is_zero(page) {
            return (page, None);
        }
        memory.read_page(page, &mut copy);
        (page, Some(fingerprints.take(&copy)))
    };
    batch.extents.iter().flat_map(|e| e.iter()).map(&mut content).collect()
}

impl Parcel {
    /// What becomes of the pages by the answer to a question; with `patient`, some may be asked for again.
    fn answered(self, found: &[Found], patient: bool, now: Instant) -> Result<Answered, WireError> {
        let malformed = WireError::Malformed("answer to a question for contents");
        let Parcel { flight, batch, errand: Errand::Ask { questions, fingerprints } } = self else { return Err(malformed) };
        if found.len() != fingerprints.len() {
            return Err(malformed);
        }
        let questions = questions + 1;
        let patient = patient && questions < MOST_QUESTIONS;
        let (mut rest, mut later, mut coming, mut had) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let pages = batch.extents.iter().flat_map(|e| e.iter());
        for (page, (content, found)) in pages.zip(fingerprints.into_iter().zip(found)) {
            match found {
                Found::Here => had += 1,
                Found::Coming if patient => {
                    append(&mut later, page);
                    coming.push(content);
                }
                Found::Unknown | Found::Coming => append(&mut rest, page),
            }
        }
        let parcel = |extents: Vec<Extent>, errand| {
            let batch = Batch { extents, ..batch.clone() };
            (!batch.extents.is_empty()).then_some(Parcel { flight, batch, errand })
        };
        let due = now + AGAIN * 2u32.pow(questions - 1);
        let later = parcel(later, Errand::Ask { questions, fingerprints: coming }).map(|parcel| Waiting { parcel, due });
        Ok(Answered { had, rest: parcel(rest, Errand::Send), later })
    }
}

impl Waiting {
    /// Its time has come: it is asked for once more, and not again.
    fn hurry(&mut self) {
        self.due = Instant::now();
        if let Errand::Ask { questions, .. } = &mut self.parcel.errand {
            *questions = MOST_QUESTIONS;
        }
    }
}

/// Parcels that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom(Vec<Waiting>);

impl WaitingRoom {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MOST_WAITING
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.0.push(waiting);
    }

    /// A parcel whose time has come.
    pub(super) fn next(&mut self, now: Instant) -> Option<Parcel> {
        let at = self.0.iter().position(|waiting| waiting.due <= now)?;
        Some(self.0.remove(at).parcel)
    }

    /// How long until the time of one has come.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.0.iter().map(|waiting| waiting.due.saturating_duration_since(now)).min()
    }

    pub(super) fn contains(&self, flight: u32) -> bool {
        self.0.iter().any(|waiting| waiting.parcel.flight == flight)
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(u32) -> bool) {
        self.0.retain(|waiting| keeps(waiting.parcel.flight));
    }

    fn hurry(&mut self, which: impl Fn(&Batch) -> bool) {
        self.0.iter_mut().filter(|waiting| which(&waiting.parcel.batch)).for_each(Waiting::hurry);
    }
}

impl State {
    /// Who is to be asked for a content: so many intermediaries that a send may use, the first of them for everybody the same.
    fn responsible(&self, via: &[u16], copies: usize, content: Fingerprint) -> Vec<u16> {
        let rank = |&via: &u16| {
            let host = self.staging.host(via).filter(|host| host.is_up())?;
            Some((host.load() >= MOST_LOAD, Reverse(mix(host.identity ^ content.number())), via))
        };
        let mut ranks: Vec<_> = via.iter().filter_map(rank).collect();
        ranks.sort_unstable();
        ranks.into_iter().take(copies).map(|(_, _, via)| via).collect()
    }
}

impl Sender {
    /// A batch has been looked at: its pages go on to whom they are to be asked of.
    pub(super) fn spread(&self, no: u32, batch: &Batch, contents: Vec<(PageIndex, Option<Fingerprint>)>) {
        let mut state = self.lock();
        let Some(flight) = state.staging.flights.remove(&no) else { return };
        let Some(index) = state.sends.iter().position(|s| Some(s.id) == batch.send) else { return };
        let (via, copies) = (state.sends[index].via.clone(), flight.holders.len());
        let mut parts: BTreeMap<(Vec<u16>, bool), Part> = BTreeMap::new();
        for (page, content) in contents {
            let asked = content.map(|content| state.responsible(&via, copies, content)).filter(|holders| holders.len() == copies);
            let holders = asked.unwrap_or_else(|| flight.holders.clone());
            let part = parts.entry((holders, content.is_some())).or_default();
            append(&mut part.extents, page);
            part.fingerprints.extend(content);
        }
        let mut flights = Vec::new();
        for ((holders, asks), Part { extents, fingerprints }) in parts {
            let errand = if asks { Errand::Ask { questions: 0, fingerprints } } else { Errand::Send };
            let no = state.staging.post(&holders, &Batch { extents: extents.clone(), ..batch.clone() }, &errand);
            flights.push(((Lane::Staged, no), extents));
        }
        state.sends[index].divide((Lane::Staged, no), flights);
        self.room.notify_all();
    }

    /// An intermediary has answered a question; whether that was the last answer that it owed.
    pub(super) fn told(&self, via: u16, epoch: u32, seq: u32, found: &[Found]) -> Result<bool, WireError> {
        let mut state = self.lock();
        let Some(host) = state.staging.host_mut(via).filter(|host| host.epoch == Some(epoch)) else { return Ok(false) };
        let Some(parcel) = host.on_way.remove(&seq) else { return Ok(false) };
        let (last, full) = (host.on_way.is_empty(), host.waiting.is_full());
        let (no, send) = (parcel.flight, parcel.batch.send);
        let goes_on = state.sends.iter().any(|s| Some(s.id) == send && !s.recalled);
        let answered = parcel.answered(found, !full && goes_on, Instant::now())?;
        if state.staging.had(no, answered.had)
            && let Some(host) = state.staging.host_mut(via)
        {
            // What is known to be missing goes before further questions.
            answered.rest.into_iter().for_each(|parcel| host.queue.push_front(parcel));
            answered.later.into_iter().for_each(|waiting| host.waiting.push(waiting));
        }
        self.settle(&mut state, via, no, true);
        Ok(last)
    }

    /// The guest waits for a page: if it waits for its content to come from elsewhere, that has an end.
    pub(super) fn hurry_page(&self, page: PageIndex) {
        self.hurry(|batch| batch.extents.iter().any(|e| (e.first.0..e.first.0 + e.pages).contains(&page.0)));
    }

    /// A send is recalled: so it is with all of its pages.
    pub(super) fn hurry_send(&self, send: CmdId) {
        self.hurry(|batch| batch.send == Some(send));
    }

    fn hurry(&self, which: impl Fn(&Batch) -> bool) {
        self.lock().staging.hosts_mut().for_each(|host| host.waiting.hurry(&which));
        self.room.notify_all();
    }
}

/// Adds a page to runs of pages.
fn append(extents: &mut Vec<Extent>, page: PageIndex) {
    match extents.last_mut() {
        Some(last) if last.first.0 + last.pages == page.0 => last.pages += 1,
        _ => extents.push(Extent { first: page, pages: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::staging::Staging;
    use super::*;
    use crate::content::{Content, Page};
    use crate::memory::GuestMemory;
    use crate::wire::auth::Key;
    use crate::wire::page_sender::Treatment;
    use livemig_core::units::Bytes;

    fn extent(first: u64, pages: u64) -> Extent {
        Extent { first: PageIndex(first), pages }
    }

    fn batch(extents: &[Extent], elide: bool) -> Batch {
        Batch { send: Some(CmdId(1)), extents: extents.to_vec(), treatment: Treatment { elide, pack: false } }
    }

    fn parcel(questions: u32) -> Parcel {
        let fingerprints = (0..6).map(|n| Fingerprints::of_run(&Key([n; 32])).take(&Page::ZERO)).collect();
        let extents = [extent(10, 4), extent(2, 2)];
        Parcel { flight: 3, batch: batch(&extents, true), errand: Errand::Ask { questions, fingerprints } }
    }

    #[test]
    fn what_is_zero_has_no_content_to_ask_for() {
        let memory = GuestMemory::allocate(Bytes::from_pages(20), false).unwrap();
        Content::new(1).fill(&memory, 1);
        memory.write_page(PageIndex(5), &Page::ZERO);
        let fingerprints = Fingerprints::of_run(&Key([3; 32]));
        let pages = [extent(8, 2), extent(4, 3)];
        let contents = contents_of(&memory, &batch(&pages, true), &fingerprints);
        assert_eq!(contents.iter().map(|c| c.0.0).collect::<Vec<_>>(), [8, 9, 4, 5, 6]);
        let mut page = Page::ZERO;
        memory.read_page(PageIndex(4), &mut page);
        assert_eq!((contents[2].1, contents[3].1), (Some(fingerprints.take(&page)), None));
        assert!(contents_of(&memory, &batch(&pages, false), &fingerprints).iter().all(|c| c.1.is_some()));
    }

    #[test]
    fn an_answer_sorts_pages_into_those_there_those_to_be_sent_and_those_to_be_asked_for_again() {
        use Found::{Coming, Here, Unknown};
        let now = Instant::now();
        let answer = [Here, Unknown, Coming, Unknown, Here, Coming];
        let Errand::Ask { fingerprints, .. } = parcel(0).errand else { panic!("a question") };
        let answered = parcel(0).answered(&answer, true, now).unwrap();
        assert_eq!(answered.had, 2);
        let rest = answered.rest.unwrap();
        assert_eq!((rest.batch.extents, rest.errand), (vec![extent(11, 1), extent(13, 1)], Errand::Send));
        let later = answered.later.unwrap();
        assert_eq!((later.parcel.batch.extents, later.due), (vec![extent(12, 1), extent(3, 1)], now + AGAIN));
        assert_eq!(later.parcel.errand, Errand::Ask { questions: 1, fingerprints: vec![fingerprints[2], fingerprints[5]] });
        // Whoever has asked often enough, or is in a hurry, sends.
        for (questions, patient) in [(MOST_QUESTIONS - 1, true), (1, false)] {
            let answered = parcel(questions).answered(&answer, patient, now).unwrap();
            assert!(answered.later.is_none());
            assert_eq!(answered.rest.unwrap().batch.extents, [extent(11, 3), extent(3, 1)]);
        }
        assert!(parcel(0).answered(&answer[1..], true, now).is_err());
        assert!(Parcel { errand: Errand::Send, ..parcel(0) }.answered(&answer, true, now).is_err());
        let all = parcel(0).answered(&[Here; 6], true, now).unwrap();
        assert!(all.had == 6 && all.rest.is_none() && all.later.is_none());
    }

    #[test]
    fn a_parcel_waits_until_its_time_has_come_or_somebody_is_in_a_hurry() {
        let now = Instant::now();
        let mut room = WaitingRoom::default();
        assert!(room.wait(now).is_none());
        room.push(parcel(2).answered(&[Found::Coming; 6], true, now).unwrap().later.unwrap());
        assert_eq!(room.wait(now), Some(AGAIN * 4));
        assert!(room.next(now).is_none() && room.contains(3));
        room.hurry(|batch| batch.send == Some(CmdId(9)));
        assert!(room.next(now).is_none());
        room.hurry(|batch| batch.send == Some(CmdId(1)));
        let parcel = room.next(Instant::now()).unwrap();
        assert!(matches!(parcel.errand, Errand::Ask { questions: MOST_QUESTIONS, .. }), "{parcel:?}");
        assert!(!room.contains(3));
    }

    #[test]
    fn everybody_asks_the_same_for_a_content_and_all_have_their_share() {
        let mut counts = [0; 3];
        let fingerprints = Fingerprints::of_run(&Key([3; 32]));
        for n in 0..300 {
            let content = fingerprints.take(&Page([n; crate::content::WORDS]));
            let mut state = State::default();
            state.staging = Staging::of(&[11, 22, 33]);
            state.staging.hosts_mut().for_each(|host| host.epoch = Some(1));
            let first = state.responsible(&[0, 1, 2], 2, content);
            counts[usize::from(first[0])] += 1;
            // Who else may be asked changes nothing, nor in which order they are.
            state.staging = Staging::of(&[33, 99, 22, 11]);
            state.staging.hosts_mut().for_each(|host| host.epoch = Some(1));
            let second = state.responsible(&[0, 2, 3], 2, content);
            let of = |via: &[u16], ids: &[u64]| via.iter().map(|&v| ids[usize::from(v)]).collect::<Vec<_>>();
            assert_eq!(of(&first, &[11, 22, 33]), of(&second, &[33, 99, 22, 11]));
            // One that is not there is not asked.
            state.staging.host_mut(second[0]).unwrap().epoch = None;
            assert_eq!(state.responsible(&[0, 2, 3], 1, content), second[1..]);
        }
        assert!(counts.iter().all(|n| (70..130).contains(n)), "{counts:?}");
    }
}

//! An intermediary: it keeps pages of guests that are on their way elsewhere, as far as it has room, and hands them out to their
//! destination until that has everything.
//!
//! It knows nothing of a migration but its number. A page that comes again replaces the version that was here; which host has the
//! newest version of a page is known to the source alone, and later to the destination. Pages of migrations with deduplication are kept by
//! their content, each once for all of them.

mod contents;
mod deposit;
mod serve;

use crate::agent::Part;
use crate::bucket::Pace;
use crate::wire::fingerprint::Fingerprints;
use contents::Contents;
use deposit::Deposit;
use livemig_core::units::{Bytes, PAGE_SIZE, Rate};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Room for pages that are kept, shared by all migrations.
#[derive(Debug)]
struct Room {
    limit: Option<Bytes>,
    held: AtomicU64,
}

impl Room {
    /// Whether anything fits.
    fn is_left(&self) -> bool {
        self.limit.is_none_or(|limit| self.held.load(Ordering::Relaxed) + PAGE_SIZE <= limit.0)
    }

    /// Takes room for so many pages, if there is so much.
    fn claim(&self, pages: u64) -> bool {
        let grown = |held: u64| held.checked_add(pages * PAGE_SIZE).filter(|now| self.limit.is_none_or(|limit| *now <= limit.0));
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
    }

    fn give_back(&self, pages: u64) {
        self.held.fetch_sub(pages * PAGE_SIZE, Ordering::Relaxed);
    }
}

/// What this host keeps for others.
#[derive(Debug)]
pub(crate) struct Intermediary {
    room: Arc<Room>,
    /// The rate at which it takes and hands out, together.
    pace: Option<Pace>,
    contents: Arc<Contents>,
    deposits: Mutex<BTreeMap<u32, Arc<Deposit>>>,
    /// Connections that are being served.
    served: AtomicUsize,
}

impl Intermediary {
    /// One with so much room for pages of all migrations together.
    pub(crate) fn new(room: Option<Bytes>, service: Option<Rate>, fingerprints: Fingerprints) -> Intermediary {
        let room = Arc::new(Room { limit: room, held: AtomicU64::new(0) });
        let contents = Arc::new(Contents::new(room.clone(), fingerprints));
        Intermediary { room, pace: service.map(Pace::new), contents, deposits: Mutex::default(), served: AtomicUsize::new(0) }
    }

    fn deposit(&self, session: u32) -> Arc<Deposit> {
        let mut deposits = self.deposits.lock().unwrap_or_else(PoisonError::into_inner);
        let deposit = || Arc::new(Deposit::new(session, self.room.clone(), self.contents.clone()));
        deposits.entry(session).or_insert_with(deposit).clone()
    }

    /// How what is kept here stands.
    pub(crate) fn part(&self) -> Part {
        if self.served.load(Ordering::Relaxed) > 0 {
            Part::Connected
        } else if self.deposits.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            Part::Over
        } else {
            Part::Alone
        }
    }

    /// Drops what is kept of a session, and its connections.
    pub(crate) fn free(&self, session: u32) {
        let deposit = self.deposits.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
        if let Some(deposit) = deposit {
            deposit.clear();
        }
    }
}

impl Drop for Intermediary {
    fn drop(&mut self) {
        for deposit in self.deposits.lock().unwrap_or_else(PoisonError::into_inner).values() {
            deposit.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back_and_never_exceeded() {
        let room = Room { limit: Some(Bytes(10 * PAGE_SIZE + 5)), held: AtomicU64::new(0) };
        assert!(room.claim(6) && room.claim(4) && !room.claim(1) && !room.is_left() && room.claim(0));
        room.give_back(3);
        assert!(room.is_left() && !room.claim(4) && room.claim(3));
        let endless = Room { limit: None, held: AtomicU64::new(0) };
        assert!(endless.is_left() && endless.claim(1 << 40));
    }
}

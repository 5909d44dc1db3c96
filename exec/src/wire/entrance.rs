//! How many connections may be open that have not proven yet where they belong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts those that wait to be let in.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Entrance {
    /// Room for so many.
    pub(crate) fn new(most: usize) -> Entrance {
        Entrance { waiting: Arc::default(), most }
    }

    /// One more; `None` when there are too many, and it is to be closed.
    pub(crate) fn wait(&self) -> Option<Waiting> {
        let waiting = Waiting(self.waiting.clone());
        (self.waiting.fetch_add(1, Ordering::SeqCst) < self.most).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_again_when_they_have_gone() {
        let entrance = Entrance::new(2);
        let (first, second) = (entrance.wait(), entrance.wait());
        assert!(first.is_some() && second.is_some() && entrance.wait().is_none() && entrance.wait().is_none());
        drop(first);
        assert!(entrance.wait().is_some());
    }
}

//! Where staged pages are, at class fidelity: how many bytes each group of intermediaries stores.
//!
//! Which pages those are is not known: the pages of each region are spread over the groups in proportion. A page that is stored several times
//! is in the group of its holders; the first one of them is asked for it.

/// The intermediaries that store the same pages.
#[derive(Clone, Debug)]
struct Group {
    /// At least one; the first is asked.
    holders: Vec<u16>,
    /// Bytes of pages, each counted once.
    bytes: f64,
}

/// The groups of one migration.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    groups: Vec<Group>,
}

impl Places {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn total(&self) -> f64 {
        self.groups.iter().map(|g| g.bytes).sum()
    }

    fn group(&mut self, holders: &[u16]) -> &mut Group {
        let at = self.groups.iter().position(|g| g.holders == holders).unwrap_or_else(|| {
            self.groups.push(Group { holders: holders.to_vec(), bytes: 0.0 });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    /// So many bytes have come over these lanes. Without replicas each intermediary gets what its lane carries; with them pages go to
    /// each `copies` neighbours in turn.
    pub(super) fn add(&mut self, bytes: f64, lanes: &[(u16, f64)], copies: u16) {
        let rate: f64 = lanes.iter().map(|l| l.1).sum();
        let copies = usize::from(copies.max(1)).min(lanes.len());
        for (i, &(via, lane)) in lanes.iter().enumerate() {
            if copies == 1 {
                self.group(&[via]).bytes += if rate > 0.0 { bytes * lane / rate } else { 0.0 };
            } else {
                let holders: Vec<u16> = (0..copies).map(|k| lanes[(i + k) % lanes.len()].0).collect();
                self.group(&holders).bytes += bytes / lanes.len() as f64;
            }
        }
    }

    /// So many bytes have been fetched over these lanes.
    pub(super) fn fetch(&mut self, bytes: f64, lanes: &[(u16, f64)]) {
        let rate: f64 = lanes.iter().map(|l| l.1).sum();
        for &(via, lane) in lanes.iter().filter(|l| l.1 > 0.0) {
            let mut left = bytes * lane / rate;
            for g in self.groups.iter_mut().filter(|g| g.holders[0] == via) {
                let taken = g.bytes.min(left);
                g.bytes -= taken;
                left -= taken;
            }
        }
    }

    /// In all it is so much: every group has its share of the difference.
    pub(super) fn set_total(&mut self, bytes: f64) {
        let total = self.total();
        let factor = if total > 0.0 { bytes / total } else { 0.0 };
        self.groups.iter_mut().for_each(|g| g.bytes *= factor);
    }

    /// Bytes that are to be fetched from an intermediary.
    pub(super) fn backlog(&self, via: u16) -> f64 {
        self.groups.iter().filter(|g| g.holders[0] == via).map(|g| g.bytes).sum()
    }

    /// Bytes that an intermediary stores.
    pub(super) fn stored(&self, via: u16) -> f64 {
        self.groups.iter().filter(|g| g.holders.contains(&via)).map(|g| g.bytes).sum()
    }

    /// An intermediary is gone: which share of all that is staged was only there.
    pub(super) fn lose(&mut self, via: u16) -> f64 {
        let (total, mut lost) = (self.total(), 0.0);
        for mut g in std::mem::take(&mut self.groups) {
            g.holders.retain(|&h| h != via);
            if g.holders.is_empty() {
                lost += g.bytes;
            } else {
                self.group(&g.holders).bytes += g.bytes;
            }
        }
        if total > 0.0 { lost / total } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_stored_twice_survives_the_first_loss() {
        let mut places = Places::default();
        places.add(300.0, &[(0, 1.0), (1, 1.0), (2, 1.0)], 2);
        assert_eq!([places.stored(0), places.stored(1), places.stored(2)], [200.0; 3]);
        assert_eq!([places.backlog(0), places.backlog(1), places.backlog(2)], [100.0; 3]);
        assert_eq!(places.lose(1), 0.0);
        assert_eq!([places.stored(0), places.stored(1), places.stored(2)], [200.0, 0.0, 200.0]);
        assert_eq!([places.backlog(0), places.backlog(2)], [100.0, 200.0]);
        assert!((places.lose(2) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(places.stored(0), 200.0);
    }

    #[test]
    fn without_replicas_each_lane_stores_what_it_carries() {
        let mut places = Places::default();
        places.add(100.0, &[(4, 3.0), (7, 1.0)], 1);
        assert_eq!((places.stored(4), places.stored(7)), (75.0, 25.0));
        places.fetch(50.0, &[(4, 1.0), (7, 1.0)]);
        assert_eq!((places.stored(4), places.stored(7)), (50.0, 0.0));
        assert_eq!(places.lose(4), 1.0);
    }
}

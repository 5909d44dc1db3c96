//! Drawing what replicates differ in.

use rand::Rng;
use rand_distr::{Distribution, Normal};

/// A number of dirty bytes around its expectation `dirty` out of `size`.
///
/// Each of W pages is dirty with probability p = dirty / size; the count is drawn from the normal approximation of the binomial
/// distribution, W p (1 - p) being its variance. All or nothing stays all or nothing.
pub(crate) fn dirty(dirty: f64, size: f64, rng: &mut impl Rng) -> f64 {
    let page = livemig_core::units::PAGE_SIZE as f64;
    let p = dirty / size;
    if p <= 0.0 || p >= 1.0 {
        return dirty;
    }
    let deviation = libm::sqrt(size / page * p * (1.0 - p)) * page;
    Normal::new(dirty, deviation).map_or(dirty, |n| n.sample(rng).clamp(0.0, size))
}

//! Drawing what replicates differ in.

use livemig_models::world::Pattern;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Normal};

/// A number of dirty bytes around its expectation `dirty` out of `size`.
///
/// Each of W pages is dirty with probability p = dirty / size; the count is drawn from the normal approximation of the binomial
/// distribution, W p (1 - p) being its variance. All or nothing stays all or nothing. A sweep and a measured curve write as many pages
/// as they do, and are met anywhere between two of them.
pub(crate) fn dirty(dirty: f64, size: f64, pattern: &Pattern, rng: &mut impl Rng) -> f64 {
    let page = livemig_core::units::PAGE_SIZE as f64;
    if !matches!(pattern, Pattern::Random) {
        let whole = libm::floor(dirty / page + rng.random::<f64>()) * page;
        return if dirty >= size { size } else { whole.min(size) };
    }
    let p = dirty / size;
    if p <= 0.0 || p >= 1.0 {
        return dirty;
    }
    let deviation = libm::sqrt(size / page * p * (1.0 - p)) * page;
    Normal::new(dirty, deviation).map_or(dirty, |n| n.sample(rng).clamp(0.0, size))
}

//! The pseudo-random functions that guest, replay and page contents share.
//!
//! SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): a counter times an odd
//! constant, put through a bijective mixer. Because the state is the counter, a guest's generator is its step counter.

/// The step of the counter: 2^64 divided by the golden ratio, odd.
pub(crate) const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
/// First multiplier of the mixer.
pub(crate) const MIX1: u64 = 0xbf58_476d_1ce4_e5b9;
/// Second multiplier of the mixer.
pub(crate) const MIX2: u64 = 0x94d0_49bb_1331_11eb;
/// Multiplier of [`second`].
pub(crate) const MIX3: u64 = 0xd6e8_feb8_6659_fd93;

/// The bijective mixer of SplitMix64.
#[inline]
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(MIX1);
    z = (z ^ (z >> 27)).wrapping_mul(MIX2);
    z ^ (z >> 31)
}

/// The number of a step.
#[inline]
pub(crate) const fn at_step(seed: u64, step: u64) -> u64 {
    mix(step.wrapping_mul(GAMMA).wrapping_add(seed))
}

/// A second number from the same step, whose high bits hang on all bits of the first.
#[inline]
pub(crate) const fn second(z: u64) -> u64 {
    (z ^ (z >> 32)).wrapping_mul(MIX3)
}

/// The 128-bit product, high half first: an index below `n`, and what is left of the randomness.
#[inline]
pub(crate) const fn below(z: u64, n: u64) -> (u64, u64) {
    let product = z as u128 * n as u128;
    ((product >> 64) as u64, product as u64)
}

//! Post-copy: move the state first, start the guest at the destination, then push its memory; what it asks for goes first.

use super::{Preset, Push, Spec};
use crate::vocabulary::Prepaging;

/// About seven pivots are best (Hines and Gopalan, VEE 2009).
const PIVOTS: u16 = 7;

pub(super) const PRESET: Preset = Preset {
    name: "post-copy",
    origin: "Hines, Deshpande and Gopalan, VEE 2009",
    summary: "start the guest at the destination at once; push and fetch its memory after",
    spec: || Spec { push: Some(Push { prepaging: Prepaging::Bubbling { pivots: PIVOTS }, scatter: None }), ..Spec::default() },
};

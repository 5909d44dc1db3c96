//! Traffic-sensitive selection (Deshpande and Keahey, "Traffic-sensitive live migration of virtual machines", CCGrid 2015): the
//! contention between migrations and the traffic of their VMs shall be least.
//!
//! What a pre-copied VM sends competes with the outgoing migration, and what a post-copied VM receives with the incoming one. The
//! contention of an interface is the sum of what competes there, and that of a choice the largest of any interface.

use super::WINDOW;
use crate::policy::PolicyEntry;
use crate::strategy::SpecError;
use crate::units::Span;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: PolicyEntry = PolicyEntry {
    name: "traffic",
    origin: "Deshpande and Keahey, CCGrid 2015",
    summary: "pre-copy or post-copy, so that the contention with the VMs' traffic is least",
};

/// The parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficSensitive {
    /// Over which time rates are measured before the request.
    pub window: Span,
}

impl Default for TrafficSensitive {
    /// [`WINDOW`].
    fn default() -> TrafficSensitive {
        TrafficSensitive { window: WINDOW }
    }
}

impl TrafficSensitive {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.window == Span::ZERO {
            return Err(SpecError::OutOfRange { key: "window", allowed: "above zero" });
        }
        Ok(())
    }
}

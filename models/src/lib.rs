//! What livemig knows of the world: scenarios, hosts, networks, workloads and costs.
//!
//! [`world`] holds the resolved form of a scenario, in plain numbers, which is what drivers run.
#![forbid(unsafe_code)]

pub mod calibration;
pub mod dirtying;
pub mod world;

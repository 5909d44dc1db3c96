//! What livemig knows of the world: scenarios, hosts, networks, workloads and costs.
//!
//! [`scenario`] reads what users write; [`world`] holds its resolved form, in plain numbers, which is what drivers run.
#![forbid(unsafe_code)]

pub mod calibration;
pub mod dirtying;
pub mod scenario;
pub mod world;

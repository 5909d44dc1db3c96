//! The algorithms of live migration as state machines without clock, thread, I/O or randomness.
//!
//! A driver (the simulator, the real-mode agents, the byte harness of the tests) owns the world; this crate decides. See
//! [`machine`] for the contract between the two and [`vocabulary`] for the words they use.
#![forbid(unsafe_code)]

pub mod conductor;
pub mod dedup;
pub mod drain;
pub mod ledger;
pub mod machine;
pub mod pages;
pub mod policy;
pub mod push_plan;
pub mod strategy;
pub mod tasks;
pub mod units;
pub mod vocabulary;

//! The real driver: KVM guests moved between agents over sockets, under the migrations of `livemig-core`.
//!
//! # Contract
//! What this crate promises, and what it is built against; nothing else of it exists yet.
//!
//! - It is a driver like the simulator: it polls a [`Migration`](livemig_core::machine::Migration) over
//!   [`Bitmap`](livemig_core::pages::Bitmap) page sets, carries its commands out and reports exactly one completion for each.
//!   It knows no strategy's name and computes no metric; the [`Ledger`](livemig_core::ledger::Ledger) does.
//! - One agent process per host role. The migration runs in the source agent, where dirty sets are made; orders to other hosts
//!   are messages. At release it holds no page set, is serialised, and goes on in the destination agent.
//! - The dirty tracker is KVM's dirty log. Overlap between page sets is resolved there and nowhere else.
//! - `Send` is done when every receiver has acknowledged the pages; what a broken connection has not delivered comes back in
//!   its completion. Faults travel on a connection of their own, ahead of everything else.
//! - `Resume` at the destination is answered with what is known: started, proven not to have started, or unknown.
//! - Every frame from a socket is versioned, checksummed and bounded.
//! - After every run the destination's memory is compared, byte for byte, with a replay of the guest's deterministic accesses.
#![forbid(unsafe_op_in_unsafe_fn)]

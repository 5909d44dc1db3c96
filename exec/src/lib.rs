//! The real driver: KVM guests moved between agents over sockets, under the migrations of `livemig-core`.
//!
//! # Use
//! [`run`](mod@run) makes the migrations of a scenario's world: it starts an agent process per host, and returns metrics, rounds, gaps and
//! the comparison of every guest's memory. A program that calls it also offers a way to become an agent, by
//! [`agent::serve_inherited`]. The example is in [`run`](mod@run).
//!
//! # What is here
//! | module | concern |
//! |---|---|
//! | [`run`](mod@run) | a run: scenario to agents, agents to metrics; the coordinator's copy of each migration |
//! | [`agent`] | the process of a host: its guests, and what it is told and reports |
//! | `source` | the driver of the [`Conductor`](livemig_core::conductor::Conductor): sender, streams, watches, orders to the destination |
//! | `destination` | connections, pages that arrive, missing pages, orders carried out once |
//! | `intermediary` | pages of others, kept until their destination has fetched them |
//! | `net` | hosts in network namespaces, with the NICs of the scenario |
//! | `traffic` | network traffic of guests and hosts, which competes with migrations |
//! | `tls` | connections between machines, by which each end proves who it is |
//! | `wire` | frames, checksums, handshake, messages |
//! | [`guest`] | a bare guest under KVM: run, pause, throttle, save, restore, count |
//! | [`content`] | what is in its memory before it runs |
//! | [`memory`] | its memory, the log of what it writes, faults on what is not there |
//! | [`replay`] | what its memory must hold after so many steps |
//! | [`verify`](mod@verify) | every byte compared, and what a wrong page looks like |
//! | [`doctor`] | what this machine can do, and what the parts of a migration cost on it |
//!
//! A source makes a [`GuestSpec`](guest::GuestSpec) from the scenario, allocates [`GuestMemory`](memory::GuestMemory), fills it,
//! and starts a [`Guest`](guest::Guest) over it. A destination gets specification and state as bytes, allocates memory, makes
//! the guest over it, fills it with what arrives (by plain writes, or through [`Userfault`](memory::Userfault) while the guest
//! runs), and loads the state. Either side can pause its guest and verify. What the guest does, its layout and its floors: `docs/REAL_MODE.md`.
//!
//! # Contract
//! - It is a driver like the simulator: it polls a [`Migration`](livemig_core::machine::Migration) over
//!   [`Bitmap`](livemig_core::pages::Bitmap) page sets, carries its commands out and reports exactly one completion for each.
//!   It knows no strategy's name and computes no metric; the [`Ledger`](livemig_core::ledger::Ledger) does.
//! - One agent process per host. The migration runs in the source agent, where dirty sets are made; orders to the destination
//!   are messages. The coordinator follows it with a copy, which must order the same, and which goes on alone when the source is gone.
//! - The dirty tracker is KVM's dirty log. Overlap between page sets is resolved there and nowhere else.
//! - `Send` is done when every receiver has acknowledged the pages; what a broken connection has not delivered comes back in
//!   its completion. Faults travel on a connection of their own, ahead of everything else.
//! - `Resume` at the destination is answered with what is known: started, proven not to have started, or unknown.
//! - Every frame from a socket is versioned, checksummed and bounded.
//! - After every run the destination's memory is compared, byte for byte, with a replay of the guest's deterministic accesses.
//!
//! # Unsafe code
//! System calls without a safe binding, and memory that a guest writes while the host reads it. Each use says why it is sound;
//! no reference into guest memory is ever made.
//!
//! On anything but Linux on x86-64 the crate is empty.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

pub mod agent;
mod bucket;
mod clock;
mod codec;
pub mod content;
mod destination;
pub mod doctor;
mod error;
pub mod guest;
mod intermediary;
pub mod memory;
mod mix;
mod net;
pub mod replay;
pub mod run;
mod source;
mod tls;
mod traffic;
pub mod verify;
mod wire;

pub use error::ExecError;
pub use net::Net;
pub use tls::{Credentials, Identity, Security};
pub use wire::WireError;

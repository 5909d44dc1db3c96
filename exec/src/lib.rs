//! The real driver: KVM guests moved between agents over sockets, under the migrations of `livemig-core`.
//!
//! # What is here
//! A guest whose every write is known beforehand, its memory, and the proof that nothing of it was lost:
//!
//! | module | concern |
//! |---|---|
//! | [`guest`] | a bare guest under KVM: run, pause, throttle, save, restore, count |
//! | [`content`] | what is in its memory before it runs |
//! | [`memory`] | its memory, the log of what it writes, faults on what is not there |
//! | [`replay`] | what its memory must hold after so many steps |
//! | [`verify`](mod@verify) | every byte compared, and what a wrong page looks like |
//!
//! A source makes a [`GuestSpec`](guest::GuestSpec) from the scenario, allocates [`GuestMemory`](memory::GuestMemory), fills it,
//! and starts a [`Guest`](guest::Guest) over it. A destination gets specification and state as bytes, allocates memory, makes
//! the guest over it, fills it with what arrives (by plain writes, or through [`Userfault`](memory::Userfault) while the guest
//! runs), and loads the state. Either side can pause its guest and verify. What the guest does, its layout and its floors: `docs/REAL_MODE.md`.
//!
//! # Contract
//! What the whole crate promises; agents and transport are not here yet.
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
//!
//! # Unsafe code
//! System calls without a safe binding, and memory that a guest writes while the host reads it. Each use says why it is sound;
//! no reference into guest memory is ever made.
//!
//! On anything but Linux on x86-64 the crate is empty.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod codec;
pub mod content;
mod error;
pub mod guest;
pub mod memory;
mod mix;
pub mod replay;
pub mod verify;

pub use error::ExecError;

//! What can go wrong in real mode, with every field in the text.

use livemig_core::units::PageIndex;
use std::io;
use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The machine cannot run guests.
    #[error("no /dev/kvm: {0}")]
    NoKvm(io::Error),
    /// A specification that no guest can be made from.
    #[error("guest specification: {0}")]
    Spec(String),
    /// A call to the kernel failed.
    #[error("{call}: {source}")]
    Kernel {
        /// What was asked for.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A vCPU stopped for a reason that the guest's code never gives.
    #[error("vCPU {vcpu} failed: {reason}")]
    Vcpu {
        /// Which one.
        vcpu: usize,
        /// What KVM said.
        reason: String,
    },
    /// A vCPU did not stop in time.
    #[error("vCPU {vcpu} did not stop within {waited_ms} ms")]
    PauseTimeout {
        /// Which one.
        vcpu: usize,
        /// How long it was given.
        waited_ms: u128,
    },
    /// Something was asked for that needs stopped vCPUs.
    #[error("{0} needs a paused guest")]
    NotPaused(&'static str),
    /// Bytes from outside that do not decode.
    #[error("{what}: {why} at byte {at}")]
    Decode {
        /// What was being read.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
        /// Where.
        at: usize,
    },
    /// A state that does not belong to this guest or this machine.
    #[error("state refused: {0}")]
    State(String),
    /// A replay was asked to go where it cannot.
    #[error("replay of vCPU {vcpu}: {why}")]
    Replay {
        /// Which vCPU.
        vcpu: usize,
        /// Why it cannot.
        why: String,
    },
    /// A connection failed.
    #[error("{what}: {source}")]
    Wire {
        /// To whom.
        what: &'static str,
        /// How.
        source: crate::wire::WireError,
    },
    /// A run that cannot be made, or has gone wrong.
    #[error("{0}")]
    Run(String),
    /// A page beyond the guest's memory.
    #[error("page {} with {pages} pages is not inside {memory} pages of memory", .first.0)]
    OutOfMemoryRange {
        /// The first page asked for.
        first: PageIndex,
        /// How many were asked for.
        pages: u64,
        /// How many there are.
        memory: u64,
    },
}

impl ExecError {
    /// The error of the last system call of this thread.
    pub(crate) fn last(call: &'static str) -> ExecError {
        ExecError::Kernel { call, source: io::Error::last_os_error() }
    }

    /// An error number from a call.
    pub(crate) fn errno(call: &'static str, errno: i32) -> ExecError {
        ExecError::Kernel { call, source: io::Error::from_raw_os_error(errno) }
    }
}

//! Whether a test of real guests can run here.

use livemig_exec::ExecError;
use livemig_exec::guest::kvm_available;

/// Whether there is KVM; says that the test is skipped, and why, when not.
pub(crate) fn have_kvm() -> bool {
    match kvm_available() {
        Ok(()) => true,
        Err(e @ ExecError::NoKvm(_)) => {
            println!("skipped: {e}");
            false
        }
        Err(e) => panic!("{e}"),
    }
}

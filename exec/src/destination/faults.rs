//! Faults of a guest that runs before its memory is there: every one is asked for where the page is, once.

use super::session::Session;
use crate::error::ExecError;
use crate::memory::Userfault;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long a look at the queue of faults lasts when nothing comes.
const LOOK: Duration = Duration::from_millis(50);

impl Session {
    /// Watches over missing pages from now on.
    pub(super) fn watch_faults(self: &Arc<Session>, watch: &Arc<Userfault>) -> Result<(), ExecError> {
        let (session, watch) = (Arc::downgrade(self), Arc::downgrade(watch));
        let spawned = std::thread::Builder::new().name("faults".to_owned()).spawn(move || serve(&session, &watch));
        spawned.map(drop).map_err(|source| ExecError::Kernel { call: "starting the thread for faults", source })
    }
}

/// Until the watch or the session is gone.
fn serve(session: &Weak<Session>, watch: &Weak<Userfault>) {
    let mut faults = Vec::new();
    loop {
        let (Some(session), Some(watch)) = (session.upgrade(), watch.upgrade()) else { return };
        faults.clear();
        if let Err(error) = watch.read_faults(LOOK, &mut faults) {
            session.setup.reports.warn(format!("faults of session {}: {error}", session.id));
            return;
        }
        for fault in &faults {
            let wanted = session.book().wants(fault.page);
            match wanted {
                // It came between the fault and now, or as a mark for zeros before the watch began, which backs nothing.
                None => {
                    if let Err(error) = watch.place_zeros(fault.page, 1) {
                        session.setup.reports.warn(format!("page {} of session {}: {error}", fault.page.0, session.id));
                    }
                }
                Some(true) => session.request(fault.page.0),
                Some(false) => {}
            }
        }
        if faults.is_empty() {
            session.report_stalls();
        }
    }
}

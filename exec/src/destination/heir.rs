//! What is left of a migration when its source is free: the destination goes on with it alone.

use super::places::End;
use super::session::Session;
use crate::agent::message::Record;
use crate::error::ExecError;
use livemig_core::conductor::{Conductor, Remainder};
use livemig_core::machine::{Migration, Phase};
use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, Time};
use livemig_core::vocabulary::{CmdId, Command, Event, Failure, Reply, Sent};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of gathering is waited for before it is looked whether something else is due.
const LOOK: Duration = Duration::from_millis(100);

/// The migration as it goes on.
struct Heir {
    session: Arc<Session>,
    conductor: Conductor<Bitmap>,
    /// What is being carried out.
    gathering: Option<CmdId>,
    now: Time,
}

impl Session {
    /// Goes on with the rest of the migration, unless that is being done.
    pub(super) fn go_on(self: &Arc<Session>, remainder: &Remainder) -> Result<(), ExecError> {
        {
            let mut places = self.gathering.places();
            if std::mem::replace(&mut places.released, true) {
                return Ok(());
            }
            // A source that has failed in the push cannot say any more that it is not to be asked.
            places.redirected = true;
        }
        let conductor = Conductor::go_on(remainder);
        let heir = Heir { session: self.clone(), conductor, gathering: None, now: Time::ZERO };
        let spawned = std::thread::Builder::new().name("heir".to_owned()).spawn(move || heir.run());
        spawned.map(drop).map_err(|source| ExecError::Kernel { call: "starting the thread that goes on", source })
    }
}

impl Heir {
    fn run(mut self) {
        // What an intermediary has taken with it while the source was being freed is lost as well.
        self.session.check_losses();
        self.take_commands();
        while self.conductor.phase() != Phase::Ended {
            let end = self.session.gathering.wait_for_end(LOOK).and_then(|end| Some((self.gathering.take()?, end)));
            match end {
                Some((id, End::Gathered { at })) => self.tell(Event::Done { id, reply: Reply::Gathered { at } }),
                Some((id, End::Lost { pages })) => {
                    let failure = Failure::PagesLost { bytes: Bytes::from_pages(pages) };
                    self.tell(Event::Failed { id, failure, sent: Sent::default(), unsent: Bitmap::default() });
                }
                None => self.wake(),
            }
        }
        self.session.report_stalls();
        self.session.setup.reports.ended(self.session.id);
    }
}

impl Heir {
    fn tell(&mut self, event: Event<Bitmap>) {
        self.now = self.session.setup.clock.now().max(self.now);
        let at = self.now;
        self.record(&event, |event| Record::Event { at, event });
        if let Err(error) = self.conductor.handle(at, event) {
            self.session.setup.reports.warn(format!("session {}: the migration refuses: {error}", self.session.id));
        }
        self.take_commands();
    }

    fn wake(&mut self) {
        let now = self.session.setup.clock.now().max(self.now);
        if self.conductor.deadline().is_some_and(|at| at <= now) {
            self.now = now;
            self.session.setup.reports.record(self.session.id, Record::Wake { at: now });
            self.conductor.wake(now);
            self.take_commands();
        }
    }

    fn take_commands(&mut self) {
        while let Some((id, command)) = self.conductor.poll() {
            self.record(&command, |command| Record::Command { id: id.0, command });
            let Command::Gather { limit } = command else { unreachable!("what is left of a migration is to gather") };
            self.session.begin_gathering(limit);
            self.gathering = Some(id);
            // Perhaps nothing is missing: it is only not known that nothing is.
            self.session.check_gathered();
        }
    }

    fn record<T: serde::Serialize>(&self, what: &T, record: impl FnOnce(Vec<u8>) -> Record) {
        let reports = &self.session.setup.reports;
        match postcard::to_stdvec(what) {
            Ok(bytes) => reports.record(self.session.id, record(bytes)),
            Err(error) => reports.warn(format!("session {}: recording: {error}", self.session.id)),
        }
    }
}

//! An agent: one host's part in migrations. It hosts guests, takes guests in, sends guests away, and reports to a coordinator.
//!
//! An agent that was started for one run ([`serve_inherited`]) finds its coordinator at its standard input, which is a socket, and
//! ends when that is closed: whatever happens to the coordinator, no agent and no guest outlives it. One that [stands](Standing) on a
//! machine of its own brings migrations under way to their end first.

mod finishing;
mod guests;
pub(crate) mod message;
mod reports;
mod stand;

pub(crate) use finishing::Part;
pub(crate) use guests::{Guests, Hosted};
pub(crate) use reports::Reports;
pub use stand::Standing;

use crate::bucket::Pace;
use crate::clock::{Clock, monotonic};
use crate::content::Content;
use crate::destination::{Reception, Setup};
use crate::error::ExecError;
use crate::guest::{Guest, GuestSpec};
use crate::intermediary::Intermediary;
use crate::memory::GuestMemory;
use crate::net::cables;
use crate::replay::Replay;
use crate::source::Outgoing;
use crate::tls::Security;
use crate::traffic::Taps;
use crate::verify::{Report, verify};
use crate::wire::WireError;
use crate::wire::auth::Key;
use crate::wire::fingerprint::Fingerprints;
use crate::wire::frame::FrameReader;
use livemig_core::vocabulary::Event;
use message::{FromAgent, Limits, Migrate, ToAgent};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// How long vCPUs may take to stop before a comparison.
const STOP: Duration = Duration::from_secs(5);

/// Serves the coordinator at standard input until it hangs up. To be called by a program that was started by
/// [`run`](crate::run::run) with [`Launch`](crate::run::Launch).
///
/// # Errors
/// When standard input is no socket, or what comes from it is not a coordinator's.
pub fn serve_inherited() -> Result<(), ExecError> {
    serve_inherited_with(&Inherited::default())
}

/// How an agent talks to other agents.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// How their connections are protected.
    pub security: Security,
    /// Where it listens for migrations, whatever the coordinator thinks.
    pub listen: Option<SocketAddr>,
    /// When the coordinator is gone without having taken leave, migrations under way are brought to their end, and this hears what came of
    /// them. Without, the agent ends with the coordinator.
    pub outlive: Option<fn(&str)>,
}

/// Like [`serve_inherited`], for an agent whose peers are on other machines.
///
/// # Errors
/// Like [`serve_inherited`].
pub fn serve_inherited_with(inherited: &Inherited) -> Result<(), ExecError> {
    let kernel = |source| ExecError::Kernel { call: "standard input as a socket", source };
    let fd = io::stdin().as_fd().try_clone_to_owned().map_err(kernel)?;
    socket2::SockRef::from(&fd).peer_addr().map_err(kernel)?;
    // Whatever kind of socket it is, it is read, written and shut down like this one.
    let stream = UnixStream::from(fd);
    let output = stream.try_clone().map_err(kernel)?;
    match serve(stream, output, inherited.clone()) {
        Ok(()) | Err(WireError::Closed) => Ok(()),
        // A coordinator that was killed had not read everything.
        Err(WireError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(source) => Err(ExecError::Wire { what: "coordinator", source }),
    }
}

/// Serves a coordinator until it hangs up.
fn serve(input: impl Read, output: impl Write + Send + 'static, inherited: Inherited) -> Result<(), WireError> {
    let reports = Reports::start(output)?;
    let guests = Arc::new(Guests::new(reports.clone()));
    let mut agent = Agent {
        clock: Clock::starting_now(),
        taps: Taps::new(guests.clone(), inherited.security.clone()),
        guests,
        outgoing: BTreeMap::new(),
        reception: None,
        intermediary: None,
        reports,
        inherited,
    };
    agent.guests.sample_in_background(agent.clock)?;
    match (agent.hear(FrameReader::new(input, 0)), agent.inherited.outlive) {
        (Err(WireError::Closed | WireError::Io(_)), Some(tell)) => {
            agent.finish(tell);
            Ok(())
        }
        (heard, _) => heard,
    }
}

#[derive(Debug)]
struct Agent {
    clock: Clock,
    guests: Arc<Guests>,
    outgoing: BTreeMap<u32, Outgoing>,
    reception: Option<Reception>,
    intermediary: Option<Arc<Intermediary>>,
    taps: Taps,
    reports: Reports,
    inherited: Inherited,
}

impl Agent {
    /// Does what the coordinator says until it takes leave.
    fn hear(&mut self, mut reader: FrameReader<impl Read>) -> Result<(), WireError> {
        loop {
            let Some(header) = reader.next()? else { continue };
            let order = reader.message(&header)?;
            if matches!(order, ToAgent::Leave) {
                return Ok(());
            }
            if let Err(error) = self.obey(order) {
                self.reports.send(FromAgent::Failed { why: error.to_string() });
            }
        }
    }

    fn obey(&mut self, order: ToAgent) -> Result<(), ExecError> {
        let answer = match order {
            ToAgent::Clock => FromAgent::Clock { local: monotonic() },
            ToAgent::SetClock { offset } => {
                self.clock = Clock::ahead_by(offset);
                self.guests.set_clock(self.clock);
                FromAgent::Done
            }
            ToAgent::Host { vm, spec, windows } => {
                self.host(vm, &GuestSpec::from_bytes(&spec)?, windows)?;
                FromAgent::Done
            }
            ToAgent::Listen { address, key, limits } => FromAgent::Listening { address: self.listen(address, key, limits)? },
            ToAgent::Migrate(migrate) => {
                self.migrate(*migrate)?;
                FromAgent::Done
            }
            ToAgent::Prepare { session } => return self.tell(session, Event::Prepare),
            ToAgent::Request { session } => return self.tell(session, Event::Requested),
            ToAgent::Cancel { session } => return self.tell(session, Event::Cancel),
            ToAgent::Allow { session, rate } => {
                self.outgoing.get(&session).into_iter().for_each(|outgoing| outgoing.allow(rate));
                return Ok(());
            }
            ToAgent::PeerDead { session, peer } => return self.tell(session, Event::PeerDead { peer, recoverable: false }),
            ToAgent::SourceDead { session, lost } => {
                let missing = self.reception.as_ref().and_then(|r| r.source_dead(session, lost));
                FromAgent::Lost { session, missing: missing.unwrap_or(0) }
            }
            ToAgent::GoOn { session, remainder } => {
                return self.reception.as_ref().map_or(Ok(()), |reception| reception.go_on(session, &remainder));
            }
            ToAgent::StageDead { session, via } => {
                self.reception.iter().for_each(|reception| reception.stage_dead(session, via));
                return Ok(());
            }
            ToAgent::Unstage { session } => {
                self.intermediary.iter().for_each(|intermediary| intermediary.free(session));
                return Ok(());
            }
            ToAgent::Cables { of, pulled } => {
                return cables::pull(of, pulled).map_err(|source| ExecError::Kernel { call: "pulling a cable", source });
            }
            ToAgent::Load { vm, phase } => {
                self.guests.order_phase(vm, phase);
                return Ok(());
            }
            ToAgent::TakeGap { vm } => FromAgent::Gap { gap: self.guests.with(vm, |guest| Ok(guest.take_longest_gap()))? },
            ToAgent::Verify { vm } => FromAgent::Verified { report: self.compare(vm)? },
            ToAgent::Forget { vm } => {
                self.guests.forget(vm);
                FromAgent::Done
            }
            ToAgent::Selected { session, technique } => return self.tell(session, Event::Selected(technique)),
            ToAgent::OpenFlow(flow) => return self.taps.open(*flow),
            ToAgent::CloseFlow { flow } => {
                self.taps.close(flow);
                return Ok(());
            }
            ToAgent::Leave => return Ok(()),
        };
        self.reports.send(answer);
        Ok(())
    }

    /// Stops a guest and compares every byte of its memory with what it must be.
    fn compare(&self, vm: u32) -> Result<Report, ExecError> {
        // Time for a comparison is not time of the guest: it is stopped first and stays so.
        self.guests.with(vm, |guest| {
            guest.check()?;
            guest.pause(STOP)?;
            let mut replay = Replay::new(guest.spec())?;
            replay.advance(&guest.progress()?)?;
            let report = verify(&replay, guest.memory(), threads());
            if guest.boot_is_intact()? { Ok(report) } else { Err(ExecError::State("the guest's program was changed".to_owned())) }
        })
    }

    /// Listens for other hosts.
    fn listen(&mut self, address: SocketAddr, key: Key, limits: Limits) -> Result<SocketAddr, ExecError> {
        let Limits { room, stage, reception, service } = limits;
        let setup = Setup {
            key,
            room,
            reception: reception.map(|rate| Arc::new(Pace::new(rate))),
            clock: self.clock,
            guests: self.guests.clone(),
            reports: self.reports.clone(),
            security: self.inherited.security.clone(),
        };
        let address = self.inherited.listen.unwrap_or(address);
        let intermediary = Arc::new(Intermediary::new(stage, service, Fingerprints::of_run(&key)));
        self.intermediary = Some(intermediary.clone());
        let listen = |source| ExecError::Kernel { call: "listening", source };
        let reception = Reception::listen(address, setup, intermediary).map_err(listen)?;
        let address = reception.address().map_err(listen)?;
        self.reception = Some(reception);
        Ok(address)
    }

    /// Makes a guest and starts it.
    fn host(&self, vm: u32, spec: &GuestSpec, windows: bool) -> Result<(), ExecError> {
        let memory = if windows { GuestMemory::in_file(spec.memory) } else { GuestMemory::allocate(spec.memory, true) };
        let memory = Arc::new(memory?);
        let content: &Content = &spec.content;
        content.fill(&memory, threads());
        self.guests.start(vm, Guest::new(spec, memory)?);
        Ok(())
    }

    fn migrate(&mut self, migrate: Migrate) -> Result<(), ExecError> {
        self.outgoing.retain(|_, outgoing| !outgoing.is_over());
        let (session, hosted) = (migrate.session, self.guests.get(migrate.vm)?);
        let outgoing = Outgoing::start(migrate, hosted, self.clock, self.reports.clone(), self.inherited.security.clone())?;
        self.outgoing.insert(session, outgoing);
        Ok(())
    }

    fn tell(&self, session: u32, event: Event<livemig_core::pages::Bitmap>) -> Result<(), ExecError> {
        let known = self.outgoing.get(&session);
        known.ok_or_else(|| ExecError::State(format!("there is no session {session}")))?.tell(event);
        Ok(())
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

//! What each command of the migration means here.

use super::Driver;
use crate::error::ExecError;
use crate::guest::Guest;
use crate::wire::message::Order;
use crate::wire::page_sender::Treatment;
use livemig_core::ledger::Observation;
use livemig_core::pages::Bitmap;
use livemig_core::units::{Bytes, Share};
use livemig_core::vocabulary::{CmdId, Command, Event, Failure, Peer, Reply, Send, Side};
use std::time::Duration;

/// How long vCPUs may take to stop.
const STOP: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) fn execute(&mut self, id: CmdId, command: Command<Bitmap>) {
        match command {
            Command::Reserve { intermediaries, .. } => self.reserve_all(id, intermediaries),
            Command::Prepare { elide_zero_pages, channels } => {
                self.sender.set_tasks(channels.tasks);
                self.sender.set_treatment(Treatment { elide: elide_zero_pages, pack: channels.compress });
                self.prepare(id);
            }
            Command::PeekDirty { .. } => {
                let counted = self.sender.peek();
                self.reply(id, counted.map(Reply::DirtyCount));
            }
            Command::Collect { limit, into, .. } => self.collect(id, limit, into),
            Command::ReturnDirty { set, .. } => {
                self.sender.give_back(&set);
                self.done(id, Reply::Returned);
            }
            Command::Send(send) => self.send(id, send),
            Command::Recall { of } => {
                self.done(id, Reply::RecallNoted);
                if !self.sender.recall(of)
                    && let Some(event) = self.watches.recall(of)
                {
                    self.tell(event);
                }
            }
            Command::SetRate { limit } => {
                self.sender.set_rate(limit);
                self.done(id, Reply::RateSet);
            }
            Command::Throttle { share } => self.throttle(id, share),
            Command::Pause => self.pause(id),
            Command::SendState => self.send_state(id),
            Command::DiscardStale { set } => self.order(id, Order::Discard { pages: set }),
            Command::Resume { side: Side::Source } => self.resume_here(id),
            Command::Resume { side: Side::Destination } => {
                let faults = self.sender.serves_faults();
                self.announce_all();
                self.order(id, Order::Resume { faults });
            }
            Command::ServeFaults => {
                self.sender.serve_faults();
                self.serve_wanted();
                if self.is_to_serve_again() {
                    self.order(id, Order::Serve);
                } else {
                    self.done(id, Reply::ServingFaults);
                }
            }
            Command::RedirectFaults => self.redirect(id),
            Command::Reclaim { via } => self.reclaim(id, via),
            Command::Gather { limit } => self.gather(id, limit),
            Command::Watch(watch) => {
                let now = self.clock.now();
                self.watches.begin(now, id, watch, &self.sender);
            }
            Command::Release => self.release(id),
            Command::Abort => self.order(id, Order::Abort),
        }
    }

    /// Reports what came of a command, or that this host cannot do it.
    pub(super) fn reply(&mut self, id: CmdId, result: Result<Reply<Bitmap>, ExecError>) {
        match result {
            Ok(reply) => self.done(id, reply),
            Err(error) => {
                self.warn(&error.to_string());
                self.fail(id, Failure::Refused(Peer::Source));
            }
        }
    }

    /// Does something with the guest, which is here until it is released.
    fn with_guest<T>(&self, what: impl FnOnce(&mut Guest) -> Result<T, ExecError>) -> Result<T, ExecError> {
        let mut guest = self.guest_lock();
        what(guest.as_mut().ok_or_else(|| ExecError::State("the guest is not here any more".to_owned()))?)
    }

    /// Connected: asks for room.
    pub(super) fn reserve(&mut self, id: CmdId) {
        let spec = self.with_guest(|guest| Ok(guest.spec().to_bytes()));
        match spec {
            Ok(spec) => self.order(id, Order::Reserve { vm: self.vm, spec, via: self.vias.fetched_from() }),
            Err(error) => self.reply(id, Err(error)),
        }
    }

    fn prepare(&mut self, id: CmdId) {
        match self.with_guest(|guest| guest.track_dirty()) {
            Ok(tracker) => {
                self.sender.track(Some(tracker));
                self.order(id, Order::Prepare);
            }
            Err(error) => self.reply(id, Err(error)),
        }
    }

    fn collect(&mut self, id: CmdId, limit: Option<Bytes>, into: Option<CmdId>) {
        let collected = self.sender.collect(limit, into);
        let reply = collected.map(|collected| match collected {
            Ok(set) => Reply::Dirty(set),
            Err(joined) => Reply::Joined(joined),
        });
        self.reply(id, reply);
    }

    fn send(&mut self, id: CmdId, send: Send<Bitmap>) {
        if self.dead {
            self.fail_with(id, Failure::Unreachable(Peer::Destination), send.set);
        } else {
            self.sender.begin(id, send);
            self.serve_wanted();
        }
    }

    fn throttle(&mut self, id: CmdId, share: Share) {
        let set = self.with_guest(|guest| guest.throttle(share));
        if set.is_ok() {
            self.observe(Observation::ShareInForce { at: self.clock.now(), share });
        }
        self.reply(id, set.map(|()| Reply::Throttled));
    }

    fn pause(&mut self, id: CmdId) {
        let paused = self.with_guest(|guest| {
            guest.pause(STOP)?;
            Ok(guest.take_longest_gap())
        });
        if let Ok(gap) = paused {
            self.observe(Observation::GuestGap(gap));
        }
        self.reply(id, paused.map(|_| Reply::Paused));
    }

    fn send_state(&mut self, id: CmdId) {
        let saved = self.with_guest(|guest| {
            let state = guest.save()?.to_bytes();
            Ok(Order::State { state, saved_at: self.clock.now() })
        });
        match saved {
            Ok(order) => self.order(id, order),
            Err(error) => self.reply(id, Err(error)),
        }
    }

    fn resume_here(&mut self, id: CmdId) {
        let resumed = self.with_guest(|guest| {
            guest.resume();
            Ok(())
        });
        let at = self.clock.now();
        self.reply(id, resumed.map(|()| Reply::Resumed { at }));
    }

    /// The guest's memory goes; that it does so takes time that nobody waits for.
    fn release(&mut self, id: CmdId) {
        // Whatever happens to this process from now on, it is known that it was free to go.
        self.reports.flush();
        let guest = self.guest_lock().take();
        self.sender.track(None);
        // Without a thread the guest is dropped here, which is only slower.
        let _ = std::thread::Builder::new().name("release".to_owned()).spawn(move || drop(guest));
        let event = Event::Done { id, reply: Reply::Released };
        self.tell(event);
    }
}

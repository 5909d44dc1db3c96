//! The source agent: carries out the machine's commands and reports what came of them.

use livemig_core::machine::Migration;
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::units::{Bytes, PageIndex, Span};
use livemig_core::vocabulary::{CmdId, Command, Event, Failure, Peer, Region, Reply, Send, Sent, Side};

use super::bugs::Bug;
use super::channel::Lane;
use super::guest::{Access, Deed};
use super::intermediary::ViaState;
use super::memory::index;
use super::wire::Order;
use super::world::{Happening, World};

impl World {
    /// Takes the machine's commands and puts them on the agent's list.
    pub(crate) fn take_commands(&mut self) {
        while let Some((id, command)) = self.run.conductor.poll() {
            self.note(|| format!("<- {} {}", id.0, describe_command(&command)));
            if self.run.outstanding.insert(id, false).is_some() {
                self.broken(format!("command {} is issued twice", id.0));
            }
            if let Command::Resume { side: Side::Destination } = command {
                self.run.resume_issued = true;
            }
            if let Command::Release = command {
                self.check_release_order();
            }
            match self.dead {
                Some(Side::Source) if !matches!(command, Command::Gather { .. }) => self.leave_undone(id, command),
                Some(_) | None if self.choices.exhaustive() => self.execute(id, command),
                Some(_) | None => {
                    let at = self.now + Span(self.choices.below(self.timing.local.0));
                    self.lanes.push(Lane::Agent, at, Happening::Execute(id, command));
                }
            }
        }
    }

    /// Notes that the machine hears of a completion.
    pub(crate) fn completed(&mut self, event: &Event<Bitmap>) {
        let id = match event {
            Event::Done { id, .. } | Event::Failed { id, .. } | Event::Recalled { id, .. } => *id,
            Event::Prepare
            | Event::Selected(_)
            | Event::Requested
            | Event::Cancel
            | Event::StageRefused { .. }
            | Event::LinkLost(_)
            | Event::LinkRestored(_)
            | Event::PeerDead { .. } => return,
        };
        if self.run.outstanding.remove(&id).is_none() {
            self.broken(format!("command {} is completed twice", id.0));
        }
        match event {
            Event::Failed { failure: Failure::NeverStarted, .. } => self.run.never_proven = true,
            Event::Failed { failure: Failure::PagesLost { bytes }, .. } => self.run.lost += *bytes,
            _ => {}
        }
    }

    /// Completes a command: the machine will hear of it.
    pub(crate) fn complete(&mut self, event: Event<Bitmap>) {
        self.complete_send(false, event);
    }

    /// Completes a send: after what the machine has still to hear of its pages.
    pub(crate) fn complete_send(&mut self, in_order: bool, event: Event<Bitmap>) {
        if let Event::Done { id, .. } | Event::Failed { id, .. } | Event::Recalled { id, .. } = &event {
            match self.run.outstanding.get_mut(id) {
                Some(on_its_way) if !*on_its_way => *on_its_way = true,
                Some(_) | None => {
                    let id = id.0;
                    self.broken(format!("the driver completes command {id} twice"));
                    return;
                }
            }
        }
        if in_order {
            self.tell_in_order(event);
        } else {
            self.tell_later(event);
        }
    }

    pub(crate) fn done(&mut self, id: CmdId, reply: Reply<Bitmap>) {
        self.complete(Event::Done { id, reply });
    }

    pub(crate) fn fail(&mut self, id: CmdId, failure: Failure) {
        self.fail_with(id, failure, Bitmap::default());
    }

    pub(crate) fn fail_with(&mut self, id: CmdId, failure: Failure, unsent: Bitmap) {
        self.complete(Event::Failed { id, failure, sent: Sent::default(), unsent });
    }

    /// Pages are the machine's to give back. It may have one of them already, from a send that came back while the guest wrote to
    /// the page and a collection was under way.
    pub(crate) fn hand_over(&mut self, set: &Bitmap) {
        for page in set.iter() {
            self.touched.push(page);
            self.source.hands[index(page)] += 1;
        }
    }

    /// The machine gives pages of a region back.
    fn take_of_region(&mut self, region: Region, set: &Bitmap) {
        let range = self.guest.region(region);
        if let Some(page) = set.iter().find(|page| !range.contains(&page.0)) {
            self.broken(format!("the machine takes page {} for one of {region:?}", page.0));
        }
        self.take_from_machine(set);
    }

    /// The machine gives pages back.
    fn take_from_machine(&mut self, set: &Bitmap) {
        for page in set.iter() {
            self.touched.push(page);
            match self.source.hands[index(page)].checked_sub(1) {
                Some(left) => self.source.hands[index(page)] = left,
                None => self.broken(format!("the machine uses page {}, which it does not have", page.0)),
            }
        }
    }

    pub(crate) fn execute(&mut self, id: CmdId, command: Command<Bitmap>) {
        match command {
            Command::Reserve { intermediaries, .. } => self.reserve(id, &intermediaries),
            Command::Prepare { elide_zero_pages, channels } => {
                self.run.elide_zero_pages = elide_zero_pages;
                self.run.tasks = channels.tasks;
                self.source.tracker.start(self.guest.pages());
                self.order(id, Order::Prepare);
            }
            Command::PeekDirty { region } => {
                let dirty = self.source.tracker.count(self.guest.region(region));
                self.done(id, Reply::DirtyCount(dirty));
            }
            Command::Collect { region, limit, into } => self.collect(id, region, limit, into),
            Command::ReturnDirty { region, set } => {
                self.take_of_region(region, &set);
                if self.bug != Some(Bug::ReturnForgotten) {
                    self.source.tracker.put_back(&set);
                }
                self.done(id, Reply::Returned);
            }
            Command::Send(send) => self.execute_send(id, send),
            Command::Recall { of } => {
                self.done(id, Reply::RecallNoted);
                self.recall(of);
            }
            Command::SetRate { limit } => {
                self.source.limit = limit;
                self.done(id, Reply::RateSet);
            }
            Command::Throttle { share } => {
                self.guest.share = share;
                self.done(id, Reply::Throttled);
            }
            Command::Pause => {
                self.stop_guest();
                self.done(id, Reply::Paused);
            }
            Command::SendState => {
                if self.bug == Some(Bug::PauseIncomplete) {
                    self.write_although_paused();
                }
                self.order(id, Order::State(self.guest.steps));
            }
            Command::DiscardStale { set } => {
                self.take_of_region(Region::Memory, &set);
                self.hand_over(&set);
                let pages: Vec<PageIndex> = set.iter().collect();
                self.source.places.newer_is_sent(&pages);
                self.source.stale.insert(id, set);
                self.order(id, Order::Discard { pages, below: self.source.next_frame });
            }
            Command::Resume { side: Side::Source } => self.guest_starts_again_at_source(id),
            Command::Resume { side: Side::Destination } => self.order(id, Order::Resume),
            Command::ServeFaults => {
                self.source.serving = true;
                self.serve_wanted();
                if std::mem::take(&mut self.source.places.redirected) {
                    self.coverage.served_again += 1;
                    self.order(id, Order::Serve);
                } else {
                    self.done(id, Reply::ServingFaults);
                }
            }
            Command::RedirectFaults if self.bug == Some(Bug::ReleaseBeforeRedirect) => {
                self.done(id, Reply::FaultsRedirected { at: self.now });
            }
            Command::RedirectFaults => self.redirect(id),
            Command::Reclaim { via } => self.reclaim(id, via),
            Command::Gather { limit } => self.gather(id, limit),
            Command::Watch(watch) => self.begin_watch(id, watch),
            Command::Release => {
                self.check_release();
                self.source.released = true;
                self.check_gathering();
                self.done(id, Reply::Released);
            }
            Command::Abort => {
                self.run.aborting = true;
                self.free_intermediaries(Side::Source);
                self.order(id, Order::Abort);
            }
        }
    }

    /// Asks everybody for room.
    fn reserve(&mut self, id: CmdId, intermediaries: &[u16]) {
        let host = |via: u16| &self.vias[usize::from(via)];
        if let Some(&via) = intermediaries.iter().find(|&&via| host(via).state == ViaState::Dead) {
            self.fail(id, Failure::Unreachable(Peer::Intermediary(via)));
        } else if let Some(&via) = intermediaries.iter().find(|&&via| host(via).refuses_room) {
            self.coverage.reserved_without += 1;
            self.fail(id, Failure::Refused(Peer::Intermediary(via)));
        } else {
            self.order(id, Order::Reserve);
        }
    }

    fn write_although_paused(&mut self) {
        self.guest.runs_at = Some(Side::Source);
        self.perform(Access { page: PageIndex(0), deed: Deed::Write });
        self.guest.runs_at = None;
    }

    fn collect(&mut self, id: CmdId, region: Region, limit: Option<Bytes>, into: Option<CmdId>) {
        let mut set = self.source.tracker.collect(self.guest.region(region), limit);
        self.source.places.newer_is_sent(&set.iter().collect::<Vec<_>>());
        if self.bug == Some(Bug::DirtyBitDropped)
            && let Some(first) = set.next_at(PageIndex(0))
        {
            set.remove(first);
        }
        if self.bug == Some(Bug::DiskBlockLost)
            && region == Region::Disk
            && let Some(first) = set.next_at(PageIndex(0))
        {
            set.remove(first);
        }
        match into.filter(|&send| self.source.sends.iter().any(|s| s.id == send)) {
            Some(send) => {
                let joined = self.join(&set, send);
                self.done(id, Reply::Joined(joined));
                self.end_sends();
            }
            None => {
                self.hand_over(&set);
                self.done(id, Reply::Dirty(set));
            }
        }
    }

    fn execute_send(&mut self, id: CmdId, send: Send<Bitmap>) {
        if self.dead.is_some() {
            self.fail_with(id, Failure::Unreachable(Peer::Destination), send.set);
        } else {
            self.take_of_region(send.region, &send.set);
            self.begin_send(id, send);
        }
    }

    /// Everything that the agent had to do remains undone, and everything that it had is gone.
    pub(crate) fn source_failed(&mut self) {
        let gone = Failure::Unreachable(Peer::Source);
        let mut spared: Option<CmdId> = self.destination.places.gathering.map(|g| g.id);
        for happening in self.lanes.drain(Lane::Agent) {
            let Happening::Execute(id, command) = happening else { unreachable!("the agent carries out commands") };
            if let Command::Gather { .. } = command {
                spared = Some(id);
                self.lanes.push(Lane::Agent, self.now, Happening::Execute(id, command));
            } else {
                self.leave_undone(id, command);
            }
        }
        if spared.is_some() && self.destination.places.gathering.is_some() && self.choices.percent(self.timing.gives_up_percent) {
            // The order came through the source, and so would the answer: it has to be given again by somebody else.
            self.destination.places.gathering = None;
            spared = None;
            self.coverage.gathering_repeated += 1;
        }
        self.fail_sends(gone);
        self.source.watches.clear();
        self.source.orders.clear();
        for (id, unsent) in std::mem::take(&mut self.source.stale) {
            self.fail_with(id, gone, unsent);
        }
        let undone: Vec<CmdId> = self
            .run
            .outstanding
            .iter()
            .filter(|(id, on_its_way)| !**on_its_way && Some(**id) != spared)
            .map(|(&id, _)| id)
            .collect();
        for id in undone {
            self.fail(id, gone);
        }
    }

    /// A command that nobody carries out any more.
    fn leave_undone(&mut self, id: CmdId, command: Command<Bitmap>) {
        let unsent = match command {
            Command::Send(Send { set, .. }) | Command::ReturnDirty { set, .. } | Command::DiscardStale { set } => set,
            _ => Bitmap::default(),
        };
        self.fail_with(id, Failure::Unreachable(Peer::Source), unsent);
    }

    fn guest_starts_again_at_source(&mut self, id: CmdId) {
        self.check_source_may_run();
        self.start_guest(Side::Source);
        self.done(id, Reply::Resumed { at: self.now });
    }
}

fn describe_command(command: &Command<Bitmap>) -> String {
    match command {
        Command::Send(send) => format!("Send round {} of {:?} {}", send.round, send.region, show(&send.set)),
        Command::ReturnDirty { set, .. } => format!("ReturnDirty {}", show(set)),
        Command::DiscardStale { set } => format!("DiscardStale {}", show(set)),
        other => format!("{other:?}"),
    }
}

pub(crate) fn describe(event: &Event<Bitmap>) -> String {
    match event {
        Event::Done { id, reply: Reply::Dirty(set) } => format!("{} Dirty {}", id.0, show(set)),
        Event::Done { id, reply } => format!("{} {reply:?}", id.0),
        Event::Failed { id, failure, unsent, .. } => format!("{} failed, {failure}; unsent {}", id.0, show(unsent)),
        Event::Recalled { id, unsent, .. } => format!("{} recalled; unsent {}", id.0, show(unsent)),
        other => format!("{other:?}"),
    }
}

fn show(set: &Bitmap) -> String {
    let shown = super::sender::show(&set.iter().take(24).collect::<Vec<_>>());
    format!("[{shown}] ({} pages)", set.len().pages())
}

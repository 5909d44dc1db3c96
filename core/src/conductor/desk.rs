//! The conductor's desk: which commands wait to be polled and which are outstanding.

use crate::machine::{PeerError, Phase};
use crate::pages::PageSet;
use crate::vocabulary::{CmdId, Command, Region, Reply};
use std::collections::VecDeque;

/// What kind of command an outstanding one is: enough to know which answers fit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reserve,
    Prepare,
    PeekDirty,
    Collect,
    ReturnDirty,
    Send,
    Recall,
    SetRate,
    Throttle,
    Pause,
    SendState,
    DiscardStale,
    Resume,
    ServeFaults,
    RedirectFaults,
    Reclaim,
    Gather,
    Watch,
    Release,
    Abort,
}

impl Kind {
    fn of<P>(command: &Command<P>) -> Kind {
        match command {
            Command::Reserve { .. } => Kind::Reserve,
            Command::Prepare { .. } => Kind::Prepare,
            Command::PeekDirty { .. } => Kind::PeekDirty,
            Command::Collect { .. } => Kind::Collect,
            Command::ReturnDirty { .. } => Kind::ReturnDirty,
            Command::Send(_) => Kind::Send,
            Command::Recall { .. } => Kind::Recall,
            Command::SetRate { .. } => Kind::SetRate,
            Command::Throttle { .. } => Kind::Throttle,
            Command::Pause => Kind::Pause,
            Command::SendState => Kind::SendState,
            Command::DiscardStale { .. } => Kind::DiscardStale,
            Command::Resume { .. } => Kind::Resume,
            Command::ServeFaults => Kind::ServeFaults,
            Command::RedirectFaults => Kind::RedirectFaults,
            Command::Reclaim { .. } => Kind::Reclaim,
            Command::Gather { .. } => Kind::Gather,
            Command::Watch(_) => Kind::Watch,
            Command::Release => Kind::Release,
            Command::Abort => Kind::Abort,
        }
    }

    fn is_answered_by<P>(self, reply: &Reply<P>) -> bool {
        match reply {
            Reply::Reserved => self == Kind::Reserve,
            Reply::Prepared => self == Kind::Prepare,
            Reply::DirtyCount(_) => self == Kind::PeekDirty,
            Reply::Dirty(_) | Reply::Joined(_) => self == Kind::Collect,
            Reply::Returned => self == Kind::ReturnDirty,
            Reply::Sent(_) => self == Kind::Send,
            Reply::RecallNoted => self == Kind::Recall,
            Reply::RateSet => self == Kind::SetRate,
            Reply::Throttled => self == Kind::Throttle,
            Reply::Paused => self == Kind::Pause,
            Reply::StateSent { .. } => self == Kind::SendState,
            Reply::Discarded(_) => self == Kind::DiscardStale,
            Reply::Resumed { .. } => self == Kind::Resume,
            Reply::ServingFaults => self == Kind::ServeFaults,
            Reply::FaultsRedirected { .. } => self == Kind::RedirectFaults,
            Reply::Reclaimed(_) => self == Kind::Reclaim,
            Reply::Gathered { .. } => self == Kind::Gather,
            Reply::Watched(_) => self == Kind::Watch,
            Reply::Released => self == Kind::Release,
            Reply::Aborted => self == Kind::Abort,
        }
    }
}

/// A command that is not completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) id: CmdId,
    pub(super) kind: Kind,
    /// What it is about.
    pub(super) region: Region,
}

/// What a command is about; of those that are about no region, memory.
fn region_of<P>(command: &Command<P>) -> Region {
    match command {
        Command::PeekDirty { region } | Command::Collect { region, .. } | Command::ReturnDirty { region, .. } => *region,
        Command::Send(send) => send.region,
        Command::Reserve { .. }
        | Command::Prepare { .. }
        | Command::Recall { .. }
        | Command::SetRate { .. }
        | Command::Throttle { .. }
        | Command::Pause
        | Command::SendState
        | Command::DiscardStale { .. }
        | Command::Resume { .. }
        | Command::ServeFaults
        | Command::RedirectFaults
        | Command::Reclaim { .. }
        | Command::Gather { .. }
        | Command::Watch(_)
        | Command::Release
        | Command::Abort => Region::Memory,
    }
}

/// Commands on their way out and commands not yet completed.
#[derive(Debug)]
pub(super) struct Desk<P> {
    next: u32,
    outbox: VecDeque<(CmdId, Command<P>)>,
    open: Vec<Order>,
}

impl<P: PageSet> Desk<P> {
    pub(super) fn new() -> Desk<P> {
        Desk { next: 0, outbox: VecDeque::new(), open: Vec::new() }
    }

    /// Issues a command.
    pub(super) fn order(&mut self, command: Command<P>) -> CmdId {
        let id = CmdId(self.next);
        // After 2^32 commands ids are given again; none of those still outstanding is that old.
        self.next = self.next.wrapping_add(1);
        self.open.push(Order { id, kind: Kind::of(&command), region: region_of(&command) });
        self.outbox.push_back((id, command));
        id
    }

    pub(super) fn poll(&mut self) -> Option<(CmdId, Command<P>)> {
        self.outbox.pop_front()
    }

    /// Whether `reply` is an answer to the outstanding command `id`.
    pub(super) fn check(&self, id: CmdId, reply: &Reply<P>, phase: Phase) -> Result<(), PeerError> {
        if self.find(id).kind.is_answered_by(reply) { Ok(()) } else { Err(PeerError::WrongReply { id, phase }) }
    }

    /// Takes an outstanding command off the list.
    pub(super) fn close(&mut self, id: CmdId) -> Order {
        let order = self.find(id);
        self.open.retain(|open| open.id != id);
        order
    }

    fn find(&self, id: CmdId) -> Order {
        let found = self.open.iter().find(|open| open.id == id);
        *found.expect("a completion is of a command that is outstanding")
    }

    /// Whether a command of one of these kinds is outstanding.
    pub(super) fn any_open(&self, kinds: &[Kind]) -> bool {
        self.open.iter().any(|open| kinds.contains(&open.kind))
    }

    pub(super) fn nothing_open(&self) -> bool {
        self.open.is_empty()
    }

    /// Recalls every outstanding command of these kinds.
    pub(super) fn recall_all(&mut self, kinds: &[Kind]) {
        for i in 0..self.open.len() {
            let open = self.open[i];
            if kinds.contains(&open.kind) {
                self.order(Command::Recall { of: open.id });
            }
        }
    }
}

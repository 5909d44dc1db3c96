//! The seam between the engine and the model of memory.
//!
//! The engine knows hosts, networks, commands and their prices in time. What a guest dirties, what it waits for and which pages are
//! on their way is known to one of two models: [`class`](crate::class) counts bytes per region, [`page`](crate::page) gives every
//! page an identity. The engine is compiled once for each.

use crate::dedup::{Contents, Probe};
use livemig_core::ledger::Observation;
use livemig_core::pages::PageSet;
use livemig_core::units::{Bytes, Share, Span, Time};
use livemig_core::vocabulary::{CmdId, Prepaging, Send, Sent};
use livemig_models::world::Workload;
use rand_pcg::Pcg64Mcg;
use std::fmt::Debug;

/// A model of memory.
pub(crate) trait Fidelity: Sized + Debug {
    type Set: Kept;
    type Guest: GuestModel<Set = Self::Set>;
    type Transfer: TransferModel<Guest = Self::Guest, Set = Self::Set>;

    /// Brings a guest to `now`, and with it the transfer that has its migration's bandwidth, and what is fetched from intermediaries:
    /// at these rates since all were last brought to the present.
    fn advance(
        guest: &mut Self::Guest,
        front: Option<&mut Self::Transfer>,
        lanes: &Lanes<'_>,
        now: Time,
        observe: &mut impl FnMut(Observation),
    );

    /// In expectation, the share of the pages that a transfer sends next that other guests may have too; `None` where each page is looked up.
    fn shared_next(guest: &Self::Guest, transfer: &Self::Transfer) -> Option<f64>;
}

/// How fast a migration's pages move, by the way that they take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes<'a> {
    /// Wire bytes per second of the transfer in front, whatever their way; a page that several intermediaries store counts once.
    pub(crate) rate: f64,
    /// Of these, straight to the destination.
    pub(crate) direct: f64,
    /// Of these, to each intermediary; empty where all goes straight to the destination.
    pub(crate) via: &'a [(u16, f64)],
    /// How many intermediaries store a page.
    pub(crate) copies: u16,
    /// Bytes of pages per second from each intermediary to the destination.
    pub(crate) gather: &'a [(u16, f64)],
}

impl<'a> Lanes<'a> {
    /// What is fetched, without what is sent.
    pub(crate) fn gathering_alone(&self) -> Self {
        Lanes { gather: self.gather, ..Lanes::NONE }
    }

    /// Nothing moves.
    pub(crate) const NONE: Lanes<'a> = Lanes { rate: 0.0, direct: 0.0, via: &[], copies: 0, gather: &[] };
}

/// A page set of which the driver can keep a second account: which pages a migration has in its hands.
pub(crate) trait Kept: PageSet + Clone {
    /// Takes the pages of `given` out.
    ///
    /// # Panics
    /// When one of them is not there: a migration gives away only what it has.
    fn give(&mut self, given: &Self);
}

/// Whether the guest makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Running,
    Paused,
    Dead,
}

/// What a missing page costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultPath {
    /// One way of the request, and of the page.
    pub(crate) latency: Span,
    /// Handling at both ends.
    pub(crate) service: Span,
    /// The order of the push.
    pub(crate) order: Prepaging,
}

/// What pages take on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WirePrice {
    /// Bytes at the end of memory that are pages of zeros, each sent as a mark.
    pub(crate) elided: f64,
    /// Bytes per byte of the content of a page.
    pub(crate) content: f64,
    /// Bytes beside the content of a page.
    pub(crate) header: Bytes,
    /// Bytes of the mark.
    pub(crate) mark: Bytes,
    /// Intermediaries are asked for each page, and at what price.
    pub(crate) probe: Option<Probe>,
}

/// A guest and the dirty tracker of its memory.
pub(crate) trait GuestModel: Debug {
    type Set;
    /// How pages are called after a change of the workload.
    type Remap;

    /// A guest that runs, with `size` bytes to access; random choices of its own follow from `seed`.
    fn new(size: Bytes, vcpus: u32, workload: &Workload, seed: u64) -> Self;
    fn run(&self) -> Run;
    fn set_run(&mut self, run: Run);
    /// The share of its cores that it began with, by which the rate of its work is reported.
    fn baseline(&self) -> f64;
    /// Its work per second while nothing that it accesses costs it time.
    fn speed(&self) -> f64;
    /// vCPU share by throttling.
    fn set_share(&mut self, share: Share);
    /// vCPU share by the host's cores.
    fn cores_share(&self) -> f64;
    fn set_cores_share(&mut self, share: f64, is_baseline: bool);

    /// Everything counts as dirty, and writes are tracked at this cost in seconds per first write.
    fn start_tracking(&mut self, cost: f64);
    fn stop_tracking(&mut self);
    /// Bytes of dirty pages.
    fn dirty(&self) -> Bytes;
    /// Takes dirty pages out of the tracker; with `draw`, a model of expectations draws how many they are.
    fn collect(&mut self, limit: Option<Bytes>, draw: Option<&mut Pcg64Mcg>) -> Self::Set;
    /// Gives pages back to the tracker.
    fn return_dirty(&mut self, set: &Self::Set);

    /// From now on the guest runs, or will run, without these pages, which the source has, and without those that are staged.
    fn become_incomplete(&mut self, missing: &Self::Set, path: FaultPath);
    /// The source has sent the last of its pages: what is still missing is staged.
    fn source_sent(&mut self);
    /// Nothing is staged any more: the last of it has been fetched.
    fn stage_fetched(&mut self);

    /// Bytes of pages that intermediaries have in their newest version and the destination has not.
    fn staged(&self) -> f64;
    /// Bytes of pages that the guest misses and nobody but the source has.
    fn at_source(&self) -> f64;
    /// Bytes of pages that have come from intermediaries so far.
    fn fetched(&self) -> f64;
    /// Of what is staged, what is to be fetched from this intermediary.
    fn backlog(&self, via: u16) -> f64;
    /// Bytes that this intermediary stores, replicas included.
    fn stored(&self, via: u16) -> f64;
    /// Intermediaries are asked for its contents, of which this is known.
    fn deduplicate(&mut self, contents: Contents);
    /// What is known of its contents.
    fn contents(&self) -> Option<&Contents>;
    /// Of what is staged, the share that other guests may have too.
    fn shared_part(&self) -> f64;
    /// Contents per page of them at an intermediary, where that is known.
    fn distinct(&self, via: u16) -> Option<f64>;
    /// These pages go out in a newer version: what is staged of them is old.
    fn supersede(&mut self, set: &Self::Set);
    /// An intermediary is gone, or to be used no more: the pages that only it had.
    fn lose_stage(&mut self, via: u16) -> Self::Set;

    /// Does something else from now on.
    fn change_workload(&mut self, workload: &Workload, memory: Bytes) -> Self::Remap;
    /// The same pages, as they are called from now on.
    fn remap(remap: &Self::Remap, set: &Self::Set) -> Self::Set;
}

/// What a transfer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Pages in address order.
    Pages,
    /// Pages that the guest, which waits for them, may ask for at any moment.
    Push,
    /// CPU and device state.
    State,
}

/// One `Send` or `SendState` under way.
pub(crate) trait TransferModel: Debug {
    type Set;
    type Guest: GuestModel<Set = Self::Set>;

    fn of_pages(id: CmdId, send: &Send<Self::Set>, push: bool, price: WirePrice, guest: &Self::Guest, now: Time) -> Self;
    fn of_state(id: CmdId, state: Bytes, now: Time) -> Self;
    /// It has the migration's bandwidth from now on.
    fn begin(&mut self, now: Time);
    fn id(&self) -> CmdId;
    fn load(&self) -> Load;
    /// Whether its pages are new to the destination.
    fn is_first(&self) -> bool;

    /// Wire bytes sent so far.
    fn wire_sent(&self) -> f64;
    /// Bytes of pages not yet sent.
    fn pending(&self) -> f64;
    /// Wire bytes per byte of the pages that are to be sent.
    fn mean_factor(&self) -> f64;
    /// What has become of it so far.
    fn account(&self, guest: &Self::Guest) -> Sent;
    /// Pages not yet sent.
    fn unsent(&self, guest: &Self::Guest) -> Self::Set;

    /// Takes pages that were not sent out of it, at most so many bytes; some, if there are any.
    fn take_out(&mut self, most: Bytes, guest: &Self::Guest) -> Self::Set;

    /// Seconds until it is over at `rate`, or at least until it is worth looking again.
    fn time_left(&self, rate: f64, guest: &Self::Guest) -> f64;
    /// After that time: whether everything has gone at `rate`.
    fn is_over(&self, rate: f64) -> bool;
    /// Everything has gone: what rounding has left counts as sent.
    fn finish(&mut self);

    /// Adds collected pages, except those that it still has to send; how many bytes were added.
    fn join(&mut self, set: &Self::Set, guest: &Self::Guest) -> Bytes;
    /// The guest's workload has changed.
    fn remap(&mut self, remap: &<Self::Guest as GuestModel>::Remap, price: WirePrice, guest: &Self::Guest);
}

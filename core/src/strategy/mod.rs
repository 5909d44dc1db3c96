//! Strategies: compositions of stages and policies.
//!
//! Every strategy is a [`Spec`]: which stages a migration has (rounds of live copy before the switch, a push after it) and
//! which policies decide inside them. A [`Preset`] is a spec with a name that a user can type; each lives in a file of its own
//! and is registered in [`PRESETS`].

mod auto_converge;
mod cpu_scheduling;
mod hybrid;
mod pmigrate;
mod post_copy;
mod pre_copy;
mod quick_eviction;
mod scatter_gather;
mod stop_and_copy;
mod traffic_sensitive;

use crate::policy::selection::SelectionPolicy;
use crate::policy::snapshot::{Fixed, SnapshotPolicy};
use crate::policy::stop::StopRule;
use crate::policy::throttle::ThrottlePolicy;
use crate::policy::timeout::{CompletionTimeout, OnTimeout};
use crate::units::{PAGE_SIZE, Rate, Span};
use crate::vocabulary::{Channels, Prepaging};
use serde::{Deserialize, Serialize};

/// Every preset, in the order in which they are listed and compared.
pub const PRESETS: [Preset; 10] = [
    stop_and_copy::PRESET,
    pre_copy::PRESET,
    post_copy::PRESET,
    hybrid::PRESET,
    scatter_gather::PRESET,
    quick_eviction::PRESET,
    auto_converge::PRESET,
    cpu_scheduling::PRESET,
    traffic_sensitive::PRESET,
    pmigrate::PRESET,
];

/// A strategy under the name by which users call it.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What users type.
    pub name: &'static str,
    /// Who published or built it.
    pub origin: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its composition with default options.
    pub spec: fn() -> Spec,
}

/// The preset called `name`.
#[must_use]
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

/// A complete description of how a VM is migrated.
///
/// | `live` | `push` | known as |
/// |---|---|---|
/// | no | no | stop-and-copy |
/// | yes | no | pre-copy |
/// | no | yes | post-copy |
/// | yes | yes | hybrid; with a `selection`: pre-copy or post-copy |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Memory is sent before the request.
    pub ahead: Option<Ahead>,
    /// Rounds of copying while the guest runs at the source; without, the guest is stopped at once.
    pub live: Option<LiveCopy>,
    /// What is left when the guest stops is pushed after it has resumed at the destination; without, it is sent before.
    pub push: Option<Push>,
    /// Only one of `live` and `push` is carried out, and this is how it is chosen for each VM, at the request.
    pub selection: Option<SelectionPolicy>,
    /// How pages travel.
    pub transfer: Transfer,
    /// When a migration that takes too long is ended, and how.
    pub timeout: Option<CompletionTimeout>,
    /// How long a cut link may stay cut before the switch until the migration is given up. After the switch it is waited for.
    pub link_patience: Span,
}

/// The stage before the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ahead {
    /// Passes over what is dirty, straight after the first copy.
    pub passes: u32,
    /// When snapshots are taken from then on.
    pub snapshots: SnapshotPolicy,
    /// They go to intermediaries (a staging node) instead of the destination, which fetches them after the switch.
    pub staging: bool,
}

impl Default for Ahead {
    /// Four passes (Fernando et al., UCC 2016), then snapshots at a fixed interval.
    fn default() -> Ahead {
        Ahead { passes: 4, snapshots: SnapshotPolicy::Fixed(Fixed::default()), staging: false }
    }
}

/// The stage of copying in rounds while the guest runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveCopy {
    /// When it ends.
    pub stop: StopRule,
    /// How the guest is slowed down so that it ends.
    pub throttle: Option<ThrottlePolicy>,
    /// Leave out pages that are dirty again when their turn comes in a round (Clark et al., NSDI 2005).
    pub skip_redirtied: bool,
}

/// The stage of pushing memory to a guest that already runs at the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// In which order.
    pub prepaging: Prepaging,
    /// Pages go to intermediaries too, so that the source is free before the destination has them.
    pub scatter: Option<Scatter>,
}

/// Pages go to intermediaries, which keep them until the destination gathers them (Deshpande et al., IEEE CLOUD 2014 and TCC 2015).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scatter {
    /// Straight to the destination as far as it takes them, the rest to intermediaries (2015); otherwise every page that the destination
    /// does not ask for goes through intermediaries (2014).
    pub direct: bool,
    /// How many intermediaries store each page; at least 1.
    pub copies: u16,
    /// How the destination fetches them.
    pub gather: Gather,
}

/// How the destination fetches what intermediaries stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gather {
    /// At most this fast.
    pub limit: Option<Rate>,
    /// From when on.
    pub when: GatherWhen,
}

/// When the destination begins to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatherWhen {
    /// While the source still sends.
    Concurrent,
    /// When the source is released: until then what the destination takes in is for pages that come straight.
    AfterEviction,
}

impl Scatter {
    /// With one copy of each page and no limit. Straight first: the destination fetches once the source is free, because
    /// what it takes in is worth more for pages that cross the network once. Otherwise it fetches from the beginning.
    #[must_use]
    pub fn new(direct: bool) -> Scatter {
        let when = if direct { GatherWhen::AfterEviction } else { GatherWhen::Concurrent };
        Scatter { direct, copies: 1, gather: Gather { limit: None, when } }
    }
}

/// How pages travel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Parallel connections; at least 1.
    pub streams: u16,
    /// Limit of the sending rate over all streams.
    pub limit: Option<Rate>,
    /// The limit does not hold while the guest is paused (QEMU).
    pub unlimited_while_paused: bool,
    /// Pages of zeros are sent as a mark.
    pub elide_zero_pages: bool,
    /// Intermediaries are asked for each page whether they have its content, of whichever VM; what they have is not sent to them (Deshpande et
    /// al., IEEE TCC 2015).
    pub dedup: bool,
    /// How the connections are made and served.
    pub channels: Channels,
}

impl Default for Transfer {
    fn default() -> Transfer {
        Transfer {
            streams: 1,
            limit: None,
            unlimited_while_paused: false,
            elide_zero_pages: true,
            dedup: false,
            channels: Channels::default(),
        }
    }
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            ahead: None,
            live: None,
            push: None,
            selection: None,
            transfer: Transfer::default(),
            timeout: None,
            link_patience: Span::from_secs(30),
        }
    }
}

/// One of the two techniques between which a selection decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Technique {
    /// The guest runs at the source while its memory is copied.
    PreCopy,
    /// The guest runs at the destination while its memory is pushed.
    PostCopy,
}

impl Technique {
    /// Post-copy if `post_copy`, otherwise pre-copy.
    #[must_use]
    pub fn post_copy_if(post_copy: bool) -> Technique {
        if post_copy { Technique::PostCopy } else { Technique::PreCopy }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Technique {
        Technique::post_copy_if(self == Technique::PreCopy)
    }

    /// The name of its preset.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Technique::PreCopy => pre_copy::PRESET.name,
            Technique::PostCopy => post_copy::PRESET.name,
        }
    }
}

/// Why a composition has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No streams.
    #[error("`streams` must be at least 1")]
    NoStreams,
    /// Staged snapshots that the destination could not fetch.
    #[error("`staging` needs a push: the destination fetches what is staged after the guest has started there")]
    StagingWithoutPush,
    /// Staged snapshots under a timeout that ends in a stopped copy.
    #[error(
        "`staging` excludes a timeout that ends in `pause`: the guest would start before it has what is staged, without a push"
    )]
    StagingAndPause,
    /// Staged snapshots where the push may be left out.
    #[error(
        "`staging` excludes `select`: what is staged reaches the destination only with a push, and a selection may choose pre-copy"
    )]
    StagingAndSelection,
    /// Deduplication where nothing is stored.
    #[error(
        "`dedup` has no meaning without intermediaries, whose store it is about: every page goes straight to the destination; it needs \
         `scatter` or `staging`"
    )]
    DedupWithoutIntermediaries,
    /// No interfaces, or more than connections.
    #[error("`nics` must be from 1 to `streams`, which is {streams}: a connection uses one interface")]
    Nics {
        /// The number of connections.
        streams: u16,
    },
    /// No threads.
    #[error("`threads` must be at least 1")]
    NoThreads,
    /// Range locks for a single thread.
    #[error(
        "`range_lock` has no meaning with one thread, which has the address-space lock for itself; give it `streams` or `threads`"
    )]
    LoneRangeLock,
    /// A disk is to be moved by a strategy that starts the guest without it.
    #[error(
        "it cannot move a disk: the guest starts at the destination before anything is copied, and a missing block of a disk cannot be \
         asked for as a page of memory can; use rounds of live copy before the switch (`hybrid`), or `snapshots`"
    )]
    DiskNeedsCopy,
    /// No pivots.
    #[error("`pivots` must be at least 1")]
    NoPivots,
    /// Throttling towards a rest that nobody has named.
    #[error("`remaining` must be given: the stop rule does not look at how much is left")]
    NoRemaining,
    /// A selection between less than two techniques.
    #[error(
        "`select` has no meaning: it chooses between copying memory before the switch and pushing it after, and one of them is missing"
    )]
    NothingToSelect,
    /// A parameter of a policy outside its range.
    #[error("`{key}` must be {allowed}")]
    OutOfRange {
        /// The key of the option.
        key: &'static str,
        /// What it may be.
        allowed: &'static str,
    },
}

impl Spec {
    /// Whether pages may go to intermediaries.
    #[must_use]
    pub fn uses_intermediaries(&self) -> bool {
        self.push.is_some_and(|p| p.scatter.is_some()) || self.ahead.as_ref().is_some_and(|a| a.staging)
    }

    /// What is left of it when its selection has chosen `technique`.
    #[must_use]
    pub fn selected(self, technique: Technique) -> Spec {
        match technique {
            Technique::PreCopy => Spec { push: None, selection: None, ..self },
            Technique::PostCopy => Spec { live: None, timeout: None, selection: None, ..self },
        }
    }

    /// Staged pages reach the destination in the gathering that belongs to a push; every way to a switch must lead there.
    fn check_staging(&self) -> Result<(), SpecError> {
        if self.push.is_none() {
            Err(SpecError::StagingWithoutPush)
        } else if self.timeout.is_some_and(|t| t.then == OnTimeout::Pause) {
            Err(SpecError::StagingAndPause)
        } else if self.selection.is_some() {
            Err(SpecError::StagingAndSelection)
        } else {
            Ok(())
        }
    }

    /// Checks the composition and the ranges of its parameters.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.transfer.streams == 0 {
            return Err(SpecError::NoStreams);
        }
        self.check_channels()?;
        if self.transfer.dedup && !self.uses_intermediaries() {
            return Err(SpecError::DedupWithoutIntermediaries);
        }
        if self.transfer.limit.is_some_and(|r| r.0 <= 0.0) {
            return Err(SpecError::OutOfRange { key: "limit", allowed: "above zero" });
        }
        if let Some(Push { prepaging: Prepaging::Bubbling { pivots: 0 }, .. }) = self.push {
            return Err(SpecError::NoPivots);
        }
        if let Some(scatter) = self.push.and_then(|p| p.scatter) {
            if scatter.copies == 0 {
                return Err(SpecError::OutOfRange { key: "copies", allowed: "at least 1" });
            }
            if scatter.gather.limit.is_some_and(|r| r.0 <= 0.0) {
                return Err(SpecError::OutOfRange { key: "gather_limit", allowed: "above zero" });
            }
        }
        if let Some(ahead) = &self.ahead {
            if ahead.staging {
                self.check_staging()?;
            }
            ahead.snapshots.check()?;
        }
        if let Some(selection) = &self.selection {
            selection.check()?;
            if self.live.is_none() || self.push.is_none() {
                return Err(SpecError::NothingToSelect);
            }
        }
        if let Some(live) = &self.live {
            live.stop.check()?;
            if let Some(throttle) = &live.throttle {
                throttle.check(&live.stop)?;
            }
        }
        self.timeout.as_ref().map_or(Ok(()), CompletionTimeout::check)
    }

    fn check_channels(&self) -> Result<(), SpecError> {
        let Transfer { streams, channels, .. } = self.transfer;
        if channels.nics.is_some_and(|nics| nics == 0 || nics > streams) {
            return Err(SpecError::Nics { streams });
        }
        if channels.tasks.is_some_and(|tasks| tasks.memory.0 < PAGE_SIZE || tasks.disk.0 < PAGE_SIZE) {
            return Err(SpecError::OutOfRange { key: "tasks", allowed: "of at least 4 KiB, a page" });
        }
        match channels.threads.unwrap_or(streams) {
            0 => Err(SpecError::NoThreads),
            1 if channels.range_lock => Err(SpecError::LoneRangeLock),
            _ => Ok(()),
        }
    }

    /// Checks that the strategy can move a VM with a disk: before the guest starts at the destination its disk has to be there, and
    /// something has to copy it while the guest runs, or the guest has to be meant to stand still for it.
    ///
    /// # Errors
    /// Of post-copy without anything before it, and of what may turn out to be that.
    pub fn check_disk(&self) -> Result<(), SpecError> {
        let may_skip_live = self.live.is_none() || self.selection.is_some();
        if self.push.is_some() && may_skip_live && self.ahead.is_none() { Err(SpecError::DiskNeedsCopy) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::TaskSizes;
    use crate::units::Bytes;
    use std::collections::BTreeSet;

    #[test]
    fn channels_and_disks_without_meaning_are_refused() {
        let with = |streams, channels| Spec { transfer: Transfer { streams, channels, ..Transfer::default() }, ..Spec::default() };
        let channels = Channels::default();
        assert_eq!(with(4, Channels { nics: Some(4), range_lock: true, ..channels }).check(), Ok(()));
        assert_eq!(with(4, Channels { nics: Some(5), ..channels }).check(), Err(SpecError::Nics { streams: 4 }));
        assert_eq!(with(4, Channels { nics: Some(0), ..channels }).check(), Err(SpecError::Nics { streams: 4 }));
        assert_eq!(with(4, Channels { threads: Some(0), ..channels }).check(), Err(SpecError::NoThreads));
        let tasks = Some(TaskSizes { disk: Bytes(4095), ..TaskSizes::default() });
        assert!(matches!(with(4, Channels { tasks, ..channels }).check(), Err(SpecError::OutOfRange { key: "tasks", .. })));
        assert_eq!(with(1, Channels { range_lock: true, ..channels }).check(), Err(SpecError::LoneRangeLock));
        assert_eq!(with(1, Channels { range_lock: true, threads: Some(2), ..channels }).check(), Ok(()));
        let cannot: Vec<&str> = PRESETS.iter().filter(|p| (p.spec)().check_disk().is_err()).map(|p| p.name).collect();
        assert_eq!(cannot, ["post-copy", "scatter-gather", "traffic-sensitive"]);
    }

    #[test]
    fn presets_are_valid_and_named_apart() {
        let names: BTreeSet<_> = PRESETS.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PRESETS.len());
        for p in &PRESETS {
            assert_eq!((p.spec)().check(), Ok(()), "{}", p.name);
            assert!(!p.origin.is_empty() && !p.summary.is_empty());
        }
    }
}

//! Bugs that can be put in on purpose, to see that the harness finds them.

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A collection takes a page out of the dirty tracker and does not hand it over.
    DirtyBitDropped,
    /// A collection takes a block of the disk out of the dirty tracker and does not hand it over.
    DiskBlockLost,
    /// Pages that are returned to the dirty tracker do not count as dirty.
    ReturnForgotten,
    /// The destination takes pages of connections that were given up.
    StaleFrameApplied,
    /// A lost answer to `Resume` is taken for a proof that the guest never started.
    SourceResumedAfterSwitch,
    /// The destination keeps old versions of pages that it was told to drop.
    DiscardIgnored,
    /// The source is released although requests for pages are on their way to it.
    ReleaseBeforeRedirect,
    /// A request for a page is answered with zeros.
    FaultAnsweredWithZeros,
    /// Pages that a recalled send has not sent are not handed back.
    UnsentForgotten,
    /// A page that joins a send while an older version of it is on its way is not sent again.
    JoinedPageForgotten,
    /// A page that comes late overwrites what the guest has written at the destination.
    RunningGuestOverwritten,
    /// A page that was left out of a round because it was dirty again counts as clean.
    SkippedPageForgotten,
    /// What was on a broken connection counts as received.
    BrokenConnectionTrusted,
    /// The guest goes on writing for a while after it was paused.
    PauseIncomplete,
    /// A page counts as staged before the intermediary has it.
    StagingTrusted,
    /// The destination believes in a place although it knows of a newer version.
    OlderPlaceBelieved,
    /// The destination is never told where snapshots are staged.
    SnapshotNotLocated,
    /// What a failed intermediary had is not handed back.
    ReclaimForgotten,
    /// The destination is told to ask the source no more before it knows where everything is.
    RedirectBeforeLocated,
    /// An intermediary drops a content when one of those who refer to it does not need it any more.
    SharedContentFreed,
    /// A page of which an intermediary got only the hash counts as staged, whether or not it has the content.
    ProbeTrusted,
    /// The destination says that it has everything although it misses pages that were only at the source, which has failed.
    LossDenied,
}

/// All of them.
pub(crate) const BUGS: [Bug; 22] = [
    Bug::DirtyBitDropped,
    Bug::DiskBlockLost,
    Bug::ReturnForgotten,
    Bug::StaleFrameApplied,
    Bug::SourceResumedAfterSwitch,
    Bug::DiscardIgnored,
    Bug::ReleaseBeforeRedirect,
    Bug::FaultAnsweredWithZeros,
    Bug::UnsentForgotten,
    Bug::JoinedPageForgotten,
    Bug::RunningGuestOverwritten,
    Bug::SkippedPageForgotten,
    Bug::BrokenConnectionTrusted,
    Bug::PauseIncomplete,
    Bug::StagingTrusted,
    Bug::OlderPlaceBelieved,
    Bug::SnapshotNotLocated,
    Bug::ReclaimForgotten,
    Bug::RedirectBeforeLocated,
    Bug::SharedContentFreed,
    Bug::ProbeTrusted,
    Bug::LossDenied,
];

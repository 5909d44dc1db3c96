//! What a migration of the swarm is made of, drawn from its seed.

use livemig_core::machine::Phase;
use livemig_core::policy::selection::{SelectionPolicy, TrafficSensitive};
use livemig_core::policy::snapshot::{Adaptive, Fixed, SnapshotPolicy};
use livemig_core::policy::stop::{Clark, Escalation, FixedRounds, KubeVirt, PMigrate, Qemu, SimGrid, StopRule};
use livemig_core::policy::throttle::{AutoConverge, CpuScheduling, DirtyLimit, Start, ThrottlePolicy};
use livemig_core::policy::timeout::{CompletionTimeout, OnTimeout};
use livemig_core::strategy::{Ahead, Gather, GatherWhen, LiveCopy, PRESETS, Push, Scatter, Spec, Transfer};
use livemig_core::tasks::TaskSizes;
use livemig_core::units::{Bytes, PAGE_SIZE, Rate, Span};
use livemig_core::vocabulary::{Channels, Prepaging};

use super::channel::{MAX_STREAMS, MAX_VCPUS, MAX_VIAS};
use super::choice::Choices;
use super::coverage::KILLABLE;
use super::faults::{Fault, FaultKind};
use super::guest::{GuestSetup, Habit, Pattern};

/// How the hosts and the connections between them behave.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    /// A page on a data connection.
    pub(crate) page: Span,
    /// Every message takes at least this long, and at most as much again as the jitter.
    pub(crate) latency: Span,
    pub(crate) jitter: Span,
    /// The source agent needs at most this long for a command, and the machine hears of it at most this much later.
    pub(crate) local: Span,
    /// Pages per batch.
    pub(crate) batch: u64,
    /// Unacknowledged batches per connection.
    pub(crate) window: usize,
    /// How often a recall gives the connections up rather than waiting for acknowledgements.
    pub(crate) hasty_recalls_percent: u64,
    /// How often the agent reports what a broken connection carried as failed, rather than sending it again.
    pub(crate) gives_up_percent: u64,
    /// How long before the request the migration is announced, if it is.
    pub(crate) notice: Option<Span>,
    /// What the source does when the connection breaks while it waits for the answer to `Resume`.
    pub(crate) about_resume: AboutResume,
}

/// What becomes of an unanswered `Resume` when its connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AboutResume {
    /// It is sent again.
    Repeat,
    /// The destination is made to say whether it has started the guest, and not to start it later.
    Ask,
    /// The answer counts as lost.
    GiveUp,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) preset: &'static str,
    pub(crate) spec: Spec,
    pub(crate) guest: GuestSetup,
    pub(crate) timing: Timing,
    pub(crate) faults: Vec<Fault>,
    /// How many pages each intermediary has room for.
    pub(crate) vias: Vec<u64>,
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Scenario {
        let draw = &mut Choices::seeded(seed);
        let page = Span(10u64.pow(3 + u32::try_from(draw.below(6)).unwrap()) * (1 + draw.below(9)));
        let pages = memory(draw);
        let preset = &PRESETS[usize::try_from(draw.below(PRESETS.len() as u64)).unwrap()];
        let mut spec = (preset.spec)();
        if draw.percent(60) {
            vary(&mut spec, page, pages, draw);
        }
        assert_eq!(spec.check(), Ok(()), "seed {seed}");
        let mut guest = guest(draw, pages, page);
        let mut timing = timing(draw, page);
        if spec.ahead.is_some() && draw.percent(85) {
            timing.notice = Some(Span(page.0 * pages * draw.below(60) / 10));
        }
        let vias = if spec.uses_intermediaries() || draw.percent(10) { intermediaries(draw, pages) } else { Vec::new() };
        let faults = faults(draw, page, spec.link_patience, vias.len() as u64);
        if spec.check_disk().is_ok() && draw.percent(35) {
            guest.disk = 1 + draw.below(pages - 1);
        }
        Scenario { preset: preset.name, spec, guest, timing, faults, vias }
    }

    /// Whether the strategy itself may give the migration up.
    pub(crate) fn may_give_up(&self) -> bool {
        self.spec.timeout.is_some_and(|t| t.then == OnTimeout::Abort)
            || matches!(&self.spec.live, Some(LiveCopy { stop: StopRule::KubeVirt(_), .. }))
    }
}

/// Some have room for everything, others soon have none.
fn intermediaries(draw: &mut Choices, pages: u64) -> Vec<u64> {
    let count = if draw.percent(10) { 0 } else { 1 + draw.below(MAX_VIAS as u64) };
    (0..count).map(|_| if draw.percent(70) { pages } else { draw.below(pages) }).collect()
}

/// Pages go to intermediaries too.
fn scatter(draw: &mut Choices, page: Span) -> Option<Scatter> {
    draw.percent(60).then(|| {
        let limit = draw.percent(30).then(|| Rate(PAGE_SIZE as f64 / page.as_secs_f64() * (1 + draw.below(20)) as f64 / 10.0));
        let when = if draw.percent(50) { GatherWhen::Concurrent } else { GatherWhen::AfterEviction };
        let copies = 1 + u16::try_from(draw.below(2)).unwrap();
        Scatter { direct: draw.percent(50), copies, gather: Gather { limit, when } }
    })
}

/// How connections share pages: as they come, or in tasks of a few each.
fn tasks(draw: &mut Choices) -> Option<TaskSizes> {
    draw.percent(50).then(|| {
        let (memory, disk) = (1 + draw.below(6), 1 + draw.below(6));
        TaskSizes { memory: Bytes::from_pages(memory), disk: Bytes::from_pages(disk) }
    })
}

/// Mostly tiny, because what goes wrong goes wrong with few pages too; now and then several words of a bitmap.
fn memory(draw: &mut Choices) -> u64 {
    match draw.below(100) {
        0..40 => 4 + draw.below(13),
        40..80 => 16 + draw.below(49),
        80..99 => 64 + draw.below(193),
        _ => 256 + draw.below(3841),
    }
}

fn guest(draw: &mut Choices, pages: u64, page: Span) -> GuestSetup {
    let vcpus = (0..1 + draw.below(MAX_VCPUS as u64))
        .map(|_| {
            let pattern = match draw.below(3) {
                0 => Pattern::Sequential,
                1 => Pattern::Uniform,
                _ => Pattern::HotCold { hot: 1 + draw.below(pages / 2) },
            };
            Habit { pattern, writes_percent: draw.below(101) }
        })
        .collect();
    let interval = Span((page.0 / 5).max(1) << draw.below(7));
    GuestSetup { pages, disk: 0, vcpus, interval, steps_per_side: 10 + draw.below(290) }
}

fn timing(draw: &mut Choices, page: Span) -> Timing {
    Timing {
        page,
        latency: Span(page.0 * draw.below(8) / 2 + 1),
        jitter: Span(page.0 * draw.below(20) + 1),
        local: Span(page.0 * draw.below(4) / 2 + 1),
        batch: 1 + draw.below(8),
        window: usize::try_from(1 + draw.below(4)).unwrap(),
        hasty_recalls_percent: draw.below(3) * 50,
        gives_up_percent: draw.below(3) * 30,
        notice: None,
        about_resume: [AboutResume::Repeat, AboutResume::Ask, AboutResume::GiveUp][usize::try_from(draw.below(3)).unwrap()],
    }
}

fn throttle(page: Span, draw: &mut Choices) -> Option<ThrottlePolicy> {
    match draw.below(5) {
        0 => Some(ThrottlePolicy::AutoConverge(AutoConverge::default())),
        1 => {
            let remaining = Bytes::from_pages(draw.below(40));
            let start = match draw.below(3) {
                0 => Start::Round(1 + u32::try_from(draw.below(3)).unwrap()),
                1 => Start::Below((1 + draw.below(10)) as f64 / 10.0),
                _ => Start::NotShrinking,
            };
            let rounds = u32::try_from(1 + draw.below(5)).unwrap();
            let min_share = (1 + draw.below(50)) as f64 / 100.0;
            Some(ThrottlePolicy::CpuScheduling(CpuScheduling::new(Some(remaining), rounds, min_share, start)))
        }
        2 => {
            let limit = Rate(PAGE_SIZE as f64 / page.as_secs_f64() * (1 + draw.below(20)) as f64 / 100.0);
            Some(ThrottlePolicy::DirtyLimit(DirtyLimit::new(limit, 0.5, 0.99)))
        }
        _ => None,
    }
}

/// Every option of a strategy.
fn vary(spec: &mut Spec, page: Span, pages: u64, draw: &mut Choices) {
    if let Some(ahead) = &mut spec.ahead {
        let interval = Span(page.0 * (1 + draw.below(2 * pages)));
        let fixed = Fixed {
            interval,
            threshold: draw.below(6),
            max_pages: 1 + draw.below(pages),
            min_spacing: Span(page.0 * draw.below(9)),
        };
        let snapshots = if draw.percent(50) {
            SnapshotPolicy::Fixed(fixed)
        } else {
            SnapshotPolicy::Adaptive(Adaptive::new(fixed, Span(interval.0 * 20), 0.05 + draw.below(90) as f64 / 100.0))
        };
        *ahead = Ahead { passes: u32::try_from(draw.below(4)).unwrap(), snapshots, staging: false };
        // Snapshots may also be followed by post-copy, with or without rounds before it.
        spec.push = draw.percent(50).then(Push::default);
        if spec.push.is_some() && draw.percent(50) {
            spec.live = None;
        }
    }
    if let Some(live) = &mut spec.live {
        *live = LiveCopy { stop: stop_rule(page, draw), throttle: throttle(page, draw), skip_redirtied: draw.percent(50) };
    }
    if let Some(push) = &mut spec.push {
        let pivots = u16::try_from(draw.below(5)).unwrap();
        let prepaging = if pivots == 0 { Prepaging::AddressOrder } else { Prepaging::Bubbling { pivots } };
        *push = Push { prepaging, scatter: scatter(draw, page) };
    }
    if spec.live.is_some() && spec.push.is_some() && draw.percent(25) {
        spec.selection = Some(SelectionPolicy::Traffic(TrafficSensitive::default()));
    }
    let rate = PAGE_SIZE as f64 / page.as_secs_f64();
    spec.transfer = Transfer {
        streams: u16::try_from(1 + draw.below(MAX_STREAMS as u64)).unwrap(),
        limit: draw.percent(30).then(|| Rate(rate * (1 + draw.below(20)) as f64 / 10.0)),
        unlimited_while_paused: draw.percent(50),
        elide_zero_pages: draw.percent(50),
        dedup: false,
        channels: Channels { tasks: tasks(draw), ..Channels::default() },
    };
    spec.timeout = draw.percent(25).then(|| {
        let then = [OnTimeout::Abort, OnTimeout::PostCopy, OnTimeout::Pause][usize::try_from(draw.below(3)).unwrap()];
        let whole = Span(page.0 * pages * (1 + draw.below(40)) / 10);
        let per_gib = Span::from_secs_f64(whole.as_secs_f64() * Bytes::from_gib(1).0 as f64 / Bytes::from_pages(pages).0 as f64);
        CompletionTimeout { per_gib, then }
    });
    spec.link_patience = Span(page.0 * (1 + draw.below(400)));
    let fetches_all = spec.push.is_some() && spec.selection.is_none() && spec.timeout.is_none_or(|t| t.then != OnTimeout::Pause);
    if let Some(ahead) = &mut spec.ahead {
        ahead.staging = fetches_all && draw.percent(60);
    }
    spec.transfer.dedup = spec.uses_intermediaries() && draw.percent(50);
}

fn stop_rule(page: Span, draw: &mut Choices) -> StopRule {
    let limit = Span(page.0 * (1 + draw.below(20)));
    match draw.below(7) {
        0 => StopRule::Clark(Clark::new(draw.below(20), 1 + u32::try_from(draw.below(8)).unwrap(), 3.0, draw.percent(50))),
        1 | 2 => StopRule::Qemu(Qemu { downtime_limit: limit }),
        3 => StopRule::FixedRounds(FixedRounds { rounds: 1 + u32::try_from(draw.below(4)).unwrap() }),
        4 => StopRule::SimGrid(SimGrid { downtime_limit: limit }),
        5 => {
            let step = |draw: &mut Choices| match draw.below(3) {
                0 => Escalation::RaiseLimit(Span(limit.0 * 3)),
                1 => Escalation::PostCopy,
                _ => Escalation::Abort,
            };
            let steps = (0..draw.below(3)).map(|_| step(draw)).collect();
            StopRule::KubeVirt(KubeVirt::new(limit, Span(page.0 * (10 + draw.below(500))), steps))
        }
        _ => StopRule::PMigrate(PMigrate::new(limit, 1 + u32::try_from(draw.below(6)).unwrap(), 3.0)),
    }
}

/// The rarer phases of migrations with intermediaries more often than others.
fn phase(draw: &mut Choices, staging: bool) -> Phase {
    match draw.below(10) {
        0 | 1 if staging => Phase::Gather,
        2 if staging => Phase::Snapshots,
        3 if staging => Phase::Rollback,
        _ => KILLABLE[usize::try_from(draw.below(KILLABLE.len() as u64)).unwrap()],
    }
}

fn faults(draw: &mut Choices, page: Span, patience: Span, vias: u64) -> Vec<Fault> {
    let count = match draw.below(10) {
        0..3 => 0,
        3..7 => 1,
        7..9 => 2,
        _ => 3,
    };
    let mut faults = Vec::new();
    for _ in 0..count {
        let outage = if draw.percent(30) { Span(patience.0 + page.0) } else { Span(page.0 * (1 + draw.below(300))) };
        let kind = FaultKind::draw(draw, outage, vias);
        let phase = kind.only_in().unwrap_or_else(|| phase(draw, vias > 0));
        let within = 1 << draw.below(6);
        let after = draw.below(within);
        faults.push(Fault { kind, phase, after });
    }
    faults
}

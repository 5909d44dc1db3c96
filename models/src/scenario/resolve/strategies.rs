//! Strategies: presets of the core with options, checked for sense.

use crate::scenario::error::{Fault, choices};
use crate::scenario::quantity::{Fraction, Positive};
use crate::scenario::raw::{self, Document, Options, Select, Snapshots, Stop, Throttle, ThrottleStart};
use crate::scenario::value::{At, Constant};
use crate::world::{Strategy, Vm};
use livemig_core::policy::selection::{SelectionPolicy, TrafficSensitive};
use livemig_core::policy::snapshot::{Adaptive, Fixed, SnapshotPolicy};
use livemig_core::policy::stop::{Clark, Escalation, FixedRounds, KubeVirt, PMigrate, Qemu, SimGrid, StopRule};
use livemig_core::policy::throttle::{AutoConverge, CpuScheduling, DirtyLimit, Start, ThrottlePolicy};
use livemig_core::policy::timeout::{CompletionTimeout, OnTimeout};
use livemig_core::strategy::{Ahead, GatherWhen, LiveCopy, PRESETS, Preset, Scatter, Spec, preset};
use livemig_core::tasks::TaskSizes;
use livemig_core::units::{Bytes, Span};
use livemig_core::vocabulary::Prepaging;

/// The strategies of a scenario; every preset where it names none, or with `disk`, a VM that is moved with its disk, every preset that
/// can do that.
///
/// # Errors
/// An unknown preset, an option without meaning, a strategy that cannot move the disk, or a name that is there twice.
pub(super) fn resolve(document: &Document, disk: Option<&Vm>) -> Result<Vec<Strategy>, Fault> {
    let (table, list) = match &document.drain {
        Some(drain) => ("drain", drain.value.strategies.as_ref()),
        None => ("migrate", document.migrate.as_ref().and_then(|m| m.value.strategies.as_ref())),
    };
    let Some(list) = list else {
        let all = PRESETS.iter().map(as_it_is);
        return Ok(all.filter(|s| disk.is_none() || s.spec.check_disk().is_ok()).collect());
    };
    if list.value.is_empty() {
        return Err(Fault::at(
            list.line,
            format!("{table}.strategies"),
            "at least one strategy is needed; leave the key out for all presets",
        ));
    }
    let mut strategies: Vec<Strategy> = Vec::with_capacity(list.value.len());
    for (number, at) in list.value.iter().enumerate() {
        let place = |fault: Fault| fault.or_line(at.line).under(&format!("{table}.strategies[{number}]"));
        let strategy = one(at).map_err(place)?;
        if let (Some(vm), Err(why)) = (disk, strategy.spec.check_disk()) {
            return Err(place(Fault::at(at.line, "", format!("`{}` has a `disk`, and `{}`: {why}", vm.name, strategy.name))));
        }
        if strategies.iter().any(|other| other.name == strategy.name) {
            let problem = format!("the strategy `{}` is there twice; give one of them another `name`", strategy.name);
            return Err(place(Fault::at(at.line, "", problem)));
        }
        strategies.push(strategy);
    }
    Ok(strategies)
}

fn as_it_is(preset: &Preset) -> Strategy {
    Strategy { name: preset.name.to_owned(), preset: preset.name, spec: (preset.spec)() }
}

fn find(name: &str) -> Result<&'static Preset, String> {
    preset(name).ok_or_else(|| {
        let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
        format!("unknown preset `{name}`; {}", choices(name, &names))
    })
}

fn one(at: &At<raw::Strategy>) -> Result<Strategy, Fault> {
    match &at.value {
        raw::Strategy::Preset(name) => find(name).map(as_it_is).map_err(|problem| Fault::at(at.line, "", problem)),
        raw::Strategy::Options(options) => {
            let preset = find(&options.preset.value).map_err(|problem| Fault::at(options.preset.line, "preset", problem))?;
            let mut strategy = as_it_is(preset);
            if let Some(name) = &options.name {
                if name.value.is_empty() || name.value.chars().any(char::is_control) {
                    return Err(Fault::at(name.line, "name", "a name must not be empty or contain control characters"));
                }
                strategy.name.clone_from(&name.value);
            }
            apply(options, preset, &mut strategy.spec)?;
            strategy.spec.check().map_err(|e| Fault::at(at.line, "", e.to_string()))?;
            Ok(strategy)
        }
    }
}

/// Why an option has no meaning.
fn senseless(line: u32, key: &str, preset: &Preset, why: &str) -> Fault {
    Fault::at(line, key, format!("has no meaning with the preset `{}`: {why}", preset.name))
}

fn apply(options: &Options, preset: &Preset, spec: &mut Spec) -> Result<(), Fault> {
    let transfer = &mut spec.transfer;
    if let Some(at) = &options.streams {
        transfer.streams = at.value;
    }
    let channels = &mut transfer.channels;
    channels.nics = options.nics.as_ref().map(|at| at.value).or(channels.nics);
    channels.threads = options.threads.as_ref().map(|at| at.value).or(channels.threads);
    let chosen = |option: &Option<At<bool>>, before: bool| option.as_ref().map_or(before, |at| at.value);
    channels.range_lock = chosen(&options.range_lock, channels.range_lock);
    channels.pipeline = chosen(&options.pipeline, channels.pipeline);
    if let Some(At { value: sizes, .. }) = &options.tasks {
        let origin = channels.tasks.unwrap_or_default();
        let size = |size: Option<Constant<Bytes>>, before| size.map_or(before, |c| c.0);
        channels.tasks = Some(TaskSizes { memory: size(sizes.memory, origin.memory), disk: size(sizes.disk, origin.disk) });
    }
    channels.compress = chosen(&options.compress, channels.compress);
    channels.encrypt = chosen(&options.encrypt, channels.encrypt);
    if let Some(at) = &options.limit {
        transfer.limit = Some(at.value.0);
    }
    if let Some(at) = &options.unlimited_while_paused {
        if at.value && transfer.limit.is_none() {
            return Err(senseless(at.line, "unlimited_while_paused", preset, "there is no `limit`"));
        }
        transfer.unlimited_while_paused = at.value;
    }
    if let Some(at) = &options.elide_zero_pages {
        transfer.elide_zero_pages = at.value;
    }
    if let Some(at) = &options.dedup {
        transfer.dedup = at.value;
    }
    if let Some(at) = &options.link_patience {
        spec.link_patience = at.value.0;
    }
    apply_ahead(options, preset, spec)?;
    apply_live(options, preset, spec)?;
    apply_push(options, preset, spec)?;
    apply_scatter(options, preset, spec)?;
    if let Some(at) = &options.select {
        spec.selection = Some(select(&at.value));
    }
    apply_timeout(options, preset, spec)
}

fn apply_ahead(options: &Options, preset: &Preset, spec: &mut Spec) -> Result<(), Fault> {
    if let Some(at) = &options.snapshots {
        spec.ahead = Some(Ahead { snapshots: snapshots(&at.value), ..spec.ahead.take().unwrap_or_default() });
    }
    if let Some(at) = &options.passes {
        let ahead = spec.ahead.as_mut();
        ahead.ok_or_else(|| senseless(at.line, "passes", preset, "it takes no `snapshots`"))?.passes = at.value;
    }
    Ok(())
}

fn apply_live(options: &Options, preset: &Preset, spec: &mut Spec) -> Result<(), Fault> {
    if let Some(at) = &options.stop {
        live(spec, preset, "stop", at.line)?.stop = stop(&at.value);
    }
    if let Some(at) = &options.throttle {
        live(spec, preset, "throttle", at.line)?.throttle = Some(throttle(&at.value));
    }
    if let Some(at) = &options.skip_redirtied {
        live(spec, preset, "skip_redirtied", at.line)?.skip_redirtied = at.value;
    }
    Ok(())
}

fn live<'a>(spec: &'a mut Spec, preset: &Preset, key: &str, line: u32) -> Result<&'a mut LiveCopy, Fault> {
    spec.live.as_mut().ok_or_else(|| senseless(line, key, preset, "it copies no memory while the guest runs at the source"))
}

fn apply_push(options: &Options, preset: &Preset, spec: &mut Spec) -> Result<(), Fault> {
    let Some(at) = &options.prepaging else { return Ok(()) };
    let Some(push) = &mut spec.push else {
        let why = "it pushes no memory after the switch (after an escalation to post-copy pages go in address order)";
        return Err(senseless(at.line, "prepaging", preset, why));
    };
    push.prepaging = match at.value {
        raw::Prepaging::AddressOrder => Prepaging::AddressOrder,
        raw::Prepaging::Bubbling(pivots) => Prepaging::Bubbling { pivots },
    };
    Ok(())
}

fn apply_scatter(options: &Options, preset: &Preset, spec: &mut Spec) -> Result<(), Fault> {
    if let Some(at) = &options.scatter {
        let push = spec.push.as_mut();
        let push = push.ok_or_else(|| senseless(at.line, "scatter", preset, "it pushes no memory after the switch"))?;
        let raw = at.value;
        let before = push.scatter;
        let direct = raw.direct.unwrap_or_else(|| before.is_none_or(|s| s.direct));
        let mut scatter = before.filter(|s| s.direct == direct).unwrap_or_else(|| Scatter::new(direct));
        scatter.copies = raw.copies.unwrap_or(scatter.copies);
        scatter.gather.limit = raw.gather_limit.map(|c| c.0).or(scatter.gather.limit);
        scatter.gather.when = raw.gather.map_or(scatter.gather.when, |when| match when {
            raw::GatherWhen::Concurrent => GatherWhen::Concurrent,
            raw::GatherWhen::AfterEviction => GatherWhen::AfterEviction,
        });
        push.scatter = Some(scatter);
    }
    if let Some(at) = &options.staging {
        let ahead = spec.ahead.as_mut();
        ahead.ok_or_else(|| senseless(at.line, "staging", preset, "it takes no `snapshots`"))?.staging = at.value;
    }
    Ok(())
}

fn apply_timeout(options: &Options, preset: &Preset, spec: &mut Spec) -> Result<(), Fault> {
    let Some(at) = &options.timeout else { return Ok(()) };
    let then = match at.value.then {
        raw::OnTimeout::Abort => OnTimeout::Abort,
        raw::OnTimeout::PostCopy => OnTimeout::PostCopy,
        raw::OnTimeout::Pause => OnTimeout::Pause,
    };
    if spec.live.is_none() {
        let why = "it limits the time before the guest is stopped, and the guest is stopped at once";
        return Err(senseless(at.line, "timeout", preset, why));
    }
    spec.timeout = Some(CompletionTimeout { per_gib: at.value.per_gib.0, then });
    Ok(())
}

fn select(raw: &Select) -> SelectionPolicy {
    match raw {
        Select::Traffic { window } => {
            SelectionPolicy::Traffic(TrafficSensitive { window: span(window.as_ref(), TrafficSensitive::default().window) })
        }
    }
}

fn span(value: Option<&Constant<Span>>, default: Span) -> Span {
    value.map_or(default, |c| c.0)
}

fn stop(raw: &Stop) -> StopRule {
    match raw {
        Stop::Clark { min_pages, max_rounds, max_factor, stop_when_growing } => {
            let origin = Clark::default();
            StopRule::Clark(Clark::new(
                min_pages.unwrap_or(origin.min_pages),
                max_rounds.unwrap_or(origin.max_rounds),
                positive(max_factor.as_ref(), origin.max_factor),
                stop_when_growing.unwrap_or(origin.stop_when_growing),
            ))
        }
        Stop::Qemu { downtime_limit } => {
            StopRule::Qemu(Qemu { downtime_limit: span(downtime_limit.as_ref(), Qemu::default().downtime_limit) })
        }
        Stop::FixedRounds { rounds } => StopRule::FixedRounds(FixedRounds { rounds: *rounds }),
        Stop::SimGrid { downtime_limit } => {
            StopRule::SimGrid(SimGrid { downtime_limit: span(downtime_limit.as_ref(), SimGrid::default().downtime_limit) })
        }
        Stop::KubeVirt { downtime_limit, progress_timeout, on_stall } => {
            kubevirt(downtime_limit.as_ref(), progress_timeout.as_ref(), on_stall.as_deref())
        }
        Stop::PMigrate { downtime_limit, max_rounds, max_factor } => {
            let origin = PMigrate::default();
            StopRule::PMigrate(PMigrate::new(
                span(downtime_limit.as_ref(), origin.downtime_limit),
                max_rounds.unwrap_or(origin.max_rounds),
                positive(max_factor.as_ref(), origin.max_factor),
            ))
        }
    }
}

fn positive(value: Option<&Constant<Positive>>, default: f64) -> f64 {
    value.map_or(default, |c| c.0.0)
}

fn kubevirt(limit: Option<&Constant<Span>>, timeout: Option<&Constant<Span>>, steps: Option<&[raw::Escalation]>) -> StopRule {
    let origin = KubeVirt::default();
    let steps = steps.map_or_else(
        || origin.on_stall.clone(),
        |steps| {
            let step = |step: &raw::Escalation| match step {
                raw::Escalation::RaiseLimit(limit) => Escalation::RaiseLimit(limit.0),
                raw::Escalation::PostCopy => Escalation::PostCopy,
                raw::Escalation::Abort => Escalation::Abort,
            };
            steps.iter().map(step).collect()
        },
    );
    StopRule::KubeVirt(KubeVirt::new(span(limit, origin.downtime_limit), span(timeout, origin.progress_timeout), steps))
}

fn snapshots(raw: &Snapshots) -> SnapshotPolicy {
    let fixed =
        |interval: &Option<Constant<Span>>, threshold: Option<u64>, max_pages: Option<u64>, spacing: &Option<Constant<Span>>| {
            let origin = Fixed::default();
            Fixed {
                interval: span(interval.as_ref(), origin.interval),
                threshold: threshold.unwrap_or(origin.threshold),
                max_pages: max_pages.unwrap_or(origin.max_pages),
                min_spacing: span(spacing.as_ref(), origin.min_spacing),
            }
        };
    match raw {
        Snapshots::Fixed { interval, threshold, max_pages, min_spacing } => {
            SnapshotPolicy::Fixed(fixed(interval, *threshold, *max_pages, min_spacing))
        }
        Snapshots::Adaptive { impact, interval, max_interval, threshold, max_pages, min_spacing } => {
            let origin = Adaptive::default();
            SnapshotPolicy::Adaptive(Adaptive::new(
                fixed(interval, *threshold, *max_pages, min_spacing),
                span(max_interval.as_ref(), origin.max_interval),
                impact.map_or(origin.impact, |c| c.0.0),
            ))
        }
    }
}

fn throttle(raw: &Throttle) -> ThrottlePolicy {
    let share = |value: &Option<Constant<Fraction>>, default| value.map_or(default, |c| c.0.0);
    match raw {
        Throttle::AutoConverge { trigger, initial, increment, max } => {
            let origin = AutoConverge::default();
            ThrottlePolicy::AutoConverge(AutoConverge::new(
                share(trigger, origin.trigger),
                share(initial, origin.initial),
                share(increment, origin.increment),
                share(max, origin.max),
            ))
        }
        Throttle::CpuScheduling { remaining, rounds, min_share, start } => {
            let origin = CpuScheduling::default();
            ThrottlePolicy::CpuScheduling(CpuScheduling::new(
                remaining.map(|c| c.0),
                rounds.unwrap_or(origin.rounds),
                share(min_share, origin.min_share),
                start.map_or(origin.start, |start| match start {
                    ThrottleStart::Round(round) => Start::Round(round),
                    ThrottleStart::Below(part) => Start::Below(part.0.0),
                    ThrottleStart::NotShrinking => Start::NotShrinking,
                }),
            ))
        }
        Throttle::DirtyLimit { limit, trigger, max } => {
            let origin = DirtyLimit::default();
            let limit = limit.map_or(origin.limit, |c| c.0);
            ThrottlePolicy::DirtyLimit(DirtyLimit::new(limit, share(trigger, origin.trigger), share(max, origin.max)))
        }
    }
}

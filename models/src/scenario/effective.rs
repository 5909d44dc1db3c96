//! The effective configuration: what the file says, and every default that it leaves to livemig. It is a scenario again: written
//! as TOML it gives the same worlds and strategies.

use super::quantity::{written_size, written_time};
use super::resolve::Frame;
use crate::calibration::{CHANGED, Calibration};
use crate::world::{Drain, Point, Strategy};
use livemig_core::policy::selection::SelectionPolicy;
use livemig_core::policy::snapshot::{Fixed, SnapshotPolicy};
use livemig_core::policy::stop::{Escalation, StopRule};
use livemig_core::policy::throttle::{Start, ThrottlePolicy};
use livemig_core::policy::timeout::OnTimeout;
use livemig_core::strategy::{GatherWhen, Scatter};
use livemig_core::units::{Bytes, Rate, Span};
use livemig_core::vocabulary::Prepaging;
use serde_json::{Map, Value, json};

fn span(s: Span) -> Value {
    written_time(s).into()
}

fn size(b: Bytes) -> Value {
    written_size(b).into()
}

fn rate(r: Rate) -> Value {
    let plain = r.0.to_string();
    if plain.len() <= 25 { format!("{plain} B/s").into() } else { format!("{:e} B/s", r.0).into() }
}

/// Fills the defaults into the document as it was written. Fleets and the sweep stay as they are; calibration and strategies
/// are those of the first point.
pub(super) fn fill_in(written: Value, frame: Frame, first: &Point) -> Value {
    let Value::Object(mut root) = written else { return written };
    let mut default = |key: &str, value: Value| {
        root.entry(key).or_insert(value);
    };
    default("replicates", frame.replicates.into());
    default("horizon", span(frame.horizon));
    default("rate_tolerance", frame.rate_tolerance.into());
    let plan = if first.world.drain.is_some() { "drain" } else { "migrate" };
    default(plan, json!({}));
    // They may have been replaced.
    root.insert("seed".to_owned(), frame.seed.into());
    root.insert("fidelity".to_owned(), frame.fidelity.name().into());
    root.insert("calibration".to_owned(), calibration(&first.world.calibration));
    each(&mut root, "host", fill_host);
    each(&mut root, "vm", fill_vm);
    if let Some(Value::Object(plan)) = root.get_mut(plan) {
        plan.entry("at").or_insert("0 s".into());
        plan.insert("strategies".to_owned(), first.strategies.iter().map(strategy).collect());
        if let Some(drain) = &first.world.drain {
            fill_drain(plan, drain);
        }
    }
    Value::Object(root)
}

fn each(root: &mut Map<String, Value>, key: &str, mut fill: impl FnMut(&mut Map<String, Value>)) {
    for block in root.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(block) = block {
            fill(block);
        }
    }
}

/// Goodput and swap rate are left to the calibration, which may be swept.
fn fill_host(host: &mut Map<String, Value>) {
    host.entry("role").or_insert("host".into());
    host.entry("cores").or_insert(super::resolve::CORES.into());
}

fn fill_vm(vm: &mut Map<String, Value>) {
    vm.entry("vcpus").or_insert(1.into());
    vm.entry("workload").or_insert(json!({ "kind": "idle" }));
    vm.entry("zero").or_insert(0.into());
    if let Some(Value::Object(content)) = vm.get_mut("content") {
        content.entry("group").or_insert("".into());
    }
    if let Some(Value::Object(disk)) = vm.get_mut("disk") {
        disk.entry("workload").or_insert(json!({ "kind": "idle" }));
        disk.entry("zero").or_insert(0.into());
    }
    if let Value::Object(traffic) = vm.entry("traffic").or_insert(json!({})) {
        traffic.entry("tx").or_insert("0 B/s".into());
        traffic.entry("rx").or_insert("0 B/s".into());
    }
}

/// Limits and times that are left out mean that there are none.
fn fill_drain(plan: &mut Map<String, Value>, drain: &Drain) {
    plan.entry("order").or_insert(drain.order.entry().name.into());
    plan.entry("placement").or_insert(drain.placement.entry().name.into());
    plan.entry("onto_waiting").or_insert(drain.onto_waiting.into());
    plan.entry("per_host").or_insert(drain.limits.per_host.into());
    plan.entry("retries").or_insert(drain.retries.into());
}

fn calibration(c: &Calibration) -> Value {
    json!({
        "base": c.name.strip_suffix(CHANGED).unwrap_or(&c.name),
        "latency": span(c.latency),
        "goodput": c.goodput,
        "setup": span(c.setup),
        "dirty_log_per_gib": span(c.dirty_log_per_gib),
        "tracking_fault": span(c.tracking_fault),
        "pause": span(c.pause),
        "activation": span(c.activation),
        "device_state": size(c.device_state),
        "fault_service": span(c.fault_service),
        "send_per_page": span(c.send_per_page),
        "map_per_page": span(c.map_per_page),
        "scan_per_page": span(c.scan_per_page),
        "check_per_page": span(c.check_per_page),
        "compress_per_page": span(c.compress_per_page),
        "encrypt_per_page": span(c.encrypt_per_page),
        "receive_per_page": span(c.receive_per_page),
        "decompress_per_page": span(c.decompress_per_page),
        "apply_per_page": span(c.apply_per_page),
        "compressed": c.compressed,
        "page_header": size(c.page_header),
        "zero_page": size(c.zero_page),
        "control_message": size(c.control_message),
        "location_message": size(c.location_message),
        "gather_per_page": span(c.gather_per_page),
        "probe_message": size(c.probe_message),
        "hash_per_page": span(c.hash_per_page),
        "swap": rate(c.swap),
    })
}

/// A strategy with all options that have a meaning for it.
fn strategy(strategy: &Strategy) -> Value {
    let spec = &strategy.spec;
    let mut table = json!({
        "name": strategy.name,
        "preset": strategy.preset,
        "streams": spec.transfer.streams,
        "elide_zero_pages": spec.transfer.elide_zero_pages,
        "range_lock": spec.transfer.channels.range_lock,
        "pipeline": spec.transfer.channels.pipeline,
        "compress": spec.transfer.channels.compress,
        "encrypt": spec.transfer.channels.encrypt,
        "link_patience": span(spec.link_patience),
    });
    if let Some(nics) = spec.transfer.channels.nics {
        table["nics"] = nics.into();
    }
    if let Some(tasks) = spec.transfer.channels.tasks {
        table["tasks"] = json!({ "memory": size(tasks.memory), "disk": size(tasks.disk) });
    }
    if let Some(threads) = spec.transfer.channels.threads {
        table["threads"] = threads.into();
    }
    if let Some(limit) = spec.transfer.limit {
        table["limit"] = rate(limit);
        table["unlimited_while_paused"] = spec.transfer.unlimited_while_paused.into();
    }
    if spec.uses_intermediaries() {
        table["dedup"] = spec.transfer.dedup.into();
    }
    if let Some(ahead) = &spec.ahead {
        table["passes"] = ahead.passes.into();
        table["snapshots"] = snapshots(&ahead.snapshots);
        table["staging"] = ahead.staging.into();
    }
    if let Some(live) = &spec.live {
        table["stop"] = stop(&live.stop);
        table["skip_redirtied"] = live.skip_redirtied.into();
        if let Some(policy) = &live.throttle {
            table["throttle"] = throttle(policy);
        }
    }
    if let Some(push) = &spec.push {
        table["prepaging"] = match push.prepaging {
            Prepaging::AddressOrder => "address-order".into(),
            Prepaging::Bubbling { pivots } => json!({ "bubbling": pivots }),
        };
        if let Some(s) = &push.scatter {
            table["scatter"] = scatter(s);
        }
    }
    if let Some(selection) = &spec.selection {
        table["select"] = select(selection);
    }
    if let Some(timeout) = &spec.timeout {
        let then = match timeout.then {
            OnTimeout::Abort => "abort",
            OnTimeout::PostCopy => "post-copy",
            OnTimeout::Pause => "pause",
        };
        table["timeout"] = json!({ "per_gib": span(timeout.per_gib), "then": then });
    }
    table
}

fn scatter(s: &Scatter) -> Value {
    let when = match s.gather.when {
        GatherWhen::Concurrent => "concurrent",
        GatherWhen::AfterEviction => "after-eviction",
    };
    let mut table = json!({ "direct": s.direct, "copies": s.copies, "gather": when });
    if let Some(limit) = s.gather.limit {
        table["gather_limit"] = rate(limit);
    }
    table
}

fn select(policy: &SelectionPolicy) -> Value {
    match policy {
        SelectionPolicy::Traffic(p) => json!({ "policy": "traffic", "window": span(p.window) }),
    }
}

fn snapshots(policy: &SnapshotPolicy) -> Value {
    let fixed = |name: &str, p: &Fixed| {
        json!({
            "policy": name, "interval": span(p.interval), "threshold": p.threshold, "max_pages": p.max_pages,
            "min_spacing": span(p.min_spacing)
        })
    };
    match policy {
        SnapshotPolicy::Fixed(p) => fixed("fixed", p),
        SnapshotPolicy::Adaptive(p) => {
            let mut table = fixed("adaptive", &p.snapshots);
            table["max_interval"] = span(p.max_interval);
            table["impact"] = p.impact.into();
            table
        }
    }
}

fn throttle(policy: &ThrottlePolicy) -> Value {
    match policy {
        ThrottlePolicy::AutoConverge(p) => json!({
            "policy": "auto-converge", "trigger": p.trigger, "initial": p.initial, "increment": p.increment, "max": p.max
        }),
        ThrottlePolicy::CpuScheduling(p) => {
            let start = match p.start {
                Start::Round(round) => json!({ "round": round }),
                Start::Below(share) => json!({ "below": share }),
                Start::NotShrinking => "not-shrinking".into(),
            };
            let mut table = json!({ "policy": "cpu-scheduling", "rounds": p.rounds, "min_share": p.min_share, "start": start });
            if let Some(remaining) = p.remaining {
                table["remaining"] = size(remaining);
            }
            table
        }
        ThrottlePolicy::DirtyLimit(p) => {
            json!({ "policy": "dirty-limit", "limit": rate(p.limit), "trigger": p.trigger, "max": p.max })
        }
    }
}

fn stop(rule: &StopRule) -> Value {
    match rule {
        StopRule::Clark(r) => json!({
            "rule": "clark", "min_pages": r.min_pages, "max_rounds": r.max_rounds, "max_factor": r.max_factor,
            "stop_when_growing": r.stop_when_growing
        }),
        StopRule::Qemu(r) => json!({ "rule": "qemu", "downtime_limit": span(r.downtime_limit) }),
        StopRule::FixedRounds(r) => json!({ "rule": "fixed-rounds", "rounds": r.rounds }),
        StopRule::SimGrid(r) => json!({ "rule": "simgrid", "downtime_limit": span(r.downtime_limit) }),
        StopRule::KubeVirt(r) => {
            let step = |step: &Escalation| match step {
                Escalation::RaiseLimit(limit) => json!({ "raise_limit": span(*limit) }),
                Escalation::PostCopy => "post-copy".into(),
                Escalation::Abort => "abort".into(),
            };
            json!({
                "rule": "kubevirt", "downtime_limit": span(r.downtime_limit), "progress_timeout": span(r.progress_timeout),
                "on_stall": r.on_stall.iter().map(step).collect::<Value>()
            })
        }
        StopRule::PMigrate(r) => json!({
            "rule": "pmigrate", "downtime_limit": span(r.downtime_limit), "max_rounds": r.max_rounds, "max_factor": r.max_factor
        }),
    }
}

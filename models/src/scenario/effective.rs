//! The effective configuration: what the file says, and every default that it leaves to livemig.

use super::resolve::Frame;
use crate::calibration::Calibration;
use crate::world::Point;
use livemig_core::units::{Bytes, Rate, Span};
use serde_json::{Map, Value, json};

fn span(s: Span) -> Value {
    format!("{} ns", s.0).into()
}

fn size(b: Bytes) -> Value {
    format!("{} B", b.0).into()
}

fn rate(r: Rate) -> Value {
    format!("{} B/s", r.0).into()
}

/// Fills the defaults into the document as it was written. Fleets and the sweep stay as they are; calibration and strategies
/// are those of the first point.
pub(super) fn fill_in(written: Value, frame: Frame, first: &Point) -> Value {
    let Value::Object(mut root) = written else { return written };
    let mut default = |key: &str, value: Value| {
        root.entry(key).or_insert(value);
    };
    default("seed", frame.seed.into());
    default("replicates", frame.replicates.into());
    default("horizon", span(frame.horizon));
    default("migrate", json!({}));
    root.insert("calibration".to_owned(), calibration(&first.world.calibration));
    each(&mut root, "host", |host| fill_host(host, &first.world.calibration));
    each(&mut root, "vm", fill_vm);
    if let Some(Value::Object(migrate)) = root.get_mut("migrate") {
        migrate.entry("at").or_insert("0 ns".into());
        let strategies = first.strategies.iter().map(|s| {
            // A composition has no written form of its own yet; this one is complete.
            json!({ "name": s.name, "preset": s.preset, "composition": format!("{:?}", s.spec) })
        });
        migrate.insert("strategies".to_owned(), strategies.collect());
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

fn fill_host(host: &mut Map<String, Value>, calibration: &Calibration) {
    host.entry("role").or_insert("host".into());
    host.entry("cores").or_insert(super::resolve::CORES.into());
    host.entry("swap").or_insert(rate(calibration.swap));
    each(host, "nics", |nic| {
        nic.entry("goodput").or_insert(calibration.goodput.into());
    });
}

fn fill_vm(vm: &mut Map<String, Value>) {
    vm.entry("vcpus").or_insert(1.into());
    vm.entry("workload").or_insert(json!({ "kind": "idle" }));
    vm.entry("zero").or_insert(0.into());
    if let Value::Object(traffic) = vm.entry("traffic").or_insert(json!({})) {
        traffic.entry("tx").or_insert("0 B/s".into());
        traffic.entry("rx").or_insert("0 B/s".into());
    }
}

fn calibration(c: &Calibration) -> Value {
    json!({
        "name": c.name,
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
        "page_header": size(c.page_header),
        "zero_page": size(c.zero_page),
        "control_message": size(c.control_message),
        "swap": rate(c.swap),
    })
}

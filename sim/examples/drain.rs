//! How long the simulator takes for the drain of a scenario, and how much memory: `drain SCENARIO.toml`.
//!
//! Results are streamed and folded, as a planner would.

use livemig_core::units::Span;
use livemig_sim::{Fidelity, Settings, run_with};
use std::path::PathBuf;
use std::time::Instant;

/// The most memory that this process has had so far, in MiB, where the system tells.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim_end_matches("kB").trim().parse::<f64>().map_or(f64::NAN, |kib| kib / 1024.0)
}

fn seconds(span: Option<Span>) -> String {
    span.map_or("-".to_owned(), |s| format!("{:.1} s", s.as_secs_f64()))
}

fn main() {
    let Some(path) = std::env::args().nth(1).map(PathBuf::from) else {
        eprintln!("usage: drain SCENARIO.toml");
        std::process::exit(2);
    };
    let start = Instant::now();
    let scenario = match livemig_models::scenario::load(&path) {
        Ok(loaded) => loaded.scenario,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    println!("read: {:.2} s, peak {:.0} MiB", start.elapsed().as_secs_f64(), peak_mib());
    for point in &scenario.points {
        for strategy in &point.strategies {
            let settings = Settings {
                horizon: scenario.horizon,
                seed: scenario.seed,
                timeline: false,
                sampled: false,
                fidelity: Fidelity::Class,
                rate_tolerance: scenario.rate_tolerance,
            };
            let start = Instant::now();
            let (mut migrations, mut eviction, mut bytes, mut downtime) = (0_u64, 0.0, 0_u64, Span::ZERO);
            let result = run_with(&point.world, strategy, settings, &mut |m| {
                migrations += 1;
                eviction += m.metrics.eviction_time.map_or(0.0, Span::as_secs_f64);
                bytes += m.metrics.bytes.total().0;
                downtime = downtime.max(m.metrics.downtime.map_or(Span::ZERO, |d| d.total));
            });
            let took = start.elapsed().as_secs_f64();
            let label: Vec<String> = point.label.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            println!("{} {}", strategy.name, label.join(", "));
            println!("  took {took:.2} s, {} events, peak {:.0} MiB", result.events, peak_mib());
            println!(
                "  {migrations} migrations, mean eviction {:.2} s, worst downtime {downtime}, {:.1} TiB",
                eviction / migrations.max(1) as f64,
                bytes as f64 / 1_099_511_627_776.0,
            );
            if let Some(drain) = result.drain {
                let whole = drain.whole;
                let (moved, not_moved) = (whole.moved, whole.not_moved);
                println!(
                    "  drain time {}, moved {moved}, not moved {not_moved}, retried {}",
                    seconds(whole.drain_time()),
                    whole.retried
                );
                println!("  hosts emptied {}, left {}", whole.hosts_emptied, whole.hosts_left);
            }
            println!("  ended at {}", result.ended);
        }
    }
}

//! Parity of the two drivers: the same scenario, simulated and with a real guest, gives the same phases and commands, and as many rounds
//! of as many pages.
//!
//! Rules that count rounds must give the same sequence of phases and commands. Rules that go by rates may give one round more or less, and
//! rounds are compared as far as both have them. Pages per round may differ by 10 %, beside what chance does to a small round.

use livemig_core::ledger::{RoundRecord, TimelineItem, TimelinePoint};
use livemig_core::machine::Outcome;
use livemig_core::units::{PAGE_SIZE, Span};
use livemig_exec::run::{Launch, Options};
use livemig_models::world::{Fidelity, Point, Scenario};
use livemig_sim::Settings;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// What is asked of a scenario.
#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// Rounds are counted: everything is the same.
    Counts,
    /// Rates decide.
    Rates,
    /// Rounds are counted, and pages that are dirty again are left out: of a guest that writes everything again at once there is nothing
    /// to send, which takes no time in the simulator, and a look at the dirty log here, at most every 10 ms. How much is dirty after such
    /// a round is chance.
    Leaves,
}

/// A name, the guest's workload, the strategy as a scenario has it (without the braces), and what decides about rounds. The limit makes
/// rounds so long that what else the machine does is little beside them.
const CASES: [(&str, &str, &str, Rule); 14] = [
    ("stopped, idle", IDLE, "preset = 'stop-and-copy'", Rule::Counts),
    ("stopped, hot", HOT, "preset = 'stop-and-copy'", Rule::Counts),
    ("three rounds, idle", IDLE, "preset = 'pre-copy', stop = { rule = 'fixed-rounds', rounds = 3 }", Rule::Counts),
    ("four rounds, uniform", UNIFORM, "preset = 'pre-copy', stop = { rule = 'fixed-rounds', rounds = 4 }", Rule::Counts),
    (
        "three rounds, hot",
        HOT,
        "preset = 'pre-copy', skip_redirtied = false, stop = { rule = 'fixed-rounds', rounds = 3 }",
        Rule::Counts,
    ),
    ("three rounds, hot, left out", HOT, "preset = 'pre-copy', stop = { rule = 'fixed-rounds', rounds = 3 }", Rule::Leaves),
    ("three rounds, sweep", SWEEP, "preset = 'pre-copy', stop = { rule = 'fixed-rounds', rounds = 3 }", Rule::Counts),
    (
        "three rounds, two streams",
        HOT_COLD,
        "preset = 'pre-copy', streams = 2, stop = { rule = 'fixed-rounds', rounds = 3 }",
        Rule::Counts,
    ),
    (
        "three rounds, compressed",
        UNIFORM,
        "preset = 'pre-copy', compress = true, stop = { rule = 'fixed-rounds', rounds = 3 }",
        Rule::Counts,
    ),
    ("push, hot", HOT, "preset = 'post-copy'", Rule::Counts),
    (
        "two rounds and a push, hot",
        HOT,
        "preset = 'hybrid', skip_redirtied = false, stop = { rule = 'fixed-rounds', rounds = 2 }",
        Rule::Counts,
    ),
    ("Xen's rule, uniform", UNIFORM, "preset = 'pre-copy', stop = 'clark'", Rule::Rates),
    ("Xen's rule, hot", HOT, "preset = 'pre-copy', skip_redirtied = false, stop = 'clark'", Rule::Rates),
    ("PMigrate's rule, Zipf", ZIPF, "preset = 'pre-copy', stop = { rule = 'pmigrate', downtime_limit = '20 ms' }", Rule::Rates),
];

const IDLE: &str = "{ kind = 'idle' }";
// Nothing is read: KVM logs the first access to a page after the log was switched on as a write, whatever it was.
const UNIFORM: &str = "{ kind = 'uniform', working_set = '16 MiB', writes = '3000 pages/s' }";
const HOT: &str = "{ kind = 'sequential', working_set = '8 MiB', writes = '1000000000 pages/s' }";
const SWEEP: &str = "{ kind = 'sequential', working_set = '32 MiB', writes = '2000 pages/s' }";
const HOT_COLD: &str = "{ kind = 'hot-cold', hot = '4 MiB', hot_writes = '8000 pages/s', cold_writes = '1000 pages/s' }";
const ZIPF: &str = "{ kind = 'zipf', working_set = '32 MiB', exponent = 1.0, writes = '4000 pages/s' }";

/// A run with real guests depends on what else the machine does meanwhile. What the drivers really differ in differs every time.
const ATTEMPTS: usize = 3;

fn scenario(workload: &str, strategy: &str) -> Scenario {
    of_guests(&[format!("workload = {workload}")], strategy)
}

/// Guests with these keys beside their places and sizes.
fn of_guests(guests: &[String], strategy: &str) -> Scenario {
    // To compress takes the processor: where that is shared with others, pages would come more slowly than the limit lets them.
    let limit = if strategy.contains("compress") { "100 Mbit/s" } else { "300 Mbit/s" };
    let host = |name: &str| format!("[[host]]\nname = '{name}'\nnics = [{{ rate = '10 Gbit/s' }}]\n");
    let guest = |(i, keys): (usize, &String)| format!("[[vm]]\nname = 'vm{i}'\nhost = 'src'\nmemory = '64 MiB'\n{keys}\n");
    let text = format!(
        "schema = 1\nname = 'parity'\nhorizon = '1 min'\n{}{}{}\
         [migrate]\nto = 'dst'\nat = '1 s'\nstrategies = [{{ name = 'it', limit = '{limit}', {strategy} }}]\n",
        host("src"),
        host("dst"),
        guests.iter().enumerate().map(guest).collect::<String>(),
    );
    livemig_models::scenario::parse(&text, Path::new("."), "parity.toml").unwrap().scenario
}

/// What a driver did.
#[derive(Debug)]
struct Course {
    outcome: Outcome,
    steps: Vec<String>,
    rounds: Vec<u64>,
    /// How long each took, in milliseconds: what makes rounds differ is told with it.
    lengths: Vec<u64>,
}

impl Course {
    fn new(outcome: Outcome, technique: &str, timeline: &[TimelinePoint], rounds: &[RoundRecord]) -> Course {
        let steps = timeline.iter().filter_map(|point| match point.what {
            TimelineItem::Phase(phase) => Some(format!("[{}]", phase.name())),
            TimelineItem::Command(name) => Some(name.to_owned()),
            TimelineItem::Bandwidth(_) | TimelineItem::Work(_) | TimelineItem::Round(_) => None,
        });
        Course {
            outcome,
            steps: std::iter::once(technique.to_owned()).chain(steps).collect(),
            rounds: rounds.iter().map(|r| r.pages.0 / PAGE_SIZE).collect(),
            lengths: rounds.iter().map(|r| r.duration.0 / 1_000_000).collect(),
        }
    }
}

fn settings() -> Settings {
    Settings {
        horizon: Span::from_secs(60),
        seed: 1,
        timeline: true,
        sampled: false,
        fidelity: Fidelity::Class,
        rate_tolerance: 0.0,
    }
}

fn simulated(point: &Point) -> Vec<Course> {
    let result = livemig_sim::run(&point.world, &point.strategies[0], settings());
    result.migrations.iter().map(|m| Course::new(m.metrics.outcome, m.technique, &m.timeline, &m.rounds)).collect()
}

/// Agents go before everything else that the machine does, where that may be asked for.
fn launch() -> Launch {
    let agent = assert_cmd::cargo::cargo_bin!("livemig");
    let first = ["-n", "-15"].map(OsString::from);
    if Command::new("nice").args(&first).arg("true").output().is_ok_and(|o| o.status.success() && o.stderr.is_empty()) {
        let args = first.into_iter().chain([agent.into(), "agent".into()]).collect();
        Launch { program: "nice".into(), args, env: Vec::new() }
    } else {
        Launch { program: agent.to_owned(), args: vec!["agent".into()], env: Vec::new() }
    }
}

fn options() -> Options {
    Options {
        lead: Span::from_millis(500),
        observe: Span::ZERO,
        horizon: Span::from_secs(60),
        timeline: true,
        ..Options::new(launch())
    }
}

fn real(point: &Point) -> Vec<Course> {
    let result = livemig_exec::run::run(&point.world, &point.strategies[0], 1, &options()).unwrap();
    let course = |m: &livemig_exec::run::MigrationResult| {
        assert!(m.is_good(), "{:?} {:?}", m.report, result.warnings);
        Course::new(m.metrics.outcome, m.technique, &m.timeline, &m.rounds)
    };
    result.migrations.iter().map(course).collect()
}

/// Whether so many pages are as many as so many others.
fn alike(a: u64, b: u64) -> bool {
    let most = a.max(b) as f64;
    // Of pages that are dirtied at random the number varies by about its root.
    a.abs_diff(b) as f64 <= 0.1 * most + if most < 1000.0 { 3.0 * most.sqrt() } else { 0.0 }
}

/// What the two did differently, if it is too much.
fn difference(simulated: &Course, real: &Course, rule: Rule) -> Option<String> {
    if simulated.outcome != real.outcome {
        return Some(format!("{:?} and {:?}", simulated.outcome, real.outcome));
    }
    let (a, b) = (&simulated.rounds, &real.rounds);
    match rule {
        Rule::Counts | Rule::Leaves if simulated.steps != real.steps => {
            return Some(format!("{:?}\n{:?}", simulated.steps, real.steps));
        }
        Rule::Counts | Rule::Leaves if a.len() != b.len() => return Some(format!("rounds {a:?}\n{b:?}")),
        Rule::Rates if a.len().abs_diff(b.len()) > 1 => return Some(format!("rounds {a:?}\n{b:?}")),
        Rule::Counts | Rule::Leaves | Rule::Rates => {}
    }
    let compared = match rule {
        Rule::Counts => a.len(),
        // Where one has a round more, the last of the other is another one.
        Rule::Rates => a.len().min(b.len()).saturating_sub(1),
        Rule::Leaves => 2,
    };
    let pairs = || a.iter().zip(b).take(compared);
    pairs()
        .any(|(&a, &b)| !alike(a, b))
        .then(|| format!("pages per round {a:?} in {:?} ms\n{b:?} in {:?} ms", simulated.lengths, real.lengths))
}

#[test]
fn the_simulator_and_real_guests_do_the_same() {
    if let Err(why) = livemig_exec::guest::kvm_available() {
        println!("skipped: {why}");
        return;
    }
    for (name, workload, strategy, rule) in CASES {
        assert_alike(name, &scenario(workload, strategy), rule);
    }
}

/// Both drivers make the same of a scenario; what the simulator made of it.
fn assert_alike(name: &str, scenario: &Scenario, rule: Rule) -> Vec<Course> {
    let point = &scenario.points[0];
    let simulated = simulated(point);
    let mut told = Vec::new();
    loop {
        let real = real(point);
        assert_eq!(simulated.len(), real.len(), "{name}");
        let pairs = simulated.iter().zip(&real);
        let differences: Vec<String> = pairs.filter_map(|(a, b)| difference(a, b, rule)).collect();
        if differences.is_empty() {
            break;
        }
        told.push(differences.join("\n"));
        assert!(told.len() < ATTEMPTS, "{name}: simulated and real:\n{}", told.join("\n"));
    }
    for course in &simulated {
        assert_eq!(course.outcome, Outcome::Completed, "{name}");
        println!("{name}: {} steps, rounds of {:?} pages", course.steps.len(), course.rounds);
    }
    simulated
}

#[test]
fn both_choose_the_same_techniques_by_traffic() {
    if let Err(why) = livemig_exec::guest::kvm_available() {
        println!("skipped: {why}");
        return;
    }
    let guest = |tx: u32, rx: u32| format!("workload = {IDLE}\ntraffic = {{ tx = '{tx} Mbit/s', rx = '{rx} Mbit/s' }}");
    let guests = [guest(30, 3), guest(3, 30)];
    let strategy = "preset = 'traffic-sensitive', stop = { rule = 'fixed-rounds', rounds = 2 }, select = { policy = 'traffic', window = '500 ms' }";
    let courses = assert_alike("chosen by traffic", &of_guests(&guests, strategy), Rule::Counts);
    let techniques: Vec<&str> = courses.iter().map(|course| course.steps[0].as_str()).collect();
    assert_eq!(techniques, ["post-copy", "pre-copy"]);
}

#[test]
fn drains_move_the_same_guests_to_the_same_hosts() {
    if let Err(why) = livemig_exec::guest::kvm_available() {
        println!("skipped: {why}");
        return;
    }
    let host =
        |name: &str, mib: u32| format!("[[host]]\nname = '{name}'\nnics = [{{ rate = '10 Gbit/s' }}]\nmemory = '{mib} MiB'\n");
    let guest = |name: &str, mib: u32, to: &str| {
        format!("[[vm]]\nname = '{name}'\nhost = 'old'\nmemory = '{mib} MiB'\nworkload = {HOT_COLD}\n{to}\n")
    };
    let text = format!(
        "schema = 1\nname = 'parity'\nhorizon = '1 min'\n{}{}{}{}{}{}{}{}\
         [drain]\nhost = 'old'\nat = '1 s'\ndestinations = 'new*'\norder = 'largest-first'\nplacement = 'most-room'\n\
         strategies = [{{ name = 'it', limit = '600 Mbit/s', preset = 'post-copy' }}]\n",
        host("old", 400),
        host("new1", 100),
        host("new2", 150),
        guest("vm0", 32, ""),
        guest("vm1", 64, ""),
        guest("vm2", 48, "to = 'new1'"),
        guest("vm3", 64, ""),
        // There is no room for the last.
        guest("vm4", 40, ""),
    );
    let scenario = livemig_models::scenario::parse(&text, Path::new("."), "parity.toml").unwrap().scenario;
    let point = &scenario.points[0];
    let simulated = livemig_sim::run(&point.world, &point.strategies[0], settings());
    let real = livemig_exec::run::run(&point.world, &point.strategies[0], 1, &options()).unwrap();
    let predicted: Vec<_> = simulated.migrations.iter().map(|m| (m.vm, m.destination, m.attempt, m.metrics.outcome)).collect();
    let measured: Vec<_> = real.migrations.iter().map(|m| (m.vm, m.destination, m.attempt, m.metrics.outcome)).collect();
    assert_eq!(predicted, measured, "{:?}", real.warnings);
    assert!(real.migrations.iter().all(livemig_exec::run::MigrationResult::is_good));
    let [predicted, measured] = [simulated.drain, real.drain].map(Option::unwrap);
    assert_eq!(predicted.not_moved, measured.not_moved);
    let summed = |drain: &livemig_sim::DrainResult| (drain.whole.moved, drain.whole.not_moved, drain.whole.retried);
    assert_eq!((summed(&predicted), predicted.not_moved.len()), (summed(&measured), 1));
}

#[test]
fn what_differs_is_found() {
    let course = |steps: &[&str], rounds: &[u64]| Course {
        outcome: Outcome::Completed,
        steps: steps.iter().map(|s| (*s).to_owned()).collect(),
        rounds: rounds.to_vec(),
        lengths: Vec::new(),
    };
    let one = course(&["send", "pause"], &[4000, 1000, 100]);
    let cases = [
        (course(&["send", "pause"], &[4000, 1090, 120]), false, false),
        (course(&["send", "pause"], &[4000, 1200, 100]), true, true),
        (course(&["pause", "send"], &[4000, 1000, 100]), true, false),
        (course(&["send", "pause"], &[4000, 1000, 300]), true, false),
        (course(&["send", "pause"], &[4000, 1000]), true, false),
        (course(&["send", "pause"], &[4000]), true, true),
    ];
    for (other, counts, rates) in cases {
        assert_eq!(difference(&one, &other, Rule::Counts).is_some(), counts, "{other:?}");
        assert_eq!(difference(&one, &other, Rule::Rates).is_some(), rates, "{other:?}");
    }
}

//! Drains as users write them.

use livemig_core::drain::{Drain, Limits};
use livemig_core::policy::order::Order;
use livemig_core::policy::placement::Placement;
use livemig_core::units::{Rate, Span, Time};
use livemig_models::scenario::{Loaded, ScenarioError, parse, schema};
use livemig_models::world::{HostId, Incident, VmId, World};
use std::path::Path;

const HOSTS: &str = r#"schema = 1
[[host]]
name = "h{i}"
count = 4
nics = [{ rate = "1 Gbit/s" }]
[[host]]
name = "mid"
role = "intermediary"
nics = [{ rate = "1 Gbit/s" }]
[[vm]]
name = "a{i}"
count = 4
host = "h{i%2}"
memory = "1 GiB"
[[vm]]
name = "b"
host = "h0"
to = "h3"
memory = "2 GiB"
"#;

fn read(plan: &str) -> Result<Loaded, ScenarioError> {
    parse(&format!("{HOSTS}{plan}"), Path::new(""), "test.toml")
}

fn world(plan: &str) -> World {
    read(plan).unwrap_or_else(|e| panic!("{e}")).scenario.points.remove(0).world
}

fn ids(hosts: &[u32]) -> Vec<HostId> {
    hosts.iter().map(|&h| HostId(h)).collect()
}

#[test]
fn what_is_left_out_has_its_default() {
    let world = world("[drain]\nhost = 'h0'");
    let drain = world.drain.as_ref().unwrap();
    assert!(world.moves.is_empty());
    assert_eq!((&drain.hosts, &drain.candidates, &drain.via), (&ids(&[0]), &ids(&[0, 1, 2, 3]), &ids(&[4])));
    assert_eq!(
        (&drain.given, drain.at, drain.limits, drain.retries),
        (&vec![(VmId(4), HostId(3))], Time::ZERO, Limits::default(), 0)
    );
    assert_eq!((drain.order, drain.placement), (Order::AsListed, Placement::FirstFit));
    assert_eq!((drain.onto_waiting, drain.returns_after, drain.rate_per_host), (false, None, None));
    let plan = drain.plan(&world);
    assert_eq!((plan.vms.len(), plan.hosts.len(), plan.returns), (5, 5, false));
    Drain::new(plan).unwrap();
}

#[test]
fn every_key_is_read() {
    let world = world(concat!(
        "[drain]\nhost = ['h1', 'h*']\nat = '5 s'\norder = 'largest-first'\ndestinations = ['h2', 'h3']\nplacement = 'most-room'\n",
        "onto_waiting = true\nper_host = 2\nper_destination = 3\nper_cluster = 4\nhosts_at_once = 5\nreturns_after = '10 min'\n",
        "retries = 6\nrate_per_host = '8 bit/s'\nstrategies = ['pre-copy']\nvia = []\n[[event]]\nat = '6 s'\ncancel = 'a0'\n"
    ));
    let drain = world.drain.unwrap();
    assert_eq!((drain.hosts, drain.candidates, drain.at), (ids(&[1, 0, 2, 3]), ids(&[2, 3]), Time::ZERO + Span::from_secs(5)));
    assert_eq!((drain.order, drain.placement, drain.onto_waiting), (Order::LargestFirst, Placement::MostRoom, true));
    let limits = Limits { per_host: 2, per_destination: Some(3), per_cluster: Some(4), hosts_at_once: Some(5) };
    assert_eq!((drain.limits, drain.retries, drain.rate_per_host), (limits, 6, Some(Rate(1.0))));
    assert_eq!((drain.returns_after, drain.via), (Some(Span::from_secs(600)), Vec::new()));
    assert_eq!(world.events[0].what, Incident::Cancel(VmId(0)));
}

#[test]
fn mistakes_are_told_with_line_and_key() {
    let line = HOSTS.lines().count();
    for (plan, key, part) in [
        ("[drain]\n", "drain.host", "required"),
        ("[drain]\nhost = 'h9'", "drain.host", "allowed: h0, h1"),
        ("[drain]\nhost = 3", "drain.host", "a name in quotes, or a list of names"),
        ("[drain]\nhost = 'x*'", "drain.host", "no host matches"),
        ("[drain]\nhost = 'mid'", "drain.host", "its role is not `host`"),
        ("[drain]\nhost = []", "drain.host", "at least one host"),
        ("[drain]\nhost = 'h2'", "drain.host", "no VM on these hosts"),
        ("[drain]\nhost = ['h3', 'h0']\norder = 'random'", "drain.order", "allowed: as-listed, smallest-first"),
        ("[drain]\nhost = 'h0'\nplacement = 'best-fit'", "drain.placement", "allowed: first-fit, most-room, least-traffic"),
        ("[drain]\nhost = 'h0'\nper_host = 0", "drain.per_host", "at least 1"),
        ("[drain]\nhost = 'h0'\nhosts_at_once = 0", "drain.hosts_at_once", "at least 1"),
        ("[drain]\nhost = 'h0'\nretries = 101", "drain.retries", "at most 100"),
        ("[drain]\nhost = 'h0'\nrate_per_host = '0 bit/s'", "drain.rate_per_host", "above zero"),
        ("[drain]\nhost = 'h0'\nper_hosts = 2", "drain.per_hosts", "did you mean `per_host`"),
        ("[drain]\nhost = 'h0'\ndestinations = 'mid'", "drain.destinations", "its role is not `host`"),
        ("[drain]\nhost = 'h0'\nvia = ['h1']", "drain.via", "is drained or a destination"),
        ("[drain]\nhost = 'h0'\nstrategies = []", "drain.strategies", "at least one strategy"),
        ("[drain]\nhost = 'h0'\nstrategies = ['x']", "drain.strategies[0]", "unknown preset"),
        ("[drain]\nhost = 'h0'\nat = '2 d'", "drain.at", "not before the horizon"),
        ("[migrate]\nto = 'h3'\n[drain]\nhost = 'h0'", "drain", "either [migrate] or [drain]"),
        ("[drain]\nhost = 'h0'\n[[event]]\nat = '1 s'\ncancel = 'a1'", "event.cancel", "does not migrate"),
        ("[drain]\nhost = 'h0'\nat = '2 s'\n[[event]]\nat = '1 s'\ncancel = 'a0'", "event.cancel", "requested only at 2 s"),
        ("[drain]\nhost = 'h0'\n[[vm]]\nname = 'c'\nhost = 'h0'\nvia = ['mid']\nmemory = '1 B'", "vm.via", "no meaning in a drain"),
        ("[drain]\nhost = 'h3'\n[[vm]]\nname = 'c'\nhost = 'h3'\nto = 'h3'\nmemory = '1 B'", "vm.to", "must be another host"),
    ] {
        match read(plan).expect_err(plan) {
            ScenarioError::Invalid { line: at, key: k, problem, .. } => {
                assert_eq!(k, key, "{plan}: {problem}");
                assert!(problem.contains(part), "{plan}: {problem}");
                assert!(at as usize > line && at as usize <= line + plan.lines().count(), "{plan}: line {at}");
            }
            ScenarioError::Unreadable { .. } => panic!("{plan}"),
        }
    }
}

#[test]
fn drains_are_swept_and_written_out() {
    let text = "[drain]\nhost = 'h*'\nhosts_at_once = 1\n[sweep]\n'drain.per_host' = [1, 2]\n'strategy.pre-copy.streams' = [3]\n";
    let loaded = read(text).unwrap();
    let per_host: Vec<u32> = loaded.scenario.points.iter().map(|p| p.world.drain.as_ref().unwrap().limits.per_host).collect();
    assert_eq!(per_host, [1, 2]);
    assert_eq!(loaded.scenario.points[0].strategies[1].spec.transfer.streams, 3);
    let drain = &loaded.effective["drain"];
    assert_eq!((&drain["order"], &drain["retries"], &drain["at"]), (&"as-listed".into(), &0.into(), &"0 s".into()));
    assert!(drain["strategies"].as_array().unwrap().len() > 2 && loaded.effective.get("migrate").is_none());
    // The effective configuration is a scenario, and the same one.
    let again = parse(&toml::to_string(&loaded.effective).unwrap(), Path::new(""), "again.toml").unwrap_or_else(|e| panic!("{e}"));
    for (a, b) in again.scenario.points.iter().zip(&loaded.scenario.points) {
        assert_eq!((&a.world.drain, &a.strategies), (&b.world.drain, &b.strategies));
    }
}

#[test]
fn the_schema_knows_the_names_of_policies() {
    let text = schema().to_string();
    for entry in livemig_core::policy::order::ENTRIES.iter().chain(&livemig_core::policy::placement::ENTRIES) {
        assert!(text.contains(&format!("\"{}\"", entry.name)), "{}", entry.name);
    }
}

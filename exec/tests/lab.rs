//! Agents that stand on machines of their own: mutual TLS, and who is not let in.

#[path = "migrations/damage.rs"]
mod damage;
#[path = "lab/line.rs"]
mod line;
mod migrations;
#[path = "lab/pki.rs"]
mod pki;

use damage::{Damage, Kind, through};
use line::Lines;
use livemig_core::machine::Outcome;
use livemig_core::strategy::{GatherWhen, Scatter};
use livemig_core::units::{Rate, Span};
use livemig_exec::agent::{Inherited, Standing, serve_inherited_with};
use livemig_exec::run::{Lab, Launch, Options, Remote, run};
use livemig_exec::{Identity, Security};
use livemig_models::world::{HostId, Role, Strategy, World};
use migrations::{busy, completes, have_kvm, made, options, strategy, with, world};
use pki::Authority;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What an agent's process is to prove who it is with; empty for nothing.
const IDENTITY: &str = "LIVEMIG_TEST_IDENTITY";
/// The file to which an agent's process tells how it ends what a lost coordinator has begun.
const TOLD: &str = "LIVEMIG_TEST_TOLD";

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    let Some(identity) = std::env::var_os(IDENTITY) else { return migrations::become_agent() };
    let text = identity.into_string().unwrap();
    let security = match text.split('\n').collect::<Vec<_>>()[..] {
        [cert, key, ca] => Security::Tls(Identity { cert: cert.into(), key: key.into(), ca: ca.into() }.load().unwrap()),
        _ => Security::None,
    };
    let outlive = std::env::var_os(TOLD).map(|_| note as fn(&str));
    serve_inherited_with(&Inherited { security, listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), outlive }).unwrap();
}

fn note(news: &str) {
    let path = std::env::var_os(TOLD).expect("somebody wants to know");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    writeln!(file, "{news}").unwrap();
}

/// Starts a standing agent; its address. It stands until the tests end.
fn stand(identity: Option<&Identity>) -> SocketAddr {
    stand_with(identity, Vec::new())
}

fn stand_with(identity: Option<&Identity>, mut env: Vec<(OsString, OsString)>) -> SocketAddr {
    let told = identity.map_or(String::new(), |i| [&i.cert, &i.key, &i.ca].map(|p| p.to_str().unwrap()).join("\n"));
    env.push((IDENTITY.into(), told.into()));
    let args = ["agent_process", "--exact", "--nocapture"].map(Into::into).to_vec();
    let launch = Launch { program: std::env::current_exe().unwrap(), args, env };
    let standing = Standing::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), security(identity), launch).unwrap();
    let address = standing.address().unwrap();
    std::thread::spawn(move || standing.serve(|_| {}));
    address
}

fn security(identity: Option<&Identity>) -> Security {
    identity.map_or(Security::None, |identity| Security::Tls(identity.load().unwrap()))
}

fn lab<const N: usize>(identity: Option<&Identity>, agents: [(&str, SocketAddr, &str); N]) -> Lab {
    let remote =
        |address: SocketAddr, name: &str| Remote { address: address.to_string(), name: Some(name.to_owned()), migration: None };
    let agents = agents.map(|(host, address, name)| (host.to_owned(), remote(address, name)));
    Lab { security: security(identity), agents: BTreeMap::from(agents) }
}

fn through_lab(lab: Lab) -> Options {
    Options { lab: Some(Arc::new(lab)), ..options() }
}

/// Two agents with certificates of one authority, and a coordinator with one.
fn secured(ca: &Authority) -> Lab {
    let ends = ["src", "dst"].map(|name| stand(Some(&ca.issue(name, ca))));
    lab(Some(&ca.issue("coordinator", ca)), [("src", ends[0], "src"), ("dst", ends[1], "dst")])
}

#[test]
fn a_guest_is_moved_between_agents_that_prove_who_they_are() {
    if !have_kvm() {
        return;
    }
    let ca = Authority::new("ca");
    let options = through_lab(secured(&ca));
    // One run after the other: the same agents serve each.
    completes(&world(busy()), &strategy("pre-copy"), &options);
    let encrypted = |spec: &mut livemig_core::strategy::Spec| {
        (spec.transfer.streams, spec.transfer.channels.encrypt) = (2, true);
    };
    completes(&world(busy()), &with("post-copy", encrypted), &options);
}

#[test]
fn pages_go_through_an_intermediary_that_proves_who_it_is() {
    if !have_kvm() {
        return;
    }
    let ca = Authority::new("ca");
    let [src, dst, mid] = ["src", "dst", "mid"].map(|name| (name, stand(Some(&ca.issue(name, &ca))), name));
    let options = through_lab(lab(Some(&ca.issue("coordinator", &ca)), [src, dst, mid]));
    let world = with_intermediary();
    let scattered = with("scatter-gather", |spec| spec.push.as_mut().expect("it pushes").scatter = Some(Scatter::new(false)));
    let migration = completes(&world, &scattered, &options);
    assert!(migration.metrics.bytes.gathered.0 > 32 << 20, "{:?}", migration.metrics);
}

/// A host `mid` between the two.
fn with_intermediary() -> World {
    let mut world = world(busy());
    let mut host = world.hosts[1].clone();
    (host.name, host.role) = ("mid".to_owned(), Role::Intermediary);
    world.hosts.push(host);
    world.moves[0].via.push(HostId(2));
    world
}

/// An agent that can be cut off from its coordinator, and what it tells from then on.
struct Cuttable {
    address: SocketAddr,
    told: PathBuf,
    _folder: tempfile::TempDir,
}

impl Cuttable {
    fn stand(identity: Option<&Identity>, lines: &Lines) -> Cuttable {
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        std::fs::write(&told, "").unwrap();
        let address = lines.to(stand_with(identity, vec![(TOLD.into(), told.clone().into())]));
        Cuttable { address, told, _folder: folder }
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.told).unwrap()
    }

    /// Waits until it has told this; everything it has told.
    fn tells(&self, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.told().contains(what) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let told = self.told();
        assert!(told.contains(what), "{what}: {told}");
        told
    }
}

/// The coordinator is lost once `begun`.
fn lose_coordinator(world: &World, strategy: &Strategy, options: &Options, begun: &AtomicBool, lines: &Lines) {
    std::thread::scope(|scope| {
        let coordinator = scope.spawn(|| run(world, strategy, 7, options));
        while !begun.load(Ordering::SeqCst) && !coordinator.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        lines.cut();
        // It does not know what becomes of the migration.
        if let Ok(result) = coordinator.join().unwrap() {
            assert_ne!(result.migrations[0].metrics.outcome, Outcome::Completed, "it was to be lost earlier");
        }
    });
}

const WHOLE: &str = "guest 0: 0 of 16384 pages are wrong";
const OVER: &str = "that was all";

#[test]
fn a_migration_whose_coordinator_is_lost_comes_to_its_end() {
    if !have_kvm() {
        return;
    }
    let ca = Authority::new("ca");
    for strategy in ["pre-copy", "post-copy"] {
        let lines = Lines::default();
        let ends = ["src", "dst"].map(|name| Cuttable::stand(Some(&ca.issue(name, &ca)), &lines));
        let [src, dst] = &ends;
        let agents = [("src", src.address, "src"), ("dst", dst.address, "dst")];
        let options = through_lab(lab(Some(&ca.issue("coordinator", &ca)), agents));
        // Once so much has gone over, which is found damaged: the connection is made again without a coordinator.
        let (route, begun) = through(Damage { connection: 2, forth: true, at: 10_000_000, kind: Kind::Flip });
        let slow = with(strategy, |spec| spec.transfer.limit = Some(Rate(25e6)));
        lose_coordinator(&world(busy()), &slow, &Options { route: Some(route), ..options.clone() }, &begun, &lines);
        dst.tells(WHOLE);
        let left = src.tells(OVER);
        assert!(!left.contains("guest 0"), "it has left: {left}");
        dst.tells(OVER);
        // The next coordinator is served as if nothing had been.
        lines.mend();
        completes(&world(busy()), &self::strategy("pre-copy"), &options);
    }
}

#[test]
fn what_is_staged_is_gathered_when_the_coordinator_is_lost() {
    if !have_kvm() {
        return;
    }
    let lines = Lines::default();
    let hosts = [(); 3].map(|()| Cuttable::stand(None, &lines));
    let [src, dst, mid] = &hosts;
    let options = through_lab(lab(None, [("src", src.address, "src"), ("dst", dst.address, "dst"), ("mid", mid.address, "mid")]));
    let (route, begun) = through(Damage { connection: 0, forth: true, at: 10_000_000, kind: Kind::Flip });
    let scattered = with("scatter-gather", |spec| {
        let mut scatter = Scatter::new(false);
        (scatter.gather.when, scatter.gather.limit) = (GatherWhen::AfterEviction, Some(Rate(25e6)));
        spec.push.as_mut().expect("it pushes").scatter = Some(scatter);
        spec.transfer.limit = Some(Rate(40e6));
    });
    let options = Options { via_route: Some(route), ..options };
    lose_coordinator(&with_intermediary(), &scattered, &options, &begun, &lines);
    dst.tells(WHOLE);
    for other in [src, mid] {
        assert!(!other.tells(OVER).contains("guest"), "{}", other.told());
    }
}

#[test]
fn what_was_not_requested_is_not_begun_when_the_coordinator_is_lost() {
    if !have_kvm() {
        return;
    }
    let lines = Lines::default();
    let ends = [(); 2].map(|()| Cuttable::stand(None, &lines));
    let [src, dst] = &ends;
    let options = through_lab(lab(None, [("src", src.address, "src"), ("dst", dst.address, "dst")]));
    // Snapshots are on their way, and what they were for does not come.
    let (route, begun) = through(Damage { connection: 2, forth: true, at: 1_000_000, kind: Kind::Flip });
    let options = Options { route: Some(route), lead: Span::from_secs(30), ..options };
    lose_coordinator(&world(busy()), &strategy("quick-eviction"), &options, &begun, &lines);
    src.tells(WHOLE);
    assert!(!dst.tells(OVER).contains("guest"), "{}", dst.told());
}

#[test]
fn insecure_agents_need_no_certificates() {
    if !have_kvm() {
        return;
    }
    let ends = [stand(None), stand(None)];
    let lab = lab(None, [("src", ends[0], "src"), ("dst", ends[1], "dst")]);
    completes(&world(busy()), &strategy("pre-copy"), &through_lab(lab.clone()));
    let encrypted = with("pre-copy", |spec| spec.transfer.channels.encrypt = true);
    let refused = run(&world(busy()), &encrypted, 7, &through_lab(lab)).unwrap_err().to_string();
    assert!(refused.contains("TLS"), "{refused}");
}

#[test]
fn damage_under_tls_is_found_and_made_up_for() {
    if !have_kvm() {
        return;
    }
    let ca = Authority::new("ca");
    let lab = secured(&ca);
    for (at, kind) in [(40_000, Kind::Flip), (20_000_000, Kind::LeaveOut), (9_000_000, Kind::Swap), (7_000_000, Kind::Cut)] {
        let (route, done) = through(Damage { connection: 2, forth: true, at, kind });
        let (migration, result) =
            made(&world(busy()), &strategy("pre-copy"), &Options { route: Some(route), ..through_lab(lab.clone()) });
        assert!(done.load(Ordering::SeqCst));
        assert_eq!(migration.metrics.outcome, Outcome::Completed, "{:?}", result.warnings);
        assert!(result.warnings.iter().any(|w| w.contains("connection lost")), "{:?}", result.warnings);
    }
}

#[test]
fn a_source_whose_certificate_the_destination_does_not_know_migrates_nothing() {
    if !have_kvm() {
        return;
    }
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    // Both let the coordinator in, and the source's certificate is of an authority that the destination does not know.
    let ends = [stand(Some(&ours.issue("src", &theirs))), stand(Some(&theirs.issue("dst", &theirs)))];
    let both = ours.with(&theirs);
    let lab = lab(Some(&theirs.issue("coordinator", &both)), [("src", ends[0], "src"), ("dst", ends[1], "dst")]);
    let (migration, result) = made(&world(busy()), &strategy("pre-copy"), &through_lab(lab));
    assert_eq!(migration.metrics.outcome, Outcome::Aborted, "{:?}", result.warnings);
    assert!(result.warnings.iter().any(|w| w.contains("TLS")), "{:?}", result.warnings);
    assert!(migration.report.is_some(), "it runs at the source");
}

/// Why a run with this lab cannot be made.
fn refusal(world: &World, lab: Lab) -> String {
    run(world, &strategy("pre-copy"), 1, &through_lab(lab)).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn who_cannot_prove_who_it_is_hears_why() {
    if !have_kvm() {
        return;
    }
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (good, world) = (ca.issue("coordinator", &ca), world(busy()));
    let agent = stand(Some(&ca.issue("src", &ca)));
    let refused = |identity: Option<&Identity>, agent: SocketAddr, name: &str| {
        refusal(&world, lab(identity, [("src", agent, name), ("dst", agent, name)]))
    };
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let cases = [
        ("an agent of another authority", refused(Some(&other.issue("coordinator", &other)), agent, "src"), "UnknownIssuer"),
        (
            "a coordinator of another authority",
            refused(Some(&other.issue("coordinator", &ca)), agent, "src"),
            "TLS: received fatal alert",
        ),
        ("an agent of another name", refused(Some(&good), agent, "dst"), "not valid for name"),
        (
            "a coordinator whose certificate has expired",
            refused(Some(&ca.expired("coordinator")), agent, "src"),
            "alert: CertificateExpired",
        ),
        ("an agent whose certificate has expired", refused(Some(&good), stand(Some(&ca.expired("src"))), "src"), "expired"),
        ("an agent that is not there", refused(Some(&good), nobody, "src"), "Connection refused"),
        ("an agent without TLS", refused(Some(&good), stand(None), "src"), "TLS"),
        ("a coordinator without TLS", refused(None, agent, "src"), "closed by the other end"),
    ];
    for (what, told, expected) in cases {
        assert!(told.contains(expected) && told.contains("agent of host `src`"), "{what}: {told}");
    }
    let busy = refusal(&world, lab(Some(&good), [("src", agent, "src"), ("dst", agent, "src")]));
    assert!(busy.contains("serves another coordinator"), "one agent is not two hosts: {busy}");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = Authority::new("ca");
    let agent = stand(Some(&ca.issue("src", &ca)));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(ca.roots()).with_no_client_auth();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), "src".try_into().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(agent).unwrap();
    let told = rustls::Stream::new(&mut tls, &mut tcp).read(&mut [0]).unwrap_err();
    assert!(told.to_string().contains("CertificateRequired"), "{told}");
}

#[test]
fn whoever_says_nothing_is_hung_up_on() {
    for agent in [stand(None), stand(Some(&Authority::new("ca").issue("src", &Authority::new("ca"))))] {
        let mut silent = TcpStream::connect(agent).unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let start = Instant::now();
        // The last words, if any, and the end.
        silent.read_to_end(&mut Vec::new()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

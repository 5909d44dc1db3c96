//! What the conductor orders when pages go over intermediaries, answered by hand.

use livemig_core::conductor::Conductor;
use livemig_core::machine::{Migration, Outcome, PeerError, Phase};
use livemig_core::pages::{Bitmap, PageSet};
use livemig_core::policy::selection::{SelectionPolicy, TrafficSensitive};
use livemig_core::policy::timeout::{CompletionTimeout, OnTimeout};
use livemig_core::strategy::{GatherWhen, Push, Scatter, Spec, SpecError, Transfer, preset};
use livemig_core::units::{Bytes, PageIndex, Span, Time};
use livemig_core::vocabulary::{CmdId, Command, Event, Failure, Peer, Reply, Routes, Sent};

const PAGES: u64 = 8;

fn pages(range: std::ops::Range<u64>) -> Bitmap {
    range.map(PageIndex).collect()
}

/// A driver that answers every command at once, except those that it holds back.
struct Rig {
    conductor: Conductor<Bitmap>,
    dirty: Bitmap,
    /// The names of commands, in the order in which they came.
    log: Vec<&'static str>,
    routes: Vec<(Routes, u64)>,
    held: Vec<(CmdId, Command<Bitmap>)>,
}

fn name(command: &Command<Bitmap>) -> &'static str {
    match command {
        Command::Send(_) => "send",
        Command::Gather { .. } => "gather",
        Command::Release => "release",
        Command::RedirectFaults => "redirect",
        Command::ServeFaults => "serve",
        Command::Reclaim { .. } => "reclaim",
        Command::Resume { .. } => "resume",
        Command::DiscardStale { .. } => "discard",
        Command::Reserve { .. } => "reserve",
        Command::Abort => "abort",
        _ => "",
    }
}

impl Rig {
    fn new(spec: &Spec) -> Rig {
        assert_eq!(spec.check(), Ok(()));
        let conductor = Conductor::new(spec.clone(), Bytes::from_pages(PAGES), vec![0, 1]);
        Rig { conductor, dirty: pages(0..PAGES), log: Vec::new(), routes: Vec::new(), held: Vec::new() }
    }

    fn tell(&mut self, event: Event<Bitmap>) {
        self.conductor.handle(Time::ZERO, event).unwrap();
    }

    fn done(&mut self, id: CmdId, reply: Reply<Bitmap>) {
        self.tell(Event::Done { id, reply });
    }

    /// Answers what is ordered, until there is nothing but what is held back.
    fn run(&mut self, holds: &[&str]) {
        while let Some((id, command)) = self.conductor.poll() {
            let name = name(&command);
            self.log.push(name);
            if let Command::Send(send) = &command {
                self.routes.push((send.routes.clone(), send.set.count()));
            }
            if holds.contains(&name) {
                self.held.push((id, command));
            } else {
                let reply = self.answer(command);
                self.done(id, reply);
            }
        }
    }

    fn answer(&mut self, command: Command<Bitmap>) -> Reply<Bitmap> {
        let at = Time::ZERO;
        match command {
            Command::Reserve { .. } => Reply::Reserved,
            Command::Prepare { .. } => Reply::Prepared,
            Command::PeekDirty { .. } => Reply::DirtyCount(self.dirty.len()),
            Command::Collect { .. } => Reply::Dirty(std::mem::take(&mut self.dirty)),
            Command::ReturnDirty { set, .. } => {
                self.dirty.merge(set);
                Reply::Returned
            }
            Command::Send(_) => Reply::Sent(Sent::default()),
            Command::Recall { .. } => Reply::RecallNoted,
            Command::SetRate { .. } => Reply::RateSet,
            Command::Throttle { .. } => Reply::Throttled,
            Command::Pause => Reply::Paused,
            Command::SendState => Reply::StateSent { wire: Bytes::ZERO },
            Command::DiscardStale { set } => Reply::Discarded(set),
            Command::Resume { .. } => Reply::Resumed { at },
            Command::ServeFaults => Reply::ServingFaults,
            Command::RedirectFaults => Reply::FaultsRedirected { at },
            Command::Reclaim { .. } => Reply::Reclaimed(Bitmap::default()),
            Command::Gather { .. } => Reply::Gathered { at },
            Command::Watch(_) => unreachable!("no rule here watches"),
            Command::Release => Reply::Released,
            Command::Abort => Reply::Aborted,
        }
    }

    /// The held command of this name.
    fn take(&mut self, wanted: &str) -> CmdId {
        let at = self.held.iter().position(|(_, c)| name(c) == wanted).unwrap_or_else(|| panic!("no {wanted} is held back"));
        self.held.remove(at).0
    }

    fn outcome(&self) -> Option<Outcome> {
        self.conductor.ending().map(|e| e.outcome)
    }

    fn position(&self, wanted: &str) -> usize {
        self.log.iter().position(|&n| n == wanted).unwrap_or_else(|| panic!("no {wanted} in {:?}", self.log))
    }
}

fn scatter(direct: bool, copies: u16) -> Spec {
    let scatter = Scatter { copies, ..Scatter::new(direct) };
    Spec { push: Some(Push { scatter: Some(scatter), ..Push::default() }), ..Spec::default() }
}

fn staging() -> Spec {
    let mut spec = (preset("quick-eviction").unwrap().spec)();
    spec.ahead.as_mut().unwrap().staging = true;
    Spec { live: None, push: Some(Push::default()), ..spec }
}

fn death(via: u16) -> Event<Bitmap> {
    Event::PeerDead { peer: Peer::Intermediary(via), recoverable: false }
}

#[test]
fn direct_first_is_gathered_after_the_release_and_otherwise_at_once() {
    let mut rig = Rig::new(&scatter(true, 1));
    rig.tell(Event::Requested);
    rig.run(&[]);
    assert_eq!(rig.routes, [(Routes { direct: true, via: vec![0, 1], copies: 1, dedup: false }, PAGES)]);
    assert!(rig.position("redirect") < rig.position("release") && rig.position("release") < rig.position("gather"));
    assert_eq!(rig.outcome(), Some(Outcome::Completed));

    let mut rig = Rig::new(&scatter(false, 2));
    rig.tell(Event::Requested);
    rig.run(&[]);
    assert_eq!(rig.routes, [(Routes { direct: false, via: vec![0, 1], copies: 2, dedup: false }, PAGES)]);
    assert!(rig.position("gather") < rig.position("send"));
    assert_eq!(rig.outcome(), Some(Outcome::Completed));
}

/// What a failed intermediary had is sent again, and the source waits for that, also when faults were redirected before.
#[test]
fn pages_of_a_failed_intermediary_are_sent_again_before_the_release() {
    for redirected in [false, true] {
        let mut rig = Rig::new(&scatter(true, 1));
        rig.tell(Event::Requested);
        rig.run(&["redirect", "reclaim"]);
        let redirect = rig.take("redirect");
        rig.tell(death(1));
        rig.run(&["redirect", "reclaim"]);
        let reclaim = rig.take("reclaim");
        let answers = if redirected { [redirect, reclaim] } else { [reclaim, redirect] };
        for id in answers {
            let reply = if id == reclaim { Reply::Reclaimed(pages(2..5)) } else { Reply::FaultsRedirected { at: Time::ZERO } };
            rig.done(id, reply);
            assert!(!rig.log.contains(&"release"));
        }
        rig.run(&[]);
        assert_eq!(rig.routes.last(), Some(&(Routes { direct: true, via: vec![0], copies: 1, dedup: false }, 3)));
        assert_eq!(rig.log.iter().filter(|&&n| n == "redirect").count(), 2, "{redirected}: {:?}", rig.log);
        assert_eq!(rig.log.iter().filter(|&&n| n == "serve").count(), 2, "{redirected}: {:?}", rig.log);
        assert_eq!(rig.outcome(), Some(Outcome::Completed));
    }
}

/// Refused pages go another way; with no intermediary left, straight.
#[test]
fn a_full_intermediary_is_left_out() {
    let mut rig = Rig::new(&scatter(false, 1));
    rig.tell(Event::Requested);
    rig.run(&["send"]);
    let first = rig.take("send");
    rig.tell(Event::StageRefused { via: 0, set: pages(4..8) });
    rig.done(first, Reply::Sent(Sent::default()));
    rig.run(&["send"]);
    let second = rig.take("send");
    rig.tell(Event::StageRefused { via: 1, set: pages(6..8) });
    rig.done(second, Reply::Sent(Sent::default()));
    rig.run(&[]);
    let routes: Vec<_> = rig.routes.iter().map(|(r, n)| (r.direct, r.via.clone(), *n)).collect();
    assert_eq!(routes, [(false, vec![0, 1], 8), (false, vec![1], 4), (true, vec![], 2)]);
    assert_eq!(rig.outcome(), Some(Outcome::Completed));
}

#[test]
fn what_is_lost_after_the_release_is_declared() {
    let mut rig = Rig::new(&scatter(true, 1));
    rig.tell(Event::Requested);
    rig.run(&["gather"]);
    assert_eq!(rig.conductor.phase(), Phase::Gather);
    let gather = rig.take("gather");
    rig.tell(death(0));
    assert_eq!(rig.outcome(), None, "the destination says what is lost");
    let failure = Failure::PagesLost { bytes: Bytes::from_pages(3) };
    rig.tell(Event::Failed { id: gather, failure, sent: Sent::default(), unsent: Bitmap::default() });
    assert_eq!(rig.outcome(), Some(Outcome::Lost));
}

/// Once it is being released the source may fail: another conductor goes on, and an answer that comes late is no news.
#[test]
fn the_source_may_fail_while_it_is_released() {
    let mut rig = Rig::new(&scatter(true, 1));
    rig.tell(Event::Requested);
    rig.run(&["release", "gather"]);
    let release = rig.take("release");
    rig.tell(Event::PeerDead { peer: Peer::Source, recoverable: false });
    assert_eq!(rig.conductor.phase(), Phase::Gather);
    rig.done(release, Reply::Released);
    assert_eq!(rig.conductor.phase(), Phase::Gather);

    let remainder = rig.conductor.remainder().expect("gathering is left");
    let mut elsewhere: Conductor<Bitmap> = Conductor::go_on(&remainder);
    let Some((id, Command::Gather { limit: None })) = elsewhere.poll() else { panic!("it gathers") };
    elsewhere.handle(Time::ZERO, Event::Done { id, reply: Reply::Gathered { at: Time::ZERO } }).unwrap();
    assert_eq!(elsewhere.ending().map(|e| e.outcome), Some(Outcome::Completed));
}

/// What a source that fails in the push has not sent is lost only if the destination misses it, with or without intermediaries.
#[test]
fn the_destination_says_what_is_lost_with_a_source_that_fails_in_the_push() {
    let plain = Spec { push: Some(Push::default()), ..Spec::default() };
    for (spec, held) in [(&plain, "send"), (&plain, "redirect"), (&scatter(true, 1), "send"), (&scatter(false, 1), "redirect")] {
        for lost in [false, true] {
            let mut rig = Rig::new(spec);
            rig.tell(Event::Requested);
            rig.run(&[held, "gather"]);
            rig.tell(Event::PeerDead { peer: Peer::Source, recoverable: false });
            rig.run(&["gather"]);
            assert_eq!((rig.conductor.phase(), rig.outcome()), (Phase::Gather, None), "the destination has not answered");
            let late = rig.take(held);
            let reply = if held == "send" { Reply::Sent(Sent::default()) } else { Reply::FaultsRedirected { at: Time::ZERO } };
            rig.done(late, reply);
            let id = rig.take("gather");
            assert!(rig.held.is_empty(), "it is asked once");
            if lost {
                let failure = Failure::PagesLost { bytes: Bytes::from_pages(3) };
                rig.tell(Event::Failed { id, failure, sent: Sent::default(), unsent: Bitmap::default() });
            } else {
                rig.done(id, Reply::Gathered { at: Time::ZERO });
            }
            assert_eq!(rig.outcome(), Some(if lost { Outcome::Lost } else { Outcome::Completed }));
        }
    }
}

/// The order by which the destination may ask the source again is given until it has been carried out.
#[test]
fn serving_faults_again_is_ordered_again_when_it_fails() {
    let mut rig = Rig::new(&scatter(true, 1));
    rig.tell(Event::Requested);
    rig.run(&["redirect"]);
    rig.tell(death(1));
    rig.run(&["redirect", "reclaim"]);
    let (redirect, reclaim) = (rig.take("redirect"), rig.take("reclaim"));
    rig.done(redirect, Reply::FaultsRedirected { at: Time::ZERO });
    rig.done(reclaim, Reply::Reclaimed(pages(2..5)));
    rig.run(&["serve"]);
    let serve = rig.take("serve");
    let failure = Failure::Unreachable(Peer::Destination);
    rig.tell(Event::Failed { id: serve, failure, sent: Sent::default(), unsent: Bitmap::default() });
    rig.conductor.wake(rig.conductor.deadline().expect("it is tried again"));
    rig.run(&["serve"]);
    let again = rig.take("serve");
    rig.done(again, Reply::ServingFaults);
    rig.run(&[]);
    assert_eq!(rig.outcome(), Some(Outcome::Completed));
}

#[test]
fn staged_snapshots_are_gathered_after_the_switch() {
    let mut rig = Rig::new(&staging());
    rig.tell(Event::Prepare);
    rig.run(&[]);
    assert_eq!(rig.routes, [(Routes { direct: false, via: vec![0, 1], copies: 1, dedup: false }, PAGES)]);
    rig.dirty = pages(0..2);
    rig.tell(Event::Requested);
    rig.run(&[]);
    assert_eq!(rig.routes.last(), Some(&(Routes::direct(), 2)));
    assert!(rig.position("discard") < rig.position("resume") && rig.position("resume") < rig.position("gather"));
    assert_eq!(rig.outcome(), Some(Outcome::Completed));
}

/// Before the switch the pages of a failed staging node are dirty again.
#[test]
fn a_failed_staging_node_costs_a_snapshot() {
    let mut rig = Rig::new(&staging());
    rig.tell(Event::Prepare);
    rig.run(&["reclaim"]);
    rig.tell(death(0));
    rig.run(&["reclaim"]);
    let reclaim = rig.take("reclaim");
    rig.done(reclaim, Reply::Reclaimed(pages(0..4)));
    rig.run(&[]);
    assert_eq!(rig.dirty.count(), 4);
    rig.tell(Event::Requested);
    rig.run(&[]);
    assert_eq!(rig.routes.last(), Some(&(Routes::direct(), 4)));
    assert_eq!(rig.outcome(), Some(Outcome::Completed));
}

/// An intermediary that does not take part is not there.
#[test]
fn room_is_reserved_without_an_intermediary_that_has_none() {
    let mut rig = Rig::new(&scatter(true, 1));
    rig.tell(Event::Requested);
    rig.run(&["reserve"]);
    let reserve = rig.take("reserve");
    let failure = Failure::Refused(Peer::Intermediary(0));
    rig.tell(Event::Failed { id: reserve, failure, sent: Sent::default(), unsent: Bitmap::default() });
    rig.run(&[]);
    assert_eq!(rig.routes[0].0.via, [1]);
    let unknown = rig.conductor.handle(Time::ZERO, death(7));
    assert!(matches!(unknown, Err(PeerError::UnknownPeer { peer: Peer::Intermediary(7), .. })));
}

/// Only what goes to intermediaries can be there already.
#[test]
fn intermediaries_are_asked_for_contents_where_the_strategy_says_so() {
    let with_dedup = |spec: Spec| Spec { transfer: Transfer { dedup: true, ..Transfer::default() }, ..spec };
    let mut rig = Rig::new(&with_dedup(scatter(true, 2)));
    rig.tell(Event::Requested);
    rig.run(&[]);
    assert_eq!(rig.routes, [(Routes { direct: true, via: vec![0, 1], copies: 2, dedup: true }, PAGES)]);

    let mut rig = Rig::new(&with_dedup(staging()));
    rig.tell(Event::Prepare);
    rig.run(&[]);
    assert_eq!(rig.routes, [(Routes { direct: false, via: vec![0, 1], copies: 1, dedup: true }, PAGES)]);
    rig.dirty = pages(0..2);
    rig.tell(Event::Requested);
    rig.run(&[]);
    assert_eq!(rig.routes.last(), Some(&(Routes::direct(), 2)));

    let nowhere = with_dedup(Spec { push: Some(Push::default()), ..Spec::default() });
    assert_eq!(nowhere.check(), Err(SpecError::DedupWithoutIntermediaries));
}

#[test]
fn compositions_that_would_leave_staged_pages_behind_are_errors() {
    assert_eq!(staging().check(), Ok(()));
    assert_eq!(Spec { push: None, ..staging() }.check(), Err(SpecError::StagingWithoutPush));
    let pause = CompletionTimeout { per_gib: Span::from_secs(1), then: OnTimeout::Pause };
    assert_eq!(Spec { timeout: Some(pause), ..staging() }.check(), Err(SpecError::StagingAndPause));
    let selection = Some(SelectionPolicy::Traffic(TrafficSensitive::default()));
    assert_eq!(Spec { selection, ..staging() }.check(), Err(SpecError::StagingAndSelection));
    let later = Scatter { copies: 0, ..Scatter::new(true) };
    assert_eq!(later.gather.when, GatherWhen::AfterEviction);
    let none = Spec { push: Some(Push { scatter: Some(later), ..Push::default() }), ..Spec::default() };
    assert!(matches!(none.check(), Err(SpecError::OutOfRange { key: "copies", .. })));
}

//! Tiny migrations, completely: four pages, at most three rounds, and every interleaving of the guest's writes, of what happens
//! on the connections and of the completions; alone, and with one thing going wrong at every possible moment.

#[expect(dead_code, reason = "each test uses a part of the harness")]
mod harness;

use harness::bugs::Bug;
use harness::explore::{Tiny, explore};
use harness::faults::FaultKind;
use harness::scenario::AboutResume;
use livemig_core::policy::stop::{Clark, FixedRounds, StopRule};
use livemig_core::strategy::{Gather, GatherWhen, PRESETS, Preset, Scatter, Spec, Transfer, preset};
use livemig_core::units::Span;
use livemig_core::vocabulary::Side;

/// A preset over one connection with rules that make sense for four pages: up to three rounds of pre-copy, the last of them stopped.
fn tiny_spec(preset: &Preset) -> Spec {
    let mut spec = (preset.spec)();
    spec.transfer = Transfer::default();
    if let Some(live) = &mut spec.live {
        live.stop = match spec.push {
            None => StopRule::Clark(Clark::new(1, 2, 9.0, false)),
            Some(_) => StopRule::FixedRounds(FixedRounds { rounds: 2 }),
        };
    }
    spec
}

fn tiny(preset: &Preset) -> Tiny {
    let about_resume = AboutResume::Repeat;
    Tiny { spec: tiny_spec(preset), disk: 0, writes: 1, strike: None, about_resume, bug: None, vias: 0 }
}

fn must_hold(preset: &Preset, tiny: &Tiny) {
    match explore(tiny) {
        Ok(seen) => {
            println!(
                "{:<14} {} connections, {} writes, {:?}: {} states, {} ends: {:?}",
                preset.name, tiny.spec.transfer.streams, tiny.writes, tiny.strike, seen.states, seen.ends, seen.outcomes
            );
            assert!(tiny.strike.is_some() || seen.outcomes.keys().eq(["completed"].iter()), "{}: {:?}", preset.name, seen.outcomes);
        }
        Err(how) => panic!("{}: {how}", preset.name),
    }
}

#[test]
fn every_interleaving_over_one_connection() {
    for preset in &PRESETS {
        must_hold(preset, &Tiny { writes: 2, ..tiny(preset) });
    }
}

#[test]
fn every_interleaving_over_two_connections() {
    for preset in &PRESETS {
        let mut tiny = tiny(preset);
        tiny.spec.transfer.streams = 2;
        must_hold(preset, &tiny);
    }
}

/// Half of the pages are blocks of a disk, over two connections.
#[test]
fn every_interleaving_with_a_disk() {
    for preset in &PRESETS {
        let mut tiny = Tiny { disk: 2, ..tiny(preset) };
        tiny.spec.transfer.streams = 2;
        if tiny.spec.check_disk().is_ok() {
            must_hold(preset, &tiny);
            must_hold(preset, &Tiny { strike: Some(FaultKind::Cancel), ..tiny });
        }
    }
}

/// One thing goes wrong at every possible moment, and what is cut is restored at every possible moment after it.
#[test]
fn a_fault_at_every_moment() {
    for kind in [
        FaultKind::Cancel,
        FaultKind::Kill { host: Side::Source },
        FaultKind::Kill { host: Side::Destination },
        FaultKind::ResumeRefused,
        FaultKind::ResumeLost { order: true },
        FaultKind::ResumeLost { order: false },
    ] {
        for preset in &PRESETS {
            must_hold(preset, &Tiny { strike: Some(kind), ..tiny(preset) });
        }
    }
}

#[test]
fn broken_connections_at_every_moment() {
    let outage = Span(1);
    let cut = FaultKind::Cut { lossy: true, outage };
    for (kind, about_resume) in [
        (FaultKind::Reset, AboutResume::Repeat),
        (FaultKind::Cut { lossy: false, outage }, AboutResume::Repeat),
        (cut, AboutResume::Repeat),
        (cut, AboutResume::Ask),
        (cut, AboutResume::GiveUp),
    ] {
        for preset in &PRESETS {
            must_hold(preset, &Tiny { strike: Some(kind), about_resume, ..tiny(preset) });
        }
    }
}

/// That runs are cut short where another run has been hides nothing.
#[test]
fn bugs_put_in_on_purpose_are_found() {
    for (name, bug) in [
        ("stop-and-copy", Bug::PauseIncomplete),
        ("pre-copy", Bug::DirtyBitDropped),
        ("pre-copy", Bug::SkippedPageForgotten),
        ("post-copy", Bug::FaultAnsweredWithZeros),
        ("post-copy", Bug::ReleaseBeforeRedirect),
        ("hybrid", Bug::DiscardIgnored),
    ] {
        let found = explore(&Tiny { bug: Some(bug), writes: 2, ..tiny(preset(name).unwrap()) });
        assert!(found.is_err(), "{name} with {bug:?} went unnoticed: {found:?}");
    }
}

/// Scatter-gather with one intermediary, which is asked for two pages of zeros by their hash and fails at every possible moment.
#[test]
fn an_intermediary_that_is_asked_for_contents_at_every_moment() {
    let scatter = preset("scatter-gather").unwrap();
    for strike in [None, Some(FaultKind::KillVia { via: 0 })] {
        let mut tiny = Tiny { vias: 1, strike, writes: 0, ..tiny(scatter) };
        tiny.spec.transfer = Transfer { dedup: true, elide_zero_pages: false, ..Transfer::default() };
        must_hold(scatter, &tiny);
    }
    let mut tiny = Tiny { vias: 1, bug: Some(Bug::ProbeTrusted), ..tiny(scatter) };
    tiny.spec.transfer = Transfer { dedup: true, ..Transfer::default() };
    assert!(explore(&tiny).is_err(), "a page of which only the hash went counts as staged, and nobody notices");
}

/// Scatter-gather with one intermediary, which fails at every possible moment.
#[test]
fn an_intermediary_that_fails_at_every_moment() {
    let scatter = preset("scatter-gather").unwrap();
    for when in [GatherWhen::Concurrent, GatherWhen::AfterEviction] {
        for strike in [None, Some(FaultKind::KillVia { via: 0 })] {
            let mut tiny = Tiny { vias: 1, strike, ..tiny(scatter) };
            let push = tiny.spec.push.as_mut().expect("it pushes");
            push.scatter = Some(Scatter { gather: Gather { limit: None, when }, ..Scatter::new(true) });
            must_hold(scatter, &tiny);
        }
    }
}

//! Damage to frames of every kind, at places of every kind: it is found whatever it is, and the guest arrives as it must be.

#[path = "migrations/frames.rs"]
mod frames;
mod migrations;

use frames::{Content, Hit, How, Part, Place, Sort, through};
use livemig_core::machine::Outcome;
use livemig_core::strategy::Scatter;
use livemig_core::units::Rate;
use livemig_exec::run::{Options, Route};
use livemig_models::world::{HostId, Role, Strategy, World};
use migrations::{busy, completes, have_kvm, made, options, with, world};

/// Not a test: what an agent process of the other tests runs.
#[test]
fn agent_process() {
    migrations::become_agent();
}

const CONTROL: u8 = 1;
const FAULT: u8 = 2;
const STREAM: u8 = 3;
const STAGE: u8 = 4;

/// Variants of `Message`, and of what orders and answers say, in their order in `wire/message.rs`.
const ACK: Content = Content::Message(2, None);
const ASK: Content = Content::Message(3, None);
const PING: Content = Content::Message(4, None);
const RESERVE: Content = order(0);
const PREPARE: Content = order(1);
const STATE: Content = order(2);
const DISCARD: Content = order(3);
const RESUME: Content = order(4);
const REDIRECT: Content = order(6);
const DONE: Content = answer(0);
const STARTED: Content = answer(2);
const WHOLE: Content = answer(4);

/// Variants of `StageMessage`, in their order in `wire/stage.rs`.
const KEEP: Content = Content::Message(0, None);
const KEPT: Content = Content::Message(1, None);
const STORED: Content = Content::Message(2, None);
const PROBE: Content = Content::Message(5, None);
const PROBED: Content = Content::Message(6, None);

const fn order(kind: u8) -> Content {
    Content::Message(0, Some(kind))
}

const fn answer(kind: u8) -> Content {
    Content::Message(1, Some(kind))
}

fn forth(role: u8, content: Content) -> Sort {
    Sort { role, forth: true, content }
}

fn back(role: u8, content: Content) -> Sort {
    Sort { role, forth: false, content }
}

/// Magic number, version, kind, session, epoch, number, lengths of body and data, what is zero, checksums of body and header.
const FIELDS: [usize; 11] = [1, 4, 6, 8, 12, 16, 20, 24, 29, 33, 47];

/// A bit in each of these places, another one each time.
fn flips(sort: Sort, places: impl IntoIterator<Item = Place>) -> Vec<Hit> {
    (0..).zip(places).map(|(bit, place)| (sort, How::Flip(place, bit % 8))).collect()
}

fn headers() -> impl Iterator<Item = Place> {
    FIELDS.into_iter().map(Place::Header)
}

fn bodies() -> impl Iterator<Item = Place> {
    [Part::First, Part::Middle, Part::Last].into_iter().map(Place::Body)
}

/// One bit in a length, in a checksum, and in what is said; and the end in the middle of it.
fn some(sort: Sort) -> Vec<Hit> {
    let places = [Place::Header(20), Place::Header(40)].into_iter().chain(bodies());
    let mut hits = flips(sort, places);
    hits.push((sort, How::CutOff(Place::Header(17))));
    hits.push((sort, How::CutOff(Place::Body(Part::Last))));
    hits
}

fn every(sort: Sort, more: impl IntoIterator<Item = Place>, hows: &[How]) -> Vec<Hit> {
    let mut hits = flips(sort, headers().chain(bodies()).chain(more));
    hits.extend(hows.iter().map(|&how| (sort, how)));
    hits
}

fn data() -> Vec<Place> {
    [Part::First, Part::Middle, Part::Last].into_iter().map(Place::Data).chain([Place::Sum]).collect()
}

/// A migration during which all of this happens, one after the other.
fn survives(name: &str, compress: bool, hits: Vec<Hit>) {
    // So slow that there are frames enough.
    let slow = with(name, |spec| {
        spec.transfer.limit = Some(Rate(30e6));
        spec.transfer.channels.compress = compress;
    });
    let on = |route| Options { route: Some(route), ..options() };
    survives_on(on, &world(busy()), &slow, hits);
}

/// The same on the way that a route is made part of.
fn survives_on(on: impl FnOnce(Route) -> Options, world: &World, strategy: &Strategy, hits: Vec<Hit>) {
    let (name, count) = (&strategy.name, hits.len());
    let (route, plan) = through(hits);
    let (migration, result) = made(world, strategy, &on(route));
    let left = plan.lock().unwrap().left.clone();
    assert!(left.is_empty(), "{name}: {} of {count} have not happened, first {:?}: {:?}", left.len(), left[0], result.warnings);
    assert_eq!(migration.metrics.outcome, Outcome::Completed, "{name}: {:?}", result.warnings);
    assert!(migration.report.is_some(), "{name}");
    let lost = result.warnings.iter().filter(|w| w.contains("connection") && w.contains("lost in phase")).count();
    assert!(
        lost >= count,
        "{name}: {count} frames were damaged, and {lost} times connections were given up: {:?}",
        result.warnings
    );
}

#[test]
fn what_only_passes_frames_on_changes_nothing() {
    if !have_kvm() {
        return;
    }
    let (route, _) = through(Vec::new());
    completes(&world(busy()), &with("hybrid", |spec| spec.transfer.streams = 2), &Options { route: Some(route), ..options() });
}

#[test]
fn before_the_switch_and_in_it() {
    if !have_kvm() {
        return;
    }
    let whole = [How::LeaveOut, How::Double, How::Swap];
    let ends = [How::CutOff(Place::Header(1)), How::CutOff(Place::Body(Part::Middle)), How::CutOff(Place::Data(Part::Middle))];
    let pages = forth(STREAM, Content::Pages);
    survives(
        "pre-copy",
        false,
        [
            some(forth(CONTROL, RESERVE)),
            some(back(CONTROL, DONE)),
            some(forth(CONTROL, PREPARE)),
            vec![(forth(CONTROL, PREPARE), How::Double)],
            every(pages, data(), &[whole.as_slice(), &ends].concat()),
            every(back(STREAM, ACK), [], &[whole.as_slice(), &ends[..2]].concat()),
            flips(forth(CONTROL, PING), [Place::Header(16)]),
            flips(back(CONTROL, PING), [Place::Body(Part::First)]),
            some(forth(CONTROL, STATE)),
            some(forth(CONTROL, RESUME)),
            some(back(CONTROL, STARTED)),
        ]
        .concat(),
    );
}

#[test]
fn after_the_switch() {
    if !have_kvm() {
        return;
    }
    let pages = forth(STREAM, Content::Pages);
    let asked = forth(FAULT, Content::Pages);
    survives(
        "post-copy",
        false,
        [
            every(back(FAULT, ASK), [], &[How::Double, How::CutOff(Place::Body(Part::First))]),
            every(asked, data(), &[How::Double, How::CutOff(Place::Data(Part::First))]),
            some(back(FAULT, ACK)),
            flips(pages, [Place::Header(17), Place::Body(Part::Middle), Place::Data(Part::Middle), Place::Sum]),
            vec![(pages, How::LeaveOut), (pages, How::Swap), (pages, How::CutOff(Place::Data(Part::Last)))],
            some(forth(CONTROL, REDIRECT)),
            some(back(CONTROL, WHOLE)),
        ]
        .concat(),
    );
    survives("hybrid", false, some(forth(CONTROL, DISCARD)));
}

/// The tables of compressed pages have their sizes in them.
#[test]
fn compressed() {
    if !have_kvm() {
        return;
    }
    let ends = [How::CutOff(Place::Body(Part::Middle)), How::CutOff(Place::Data(Part::Middle)), How::CutOff(Place::Sum)];
    survives("pre-copy", true, every(forth(STREAM, Content::Pages), data(), &ends));
    let asked = forth(FAULT, Content::Pages);
    survives("post-copy", true, every(asked, data(), &[How::Double, How::CutOff(Place::Data(Part::First))]));
}

#[test]
fn on_the_way_to_an_intermediary_that_is_asked_for_contents() {
    if !have_kvm() {
        return;
    }
    let mut world = world(busy());
    let mut host = world.hosts[1].clone();
    (host.name, host.role) = ("mid".to_owned(), Role::Intermediary);
    world.moves[0].via.push(HostId(2));
    world.hosts.push(host);
    let strategy = with("scatter-gather", |spec| {
        spec.push.as_mut().expect("it pushes").scatter = Some(Scatter::new(false));
        (spec.transfer.dedup, spec.transfer.limit) = (true, Some(Rate(15e6)));
    });
    let (pages, whole) = (forth(STAGE, Content::Pages), [How::LeaveOut, How::Double]);
    let ends = [How::CutOff(Place::Header(1)), How::CutOff(Place::Body(Part::Middle))];
    let on = |route| Options { via_route: Some(route), ..options() };
    let hits = [
        some(forth(STAGE, KEEP)),
        some(back(STAGE, KEPT)),
        every(forth(STAGE, PROBE), [], &[whole.as_slice(), &ends].concat()),
        every(back(STAGE, PROBED), [], &[whole.as_slice(), &ends].concat()),
        some(back(STAGE, STORED)),
        flips(pages, [Place::Header(17), Place::Body(Part::Middle), Place::Data(Part::Middle), Place::Sum]),
        vec![(pages, How::LeaveOut), (pages, How::Double), (pages, How::CutOff(Place::Data(Part::Last)))],
    ];
    survives_on(on, &world, &strategy, hits.concat());
}

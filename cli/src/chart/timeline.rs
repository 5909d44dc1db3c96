//! One migration over time: its traffic, the application's rate and its rounds above each other, on the ground of its phases.
//! A switch too short to be seen is shown again beside, enlarged.

use super::canvas::{Anchor, Canvas, Font};
use super::data::{Group, Results, Round};
use super::palette::{self, BLUE, FAINT, GREEN, GRID, INK, VERMILION, tint};
use super::scale::{Scale, Tick, log_bytes, percent_ticks, rate_ticks, time_ticks};
use crate::human::{plural, seconds};

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 24.0;
/// Where the main view ends and the enlarged one begins, when there is one.
const SPLIT: (f64, f64) = (730.0, 774.0);
const TOP: f64 = 118.0;
/// Room between panels, for the title of the lower one.
const GAP: f64 = 34.0;
const TITLE: Font = Font::new(17.0).bold();
const SUBTITLE: Font = Font::new(12.5).colored(FAINT);
const PANEL: Font = Font::new(12.5).bold();
const TICK: Font = Font::new(11.0).colored(FAINT);
const NOTE: Font = Font::new(11.0);

/// Rounds narrower than this are drawn without sides.
const ROUND_WITH_SIDES: f64 = 5.0;

/// What the line at the end of a migration says.
const COMPLETE: &str = "complete";

/// A switch that takes less of the picture than this is enlarged.
const VISIBLE: f64 = 0.04;

/// The picture; `None` when the migration was never requested or has no timeline.
pub(super) fn draw(results: &Results, group: &Group) -> Option<Canvas> {
    let story = Story::of(group)?;
    let panels = panels(group, &story);
    let bottom = panels.last()?.bottom;
    let mut canvas = Canvas::new(WIDTH, bottom + 58.0);
    head(&mut canvas, results, group, &story);
    let enlarged = story.enlarged();
    let main_end = if enlarged.is_some() { SPLIT.0 } else { RIGHT };
    let main = View { x: Scale::linear((story.from, story.to), (LEFT, main_end)), main: true };
    view(&mut canvas, group, &story, &panels, &main);
    caption(&mut canvas, bottom, &main, "time since the request", 0.0);
    if let Some((from, to)) = enlarged {
        let zoom = View { x: Scale::linear((from, to), (SPLIT.1, RIGHT)), main: false };
        view(&mut canvas, group, &story, &panels, &zoom);
        caption(&mut canvas, bottom, &zoom, "time since the switch began", story.switch.map_or(0.0, |s| s.0));
        canvas.text((SPLIT.1, panels[0].top - 14.0), "Switch, enlarged", PANEL, Anchor::Start);
    }
    Some(canvas)
}

/// A migration with times in seconds since its request.
struct Story {
    phases: Vec<(f64, f64, String)>,
    bandwidth: Vec<(f64, f64)>,
    work: Vec<(f64, f64)>,
    rounds: Vec<Round>,
    switch: Option<(f64, f64)>,
    from: f64,
    to: f64,
}

impl Story {
    fn of(group: &Group) -> Option<Story> {
        let t0 = group.first.requested?;
        let timeline = &group.timeline;
        let since = |points: &[(f64, f64)]| points.iter().map(|(at, value)| (at - t0, *value)).collect::<Vec<_>>();
        let marks: Vec<(f64, String)> = timeline.phases.iter().map(|(at, name)| (at - t0, name.clone())).collect();
        let (bandwidth, work) = (since(&timeline.bandwidth), since(&timeline.work));
        let first = marks.iter().find(|(_, name)| name != "waiting").map(|(at, _)| *at)?;
        let ends = marks.iter().map(|m| m.0).chain([group.first.total, group.first.eviction].into_iter().flatten());
        let last = ends.fold(0.0, f64::max);
        let from = first.min(0.0);
        // A little of what comes after shows that it is over; all of it would leave no room for the migration.
        let observed = group.first.observed.zip(work.first()).map_or(last, |(observed, begin)| begin.0 + observed);
        let recovered = perceived_end(group, &marks).map_or(last, |end| end.max(last));
        let to = (recovered + 0.12 * (recovered - from)).min(observed.max(last));
        let ending = |next: Option<&(f64, String)>| next.map_or(to, |(at, _)| *at);
        let phases: Vec<(f64, f64, String)> =
            marks.iter().enumerate().map(|(i, (at, name))| (*at, ending(marks.get(i + 1)), name.clone())).collect();
        let switch = phases.iter().find(|(.., name)| name == "switch").map(|(from, to, _)| (*from, *to));
        let rounds = group.rounds.iter().map(|r| Round { started: r.started - t0, ..*r }).collect();
        (to > from).then_some(Story { phases, bandwidth, work, rounds, switch, from, to })
    }

    /// The part of the time that is shown enlarged: the switch with half its length before and as much as its length after.
    fn enlarged(&self) -> Option<(f64, f64)> {
        let (from, to) = self.switch?;
        let length = to - from;
        (length > 0.0 && length < VISIBLE * (self.to - self.from)).then_some((from - 0.5 * length, to + length))
    }
}

/// When the application was back at its rate.
fn perceived_end(group: &Group, marks: &[(f64, String)]) -> Option<f64> {
    let switch = marks.iter().find(|(_, name)| name == "switch")?;
    Some(switch.0 + group.first.perceived?)
}

/// What a panel shows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Traffic,
    Work,
    Rounds,
}

/// A panel with its vertical axis.
struct Panel {
    content: Content,
    title: String,
    top: f64,
    bottom: f64,
    y: Scale,
    ticks: Vec<Tick>,
}

/// A horizontal axis.
struct View {
    x: Scale,
    /// Whether it carries titles and labels of vertical axes.
    main: bool,
}

fn panels(group: &Group, story: &Story) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    let mut add = |content, title, height, range: (f64, f64), log, ticks| {
        let top = panels.last().map_or(TOP, |p| p.bottom + GAP);
        let bottom = top + height;
        let y = if log { Scale::log(range, (bottom, top)) } else { Scale::linear(range, (bottom, top)) };
        panels.push(Panel { content, title, top, bottom, y, ticks });
    };
    let highest = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(0.0, f64::max);
    if !story.bandwidth.is_empty() {
        let high = highest(&story.bandwidth).max(1.0);
        let (ticks, unit) = rate_ticks(high * 1.08, 5);
        add(Content::Traffic, format!("Migration traffic ({unit})"), 130.0, (0.0, high * 1.08), false, ticks);
    }
    if !story.work.is_empty() {
        let high = highest(&story.work).max(1.0) * 1.08;
        add(
            Content::Work,
            format!("Rate of the application in {} (% of its baseline)", group.first.vm),
            90.0,
            (0.0, high),
            false,
            percent_ticks(high, 3),
        );
    }
    let sizes: Vec<f64> = story.rounds.iter().flat_map(|r| [Some(r.pages), r.dirty]).flatten().filter(|b| *b > 0.0).collect();
    if let (Some(low), Some(high)) = (sizes.iter().copied().reduce(f64::min), sizes.iter().copied().reduce(f64::max)) {
        let (range, ticks) = log_bytes(low, high, 5);
        let title = "Memory of each round (bars) and dirty at its end (points)".to_owned();
        add(Content::Rounds, title, 120.0, range, true, ticks);
    }
    panels
}

/// Title, figures and the legend of phases.
fn head(canvas: &mut Canvas, results: &Results, group: &Group, story: &Story) {
    let first = &group.first;
    let left = 24.0;
    let title = format!("{}: {}, {} → {}", group.strategy, first.vm, first.source, first.destination);
    canvas.text((left, 30.0), &TITLE.cut(&title, RIGHT - left), TITLE, Anchor::Start);
    let mut facts = vec![results.scenario.clone()];
    facts.extend((!group.label.is_empty()).then(|| group.label.clone()));
    if first.outcome != "completed" {
        facts.push(first.outcome.clone());
    } else if !first.converged {
        facts.push("did not converge".to_owned());
    }
    let times = [("eviction", first.eviction), ("total", first.total), ("downtime", first.downtime)];
    facts.extend(times.into_iter().filter_map(|(name, time)| Some(format!("{name} {}", seconds(time?)))));
    if !story.rounds.is_empty() {
        facts.push(plural(story.rounds.len(), "round"));
    }
    canvas.text((left, 52.0), &SUBTITLE.cut(&facts.join(" · "), RIGHT - left), SUBTITLE, Anchor::Start);
    let mut shown: Vec<&str> = Vec::new();
    let mut x = left;
    for (_, _, name) in &story.phases {
        if let Some(color) = palette::phase(name).filter(|_| !shown.contains(&name.as_str())) {
            shown.push(name);
            canvas.rect((x, 69.0), (x + 12.0, 81.0), color);
            canvas.text((x + 17.0, 75.0), name, NOTE, Anchor::Start);
            x += 17.0 + NOTE.width(name) + 18.0;
        }
    }
}

/// Every panel along one horizontal axis.
fn view(canvas: &mut Canvas, group: &Group, story: &Story, panels: &[Panel], view: &View) {
    for panel in panels {
        ground(canvas, story, panel, view);
        match panel.content {
            Content::Traffic => series(canvas, &story.bandwidth, panel, view, BLUE),
            Content::Work => series(canvas, &story.work, panel, view, GREEN),
            Content::Rounds => rounds(canvas, &story.rounds, panel, view),
        }
    }
    // The end of the migration, when it lies inside.
    let (from, to) = view.x.ends();
    if let (true, Some(total), Some(first)) = (view.main, group.first.total, panels.first())
        && total > from
        && total < to
    {
        let x = view.x.at(total);
        for panel in panels {
            canvas.path(&[(x, panel.top), (x, panel.bottom)], FAINT, 1.0);
        }
        // Above the frame, where nothing but the title can be in the way.
        let left = x - NOTE.width(COMPLETE) / 2.0;
        if left > view.x.pixels().0 + PANEL.width(&first.title) + 8.0 {
            canvas.text((x, first.top - 8.0), COMPLETE, NOTE.colored(FAINT), Anchor::Middle);
        }
    }
}

/// Phases, grid lines, axes, title and the labels of the vertical axis.
fn ground(canvas: &mut Canvas, story: &Story, panel: &Panel, view: &View) {
    let (left, right) = view.x.pixels();
    let (from, to) = view.x.ends();
    for (begin, end, name) in &story.phases {
        if let Some(color) = palette::phase(name).filter(|_| *end >= from && *begin <= to) {
            let x = view.x.at(*begin);
            // The shortest phase leaves a trace.
            let width = (view.x.at(*end) - x).max(1.2).min(right - x);
            canvas.rect((x, panel.top), (x + width, panel.bottom), color);
        }
    }
    for tick in &panel.ticks {
        let y = panel.y.at(tick.value);
        canvas.path(&[(left, y), (right, y)], GRID, 0.8);
        if view.main {
            canvas.text((left - 7.0, y), &tick.label, TICK, Anchor::End);
        }
    }
    // Below the values, which may lie on the axis.
    canvas.path(&[(left, panel.top), (left, panel.bottom), (right, panel.bottom)], INK, 1.0);
    if view.main {
        canvas.text((left, panel.top - 14.0), &panel.title, PANEL, Anchor::Start);
    }
}

/// A line of values that each hold until the next one.
fn series(canvas: &mut Canvas, points: &[(f64, f64)], panel: &Panel, view: &View, color: palette::Color) {
    let (from, to) = view.x.ends();
    let corners: Vec<(f64, f64)> =
        steps(points, from, to).into_iter().map(|(at, value)| (view.x.at(at), panel.y.at(value))).collect();
    canvas.path(&corners, color, 1.8);
}

/// The corners of a step function between two times.
fn steps(points: &[(f64, f64)], from: f64, to: f64) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for (index, &(at, value)) in points.iter().enumerate() {
        let end = points.get(index + 1).map_or(to, |next| next.0).min(to);
        let begin = at.max(from);
        // Of several values at the same time the last one holds.
        if end > begin {
            corners.extend([(begin, value), (end, value)]);
        }
    }
    corners
}

/// A bar as high as what each round has to send, and a point for what is dirty at its end.
fn rounds(canvas: &mut Canvas, rounds: &[Round], panel: &Panel, view: &View) {
    let (from, to) = view.x.ends();
    let inside = |r: &&Round| r.started <= to && r.started + r.duration >= from;
    for round in rounds.iter().filter(inside) {
        let (left, right) = (view.x.at(round.started), view.x.at(round.started + round.duration));
        let top = panel.y.at(round.pages);
        let right = right.max(left + 1.0);
        canvas.rect((left, top), (right, panel.bottom), tint(BLUE, 0.45));
        // Sides of rounds too short for them would hide everything else.
        let sides = right - left >= ROUND_WITH_SIDES;
        let outline = [(left, panel.bottom), (left, top), (right, top), (right, panel.bottom)];
        canvas.path(if sides { &outline } else { &outline[1..3] }, BLUE, 1.0);
        let label = round.index.to_string();
        if NOTE.width(&label) + 4.0 <= right - left {
            let y = if panel.bottom - top > 18.0 { top + 9.0 } else { top - 8.0 };
            canvas.text((f64::midpoint(left, right), y), &label, NOTE, Anchor::Middle);
        }
    }
    for round in rounds.iter().filter(inside) {
        let end = round.started + round.duration;
        if let Some(dirty) = round.dirty.filter(|_| end <= to) {
            canvas.dot((view.x.at(end), panel.y.at(dirty)), 2.6, VERMILION, dirty > 0.0);
        }
    }
}

/// Labels and title of a horizontal axis whose zero is at `origin`.
fn caption(canvas: &mut Canvas, bottom: f64, view: &View, title: &str, origin: f64) {
    let (from, to) = view.x.ends();
    let (ticks, unit) = time_ticks(from - origin, to - origin, if view.main { 9 } else { 5 });
    for tick in ticks {
        let x = view.x.at(tick.value + origin);
        canvas.path(&[(x, bottom), (x, bottom + 4.0)], INK, 1.0);
        canvas.text((x, bottom + 14.0), &tick.label, TICK, Anchor::Middle);
    }
    let (left, right) = view.x.pixels();
    canvas.text((f64::midpoint(left, right), bottom + 36.0), &format!("{title} ({unit})"), NOTE, Anchor::Middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_until_the_next_one() {
        let points = [(0.0, 1.0), (2.0, 3.0), (2.0, 4.0), (5.0, 0.0)];
        assert_eq!(steps(&points, 0.0, 6.0), [(0.0, 1.0), (2.0, 1.0), (2.0, 4.0), (5.0, 4.0), (5.0, 0.0), (6.0, 0.0)]);
        assert_eq!(steps(&points, 3.0, 4.0), [(3.0, 4.0), (4.0, 4.0)]);
        assert_eq!(steps(&points, 7.0, 8.0), [(7.0, 0.0), (8.0, 0.0)]);
    }
}

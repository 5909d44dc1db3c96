//! Strategies side by side: a panel for each of eviction, total migration time and downtime, and one for the parts of downtime.
//!
//! A panel whose values are of one order of magnitude has bars from zero; one whose values are further apart has points on a
//! logarithmic axis. Every value stands beside its mark.

use super::canvas::{Anchor, Canvas, Font};
use super::data::{Group, Results, Row};
use super::palette::{BLUE, Color, FAINT, GREEN, GRID, INK, ORANGE, PAPER, PURPLE, STRIPE, VERMILION, tint};
use super::scale::{Scale, Tick, log_time, time_ticks, time_unit};
use crate::human::{plural, value_in, value_seconds};
use crate::summary::Spread;

const WIDTH: f64 = 1040.0;
const MARGIN: f64 = 24.0;
const ROW: f64 = 40.0;
const POINT_HEAD: f64 = 30.0;
const BAR: f64 = 15.0;
const TITLE: Font = Font::new(17.0).bold();
const SUBTITLE: Font = Font::new(12.0).colored(FAINT);
const PANEL: Font = Font::new(13.0).bold();
const NAME: Font = Font::new(13.0);
const LABEL: Font = Font::new(11.5);
const SMALL: Font = Font::new(10.5).colored(FAINT);
/// Height of everything above the first row.
const HEAD: f64 = 104.0;
/// Height of everything below the last row.
const FOOT: f64 = 44.0;
/// The narrowest and the widest column of names.
const NAMES: (f64, f64) = (90.0, 190.0);
const GAP: f64 = 26.0;
/// Values that are further apart than this are shown on a logarithmic axis.
const LINEAR_UP_TO: f64 = 25.0;

/// The parts of downtime in the order of [`Row::parts`].
const PARTS: [(&str, Color); 3] = [("memory", VERMILION), ("state", ORANGE), ("activation", PURPLE)];

/// The picture; `None` without results.
pub(super) fn draw(results: &Results) -> Option<Canvas> {
    let rows = layout(&results.groups);
    let bottom = rows.last()?.y + ROW;
    let mut canvas = Canvas::new(WIDTH, bottom + FOOT);
    head(&mut canvas, results);
    let names = results.groups.iter().map(|g| NAME.width(&g.strategy).max(SMALL.width(&remark(&g.runs))));
    let names = names.fold(NAMES.0, f64::max).min(NAMES.1);
    ground(&mut canvas, &rows, names);
    let left = MARGIN + names + GAP;
    let width = (WIDTH - MARGIN - left - 3.0 * GAP) / 4.0;
    let panel = |index: f64| (left + index * (width + GAP), left + index * (width + GAP) + width);
    let downtime = if results.groups.iter().any(|g| g.several_vms) { "Longest downtime" } else { "Downtime" };
    time_panel(&mut canvas, &rows, panel(0.0), bottom, ("Eviction time", BLUE), |r| r.eviction);
    time_panel(&mut canvas, &rows, panel(1.0), bottom, ("Total migration time", GREEN), |r| r.total);
    time_panel(&mut canvas, &rows, panel(2.0), bottom, (downtime, VERMILION), |r| r.downtime);
    parts_panel(&mut canvas, &rows, panel(3.0), bottom);
    Some(canvas)
}

/// A strategy with its place.
struct Placed<'a> {
    group: &'a Group,
    /// Upper edge of its row.
    y: f64,
    /// The row begins a point of a sweep.
    first_of_point: bool,
}

fn layout(groups: &[Group]) -> Vec<Placed<'_>> {
    let swept = groups.windows(2).any(|pair| pair[0].point != pair[1].point);
    let mut y = HEAD;
    let mut previous = None;
    let place = |group| {
        let group: &Group = group;
        let first_of_point = swept && previous != Some(group.point);
        previous = Some(group.point);
        y += if first_of_point { POINT_HEAD } else { 0.0 };
        let placed = Placed { group, y, first_of_point };
        y += ROW;
        placed
    };
    groups.iter().map(place).collect()
}

fn head(canvas: &mut Canvas, results: &Results) {
    let most = WIDTH - 2.0 * MARGIN;
    canvas.text((MARGIN, 30.0), &TITLE.cut(&results.scenario, most), TITLE, Anchor::Start);
    let runs = results.groups.iter().map(|g| g.runs.len()).max().unwrap_or(0);
    let subtitle = match runs {
        0 | 1 => "one run per strategy".to_owned(),
        2..=5 => format!("median and range of {}", plural(runs, "replicate")),
        n => format!("median of {} with its 95 % confidence interval", plural(n, "replicate")),
    };
    canvas.text((MARGIN, 51.0), &subtitle, SUBTITLE, Anchor::Start);
}

/// Stripes, names and what went wrong.
fn ground(canvas: &mut Canvas, rows: &[Placed<'_>], names: f64) {
    for (index, row) in rows.iter().enumerate() {
        if row.first_of_point {
            let label = NAME.bold().cut(&row.group.label, WIDTH - 2.0 * MARGIN);
            canvas.text((MARGIN, row.y - POINT_HEAD / 2.0 + 2.0), &label, NAME.bold(), Anchor::Start);
        }
        if index % 2 == 0 {
            canvas.rect((MARGIN - 8.0, row.y), (WIDTH - MARGIN + 8.0, row.y + ROW), STRIPE);
        }
        let remark = remark(&row.group.runs);
        let y = row.y + ROW / 2.0 - if remark.is_empty() { 0.0 } else { 7.0 };
        canvas.text((MARGIN, y), &NAME.cut(&row.group.strategy, names), NAME, Anchor::Start);
        canvas.text((MARGIN, y + 15.0), &SMALL.cut(&remark, names), SMALL.colored(VERMILION), Anchor::Start);
    }
}

/// What did not go as it should.
fn remark(runs: &[Row]) -> String {
    let n = runs.len();
    let completed = runs.iter().filter(|r| r.outcome == "completed").count();
    let converged = runs.iter().filter(|r| r.converged).count();
    let bad = runs.iter().find(|r| r.outcome != "completed");
    match (bad, n) {
        (Some(run), 1) => run.outcome.clone(),
        (Some(_), _) => format!("{completed} of {n} completed"),
        (None, _) if converged == n => String::new(),
        (None, _) if converged == 0 => "did not converge".to_owned(),
        (None, _) => format!("{converged} of {n} converged"),
    }
}

fn time_panel(
    canvas: &mut Canvas,
    rows: &[Placed<'_>],
    (left, right): (f64, f64),
    bottom: f64,
    (title, color): (&str, Color),
    read: impl Fn(&Row) -> Option<f64>,
) {
    canvas.text((left, HEAD - 30.0), title, PANEL, Anchor::Start);
    let spreads: Vec<Option<Spread>> =
        rows.iter().map(|row| Spread::of(row.group.runs.iter().filter_map(&read).collect())).collect();
    let labels = spreads.iter().flatten().map(|s| LABEL.width(&value_seconds(s.median))).fold(LABEL.width("123 ms"), f64::max);
    let axis = axis(&spreads, (left, right - labels - 8.0));
    grid(canvas, &axis, rows, bottom);
    for (row, spread) in rows.iter().zip(&spreads) {
        let y = row.y + ROW / 2.0;
        match spread {
            None => canvas.text((left + 4.0, y), "not reached", SMALL, Anchor::Start),
            Some(spread) => value(canvas, &axis, y, spread, color),
        }
    }
}

/// A horizontal axis of times.
struct Axis {
    scale: Scale,
    ticks: Vec<Tick>,
    /// The unit of all labels, with its length; without one every label has the unit that suits it.
    unit: Option<(&'static str, f64)>,
}

impl Axis {
    fn label(&self, seconds: f64) -> String {
        self.unit.map_or_else(|| value_seconds(seconds), |(unit, size)| value_in(seconds, unit, size))
    }
}

fn axis(spreads: &[Option<Spread>], pixels: (f64, f64)) -> Axis {
    let medians = || spreads.iter().flatten().map(|s| s.median);
    let high = spreads.iter().flatten().map(|s| s.high).fold(0.0, f64::max);
    let low = medians().fold(f64::INFINITY, f64::min);
    let high = if high > 0.0 { high } else { 1.0 };
    if low > 0.0 && low.is_finite() && high / low > LINEAR_UP_TO {
        let lowest = spreads.iter().flatten().map(|s| s.low).filter(|s| *s > 0.0).fold(low, f64::min);
        let (range, ticks) = log_time(lowest, high);
        return Axis { scale: Scale::log(range, pixels), ticks, unit: None };
    }
    let (mut ticks, unit) = time_ticks(0.0, high, 5);
    for tick in &mut ticks {
        tick.label += &format!(" {unit}");
    }
    Axis { scale: Scale::linear((0.0, high), pixels), ticks, unit: Some(time_unit(high)) }
}

/// Vertical lines with their labels below, as many as have room.
fn grid(canvas: &mut Canvas, axis: &Axis, rows: &[Placed<'_>], bottom: f64) {
    let mut free = f64::NEG_INFINITY;
    for tick in &axis.ticks {
        let x = axis.scale.at(tick.value);
        for (first, last) in stretches(rows) {
            canvas.path(&[(x, first), (x, last)], GRID, 1.0);
        }
        let half = SMALL.width(&tick.label) / 2.0;
        if x - half >= free {
            canvas.text((x, bottom + 16.0), &tick.label, SMALL, Anchor::Middle);
            free = x + half + 6.0;
        }
    }
}

/// Rows that stand together, as upper and lower edge.
fn stretches(rows: &[Placed<'_>]) -> Vec<(f64, f64)> {
    rows.chunk_by(|_, next| !next.first_of_point).map(|chunk| (chunk[0].y, chunk[chunk.len() - 1].y + ROW)).collect()
}

/// A bar or a point with its interval and its label.
fn value(canvas: &mut Canvas, axis: &Axis, y: f64, spread: &Spread, color: Color) {
    let scale = &axis.scale;
    let (x, low, high) = (scale.at(spread.median), scale.at(spread.low), scale.at(spread.high));
    if scale.is_log() {
        canvas.path(&[(scale.pixels().0, y), (x, y)], tint(color, 0.45), 1.2);
    } else {
        canvas.rect((scale.pixels().0, y - BAR / 2.0), (x.max(scale.pixels().0 + 1.0), y + BAR / 2.0), tint(color, 0.75));
    }
    if high > low {
        canvas.path(&[(low, y), (high, y)], INK, 1.4);
        for end in [low, high] {
            canvas.path(&[(end, y - 4.0), (end, y + 4.0)], INK, 1.4);
        }
    }
    if scale.is_log() {
        canvas.dot((x, y), 4.6, color, true);
    }
    let label = axis.label(spread.median);
    canvas.text((high.max(x) + 8.0, y), &label, LABEL, Anchor::Start);
}

/// What downtime consists of, as shares of each strategy's downtime.
fn parts_panel(canvas: &mut Canvas, rows: &[Placed<'_>], (left, right): (f64, f64), bottom: f64) {
    canvas.text((left, HEAD - 30.0), "Parts of downtime", PANEL, Anchor::Start);
    let mut x = left;
    for (name, color) in PARTS {
        canvas.rect((x, HEAD - 17.0), (x + 9.0, HEAD - 8.0), tint(color, 0.75));
        canvas.text((x + 13.0, HEAD - 12.5), name, SMALL, Anchor::Start);
        x += 13.0 + SMALL.width(name) + 8.0;
    }
    let scale = Scale::linear((0.0, 1.0), (left, right));
    for (share, anchor) in [(0.0, Anchor::Start), (0.5, Anchor::Middle), (1.0, Anchor::End)] {
        canvas.text((scale.at(share), bottom + 16.0), &format!("{} %", share * 100.0), SMALL, anchor);
    }
    for row in rows {
        let y = row.y + ROW / 2.0 - 6.0;
        if let Some(parts) = typical_parts(&row.group.runs) {
            stack(canvas, &scale, y, parts);
        }
    }
}

/// The parts of the run with the median downtime; of two in the middle the shorter one.
fn typical_parts(runs: &[Row]) -> Option<[f64; 3]> {
    let mut found: Vec<(f64, [f64; 3])> = runs.iter().filter_map(|r| Some((r.downtime?, r.parts?))).collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.get(found.len().saturating_sub(1) / 2).map(|(_, parts)| *parts)
}

fn stack(canvas: &mut Canvas, scale: &Scale, y: f64, parts: [f64; 3]) {
    let whole: f64 = parts.iter().sum();
    let mut before = 0.0;
    for (part, (_, color)) in parts.into_iter().zip(PARTS) {
        if whole > 0.0 {
            let (from, to) = (scale.at(before / whole), scale.at((before + part) / whole));
            canvas.rect((from, y - BAR / 2.0), (to, y + BAR / 2.0), tint(color, 0.75));
            if before > 0.0 && part > 0.0 {
                canvas.path(&[(from, y - BAR / 2.0), (from, y + BAR / 2.0)], PAPER, 1.0);
            }
        }
        before += part;
    }
    let text = parts.map(value_seconds).join(" + ");
    let font = fitting_font(&text, scale);
    canvas.text((scale.pixels().0, y + BAR / 2.0 + 9.0), &text, font, Anchor::Start);
}

/// The largest font in which the text fits under its bar.
fn fitting_font(text: &str, scale: &Scale) -> Font {
    let room = scale.pixels().1 - scale.pixels().0;
    let size = SMALL.size.min(SMALL.size * room / SMALL.width(text));
    Font { size, ..SMALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Option<Spread> {
        Some(Spread { median, low: median, high: median })
    }

    #[test]
    fn values_of_several_orders_of_magnitude_get_a_logarithmic_axis() {
        assert!(!axis(&[spread(100.0), spread(104.0), None], (0.0, 1.0)).scale.is_log());
        assert!(axis(&[spread(0.3), spread(104.0)], (0.0, 1.0)).scale.is_log());
        assert!(!axis(&[None, None], (0.0, 1.0)).scale.is_log());
        // A value of zero has no place on a logarithmic axis.
        assert!(!axis(&[spread(0.0), spread(104.0)], (0.0, 1.0)).scale.is_log());
    }

    #[test]
    fn the_parts_are_those_of_the_median_run() {
        let run = |d: f64| Row { downtime: Some(d), parts: Some([d, 0.0, 0.0]), ..Row::default() };
        assert_eq!(typical_parts(&[run(3.0), run(1.0), run(2.0)]), Some([2.0, 0.0, 0.0]));
        assert_eq!(typical_parts(&[run(3.0), run(1.0)]), Some([1.0, 0.0, 0.0]));
        assert_eq!(typical_parts(&[]), None);
    }

    #[test]
    fn failures_are_remarked() {
        let run = |outcome: &str, converged| Row { outcome: outcome.into(), converged, ..Row::default() };
        let good = run("completed", true);
        assert_eq!(remark(std::slice::from_ref(&good)), "");
        assert_eq!(remark(&[run("completed", false)]), "did not converge");
        assert_eq!(remark(&[run("aborted", false)]), "aborted");
        assert_eq!(remark(&[run("aborted", false), good]), "1 of 2 completed");
    }
}

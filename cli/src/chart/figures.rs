//! Figures of papers in the papers' own axes, with ours beside what was published.
//!
//! A figure has a panel for each of its metrics. Where all values of the horizontal axis are numbers, a series is a curve; where they
//! are names, it is a group of bars.

use super::canvas::{Anchor, Canvas, Font};
use super::palette::{BLUE, Color, FAINT, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION, tint};
use super::scale::{Scale, Tick, decades, number_ticks};
use crate::papers::{Beside, Contents, Paper, number};
use anyhow::Result;
use std::collections::BTreeSet;

const MARGIN: f64 = 24.0;
const PANEL: (f64, f64) = (500.0, 270.0);
/// Room left of a panel for the labels of its axis.
const LEFT: f64 = 52.0;
const GAP: f64 = 30.0;
/// Upper edge of the panels, below title and one line of legend.
const TOP: f64 = 124.0;
const FOOT: f64 = 62.0;
const LEGEND_LINE: f64 = 18.0;
const TITLE: Font = Font::new(17.0).bold();
const SUBTITLE: Font = Font::new(12.0).colored(FAINT);
const AXIS: Font = Font::new(12.0).bold();
/// Lines of a name on the horizontal axis, and the distance between them.
const NAME_LINES: usize = 2;
const TICK_LINE: f64 = 14.0;
const TICK: Font = Font::new(11.0).colored(FAINT);
const LEGEND: Font = Font::new(12.0);
const COLORS: [Color; 6] = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY];
/// Values that are further apart than this are shown on a logarithmic axis.
const LINEAR_UP_TO: f64 = 200.0;

/// The charts of a paper's figures, with their file names.
///
/// # Errors
/// When one cannot be drawn.
pub(crate) fn draw(contents: &Contents, paper: &Paper, rows: &[Beside<'_>]) -> Result<Vec<(String, String)>> {
    let mut taken = BTreeSet::new();
    let mut charts = Vec::new();
    for name in in_order(rows.iter().map(|row| row.published.figure.as_str())) {
        let own: Vec<&Beside<'_>> = rows.iter().filter(|row| row.published.figure == name).collect();
        let file = super::unique(&format!("{}-{}", paper.name, super::clean(name)), &mut taken);
        charts.push((file, figure(contents, paper, name, &own).svg()?));
    }
    Ok(charts)
}

/// Each text once, in the order of its first use.
fn in_order<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for text in texts {
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all
}

fn figure(contents: &Contents, paper: &Paper, name: &str, rows: &[&Beside<'_>]) -> Canvas {
    let metrics = in_order(rows.iter().map(|row| row.published.metric.as_str()));
    let series = in_order(rows.iter().map(|row| row.published.series.as_str()));
    let width = 2.0 * MARGIN + metrics.len() as f64 * (LEFT + PANEL.0) + (metrics.len() - 1) as f64 * GAP;
    let lines = legend_lines(&series, width);
    let top = TOP + (lines.len() - 1) as f64 * LEGEND_LINE;
    let mut canvas = Canvas::new(width, top + PANEL.1 + FOOT);
    canvas.text((MARGIN, 30.0), &TITLE.cut(name, width - 2.0 * MARGIN), TITLE, Anchor::Start);
    canvas.text((MARGIN, 51.0), &SUBTITLE.cut(&paper.citation, width - 2.0 * MARGIN), SUBTITLE, Anchor::Start);
    legend(&mut canvas, &series, &lines);
    for (index, metric) in metrics.into_iter().enumerate() {
        let own: Vec<&Beside<'_>> = rows.iter().copied().filter(|row| row.published.metric == metric).collect();
        let left = MARGIN + LEFT + index as f64 * (LEFT + PANEL.0 + GAP);
        panel(&mut canvas, &Panel::new(contents, &own, &series, (left, top)));
    }
    canvas
}

/// The entries of the legend: the two marks, and the series with names.
fn entries<'a>(series: &[&'a str]) -> Vec<(&'a str, Option<Color>)> {
    let named = series.iter().enumerate().filter(|(_, name)| !name.is_empty());
    named.map(|(i, name)| (*name, Some(color(i)))).chain([("published", None), ("livemig", None)]).collect()
}

/// Which entries of the legend stand in which line.
fn legend_lines(series: &[&str], width: f64) -> Vec<usize> {
    let mut lines = vec![0];
    let mut used = 0.0;
    for (name, _) in entries(series) {
        let own = entry_width(name);
        if used + own > width - 2.0 * MARGIN && used > 0.0 {
            lines.push(0);
            used = 0.0;
        }
        used += own;
        if let Some(last) = lines.last_mut() {
            *last += 1;
        }
    }
    lines
}

fn entry_width(name: &str) -> f64 {
    LEGEND.width(name) + 34.0
}

fn legend(canvas: &mut Canvas, series: &[&str], lines: &[usize]) {
    let mut entries = entries(series).into_iter();
    for (line, count) in lines.iter().enumerate() {
        let (mut x, y) = (MARGIN, 76.0 + line as f64 * LEGEND_LINE);
        for (name, color) in entries.by_ref().take(*count) {
            match color {
                Some(color) => canvas.rect((x, y - 5.0), (x + 14.0, y + 5.0), color),
                None if name == "published" => canvas.dot((x + 7.0, y), PUBLISHED_DOT, INK, false),
                None => canvas.dot((x + 7.0, y), OUR_DOT, INK, true),
            }
            canvas.text((x + 20.0, y), name, LEGEND, Anchor::Start);
            x += entry_width(name);
        }
    }
}

fn color(series: usize) -> Color {
    COLORS[series % COLORS.len()]
}

const PUBLISHED_DOT: f64 = 5.6;
const OUR_DOT: f64 = 3.2;

/// A value on a panel.
struct Mark {
    series: usize,
    /// Horizontal place: a number, or the index of a name.
    x: f64,
    published: Option<f64>,
    ours: Option<f64>,
}

/// What one metric of a figure shows.
struct Panel {
    x_axis: String,
    y_axis: String,
    marks: Vec<Mark>,
    /// Names on the horizontal axis; none when it has numbers.
    names: Vec<String>,
    left: f64,
    top: f64,
}

impl Panel {
    fn new(contents: &Contents, rows: &[&Beside<'_>], series: &[&str], (left, top): (f64, f64)) -> Panel {
        let place = |row: &&Beside<'_>| match row.published.x.as_str() {
            "" => row.published.quantity.clone(),
            x => x.to_owned(),
        };
        let places: Vec<String> = rows.iter().map(place).collect();
        let numbers: Option<Vec<f64>> = places.iter().map(|x| x.parse::<f64>().ok().filter(|x| x.is_finite())).collect();
        let names = in_order(places.iter().map(String::as_str));
        let named = || places.iter().map(|x| names.iter().position(|n| n == x).unwrap_or(0) as f64).collect();
        let curves = numbers.is_some() && names.len() > 1;
        let xs: Vec<f64> = numbers.filter(|_| curves).unwrap_or_else(named);
        let mark = |(row, x): (&&Beside<'_>, f64)| Mark {
            series: series.iter().position(|s| *s == row.published.series).unwrap_or(0),
            x,
            published: row.published.paper_value,
            ours: row.ours,
        };
        let axes = rows.first().and_then(|row| contents.axes(row.published));
        let generic = || rows.first().map_or(String::new(), |r| format!("{}, {}", r.published.metric, r.published.unit));
        Panel {
            x_axis: axes.map_or(String::new(), |a| a.x.clone()),
            y_axis: axes.map_or_else(generic, |a| a.y.clone()),
            marks: rows.iter().zip(xs).map(mark).collect(),
            names: if curves { Vec::new() } else { names.into_iter().map(str::to_owned).collect() },
            left,
            top,
        }
    }

    fn right(&self) -> f64 {
        self.left + PANEL.0
    }

    fn bottom(&self) -> f64 {
        self.top + PANEL.1
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.marks.iter().flat_map(|m| [m.published, m.ours]).flatten()
    }

    /// The vertical axis: from zero, or logarithmic where values are far apart.
    fn y(&self) -> (Scale, Vec<Tick>) {
        let pixels = (self.bottom(), self.top);
        let high = self.values().fold(0.0, f64::max);
        let low = self.values().fold(f64::INFINITY, f64::min);
        if low > 0.0 && low.is_finite() && high / low > LINEAR_UP_TO {
            let (range, ticks) = decades(low, high);
            return (Scale::log(range, pixels), ticks);
        }
        // Bars have their values above them.
        let room = if self.names.is_empty() { 1.06 } else { 1.12 };
        let range = (low.min(0.0), if high > 0.0 { high * room } else { 1.0 });
        (Scale::linear(range, pixels), number_ticks(range.0, range.1, 6))
    }

    fn x(&self) -> Scale {
        let pixels = (self.left, self.right());
        if !self.names.is_empty() {
            return Scale::linear((-0.5, self.names.len() as f64 - 0.5), pixels);
        }
        let (low, high) = self.marks.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), m| (a.min(m.x), b.max(m.x)));
        let room = (high - low) * 0.06;
        Scale::linear((low - room, high + room), pixels)
    }
}

fn panel(canvas: &mut Canvas, panel: &Panel) {
    let (x, (y, ticks)) = (panel.x(), panel.y());
    canvas.text((panel.left - LEFT + 8.0, panel.top - 18.0), &panel.y_axis, AXIS, Anchor::Start);
    for tick in &ticks {
        let at = y.at(tick.value);
        canvas.path(&[(panel.left, at), (panel.right(), at)], GRID, 1.0);
        canvas.text((panel.left - 8.0, at), &tick.label, TICK, Anchor::End);
    }
    canvas.path(&[(panel.left, panel.bottom()), (panel.right(), panel.bottom())], INK, 1.0);
    x_labels(canvas, panel, &x);
    if panel.names.is_empty() { curves(canvas, panel, &x, &y) } else { bars(canvas, panel, &x, &y) }
}

/// What stands at the values of the horizontal axis, and below it.
fn x_labels(canvas: &mut Canvas, panel: &Panel, x: &Scale) {
    let room = PANEL.0 / panel.names.len().max(1) as f64 - 10.0;
    let mut labels: Vec<(f64, Vec<String>)> = if panel.names.is_empty() {
        panel.marks.iter().map(|m| (x.at(m.x), vec![number(m.x, 6)])).collect()
    } else {
        panel.names.iter().enumerate().map(|(i, name)| (x.at(i as f64), TICK.wrap(name, room, NAME_LINES))).collect()
    };
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    let mut below = panel.bottom() + 38.0;
    for (at, lines) in labels {
        let half = lines.iter().map(|line| TICK.width(line)).fold(0.0, f64::max) / 2.0;
        if at - half >= free {
            for (index, line) in lines.iter().enumerate() {
                let y = panel.bottom() + 15.0 + index as f64 * TICK_LINE;
                canvas.text((at, y), line, TICK, Anchor::Middle);
                below = below.max(y + 20.0);
            }
            free = at + half + 4.0;
        }
    }
    let middle = f64::midpoint(panel.left, panel.right());
    canvas.text((middle, below), &panel.x_axis, AXIS, Anchor::Middle);
}

/// A pale line through what was published, a strong one through ours.
fn curves(canvas: &mut Canvas, panel: &Panel, x: &Scale, y: &Scale) {
    let count = panel.marks.iter().map(|m| m.series).max().map_or(0, |last| last + 1);
    let points = |series: usize, read: fn(&Mark) -> Option<f64>| {
        let own = panel.marks.iter().filter(move |m| m.series == series);
        let mut points: Vec<(f64, f64)> = own.filter_map(|m| Some((x.at(m.x), y.at(read(m)?)))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    for series in 0..count {
        let (published, ours) = (points(series, |m| m.published), points(series, |m| m.ours));
        canvas.path(&published, tint(color(series), 0.35), 3.2);
        canvas.path(&ours, color(series), 1.4);
        for point in published {
            canvas.dot(point, PUBLISHED_DOT, color(series), false);
        }
        for point in ours {
            canvas.dot(point, OUR_DOT, color(series), true);
        }
    }
}

/// Pairs of bars, each with its mark at the end and its value above: a pale one for what was published, a strong one for ours.
fn bars(canvas: &mut Canvas, panel: &Panel, x: &Scale, y: &Scale) {
    let group = PANEL.0 / panel.names.len() as f64;
    let foot = y.at(y.ends().0.max(0.0));
    for name in 0..panel.names.len() {
        let own: Vec<&Mark> = panel.marks.iter().filter(|m| m.x == name as f64).collect();
        let width = (group * 0.8 / (2 * own.len()).max(1) as f64).min(44.0);
        let first = x.at(name as f64) - width * own.len() as f64;
        for (index, mark) in own.into_iter().enumerate() {
            let left = first + 2.0 * width * index as f64;
            for (offset, value, strength, radius, filled) in
                [(0.0, mark.published, 0.35, PUBLISHED_DOT, false), (width, mark.ours, 0.8, OUR_DOT, true)]
            {
                let Some(value) = value else { continue };
                let (from, to, top) = (left + offset + 2.0, left + offset + width - 2.0, y.at(value));
                canvas.rect((from, top.min(foot)), (to, top.max(foot)), tint(color(mark.series), strength));
                let middle = f64::midpoint(from, to);
                canvas.dot((middle, top), radius, color(mark.series), filled);
                canvas.text((middle, top - 14.0), &number(value, 3), TICK, Anchor::Middle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::papers::Collection;

    fn charts(ours: impl Fn(usize) -> Option<f64>) -> Vec<(String, String)> {
        let contents = Collection::Inside.contents().unwrap();
        let all = contents.papers.iter().flat_map(|paper| {
            let rows = contents.of(paper).into_iter().enumerate();
            let rows: Vec<Beside<'_>> = rows.map(|(i, published)| Beside { published, ours: ours(i) }).collect();
            draw(&contents, paper, &rows).unwrap()
        });
        all.collect()
    }

    #[test]
    fn every_figure_has_a_chart_whatever_the_runs_have_shown() {
        let names = |charts: &[(String, String)]| charts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let (full, empty) = (charts(|i| Some(i as f64 + 1.0)), charts(|_| None));
        assert_eq!(names(&full), names(&empty));
        let different: BTreeSet<String> = names(&full).into_iter().collect();
        assert_eq!(different.len(), full.len());
        for (name, svg) in full.iter().chain(&empty) {
            assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{name}");
        }
    }

    #[test]
    fn legends_are_wrapped() {
        assert_eq!(legend_lines(&["a", "b"], 600.0), [4]);
        let lines = legend_lines(&["a series with a long name", "another series with a long name"], 400.0);
        assert!(lines.len() > 1 && lines.iter().sum::<usize>() == 4, "{lines:?}");
    }
}

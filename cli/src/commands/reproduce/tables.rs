//! Published figures beside ours for people, in 80 columns.

use crate::papers::{Beside, Kind, Paper, Tally, number};
use crate::table::{self, Style, left, right};

/// Quantities that are longer are wrapped.
const QUANTITY: u16 = 30;
/// Meanings of kinds that are longer are wrapped.
const MEANING: u16 = 24;

/// Digits of numbers in tables.
const DIGITS: i32 = 5;

/// All figures of a paper.
pub(super) fn paper(paper: &Paper, rows: &[Beside<'_>], style: Style) -> String {
    let mut text = match style {
        Style::Plain => format!("{}\n{}\n", paper.name, paper.citation),
        Style::Markdown => format!("## {}\n\n{}\n", paper.name, paper.citation),
    };
    for figure in rows.chunk_by(|a, b| a.published.figure == b.published.figure) {
        let name = &figure[0].published.figure;
        text += &match style {
            Style::Plain => format!("\n{name}\n"),
            Style::Markdown => format!("\n### {name}\n\n"),
        };
        text += &table(figure, style);
    }
    text + "\n"
}

fn table(rows: &[Beside<'_>], style: Style) -> String {
    let layout =
        [left("quantity").at_most(QUANTITY), left("kind"), right("paper"), right("ours"), left("unit"), right("deviation")];
    let cells = |row: &Beside<'_>| {
        let published = row.published;
        let paper = published.paper_text.as_str();
        vec![
            published.quantity.clone(),
            published.kind.clone(),
            if paper.is_empty() { "-".to_owned() } else { paper.to_owned() },
            row.ours.map_or_else(|| "never".to_owned(), |x| number(x, DIGITS)),
            published.unit.clone(),
            row.deviation().map_or_else(|| "-".to_owned(), percent),
        ]
    };
    table::render(&layout, rows.iter().map(cells).collect(), style, true)
}

/// How well each kind of row agrees, and what it proves.
pub(super) fn summary(kinds: &[Kind], rows: &[Beside<'_>], style: Style) -> String {
    let layout = [
        left("kind"),
        right("rows"),
        right("within 5 %"),
        right("within 10 %"),
        right("largest"),
        left("meaning").at_most(MEANING),
    ];
    let cells = |tally: Tally<'_>| {
        let share = |n: usize| if tally.compared == 0 { "-".to_owned() } else { format!("{n} of {}", tally.compared) };
        vec![
            tally.kind.name.clone(),
            tally.rows.to_string(),
            share(tally.within[0]),
            share(tally.within[1]),
            if tally.compared == 0 { "-".to_owned() } else { percent(tally.worst) },
            tally.kind.meaning.clone(),
        ]
    };
    table::render(&layout, Tally::of(kinds, rows).into_iter().map(cells).collect(), style, true)
}

/// A share with its sign, as in `+1.3 %`.
fn percent(share: f64) -> String {
    let text = format!("{:+.1} %", share * 100.0);
    if text == "-0.0 %" { "+0.0 %".to_owned() } else { text }
}

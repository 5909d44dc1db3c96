//! Tables for terminals and for Markdown.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ColumnConstraint, LineStyle, Table, TableStyle, Width};

/// Space between two columns.
const GAP: u16 = 2;

/// What a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A terminal.
    Plain,
    /// A Markdown document.
    Markdown,
}

/// How a column is laid out.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    title: &'static str,
    align: CellAlignment,
    constraint: Option<ColumnConstraint>,
}

/// A column of names.
pub(crate) fn left(title: &'static str) -> Layout {
    Layout { title, align: CellAlignment::Left, constraint: None }
}

/// A column of numbers.
pub(crate) fn right(title: &'static str) -> Layout {
    Layout { title, align: CellAlignment::Right, constraint: None }
}

impl Layout {
    /// Wraps what is wider than `columns`.
    pub(crate) fn at_most(self, columns: u16) -> Layout {
        Layout { constraint: Some(ColumnConstraint::UpperBoundary(Width::Fixed(columns + GAP))), ..self }
    }

    /// Makes the column wide enough for its title and for `contents`, which may come in a later piece of the table.
    pub(crate) fn fitting<'a>(self, contents: impl Iterator<Item = &'a str>) -> Layout {
        let widest = contents.chain([self.title]).map(|text| text.chars().count()).max().unwrap_or(0);
        let columns = u16::try_from(widest).unwrap_or(u16::MAX).saturating_add(GAP);
        Layout { constraint: Some(ColumnConstraint::LowerBoundary(Width::Fixed(columns))), ..self }
    }
}

/// A table, or a further piece of one when `header` is false, each line ending with a newline.
pub(crate) fn render(layout: &[Layout], rows: Vec<Vec<String>>, style: Style, header: bool) -> String {
    let mut table = Table::new();
    table.load_style(match style {
        Style::Plain => TableStyle::new().header_separator(LineStyle::none().fill('─')),
        Style::Markdown => ASCII_MARKDOWN,
    });
    if header {
        table.set_header(layout.iter().map(|column| column.title));
    }
    for row in rows {
        table.add_row(row.into_iter().map(|cell| match style {
            Style::Plain => cell,
            // A cell of Markdown has one line.
            Style::Markdown => cell.replace('|', r"\|").replace('\n', ", "),
        }));
    }
    for (column, layout) in table.column_iter_mut().zip(layout) {
        column.set_cell_alignment(layout.align);
        if style == Style::Plain {
            column.set_padding((0, GAP));
            if let Some(constraint) = layout.constraint {
                column.set_constraint(constraint);
            }
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| (*c).to_owned()).collect()
    }

    #[test]
    fn pieces_of_a_table_stand_under_each_other() {
        let layout = [left("name").fitting(["a", "a longer name"].into_iter()), right("time").fitting(["12.34 ms"].into_iter())];
        let first = render(&layout, vec![cells(&["a", "1 s"])], Style::Plain, true);
        let second = render(&layout, vec![cells(&["a longer name", "12.34 ms"])], Style::Plain, false);
        let all = format!("{first}{second}");
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines[0], "name               time");
        assert!(lines[1].starts_with('─'));
        assert_eq!(lines[2], "a                   1 s");
        assert_eq!(lines[3], "a longer name  12.34 ms");
    }

    #[test]
    fn long_names_are_wrapped() {
        let text = render(&[left("name").at_most(10)], vec![cells(&["four parallel streams"])], Style::Plain, true);
        assert!(text.lines().count() > 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 12), "{text}");
    }

    #[test]
    fn a_bar_in_a_name_does_not_break_markdown() {
        let text = render(&[left("name")], vec![cells(&["a|b"])], Style::Markdown, true);
        assert_eq!(text, "| name |\n|------|\n| a\\|b |\n");
        let text = render(&[left("name")], vec![cells(&["a\nb"])], Style::Markdown, true);
        assert_eq!(text, "| name |\n|------|\n| a, b |\n");
    }
}

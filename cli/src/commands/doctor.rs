//! `livemig doctor`: what this machine can do for real guests, what is missing, and what parts of a migration cost at least.

use crate::args::{DoctorArgs, Format};
use crate::csv_rows;
use crate::failure::Answer;
use crate::stdout::Output;
use crate::table::{self, Style, left, right};
use crate::value::{Value, json_object};
use anyhow::Result;
use livemig_exec::doctor::{Check, Floor, checks, floors};

const COLUMNS: [&str; 6] = ["kind", "name", "value", "unit", "missing", "mend"];

pub(super) fn run(args: &DoctorArgs) -> Result<Answer> {
    let checks = checks();
    let floors = floors();
    let text = match args.format {
        Format::Table => tables(&checks, &floors, Style::Plain),
        Format::Md => tables(&checks, &floors, Style::Markdown),
        Format::Csv => csv_rows::text(|out| {
            out.words(COLUMNS)?;
            rows(&checks, &floors).try_for_each(|row| out.row(row))
        }),
        Format::Json => rows(&checks, &floors).map(|row| json_object(COLUMNS.into_iter().zip(&row)) + "\n").collect(),
    };
    Output::new(false).write(&text)?;
    let unfit = checks.iter().any(|check| check.needed && check.missing.is_some());
    if unfit {
        eprintln!("this machine cannot run real guests; everything but `exec` works");
    }
    Ok(if unfit { Answer::Negative } else { Answer::Done })
}

fn rows<'a>(checks: &'a [Check], floors: &'a [Floor]) -> impl Iterator<Item = [Value; COLUMNS.len()]> + 'a {
    let words = |text: &Option<String>| text.as_deref().map_or(Value::Empty, Value::from);
    let checks = checks.iter().map(move |c| {
        let mend = if c.missing.is_some() { c.mend.into() } else { Value::Empty };
        ["check".into(), c.name.into(), Value::Flag(c.missing.is_none()), Value::Empty, words(&c.missing), mend]
    });
    let floors = floors.iter().map(|f| {
        let (value, missing) = match &f.value {
            Ok(value) => (Value::Number(*value), Value::Empty),
            Err(why) => (Value::Empty, Value::from(why.to_string().as_str())),
        };
        ["floor".into(), f.name.into(), value, f.unit.into(), missing, Value::Empty]
    });
    checks.chain(floors)
}

/// What is there, then what is missing and how to mend it, then the floors; 80 columns wide.
fn tables(checks: &[Check], floors: &[Floor], style: Style) -> String {
    let state = |c: &Check| match (&c.missing, c.needed) {
        (None, _) => "yes".to_owned(),
        (Some(_), true) => "MISSING".to_owned(),
        (Some(_), false) => "no".to_owned(),
    };
    let list = checks.iter().map(|c| vec![c.name.to_owned(), state(c), c.purpose.to_owned()]).collect();
    let mut text = table::render(&[left("this machine has"), left(""), left("for").at_most(42)], list, style, true);
    for check in checks {
        if let Some(missing) = &check.missing {
            text += &format!("\n{}: {missing}\n    {}\n", check.name, check.mend);
        }
    }
    let figure = |f: &Floor| match &f.value {
        Ok(value) => format!("{value:.2} {}", f.unit),
        Err(_) => "-".to_owned(),
    };
    let list = floors.iter().map(|f| vec![f.name.to_owned(), figure(f)]).collect();
    text + "\n" + &table::render(&[left("floor"), right("now")], list, style, true)
}

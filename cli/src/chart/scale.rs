//! Axes: from values to pixels, and where the ticks are.

use crate::human;

/// A tick: its value and its label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
}

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Linear,
    Log,
}

/// An axis from `low` at pixel `from` to `high` at pixel `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// An axis on which equal distances are equal differences.
    pub(super) fn linear((low, high): (f64, f64), (from, to): (f64, f64)) -> Scale {
        Scale { kind: Kind::Linear, low, high, from, to }
    }

    /// An axis on which equal distances are equal ratios; `low` must be above zero.
    pub(super) fn log((low, high): (f64, f64), (from, to): (f64, f64)) -> Scale {
        Scale { kind: Kind::Log, low, high, from, to }
    }

    /// Where a value is; values outside are at the nearer end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.max(self.low).min(self.high);
        let share = match self.kind {
            Kind::Linear => (value - self.low) / (self.high - self.low),
            Kind::Log => libm::log(value / self.low) / libm::log(self.high / self.low),
        };
        self.from + (self.to - self.from) * if share.is_finite() { share } else { 0.0 }
    }

    /// The ends of the axis in pixels.
    pub(super) fn pixels(&self) -> (f64, f64) {
        (self.from, self.to)
    }

    /// The ends of the axis.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Whether the axis is logarithmic.
    pub(super) fn is_log(&self) -> bool {
        self.kind == Kind::Log
    }
}

/// Round values from `low` to `high`, at most `most` of them: steps of 1, 2 or 5 times a power of ten.
pub(super) fn round_values(low: f64, high: f64, most: usize) -> Vec<f64> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) || most == 0 {
        return vec![low];
    }
    let rough = span / most as f64;
    let power = libm::exp10(libm::floor(libm::log10(rough)));
    let mut steps = [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().map(|step| step * power);
    let multiples = |step: f64| (libm::ceil(low / step - 1e-9), libm::floor(high / step + 1e-9));
    let step = steps
        .find(|step| {
            let (a, b) = multiples(*step);
            b - a + 1.0 <= most as f64
        })
        .unwrap_or(50.0 * power);
    let (first, last) = multiples(step);
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect()
}

/// Units of a linear time axis: name, length, and the longest axis that uses it.
const TIME_UNITS: [(&str, f64, f64); 6] = [
    ("µs", 1e-6, 1e-3),
    ("ms", 1e-3, 1.0),
    ("s", 1.0, 300.0),
    ("min", 60.0, 18_000.0),
    ("h", 3600.0, 864_000.0),
    ("d", 86400.0, f64::INFINITY),
];

/// The unit of a linear time axis that ends at `longest`, and how long it is.
pub(super) fn time_unit(longest: f64) -> (&'static str, f64) {
    let (unit, size, _) = TIME_UNITS.into_iter().find(|(.., limit)| longest <= *limit).unwrap_or(TIME_UNITS[5]);
    (unit, size)
}

/// Ticks of a linear time axis, with plain numbers, and the unit that they are in.
pub(super) fn time_ticks(low: f64, high: f64, most: usize) -> (Vec<Tick>, &'static str) {
    let (unit, size) = time_unit(high.abs().max(low.abs()));
    (numbered(low / size, high / size, most, size), unit)
}

/// Units of a rate axis: name and bytes per second.
const RATE_UNITS: [(&str, f64); 4] = [("bit/s", 0.125), ("kbit/s", 125.0), ("Mbit/s", 125e3), ("Gbit/s", 125e6)];

/// Ticks of a linear axis of bytes per second, in bits per second as links are rated, and their unit.
pub(super) fn rate_ticks(high: f64, most: usize) -> (Vec<Tick>, &'static str) {
    let (unit, size) = RATE_UNITS.into_iter().rev().find(|(_, size)| high >= 2.0 * size).unwrap_or(RATE_UNITS[0]);
    (numbered(0.0, high / size, most, size), unit)
}

/// Ticks of a linear axis of shares, in per cent.
pub(super) fn percent_ticks(high: f64, most: usize) -> Vec<Tick> {
    numbered(0.0, high * 100.0, most, 0.01)
}

/// Ticks of a linear axis of plain numbers.
pub(super) fn number_ticks(low: f64, high: f64, most: usize) -> Vec<Tick> {
    numbered(low, high, most, 1.0)
}

/// Range and ticks of a logarithmic axis of plain numbers that holds `low` to `high`, both above zero: powers of ten.
pub(super) fn decades(low: f64, high: f64) -> ((f64, f64), Vec<Tick>) {
    let (first, last) = (libm::floor(libm::log10(low)) as i32, libm::ceil(libm::log10(high)) as i32);
    let last = last.max(first + 1);
    let tick = |power: i32| {
        let decimals = usize::try_from(-power).unwrap_or(0);
        let value = libm::exp10(f64::from(power));
        Tick { value, label: format!("{value:.decimals$}") }
    };
    ((libm::exp10(f64::from(first)), libm::exp10(f64::from(last))), (first..=last).map(tick).collect())
}

fn numbered(low: f64, high: f64, most: usize, size: f64) -> Vec<Tick> {
    let values = round_values(low, high, most);
    // The distance of two ticks decides how many decimals tell them apart.
    let step = if let [a, b, ..] = values[..] { b - a } else { 1.0 };
    let decimals =
        (0..9).find(|d| (step * libm::exp10(f64::from(*d))).round() >= 0.999_999 && is_whole(step * libm::exp10(f64::from(*d))));
    let decimals = decimals.unwrap_or(9) as usize;
    // Adding zero turns -0 into 0.
    values.into_iter().map(|v| Tick { value: v * size, label: format!("{:.decimals$}", v + 0.0) }).collect()
}

fn is_whole(x: f64) -> bool {
    (x - x.round()).abs() < 1e-6
}

/// The values that people expect on a logarithmic time axis.
const TIME_STEPS: [f64; 18] = [
    1e-9,
    1e-8,
    1e-7,
    1e-6,
    1e-5,
    1e-4,
    1e-3,
    1e-2,
    0.1,
    1.0,
    10.0,
    60.0,
    600.0,
    3600.0,
    36_000.0,
    86_400.0,
    864_000.0,
    8_640_000.0,
];

/// Range and ticks of a logarithmic time axis that holds `low` to `high`, both above zero.
pub(super) fn log_time(low: f64, high: f64) -> ((f64, f64), Vec<Tick>) {
    log_ticks(&TIME_STEPS, low, high, human::short_seconds)
}

/// Range and ticks of a logarithmic axis of bytes that holds `low` to `high`, both above zero, with at most `most` ticks.
pub(super) fn log_bytes(low: f64, high: f64, most: usize) -> ((f64, f64), Vec<Tick>) {
    let all: Vec<f64> = (0..=63).map(|power| (1_u64 << power) as f64).collect();
    for every in 1..all.len() {
        let steps: Vec<f64> = all.iter().copied().step_by(every).collect();
        // A lowest value on the axis itself would not be seen.
        let ((low, _), mut ticks) = log_ticks(&steps, low * 0.75, high, |b| human::memory(b as u64));
        // A little room above the highest value, not a whole step.
        let top = (high * 1.5).max(low * 2.0);
        ticks.retain(|tick| tick.value <= top);
        if ticks.len() <= most {
            return ((low, top), ticks);
        }
    }
    ((low, high), Vec::new())
}

fn log_ticks(steps: &[f64], low: f64, high: f64, label: impl Fn(f64) -> String) -> ((f64, f64), Vec<Tick>) {
    let first = steps.iter().rposition(|s| *s <= low).unwrap_or(0);
    let last = steps.iter().position(|s| *s >= high).unwrap_or(steps.len() - 1).max(first + 1).min(steps.len() - 1);
    let ticks: Vec<Tick> = steps[first..=last].iter().map(|s| Tick { value: *s, label: label(*s) }).collect();
    ((steps[first].min(low), steps[last].max(high)), ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<&str> {
        ticks.iter().map(|t| t.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(round_values(0.0, 104.0, 6), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(round_values(0.0, 1.0, 3), [0.0, 0.5, 1.0]);
        assert_eq!(round_values(-0.5, 1.0, 4), [-0.5, 0.0, 0.5, 1.0]);
        assert_eq!(round_values(3.0, 3.0, 5), [3.0]);
        for high in [0.001, 0.7, 1.0, 9.9, 10.1, 314.0, 1e9] {
            for most in 2..9 {
                let n = round_values(0.0, high, most).len();
                assert!((2..=most).contains(&n), "{n} ticks up to {high}, at most {most}");
            }
        }
    }

    #[test]
    fn time_axes_have_the_unit_of_their_length() {
        let (ticks, unit) = time_ticks(0.0, 104.0, 6);
        assert_eq!((labels(&ticks), unit), (vec!["0", "20", "40", "60", "80", "100"], "s"));
        let (ticks, unit) = time_ticks(-0.2, 0.6, 5);
        assert_eq!((labels(&ticks), unit), (vec!["-200", "0", "200", "400", "600"], "ms"));
        let (ticks, unit) = time_ticks(0.0, 900.0, 4);
        assert_eq!((labels(&ticks), unit), (vec!["0", "5", "10", "15"], "min"));
        assert!((ticks[1].value - 300.0).abs() < 1e-9);
        let (ticks, _) = time_ticks(0.0, 1.2, 4);
        assert_eq!(labels(&ticks), ["0.0", "0.5", "1.0"]);
    }

    #[test]
    fn rates_are_in_bits() {
        let (ticks, unit) = rate_ticks(117.5e6, 6);
        assert_eq!((labels(&ticks), unit), (vec!["0", "200", "400", "600", "800"], "Mbit/s"));
        assert_eq!(rate_ticks(1.25e9, 3).1, "Gbit/s");
        assert_eq!(rate_ticks(0.0, 3).0.len(), 1);
    }

    #[test]
    fn log_axes_hold_their_values() {
        let ((low, high), ticks) = log_time(0.31, 104.0);
        assert_eq!((low, high), (0.1, 600.0));
        assert_eq!(labels(&ticks), ["100 ms", "1 s", "10 s", "1 min", "10 min"]);
        let ((low, high), ticks) = log_bytes(3e6, 12.0 * 1024.0 * 1024.0 * 1024.0, 5);
        assert!(low <= 3e6 && (12.0..=24.0).contains(&(high / 1073741824.0)) && (2..=5).contains(&ticks.len()), "{ticks:?}");
        let ((low, high), ticks) = log_time(1.0, 1.0);
        assert_eq!((low, high, ticks.len()), (1.0, 10.0, 2));
    }

    #[test]
    fn plain_axes_have_plain_numbers() {
        assert_eq!(labels(&number_ticks(0.0, 345.0, 5)), ["0", "100", "200", "300"]);
        let (range, ticks) = decades(0.03, 76.0);
        assert_eq!((range, labels(&ticks)), ((0.01, 100.0), vec!["0.01", "0.1", "1", "10", "100"]));
        assert_eq!(decades(1.0, 1.0).0, (1.0, 10.0));
    }

    #[test]
    fn values_become_pixels() {
        let linear = Scale::linear((0.0, 10.0), (100.0, 200.0));
        assert_eq!((linear.at(5.0), linear.at(-1.0), linear.at(99.0)), (150.0, 100.0, 200.0));
        let log = Scale::log((1.0, 100.0), (0.0, 10.0));
        assert!((log.at(10.0) - 5.0).abs() < 1e-12);
        let nothing = Scale::linear((0.0, 0.0), (3.0, 9.0));
        assert_eq!(nothing.at(0.0), 3.0);
    }
}

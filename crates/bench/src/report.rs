//! The document of a benchmark: `schema/bench.json` describes it.

use std::fmt;

use comfy_table::{Table, presets};
use serde::Serialize;

/// The JSON Schema of [`Report`].
pub const SCHEMA: &str = include_str!("../schema/bench.json");
/// Version of the document; it grows with every change that a reader of an older one could stumble over.
pub const SCHEMA_VERSION: u32 = 1;

/// What a row's values are measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Mebibytes.
    MiB,
    /// How many.
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::MiB => "MiB",
            Self::Count => "",
        }
    }
}

/// Which side of the budget is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The ratio may be at most the budget.
    AtMost,
    /// The ratio must be at least the budget.
    AtLeast,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Stable, in kebab-case.
    pub name: String,
    /// Of `ours`, `reference` and `floor`.
    pub unit: Unit,
    /// Ours; the median where nothing else is said in `note`.
    pub ours: Option<f64>,
    /// The program that users have today.
    pub reference: Option<f64>,
    /// The least that the kernel allows.
    pub floor: Option<f64>,
    /// What the budget is about: ours to the floor, ours to the reference, or the reference to ours where `bound` is
    /// `at-least`; where there is neither, ours itself.
    pub ratio: Option<f64>,
    /// What `ratio` is held against.
    pub budget: f64,
    /// From which side.
    pub bound: Bound,
    /// Whether the budget is kept; missing where something was not measured.
    pub ok: Option<bool>,
    /// How it was measured, or why it was not.
    pub note: String,
}

impl Row {
    /// Ours may be at most `budget` times the floor.
    #[must_use]
    pub fn against_floor(name: &str, unit: Unit, ours: Option<f64>, floor: Option<f64>, budget: f64) -> Self {
        let row = Self::empty(name, unit, ours, budget, Bound::AtMost);
        Self { floor, ..row }.judged(quotient(ours, floor))
    }

    /// Ours must be at least `budget` times faster than the reference.
    #[must_use]
    pub fn faster(name: &str, unit: Unit, ours: Option<f64>, reference: Option<f64>, budget: f64) -> Self {
        let row = Self::empty(name, unit, ours, budget, Bound::AtLeast);
        Self { reference, ..row }.judged(quotient(reference, ours))
    }

    /// Ours may be at most `budget` times the reference.
    #[must_use]
    pub fn against_reference(
        name: &str,
        unit: Unit,
        ours: Option<f64>,
        reference: Option<f64>,
        budget: f64,
    ) -> Self {
        let row = Self::empty(name, unit, ours, budget, Bound::AtMost);
        Self { reference, ..row }.judged(quotient(ours, reference))
    }

    /// Ours itself may be at most `budget`.
    #[must_use]
    pub fn limit(name: &str, unit: Unit, ours: Option<f64>, budget: f64) -> Self {
        Self::empty(name, unit, ours, budget, Bound::AtMost).judged(ours)
    }

    /// Says how it was measured, or why it was not.
    #[must_use]
    pub fn noting(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Puts the floor beside the reference, and what the floor's own ratio is behind the note: ours cannot do better.
    #[must_use]
    pub fn with_floor(self, floor: Option<f64>) -> Self {
        let ratio = match self.bound {
            Bound::AtMost => quotient(floor, self.reference),
            Bound::AtLeast => quotient(self.reference, floor),
        };
        let behind = ratio.map_or_else(String::new, |ratio| format!("; the floor itself is {ratio:.2}"));
        Self { floor, note: self.note + &behind, ..self }
    }

    fn empty(name: &str, unit: Unit, ours: Option<f64>, budget: f64, bound: Bound) -> Self {
        let (name, note) = (name.to_owned(), String::new());
        let (reference, floor, ratio, ok) = (None, None, None, None);
        Self { name, unit, ours, reference, floor, ratio, budget, bound, ok, note }
    }

    fn judged(self, ratio: Option<f64>) -> Self {
        let ok = ratio.map(|ratio| match self.bound {
            Bound::AtMost => ratio <= self.budget,
            Bound::AtLeast => ratio >= self.budget,
        });
        Self { ratio, ok, ..self }
    }
}

fn quotient(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    dividend.zip(divisor).filter(|(_, divisor)| *divisor > 0.0).map(|(dividend, divisor)| dividend / divisor)
}

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The kernel that was measured on (`uname -r`).
    pub kernel: String,
    /// Processors of this machine.
    pub cpus: usize,
    /// The comparisons.
    pub rows: Vec<Row>,
}

impl Report {
    /// Of these rows.
    #[must_use]
    pub fn new(kernel: String, cpus: usize, rows: Vec<Row>) -> Self {
        Self { schema_version: SCHEMA_VERSION, kernel, cpus, rows }
    }

    /// The rows that are over their budget, or could not be measured.
    pub fn missed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.ok != Some(true))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["name", "ours", "reference", "floor", "ratio", "budget", "ok", "note"]);
        for row in &self.rows {
            let value = |value: Option<f64>| match value {
                Some(value) => format!("{} {}", shown(value), row.unit.name()).trim_end().to_owned(),
                None => "–".to_owned(),
            };
            let sign = match row.bound {
                Bound::AtMost => "≤",
                Bound::AtLeast => "≥",
            };
            table.add_row([
                row.name.clone(),
                value(row.ours),
                value(row.reference),
                value(row.floor),
                row.ratio.map_or_else(|| "–".to_owned(), shown),
                format!("{sign} {}", shown(row.budget)),
                row.ok.map_or("not measured", |ok| if ok { "yes" } else { "NO" }).to_owned(),
                row.note.clone(),
            ]);
        }
        writeln!(f, "{table}")
    }
}

/// Three digits are what noise leaves.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        ..0.0005 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_to_the_floor_is_kept_up_to_the_budget() {
        let row = |ours| Row::against_floor("add", Unit::Ms, Some(ours), Some(2.0), 1.5);
        assert_eq!((row(3.0).ratio, row(3.0).ok), (Some(1.5), Some(true)));
        assert_eq!(row(3.1).ok, Some(false));
    }

    #[test]
    fn faster_counts_the_other_way() {
        let row = |ours| Row::faster("add", Unit::Ms, Some(ours), Some(100.0), 50.0);
        assert_eq!((row(2.0).ratio, row(2.0).ok), (Some(50.0), Some(true)));
        assert_eq!(row(2.1).ok, Some(false));
    }

    #[test]
    fn the_floors_own_ratio_counts_the_way_ours_does_and_is_not_told_without_a_floor() {
        let note = |row: Row, floor| row.noting("said").with_floor(floor).note;
        let faster = || Row::faster("add", Unit::Ms, Some(2.0), Some(100.0), 50.0);
        assert_eq!(note(faster(), Some(1.0)), "said; the floor itself is 100.00");
        assert_eq!(note(faster(), None), "said");
        let at_most = Row::against_reference("add", Unit::Ms, Some(2.0), Some(10.0), 0.2);
        assert_eq!(note(at_most, Some(1.0)), "said; the floor itself is 0.10");
    }

    #[test]
    fn what_was_not_measured_is_neither_kept_nor_hidden() {
        let row = Row::against_floor("add", Unit::Ms, Some(1.0), None, 1.5);
        assert_eq!((row.ratio, row.ok), (None, None));
        let report = Report::new("6.1".to_owned(), 2, vec![row]);
        assert_eq!(report.missed().count(), 1);
        assert!(report.to_string().contains("not measured"));
    }

    #[test]
    fn a_floor_of_nothing_gives_no_ratio() {
        assert_eq!(Row::against_floor("add", Unit::Ms, Some(1.0), Some(0.0), 1.5).ratio, None);
    }

    #[test]
    fn every_field_of_a_row_is_in_the_schema_and_none_else() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let row = serde_json::to_value(Row::limit("a", Unit::Count, Some(0.0), 0.0)).unwrap();
        let described = schema["$defs"]["row"]["properties"].as_object().unwrap();
        let mut fields: Vec<_> = row.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = described.keys().collect();
        fields.sort();
        known.sort();
        assert_eq!(fields, known);
    }
}

//! Attaching and detaching one pod: dual-stack, one host port, masquerade and forwarding in force.

use bench::{Row, Unit};

use super::runner::{Of, Runner, WARM_UP, is_for_reference};
use crate::chains;
use crate::error::BenchError;
use crate::node::Home;
use crate::programs::Programs;
use crate::side::{Mode, Side};

/// Measures, and compares with floors and reference.
pub(crate) fn rows(home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
    let pods = 20.min(rounds);
    let mut ours = Runner::new(Side::ours(home, programs, Mode::Ptp)?, pods)?;
    let mut floor = Runner::new(Side::floor(home, programs, Mode::Ptp)?, pods)?;
    let given = Side::given_floor(home, programs)?;
    let mut given = given.map(|side| Runner::of_others(side, pods)).transpose()?;
    let reference = programs.reference.as_deref();
    let reference = reference.map(|folder| Side::chain(home, chains::REFERENCE, folder)).transpose()?;
    let mut reference = reference.map(|side| Runner::of_others(side, pods)).transpose()?;
    for round in 0..rounds + WARM_UP {
        ours.round(round)?;
        floor.round(round)?;
        if let Some(given) = &mut given {
            given.round(round)?;
        }
        if let Some(reference) = reference.as_mut().filter(|_| is_for_reference(round)) {
            reference.round(round)?;
        }
    }
    let of =
        |runner: &Option<Runner>, verb: Of| runner.as_ref().and_then(|runner| verb(&runner.times).median());
    let said = |runner: &Option<Runner>, whose: &str, remedy: &str| {
        runner.as_ref().map_or_else(|| remedy.to_owned(), |runner| runner.losses(whose))
    };
    let given_said = said(&given, "it", "no ../shared/bench/floor.c: give --given-floor");
    let reference_said = said(&reference, "the reference", "build the plugins: tests/reference/build");
    let mut rows = Vec::new();
    let verbs: [(&str, Of, f64); 2] = [("add", |times| &times.add, 45.0), ("del", |times| &times.del, 150.0)];
    for (name, verb, faster) in verbs {
        let samples = verb(&ours.times);
        let median = samples.median();
        let p99 = samples.percentile(99).unwrap_or_default();
        let note = format!("{} rounds, p99 {p99:.1} ms", samples.count());
        rows.push(Row::against_floor(name, Unit::Ms, median, verb(&floor.times).median(), 1.3).noting(note));
        let given_floor = of(&given, verb);
        rows.push(
            Row::against_floor(&format!("{name}-given-floor"), Unit::Ms, median, given_floor, 1.6)
                .noting(given_said.clone()),
        );
        rows.push(
            Row::faster(&format!("{name}-reference"), Unit::Ms, median, of(&reference, verb), faster)
                .noting(reference_said.clone()),
        );
    }
    Ok(rows)
}

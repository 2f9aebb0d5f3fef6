//! The plugins that stand in for the reference's, in chains that configurations name today: the same configuration on
//! both sides, one exec a plugin.

use std::path::Path;

use bench::{Row, Unit};

use super::runner::{Of, Runner, WARM_UP, is_for_reference};
use crate::chains::{BRIDGE_V4, Chain, FULL, FULL_IPTABLES, PTP};
use crate::error::BenchError;
use crate::node::Home;
use crate::programs::Programs;
use crate::side::Side;

/// A chain, and how many times faster than the reference its ADD and its DEL must be.
struct Comparison {
    name: &'static str,
    chain: Chain,
    add: f64,
    del: Option<f64>,
    /// The least that the kernel allows for the same, where the floor can do it.
    floor: Option<MakeSide>,
}

type MakeSide = fn(&Home, &Programs) -> Result<Side, BenchError>;

const COMPARISONS: [Comparison; 4] = [
    Comparison { name: "full", chain: FULL, add: 25.0, del: Some(50.0), floor: None },
    Comparison { name: "iptables", chain: FULL_IPTABLES, add: 8.0, del: Some(15.0), floor: None },
    Comparison {
        name: "bridge",
        chain: BRIDGE_V4,
        add: 5.0,
        del: Some(10.0),
        floor: Some(Side::plain_floor),
    },
    // The reference waits for duplicate detection; its DEL is measured with the others.
    Comparison { name: "ptp", chain: PTP, add: 300.0, del: None, floor: None },
];

/// ADD and DEL of each chain.
pub(crate) fn rows(home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for comparison in &COMPARISONS {
        rows.extend(compare(home, programs, comparison, rounds)?);
    }
    Ok(rows)
}

fn compare(
    home: &Home,
    programs: &Programs,
    comparison: &Comparison,
    rounds: usize,
) -> Result<Vec<Row>, BenchError> {
    let pods = 20.min(rounds);
    let side = |folder: &Path| Side::chain(home, comparison.chain, folder);
    let mut ours = Runner::new(side(&programs.plugins)?, pods)?;
    let reference = programs.reference.as_deref().map(side).transpose()?;
    let mut reference = reference.map(|side| Runner::of_others(side, pods)).transpose()?;
    let floor = comparison.floor.map(|side| side(home, programs)).transpose()?;
    let mut floor = floor.map(|side| Runner::new(side, pods)).transpose()?;
    for round in 0..rounds + WARM_UP {
        ours.round(round)?;
        if let Some(floor) = &mut floor {
            floor.round(round)?;
        }
        if let Some(reference) = reference.as_mut().filter(|_| is_for_reference(round)) {
            reference.round(round)?;
        }
    }
    let said = match &reference {
        Some(reference) => reference.losses("the reference"),
        None => "build the plugins: tests/reference/build".to_owned(),
    };
    let verbs: [(&str, Of, Option<f64>); 2] =
        [("add", |times| &times.add, Some(comparison.add)), ("del", |times| &times.del, comparison.del)];
    let rows = verbs.into_iter().filter_map(|(verb, of, budget)| {
        let name = format!("drop-in-{}-{verb}", comparison.name);
        let median = |runner: &Option<Runner>| runner.as_ref().and_then(|runner| of(&runner.times).median());
        let (reference, floor) = (median(&reference), median(&floor));
        let row = Row::faster(&name, Unit::Ms, of(&ours.times).median(), reference, budget?);
        Some(row.noting(said.as_str()).with_floor(floor))
    });
    Ok(rows.collect())
}

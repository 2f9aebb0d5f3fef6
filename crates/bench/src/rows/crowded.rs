//! Attaching a pod to a node that has a thousand already.

use bench::{Row, Samples, Unit};

use crate::clock::{let_it_settle, timed};
use crate::error::BenchError;
use crate::node::{Home, Pod};
use crate::programs::Programs;
use crate::side::{Mode, Side};

const FEW: usize = 10;

/// Routed pods against themselves; bridged ones against the floor's growth, which is the bridge's own: it tells every
/// port of each change.
pub(crate) fn rows(
    home: &Home,
    programs: &Programs,
    many: usize,
    rounds: usize,
) -> Result<Vec<Row>, BenchError> {
    let mut ours = Crowd::new(Side::ours(home, programs, Mode::Ptp)?)?;
    let (few, full) = ours.growth(many, rounds)?;
    let mut row = Row::limit("add-crowded", Unit::Ms, full, 1.2);
    row.ratio = full.zip(few).map(|(full, few)| full / few);
    row.ok = row.ratio.map(|ratio| ratio <= row.budget);
    row.floor = few;
    let ptp = row.noting(format!("{many} pods on the node; floor: the same with {FEW}"));

    let mut ours = Crowd::new(Side::ours(home, programs, Mode::Bridge)?)?;
    let mut floor = Crowd::new(Side::floor(home, programs, Mode::Bridge)?)?;
    let (few, full) = ours.growth(many, rounds)?;
    let (floor_few, floor_full) = floor.growth(many, rounds)?;
    let grown = |few: Option<f64>, full: Option<f64>| full.zip(few).map(|(full, few)| full / few);
    let mut row = Row::against_floor("add-crowded-bridge", Unit::Ms, full, floor_full, 1.2);
    row.ratio = grown(few, full).zip(grown(floor_few, floor_full)).map(|(ours, floor)| ours / floor);
    row.ok = row.ratio.map(|ratio| ratio <= row.budget);
    let shown = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    let bridge = row.noting(format!(
        "ratio: ours grows by {}, the floor by {}, from {FEW} to {many} pods",
        shown(grown(few, full)),
        shown(grown(floor_few, floor_full))
    ));
    Ok(vec![ptp, bridge])
}

/// A side that fills up.
struct Crowd {
    side: Side,
    next: usize,
    /// Their namespaces must live.
    attached: Vec<Pod>,
}

impl Crowd {
    fn new(side: Side) -> Result<Self, BenchError> {
        Ok(Self { side, next: 0, attached: Vec::new() })
    }

    /// The median of ADD with a few pods, and with `many`.
    fn growth(&mut self, many: usize, rounds: usize) -> Result<(Option<f64>, Option<f64>), BenchError> {
        self.side.node.enter()?;
        self.fill(FEW)?;
        let few = self.measure(rounds)?;
        self.fill(many)?;
        let full = self.measure(rounds)?;
        Ok((few.median(), full.median()))
    }

    fn fill(&mut self, count: usize) -> Result<(), BenchError> {
        while self.attached.len() < count {
            let mut pod = self.fresh_pod()?;
            self.side.add(&mut pod)?;
            self.attached.push(pod);
        }
        Ok(())
    }

    fn measure(&mut self, rounds: usize) -> Result<Samples, BenchError> {
        let mut samples = Samples::default();
        let mut pod = self.fresh_pod()?;
        for _ in 0..rounds {
            let_it_settle();
            samples.push(timed(|| self.side.add(&mut pod))?);
            let_it_settle();
            self.side.del(&pod)?;
        }
        pod.remove()?;
        Ok(samples)
    }

    fn fresh_pod(&mut self) -> Result<Pod, BenchError> {
        self.next += 1;
        self.side.node.pod(self.next)
    }
}

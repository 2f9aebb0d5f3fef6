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
    let mut routed = [Crowd::new(Side::ours(home, programs, Mode::Ptp)?)];
    let [(few, full)] = growth(&mut routed, many, rounds)?;
    let mut row = Row::limit("add-crowded", Unit::Ms, full, 1.2);
    row.ratio = full.zip(few).map(|(full, few)| full / few);
    row.ok = row.ratio.map(|ratio| ratio <= row.budget);
    row.floor = few;
    let ptp = row.noting(format!("{many} pods on the node; floor: the same with {FEW}"));

    let ours = Crowd::new(Side::ours(home, programs, Mode::Bridge)?);
    let mut bridged = [ours, Crowd::new(Side::floor(home, programs, Mode::Bridge)?)];
    let [(few, full), (floor_few, floor_full)] = growth(&mut bridged, many, rounds)?;
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

/// The median of ADD with a few pods, and with many.
type Growth = (Option<f64>, Option<f64>);

/// How ADD grows on each side. The sides take turns, so that noise hits all alike.
fn growth<const SIDES: usize>(
    crowds: &mut [Crowd; SIDES],
    many: usize,
    rounds: usize,
) -> Result<[Growth; SIDES], BenchError> {
    let mut grown = [(None, None); SIDES];
    for (median, few) in grown.iter_mut().zip(measure(crowds, FEW, rounds)?) {
        median.0 = few.median();
    }
    for (median, full) in grown.iter_mut().zip(measure(crowds, many, rounds)?) {
        median.1 = full.median();
    }
    Ok(grown)
}

/// ADDs on each side, which has `pods` already.
fn measure(crowds: &mut [Crowd], pods: usize, rounds: usize) -> Result<Vec<Samples>, BenchError> {
    let mut guests = Vec::new();
    for crowd in &mut *crowds {
        crowd.side.node.enter()?;
        crowd.fill(pods)?;
        guests.push((crowd.fresh_pod()?, Samples::default()));
    }
    for _ in 0..rounds {
        for (crowd, (guest, samples)) in crowds.iter().zip(&mut guests) {
            crowd.side.node.enter()?;
            let_it_settle();
            samples.push(timed(|| crowd.side.add(guest))?);
            let_it_settle();
            crowd.side.del(guest)?;
        }
    }
    let mut all = Vec::new();
    for (crowd, (guest, samples)) in crowds.iter().zip(guests) {
        crowd.side.node.enter()?;
        guest.remove()?;
        all.push(samples);
    }
    Ok(all)
}

impl Crowd {
    const fn new(side: Side) -> Self {
        Self { side, next: 0, attached: Vec::new() }
    }

    fn fill(&mut self, count: usize) -> Result<(), BenchError> {
        while self.attached.len() < count {
            let mut pod = self.fresh_pod()?;
            self.side.add(&mut pod)?;
            self.attached.push(pod);
        }
        Ok(())
    }

    fn fresh_pod(&mut self) -> Result<Pod, BenchError> {
        self.next += 1;
        self.side.node.pod(self.next)
    }
}

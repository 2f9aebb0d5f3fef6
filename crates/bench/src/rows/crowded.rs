//! Attaching a pod to a node that has a thousand already.

use std::path::Path;

use bench::{Row, Samples, Unit};

use crate::chains;
use crate::clock::{let_it_settle, timed};
use crate::error::BenchError;
use crate::node::{Home, Pod};
use crate::programs::Programs;
use crate::side::{Mode, Side};

const FEW: usize = 10;

/// Each mode against the floor's growth in it, which is the kernel's own: a bridge tells every port of each change, and
/// every link costs look-ups by name and the lists that the kernel walks.
pub(crate) fn rows(
    home: &Home,
    programs: &Programs,
    many: usize,
    rounds: usize,
) -> Result<Vec<Row>, BenchError> {
    let modes = [("add-crowded", Mode::Ptp), ("add-crowded-bridge", Mode::Bridge)];
    modes.into_iter().map(|(name, mode)| row(home, programs, (name, mode), many, rounds)).collect()
}

fn row(
    home: &Home,
    programs: &Programs,
    (name, mode): (&str, Mode),
    many: usize,
    rounds: usize,
) -> Result<Row, BenchError> {
    let ours = Crowd::new(Side::ours(home, programs, mode)?);
    let mut crowds = [ours, Crowd::new(Side::floor(home, programs, mode)?)];
    let [(few, full), (floor_few, floor_full)] = growth(&mut crowds, many, rounds)?;
    let grown = |few: Option<f64>, full: Option<f64>| full.zip(few).map(|(full, few)| full / few);
    let mut row = Row::against_floor(name, Unit::Ms, full, floor_full, 1.2);
    row.ratio = grown(few, full).zip(grown(floor_few, floor_full)).map(|(ours, floor)| ours / floor);
    row.ok = row.ratio.map(|ratio| ratio <= row.budget);
    let shown = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
    Ok(row.noting(format!(
        "ratio: ours grows by {}, the floor by {}, from {FEW} to {many} pods",
        shown(grown(few, full)),
        shown(grown(floor_few, floor_full))
    )))
}

/// The drop-in plugins, whose state is in the reference's format, against the reference: milliseconds that ADD takes longer
/// with many pods. The floor, which does the same, tells how much of that is the kernel's own.
pub(crate) fn drop_in(
    home: &Home,
    programs: &Programs,
    many: usize,
    rounds: usize,
) -> Result<Vec<Row>, BenchError> {
    let side = |folder: &Path| Side::chain(home, chains::BRIDGE_V4, folder);
    let ours = Crowd::new(side(&programs.plugins)?);
    let Some(folder) = programs.reference.as_deref() else {
        let row = Row::against_reference("drop-in-crowded", Unit::Ms, None, None, 0.2);
        return Ok(vec![row.noting("build the plugins: tests/reference/build")]);
    };
    let mut crowds = [ours, Crowd::new(Side::plain_floor(home, programs)?), Crowd::new(side(folder)?)];
    let [ours, floor, reference] = growth(&mut crowds, many, rounds)?;
    Ok(vec![drop_in_row(many, ours, floor, reference)])
}

fn drop_in_row(many: usize, ours: Growth, floor: Growth, reference: Growth) -> Row {
    let longer = |(few, full): Growth| full.zip(few).map(|(full, few)| (full - few).max(0.0));
    let row = Row::against_reference("drop-in-crowded", Unit::Ms, longer(ours), longer(reference), 0.2);
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
    let grown = |(few, full): Growth| format!("{} to {}", shown(few), shown(full));
    let note = format!(
        "growth of ADD from {FEW} to {many} pods: ours {}, the floor {}, the reference {}",
        grown(ours),
        grown(floor),
        grown(reference)
    );
    row.noting(note).with_floor(longer(floor))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_grows_by_its_own_part_and_the_floor_tells_the_kernels() {
        let row =
            drop_in_row(1_000, (Some(3.0), Some(8.0)), (Some(3.0), Some(7.0)), (Some(15.0), Some(40.0)));
        assert_eq!((row.ours, row.floor, row.reference), (Some(5.0), Some(4.0), Some(25.0)));
        assert_eq!((row.ratio, row.ok), (Some(0.2), Some(true)));
        assert!(row.note.ends_with("the floor itself is 0.16"), "{}", row.note);
    }
}

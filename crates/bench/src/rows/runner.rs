//! One side on which pods are attached and detached in turns with others, and what was measured on it.

use bench::Samples;

use crate::clock::{let_it_settle, timed};
use crate::error::BenchError;
use crate::first_packet;
use crate::node::Pod;
use crate::side::Side;

/// Rounds that are not counted: caches fill, tables are made.
pub(super) const WARM_UP: usize = 5;
/// The reference takes so much longer that it gets one of so many rounds.
const REFERENCE_EVERY: usize = 10;

/// Whether the reference takes part in this round: once while caches fill, and from the first round that counts.
pub(super) const fn is_for_reference(round: usize) -> bool {
    match round.checked_sub(WARM_UP) {
        Some(counted) => counted.is_multiple_of(REFERENCE_EVERY),
        None => round == 0,
    }
}

/// Which of a side's times.
pub(super) type Of = fn(&Times) -> &Samples;

/// Milliseconds of each verb.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) add: Samples,
    pub(super) del: Samples,
}

/// One side, its pods, and what was measured on it.
pub(super) struct Runner {
    side: Side,
    pods: Vec<Pod>,
    pub(super) times: Times,
    /// First packets that did not arrive, where that is only told.
    lost: Option<usize>,
    rounds: usize,
}

impl Runner {
    /// For a side that returns only once its pod can speak: one first packet that is lost ends the measurement.
    pub(super) fn new(side: Side, pods: usize) -> Result<Self, BenchError> {
        side.node.enter()?;
        let pods = (0..pods).map(|index| side.node.pod(index)).collect::<Result<_, _>>()?;
        Ok(Self { side, pods, times: Times::default(), lost: None, rounds: 0 })
    }

    /// For a side that is not ours to mend: it may return before its pod can speak, and is measured all the same.
    pub(super) fn of_others(side: Side, pods: usize) -> Result<Self, BenchError> {
        Ok(Self { lost: Some(0), ..Self::new(side, pods)? })
    }

    /// ADD, one datagram in each family, DEL.
    pub(super) fn round(&mut self, round: usize) -> Result<(), BenchError> {
        self.side.node.enter()?;
        self.rounds += 1;
        let count = self.pods.len();
        let Some(pod) = self.pods.get_mut(round % count) else { return Ok(()) };
        let add = timed(|| self.side.add(pod))?;
        match (first_packet::prove(&self.side, pod), &mut self.lost) {
            (Err(_), Some(lost)) => *lost += 1,
            (proven, _) => proven?,
        }
        let_it_settle();
        let del = timed(|| self.side.del(pod))?;
        let_it_settle();
        if round >= WARM_UP {
            self.times.add.push(add);
            self.times.del.push(del);
        }
        Ok(())
    }

    /// How many first packets were lost, in words.
    pub(super) fn losses(&self, whose: &str) -> String {
        match self.lost {
            Some(lost) => format!("first packets that {whose} lost: in {lost} of {} ADDs", self.rounds),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_measured_in_the_first_round_that_counts_and_every_tenth_from_there() {
        let rounds: Vec<usize> = (0..WARM_UP + 21).filter(|round| is_for_reference(*round)).collect();
        assert_eq!(rounds, [0, WARM_UP, WARM_UP + 10, WARM_UP + 20]);
    }
}

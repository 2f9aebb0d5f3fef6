//! Attaching and detaching one pod: dual-stack, one host port, masquerade and forwarding in force.

use bench::{Row, Samples, Unit};

use crate::clock::{let_it_settle, timed};
use crate::error::BenchError;
use crate::first_packet;
use crate::node::{Home, Pod};
use crate::programs::Programs;
use crate::side::{Mode, Side};

/// Rounds that are not counted: caches fill, tables are made.
const WARM_UP: usize = 5;
/// The reference takes so much longer that it gets one of so many rounds.
const REFERENCE_EVERY: usize = 10;

/// Which of a side's times.
type Of = fn(&Times) -> &Samples;

#[derive(Debug, Default)]
struct Times {
    add: Samples,
    del: Samples,
}

/// One side, its pods, and what was measured on it.
struct Runner {
    side: Side,
    pods: Vec<Pod>,
    times: Times,
    /// First packets that did not arrive, where that is only told.
    lost: Option<usize>,
    rounds: usize,
}

impl Runner {
    fn new(side: Side, pods: usize) -> Result<Self, BenchError> {
        side.node.enter()?;
        let pods = (0..pods).map(|index| side.node.pod(index)).collect::<Result<_, _>>()?;
        Ok(Self { side, pods, times: Times::default(), lost: None, rounds: 0 })
    }

    fn round(&mut self, round: usize) -> Result<(), BenchError> {
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
}

/// Measures, and compares with floors and reference.
pub(crate) fn rows(home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
    let pods = 20.min(rounds);
    let mut ours = Runner::new(Side::ours(home, programs, Mode::Ptp)?, pods)?;
    let mut floor = Runner::new(Side::floor(home, programs, Mode::Ptp)?, pods)?;
    let given = Side::given_floor(home, programs)?;
    let mut given = given.map(|side| Runner::new(side, pods)).transpose()?;
    let reference = programs.reference.as_deref().map(|folder| Side::reference(home, folder)).transpose()?;
    let mut reference = reference.map(|side| Runner::new(side, pods)).transpose()?;
    if let Some(reference) = &mut reference {
        // It returns before the pod can speak; so it is measured all the same.
        reference.lost = Some(0);
    }
    for round in 0..rounds + WARM_UP {
        ours.round(round)?;
        floor.round(round)?;
        if let Some(given) = &mut given {
            given.round(round)?;
        }
        if let Some(reference) = reference.as_mut().filter(|_| round % REFERENCE_EVERY == 0) {
            reference.round(round)?;
        }
    }
    let of =
        |runner: &Option<Runner>, verb: Of| runner.as_ref().and_then(|runner| verb(&runner.times).median());
    let mut rows = Vec::new();
    let lost = match reference.as_ref().and_then(|reference| Some((reference.lost?, reference.rounds))) {
        Some((lost, rounds)) => format!("first packets that the reference lost: in {lost} of {rounds} ADDs"),
        None => "build the plugins: tests/reference/build".to_owned(),
    };
    let verbs: [(&str, Of, f64); 2] = [("add", |times| &times.add, 45.0), ("del", |times| &times.del, 150.0)];
    for (name, verb, faster) in verbs {
        let samples = verb(&ours.times);
        let median = samples.median();
        let p99 = samples.percentile(99).unwrap_or_default();
        let note = format!("{} rounds, p99 {p99:.1} ms", samples.count());
        rows.push(Row::against_floor(name, Unit::Ms, median, verb(&floor.times).median(), 1.3).noting(note));
        let missing = |there: bool, what: &str| if there { String::new() } else { what.to_owned() };
        rows.push(
            Row::against_floor(&format!("{name}-given-floor"), Unit::Ms, median, of(&given, verb), 1.6)
                .noting(missing(given.is_some(), "no ../shared/bench/floor.c: give --given-floor")),
        );
        rows.push(
            Row::faster(&format!("{name}-reference"), Unit::Ms, median, of(&reference, verb), faster)
                .noting(lost.clone()),
        );
    }
    Ok(rows)
}

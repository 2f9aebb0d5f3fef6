//! Many pods at once, as after a node's reboot.

use std::thread;

use bench::{Row, Unit};

use crate::clock::timed;
use crate::error::BenchError;
use crate::node::{Home, Pod};
use crate::programs::Programs;
use crate::side::{Mode, Side};

/// First use of table, store and bridge included.
pub(crate) fn rows(home: &Home, programs: &Programs, pods: usize) -> Result<Vec<Row>, BenchError> {
    let ours = all_at_once(&Side::ours(home, programs, Mode::Ptp)?, pods)?;
    let floor = all_at_once(&Side::floor(home, programs, Mode::Ptp)?, pods)?;
    let reference = match &programs.reference {
        Some(folder) => Some(all_at_once(&Side::reference(home, folder)?, pods)?),
        None => None,
    };
    let row = Row::faster("add-200-at-once", Unit::Ms, Some(ours.0), reference.as_ref().map(|it| it.0), 50.0);
    let failed = |which: &str, failed: &[String]| match failed {
        [] => String::new(),
        [first, ..] => format!("; {} of {which} failed, first: {first}", failed.len()),
    };
    let mut note = format!("{pods} ADDs, wall time{}", failed("ours", &ours.1));
    if let Some(reference) = &reference {
        note += &failed("the reference's", &reference.1);
    }
    let row = Row { floor: Some(floor.0), ok: row.ok.map(|ok| ok && ours.1.is_empty()), ..row };
    Ok(vec![row.noting(note)])
}

/// Milliseconds until the last is done, and the errors.
fn all_at_once(side: &Side, count: usize) -> Result<(f64, Vec<String>), BenchError> {
    side.node.enter()?;
    let mut pods: Vec<Pod> = (0..count).map(|index| side.node.pod(index)).collect::<Result<_, _>>()?;
    let mut failed = Vec::new();
    let took = timed(|| {
        thread::scope(|scope| {
            let adds: Vec<_> = pods.iter_mut().map(|pod| scope.spawn(|| side.add(pod))).collect();
            for add in adds {
                match add.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failed.push(error.to_string()),
                    Err(_) => failed.push("a thread of the benchmark failed".to_owned()),
                }
            }
        });
        Ok(())
    })?;
    // The pods go with their node's namespaces.
    Ok((took, failed))
}

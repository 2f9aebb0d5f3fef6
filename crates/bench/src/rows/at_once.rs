//! Many pods at once, as after a node's reboot.

use std::thread;

use bench::{Row, Unit};

use crate::chains;
use crate::clock::timed;
use crate::error::BenchError;
use crate::node::{Home, Pod};
use crate::programs::Programs;
use crate::side::{Mode, Side};

/// First use of table, store and bridge included; ours as `hostgw`, and under the names of the reference plugins.
pub(crate) fn rows(home: &Home, programs: &Programs, pods: usize) -> Result<Vec<Row>, BenchError> {
    let ours = all_at_once(&Side::ours(home, programs, Mode::Ptp)?, pods)?;
    let floor = all_at_once(&Side::floor(home, programs, Mode::Ptp)?, pods)?;
    let drop_in = all_at_once(&Side::chain(home, chains::FULL, &programs.plugins)?, pods)?;
    let reference = match &programs.reference {
        Some(folder) => Some(all_at_once(&Side::chain(home, chains::REFERENCE, folder)?, pods)?),
        None => None,
    };
    let row = compare("add-200-at-once", &ours, reference.as_ref(), 50.0);
    Ok(vec![
        Row { floor: Some(floor.took), ..row },
        compare("drop-in-200-at-once", &drop_in, reference.as_ref(), 20.0),
    ])
}

fn compare(name: &str, ours: &Rush, reference: Option<&Rush>, faster: f64) -> Row {
    let row = Row::faster(name, Unit::Ms, Some(ours.took), reference.map(|reference| reference.took), faster);
    let failed = |which: &str, failed: &[String]| match failed {
        [] => String::new(),
        [first, ..] => format!("; {} of {which} failed, first: {first}", failed.len()),
    };
    let mut note = format!("{} ADDs, wall time{}", ours.count, failed("ours", &ours.failed));
    if let Some(reference) = reference {
        note += &failed("the reference's", &reference.failed);
    }
    Row { ok: row.ok.map(|ok| ok && ours.failed.is_empty()), ..row }.noting(note)
}

/// ADDs that were begun at once.
struct Rush {
    count: usize,
    /// Milliseconds until the last was done.
    took: f64,
    /// What those said that failed.
    failed: Vec<String>,
}

fn all_at_once(side: &Side, count: usize) -> Result<Rush, BenchError> {
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
    Ok(Rush { count, took, failed })
}

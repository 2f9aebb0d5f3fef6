//! The plugin's peak memory.

use bench::{Row, Samples, Unit};

use crate::error::BenchError;
use crate::exec::Verb;
use crate::node::Home;
use crate::peak_memory;
use crate::programs::Programs;
use crate::side::{Mode, Side};

const PROCESSES: usize = 5;

/// The greatest peak of a few ADDs and DELs.
pub(crate) fn rows(home: &Home, programs: &Programs) -> Result<Vec<Row>, BenchError> {
    let ours = peak(&Side::ours(home, programs, Mode::Ptp)?)?;
    let floor = peak(&Side::floor(home, programs, Mode::Ptp)?)?;
    let mut row = Row::limit("plugin-memory", Unit::MiB, ours.max(), 4.0);
    row.floor = floor.max();
    Ok(vec![row.noting(format!("VmHWM at exit, greatest of {} processes", ours.count()))])
}

fn peak(side: &Side) -> Result<Samples, BenchError> {
    side.node.enter()?;
    let mut peaks = Samples::default();
    for index in 0..PROCESSES {
        let pod = side.node.pod(index)?;
        for verb in [Verb::Add, Verb::Del] {
            peaks.push(side.with_main_exec(verb, &pod, |exec| peak_memory::of(exec, &pod))?);
        }
        pod.remove()?;
    }
    Ok(peaks)
}

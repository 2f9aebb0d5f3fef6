//! Measuring how long something takes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// What the kernel does in the background after a link is gone is over by then: no side pays for what the one before
/// it left.
const QUIET: Duration = Duration::from_millis(25);

/// Milliseconds that `work` takes.
pub(crate) fn timed(work: impl FnOnce() -> Result<(), BenchError>) -> Result<f64, BenchError> {
    let began = Instant::now();
    work()?;
    Ok(milliseconds(began.elapsed()))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Lets the kernel finish what was measured before.
pub(crate) fn let_it_settle() {
    sleep(QUIET);
}

/// Looks until `there` gives something, at most so long.
pub(crate) fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut there: impl FnMut() -> Result<Option<T>, BenchError>,
) -> Result<T, BenchError> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = there()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(BenchError::new(
                format!("wait for {what}"),
                format!("nothing in {} s", patience.as_secs()),
            ));
        }
        sleep(Duration::from_millis(2));
    }
}

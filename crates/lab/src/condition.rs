//! Waiting until a node's kernel is as it should be.

use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::events::{Events, Group, Heard};
use kernel::netlink::Protocol;

use crate::LabError;

/// Looks whenever something of `groups` changed, until `complaint` has none or `patience` ends; gives the last complaint.
/// Runs in the node.
pub(crate) fn await_condition(
    node: &str,
    groups: &[Group],
    patience: Duration,
    mut complaint: impl FnMut() -> Result<Option<String>, KernelError>,
) -> Result<Option<String>, LabError> {
    let deadline = Instant::now() + patience;
    let mut wait = || {
        let mut events = Events::subscribe(Protocol::Route, groups, None)?;
        loop {
            let found = complaint()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_none() || left.is_zero() {
                return Ok(found);
            }
            // Files change without an event.
            events.wait(left.min(Duration::from_millis(100)))?;
            while events.read(|_, _| {})? != Heard::Nothing {}
        }
    };
    wait().map_err(LabError::kernel(node))
}

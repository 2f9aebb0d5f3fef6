//! Taking the links out of their bridges again, for an uninstall.

use std::time::Duration;

use link_name::LinkNameError;
use uplink::{LinkStatus, State, UplinkError};

use super::folders;
use crate::paths::Paths;

/// What came of taking a link out of its bridge.
#[derive(Debug)]
pub(crate) struct Left {
    /// `eth0 out of br0`.
    pub(crate) what: String,
    /// Whether it is out.
    pub(crate) outcome: Result<(), UplinkError>,
}

/// Takes every link that was joined out of its bridge again: what came of each, by its name. A move that waits for its
/// confirmation is an error: its watchdog needs the journal, which an uninstall would remove. The calling process has one
/// thread.
pub(crate) fn leave_all(paths: &Paths) -> Result<Vec<Left>, UplinkError> {
    let folders = folders(paths);
    let leave = |link: &str| {
        let name = link.parse().map_err(|error: LinkNameError| UplinkError::Nothing(error.to_string()))?;
        uplink::prepare_leave(&name, &[], Duration::ZERO, &folders)?.make()
    };
    let left = |found: LinkStatus| {
        let outcome = match found.state {
            State::Joined => leave(&found.link),
            State::Moving | State::Unconfirmed { .. } => {
                Err(UplinkError::Unconfirmed { link: found.link.clone() })
            }
            State::PutBack | State::Lost => return None,
        };
        Some(Left { what: format!("{} out of {}", found.link, found.bridge), outcome })
    };
    Ok(uplink::status(&folders)?.into_iter().filter_map(left).collect())
}

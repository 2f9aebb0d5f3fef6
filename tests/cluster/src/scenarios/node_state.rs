//! What a node's agent says of itself: its status document, and the memory that it takes.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Outcome, TierError};
use crate::node::Node;
use crate::wait::{Seen, wait_for};

const STATE: &str = "/run/hostgw/state.json";
const LIMIT: Duration = Duration::from_secs(180);

/// The agent's status document.
pub(super) fn state(node: &Node) -> Outcome<Value> {
    let text = node.run("cat", &[STATE])?;
    serde_json::from_str(&text).map_err(|error| TierError::Wrong(format!("{STATE}: {error}")))
}

/// Whether the agent tells this condition, as it should be.
pub(super) fn condition(node: &Node, code: &str, told: bool) -> Outcome<Seen<()>> {
    let conditions = state(node)?["conditions"].take();
    let found = conditions.as_array().into_iter().flatten().any(|condition| condition["code"] == code);
    Ok(if found == told { Seen::Yes(()) } else { Seen::NotYet(conditions.to_string()) })
}

/// Waits until the agent has looked so many times more.
pub(super) fn passes(node: &Node, more: u64) -> Outcome {
    let count = || Ok::<_, TierError>(state(node)?["passes"].as_u64().unwrap_or_default());
    let until = count()? + more;
    wait_for("the agent to look again", LIMIT, || {
        let now = count()?;
        Ok(if now >= until { Seen::Yes(()) } else { Seen::NotYet(format!("{now} of {until} passes")) })
    })
}

/// What the node's agent has in memory, in KiB (`VmRSS` of proc(5)).
pub(super) fn agent_memory(node: &Node) -> Outcome<u64> {
    let process = node.run("pgrep", &["-f", "^/hostgw agent"])?;
    let status = node.run("cat", &[&format!("/proc/{}/status", process.trim())])?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.ok_or_else(|| TierError::Wrong(format!("no VmRSS in the status of process {process}: {status}")))
}

//! What agents tell the cluster, and that they write nothing while nothing changes.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::wait::{Seen, wait_for};

const LIMIT: Duration = Duration::from_secs(180);
/// How long nothing may be written. Agents look at everything again after 30 s.
const QUIET: Duration = Duration::from_secs(35);

pub(super) fn each_node_tells_that_it_is_well(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    for node in &cluster.nodes {
        wait_for(&format!("{} to be told well", node.name), LIMIT, || {
            let told = api.get(&node_network(&node.name))?;
            let condition = network_unavailable(&api.get(&format!("/api/v1/nodes/{}", node.name))?);
            let status = &told["status"];
            let well = status["announced"] == true
                && status["converged"] == true
                && status["unrouted"] == 0
                && condition["status"] == "False";
            let seen = || format!("NodeNetwork {status}, NetworkUnavailable {condition}");
            Ok(if well { Seen::Yes(()) } else { Seen::NotYet(seen()) })
        })?;
    }
    as_kubectl_shows_it(cluster)?;
    let versions = || -> Outcome<Vec<String>> {
        cluster
            .nodes
            .iter()
            .map(|node| Ok(api.get(&node_network(&node.name))?["metadata"]["resourceVersion"].to_string()))
            .collect()
    };
    let before = versions()?;
    let quiet_until = Instant::now() + QUIET;
    wait_for("a while to pass", QUIET * 2, || {
        let over = Instant::now() >= quiet_until;
        Ok(if over { Seen::Yes(()) } else { Seen::NotYet("not yet".to_owned()) })
    })?;
    let after = versions()?;
    if before != after {
        return Err(TierError::Wrong(format!(
            "agents wrote though nothing changed: {before:?}, now {after:?}"
        )));
    }
    Ok(format!(
        "every NodeNetwork converged with all peers routed, NetworkUnavailable is False, and in {} s no agent wrote again",
        QUIET.as_secs()
    ))
}

/// `kubectl get` has a line for each node, with what matters in columns.
fn as_kubectl_shows_it(cluster: &Cluster) -> Outcome {
    let shown = cluster.kubectl.run(&["get", "nodenetworks"])?;
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let head = lines.next().unwrap_or_default();
    let rows: Vec<_> = lines.collect();
    let well = head.starts_with(&["NAME", "ANNOUNCED", "CONVERGED", "UNROUTED"])
        && cluster
            .nodes
            .iter()
            .all(|node| rows.iter().any(|row| row.starts_with(&[node.name.as_str(), "true", "true", "0"])));
    if well { Ok(()) } else { Err(TierError::Wrong(format!("kubectl shows:\n{shown}"))) }
}

fn node_network(node: &str) -> String {
    format!("/apis/hostgw.io/v1alpha1/nodenetworks/{node}")
}

fn network_unavailable(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "NetworkUnavailable").unwrap_or_default()
}

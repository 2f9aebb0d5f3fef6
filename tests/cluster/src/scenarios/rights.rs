//! The agent's role lacks rights: what is not allowed is told with its remedy, routes stay, and pods notice nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Outcome;
use crate::inside::Cluster;
use crate::install::{NAMESPACE, agent_pod, wait_until_rolled_out};
use crate::wait::{Seen, wait_for};

use super::daemons::node_routes;
use super::node_state::{condition, state};
use super::traffic::under_traffic;

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/hostgw";
const NODE: &str = "kn1";
const LIMIT: Duration = Duration::from_secs(180);

pub(super) fn missing_rights_are_told(cluster: &mut Cluster) -> Outcome<String> {
    let rules = cluster.api.get(ROLE)?["rules"].clone();
    let proven = under_traffic(cluster, |cluster| {
        let outcome = without_rights(cluster);
        cluster.api.merge(ROLE, &json!({"rules": rules}))?;
        outcome
    });
    wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)?;
    wait_for("nothing to be refused", LIMIT, || {
        let node = cluster.node(NODE)?;
        let problem = state(node)?["sourceProblem"].take();
        if !problem.is_null() {
            return Ok(Seen::NotYet(problem.to_string()));
        }
        condition(node, "report-refused", false)
    })?;
    Ok(format!(
        "an agent that may only read Nodes tells what it may not write; one that may nothing tells which role it needs, \
         keeps every route, and goes on once it is granted: {}",
        proven?
    ))
}

fn without_rights(cluster: &mut Cluster) -> Outcome {
    let routes = node_routes(cluster)?;
    let reads = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]);
    cluster.api.merge(ROLE, &json!({"rules": reads}))?;
    restart_agent(cluster)?;
    wait_for("the refusal to be told", LIMIT, || condition(cluster.node(NODE)?, "report-refused", true))?;

    cluster.api.merge(ROLE, &json!({"rules": []}))?;
    restart_agent(cluster)?;
    wait_for("the role to be named", LIMIT, || {
        let state = state(cluster.node(NODE)?)?;
        let problem = state["sourceProblem"].as_str().unwrap_or_default();
        let told = ["403", "cannot", "ClusterRole"].iter().all(|word| problem.contains(word));
        Ok(if told { Seen::Yes(()) } else { Seen::NotYet(state.to_string()) })
    })?;
    let now = node_routes(cluster)?;
    if now != routes {
        return Err(crate::error::TierError::Wrong(format!("routes changed: {routes:?}, now {now:?}")));
    }
    Ok(())
}

/// Deletes the node's agent, and waits until another runs; a watch that stands is not asked for its rights again.
fn restart_agent(cluster: &Cluster) -> Outcome {
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let old = agent_pod(cluster.api, NODE)?;
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    cluster.api.delete(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}"))?;
    wait_for(&format!("another agent on {NODE}"), LIMIT, || {
        let pod = agent_pod(cluster.api, NODE)?;
        let runs = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
        let seen = || Seen::NotYet(pod["status"]["containerStatuses"].to_string());
        Ok(if uid(&pod) != uid(&old) && runs { Seen::Yes(()) } else { seen() })
    })
}

//! The agent is deleted, and replaced by another version, while packets flow.

use std::time::Duration;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::{IMAGE, NAMESPACE, agent_pod, agents, wait_until_rolled_out};
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::traffic::under_traffic;

const LIMIT: Duration = Duration::from_secs(180);

pub(super) fn deleted_under_traffic(cluster: &mut Cluster) -> Outcome<String> {
    let proven = under_traffic(cluster, |cluster| {
        for index in 0..cluster.nodes.len() {
            let name = cluster.nodes[index].name.clone();
            let old =
                agent_pod(cluster.api, &name)?["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            cluster.api.delete(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{old}"))?;
            wait_for(&format!("the end of {old}"), LIMIT, || {
                let names: Vec<_> =
                    agents(cluster.api)?.iter().map(|pod| pod["metadata"]["name"].clone()).collect();
                Ok(if names.iter().any(|name| *name == old.as_str()) {
                    Seen::NotYet(format!("{names:?}"))
                } else {
                    Seen::Yes(())
                })
            })?;
        }
        wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)
    })?;
    Ok(format!("every agent deleted and replaced: {proven}; {}", pods_start_without_agents(cluster)?))
}

/// With no agent on any node, pods start and stop.
fn pods_start_without_agents(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    let set = "/apis/apps/v1/namespaces/kube-system/daemonsets/hostgw";
    let nowhere = serde_json::json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "1"}}}}});
    api.merge(set, &nowhere)?;
    wait_for("no agent to run", LIMIT, || {
        let left = agents(api)?.len();
        Ok(if left == 0 { Seen::Yes(()) } else { Seen::NotYet(format!("{left} agents")) })
    })?;
    PodSpec::server("orphan", "kn1").create(api)?;
    PodSpec::server("peer", "kn2").create(api)?;
    let pods = wait_running(api, &["orphan", "peer"])?;
    let answers = cluster.kubectl.ask("orphan", &pods[1].targets())?;
    super::reach::all_answered("between pods made without an agent", &answers, &["peer"], &pods[0].ips)?;
    delete_pods(api, &["orphan", "peer"])?;
    let everywhere = serde_json::json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": null}}}}});
    api.merge(set, &everywhere)?;
    wait_until_rolled_out(api, cluster.nodes.len() as u64)?;
    Ok("pods start, talk and stop with no agent at all".to_owned())
}

pub(super) fn upgraded_under_traffic(cluster: &mut Cluster) -> Outcome<String> {
    let proven = under_traffic(cluster, |cluster| {
        cluster.chart.install("2")?;
        wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)
    })?;
    for pod in agents(cluster.api)? {
        let image = &pod["spec"]["containers"][0]["image"];
        if *image != format!("{IMAGE}:2") {
            return Err(TierError::Wrong(format!("after the upgrade an agent runs {image}")));
        }
    }
    Ok(format!("`helm upgrade` to another image: {proven}"))
}

//! The API server, kubelets and container runtimes are restarted while packets flow.

use std::time::Duration;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::{agents, wait_until_rolled_out};
use crate::node::Part;
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::install::wait_ready;
use super::reach::all_answered;
use super::traffic::under_traffic;

/// Longer than it takes an agent to notice, and to try again a few times.
const AWAY: Duration = Duration::from_secs(10);

pub(super) fn api_server_restarted_under_traffic(cluster: &mut Cluster) -> Outcome<String> {
    let before = agent_starts(cluster)?;
    let proven = under_traffic(cluster, |cluster| {
        let routes = node_routes(cluster)?;
        cluster.plane.stop_api_server()?;
        let away_until = std::time::Instant::now() + AWAY;
        wait_for("the API server to be away for long enough", AWAY * 2, || {
            let now = node_routes(cluster)?;
            if now != routes {
                return Ok(Seen::Yes(Err(TierError::Wrong(format!(
                    "routes changed: {routes:?}, now {now:?}"
                )))));
            }
            let over = std::time::Instant::now() >= away_until;
            Ok(if over { Seen::Yes(Ok(())) } else { Seen::NotYet("not yet".to_owned()) })
        })??;
        cluster.plane.start_api_server()
    })?;
    let after = agent_starts(cluster)?;
    if after != before {
        return Err(TierError::Wrong(format!("agents were restarted: {before:?}, now {after:?}")));
    }
    // What is new is followed again.
    PodSpec::server("after", "kn1").create(cluster.api)?;
    wait_running(cluster.api, &["after"])?;
    delete_pods(cluster.api, &["after"])?;
    wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)?;
    Ok(format!("API server away for {} s, no route changed, no agent restarted: {proven}", AWAY.as_secs()))
}

pub(super) fn kubelet_restarted_under_traffic(cluster: &mut Cluster) -> Outcome<String> {
    let proven = restarted(cluster, Part::Kubelet)?;
    Ok(format!("kubelet of every node restarted: {proven}"))
}

pub(super) fn containerd_restarted_under_traffic(cluster: &mut Cluster) -> Outcome<String> {
    let proven = restarted(cluster, Part::Containerd)?;
    Ok(format!("containerd of every node restarted: {proven}"))
}

fn restarted(cluster: &mut Cluster, part: Part) -> Outcome<String> {
    under_traffic(cluster, |cluster| {
        for index in 0..cluster.nodes.len() {
            cluster.nodes[index].restart(part)?;
        }
        for index in 0..cluster.nodes.len() {
            wait_ready(cluster, &cluster.nodes[index].name)?;
        }
        // Ready may be what was said before: a pod shows that both work together again.
        for (number, node) in ["kn1", "kn2"].into_iter().enumerate() {
            PodSpec::server(&format!("fresh-{number}"), node).create(cluster.api)?;
        }
        let pods = wait_running(cluster.api, &["fresh-0", "fresh-1"])?;
        let answers = cluster.kubectl.ask("fresh-0", &pods[1].targets())?;
        all_answered("between pods made afterwards", &answers, &["fresh-1"], &pods[0].ips)?;
        delete_pods(cluster.api, &["fresh-0", "fresh-1"])
    })
}

/// The routes of protocol 104 of every node.
pub(super) fn node_routes(cluster: &Cluster) -> Outcome<Vec<String>> {
    let mut routes = Vec::new();
    for node in &cluster.nodes {
        for family in ["-4", "-6"] {
            routes.push(node.run("ip", &[family, "route", "show", "proto", "104"])?);
        }
    }
    Ok(routes)
}

/// How often each agent was started.
fn agent_starts(cluster: &Cluster) -> Outcome<Vec<String>> {
    let mut starts: Vec<String> = agents(cluster.api)?
        .iter()
        .map(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            format!("{} {}", pod["metadata"]["name"], container["restartCount"])
        })
        .collect();
    starts.sort();
    Ok(starts)
}

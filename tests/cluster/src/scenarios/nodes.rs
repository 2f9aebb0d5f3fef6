//! Nodes come, are drained, go, and lose power.

use std::time::{Duration, Instant};

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::wait_until_rolled_out;
use crate::node::ProxyMode;
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, delete_pods, deploy, wait_running, wait_scaled};

use super::install::wait_ready;
use super::leaks::nothing_left_over;
use super::reach::all_answered;
use super::services::{NodePorts, Sources, prove_services};

const LIMIT: Duration = Duration::from_secs(180);
/// Pods that are spread over the nodes while one of them goes.
const PODS: u32 = 9;

pub(super) fn added_drained_deleted(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    let began = Instant::now();
    let index = cluster.add_node(ProxyMode::Iptables)?;
    let name = cluster.nodes[index].name.clone();
    wait_until_rolled_out(api, cluster.nodes.len() as u64)?;
    wait_ready(cluster, &name)?;
    let ready = began.elapsed().as_secs_f64();
    prove_services(cluster, (&name, "kn1"), Sources::Kept, NodePorts::OfBoth)?;

    deploy(api, "spread", PODS)?;
    wait_scaled(api, "spread", PODS as usize)?;
    cluster.kubectl.run(&[
        "drain",
        &name,
        "--ignore-daemonsets",
        "--force",
        "--delete-emptydir-data",
        "--timeout=180s",
    ])?;
    let elsewhere = wait_scaled(api, "spread", PODS as usize)?;
    if let Some(pod) = elsewhere.iter().find(|pod| pod.node == name) {
        return Err(TierError::Wrong(format!("{} is still on {name}", pod.name)));
    }
    nothing_left_over(cluster)?;

    let others = cluster.nodes.len() - 1;
    let mut gone = cluster.nodes.remove(index);
    let next_hops = gone.addresses();
    gone.power_off()?;
    cluster.note_places()?;
    api.delete(&format!("/api/v1/nodes/{name}"))?;
    let began = Instant::now();
    wait_for(&format!("no route over {name}"), LIMIT, || {
        for node in &cluster.nodes {
            for (family, via) in ["-4", "-6"].into_iter().zip(next_hops) {
                let routes =
                    node.run("ip", &[family, "route", "show", "proto", "104", "via", &via.to_string()])?;
                if !routes.is_empty() {
                    return Ok(Seen::NotYet(format!("on {}: {routes}", node.name)));
                }
            }
        }
        Ok(Seen::Yes(()))
    })?;
    let routes_gone = began.elapsed().as_millis();
    wait_until_rolled_out(api, others as u64)?;
    api.delete("/apis/apps/v1/namespaces/default/deployments/spread")?;
    wait_scaled(api, "spread", 0)?;
    nothing_left_over(cluster)?;
    Ok(format!(
        "node added and ready in {ready:.1} s, Services with kube-proxy in iptables mode, drained with nothing left; \
         deleted: routes to it gone {routes_gone} ms later"
    ))
}

pub(super) fn rebooted(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    PodSpec::server("stays", "kn1").create(api)?;
    PodSpec::server("returns", "kn2").create(api)?;
    wait_running(api, &["stays", "returns"])?;
    let container = |name: &str| -> Outcome<String> {
        let pod = api.get(&format!("/api/v1/namespaces/default/pods/{name}"))?;
        Ok(pod["status"]["containerStatuses"][0]["containerID"].to_string())
    };
    let before = container("returns")?;
    let began = Instant::now();
    let index = cluster.nodes.iter().position(|node| node.name == "kn2");
    let index = index.ok_or_else(|| TierError::Wrong("there is no kn2".to_owned()))?;
    cluster.nodes[index].reboot()?;
    cluster.note_places()?;
    wait_for("the pod to be started anew", LIMIT * 2, || {
        let now = container("returns")?;
        Ok(if now == before || now == "null" { Seen::NotYet(now) } else { Seen::Yes(()) })
    })?;
    let pods = wait_running(api, &["stays", "returns"])?;
    let back = began.elapsed().as_secs_f64();
    wait_until_rolled_out(api, cluster.nodes.len() as u64)?;
    for (from, to) in [(0, 1), (1, 0)] {
        let answers = cluster.kubectl.ask(&pods[from].name, &pods[to].targets())?;
        all_answered("after the reboot", &answers, &[&pods[to].name], &pods[from].ips)?;
    }
    nothing_left_over(cluster)?;
    delete_pods(api, &["stays", "returns"])?;
    nothing_left_over(cluster)?;
    Ok(format!(
        "power lost and back: pods run and reach each other {back:.1} s after, no address left of before"
    ))
}

//! Pods as hosts of the nodes' own LAN, behind routed links: Services by kube-proxy, and hosts of the LAN that know no pod CIDR.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::wait_until_rolled_out;
use crate::lan::{CONTROL_PLANE, addresses, slice_of, subnets};
use crate::pod::ask::ask_all;
use crate::wait::{Seen, wait_for};
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::leaks::nothing_left_over;
use super::reach::all_answered;
use super::services::{Sources, prove_services};

const LIMIT: Duration = Duration::from_secs(60);
const CONFLIST: &str = "/etc/cni/net.d/10-hostgw.conflist";
/// The annotation that says which part of the LAN is a node's.
const SLICE: &str = "hostgw.io/lan-slice";

pub(super) fn services_and_hosts_of_the_lan(cluster: &mut Cluster) -> Outcome<String> {
    for (number, node) in (1..).zip(&cluster.nodes) {
        annotate(cluster, &node.name, &json!(slice_of(number).map(|slice| slice.to_string()).join(",")))?;
    }
    let lan = json!({"subnets": subnets(), "slices": "annotation"});
    cluster.chart.install_with("1", &json!({"mode": "l2-routed", "lan": lan}))?;
    wait_for_mode(cluster, "l2-routed")?;
    let proven = hosts_of_the_lan(cluster).and_then(|()| {
        // To kube-proxy, which is told the cluster's CIDRs, pods of the LAN come from outside.
        prove_services(cluster, "kn1", "kn2", Sources::OfTheNode)
    });
    nothing_left_over(cluster)?;
    nobody_is_answered_for(cluster)?;
    cluster.chart.install("1")?;
    wait_for_mode(cluster, "ptp")?;
    for node in &cluster.nodes {
        annotate(cluster, &node.name, &json!(null))?;
    }
    proven?;
    Ok("by annotation each node has a slice of the LAN; a host there and pods reach each other both ways by their own \
        addresses; ClusterIP from both nodes and from the pod itself, NodePort of every node from the LAN and from a pod: \
        TCP and UDP, IPv4 and IPv6"
        .to_owned())
}

fn annotate(cluster: &Cluster, node: &str, slices: &serde_json::Value) -> Outcome {
    let change = json!({"metadata": {"annotations": {SLICE: slices}}});
    cluster.api.merge(&format!("/api/v1/nodes/{node}"), &change).map(drop)
}

/// Waits until every agent runs with its new configuration, and pods will be attached by it.
fn wait_for_mode(cluster: &Cluster, mode: &str) -> Outcome {
    wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)?;
    cluster.nodes.iter().try_for_each(|node| {
        wait_for(&format!("mode {mode} on {}", node.name), LIMIT, || {
            let conflist = node.run("cat", &[CONFLIST])?;
            let there = conflist.contains(&format!("\"mode\": \"{mode}\""));
            Ok(if there { Seen::Yes(()) } else { Seen::NotYet(conflist) })
        })
    })
}

/// The first packets between a pod of each node and the host that has the control plane: it has no route but its own LAN's.
fn hosts_of_the_lan(cluster: &Cluster) -> Outcome {
    let api = cluster.api;
    PodSpec::server("one", "kn1").create(api)?;
    PodSpec::server("other", "kn2").create(api)?;
    let pods = wait_running(api, &["one", "other"])?;
    let host: Vec<IpAddr> = addresses(CONTROL_PLANE).to_vec();
    for (number, pod) in (1..).zip(&pods) {
        let slices = slice_of(number);
        if let Some(ip) = pod.ips.iter().find(|ip| !slices.iter().any(|slice| slice.contains(*ip))) {
            return Err(TierError::Wrong(format!("{} has {ip}, which is in none of {slices:?}", pod.name)));
        }
        all_answered("a host of the LAN to a pod", &ask_all(&pod.targets()), &[&pod.name], &host)?;
    }
    let across = cluster.kubectl.ask("one", &pods[1].targets())?;
    all_answered("a pod of the LAN to one of another node", &across, &["other"], &pods[0].ips)?;
    delete_pods(api, &["one", "other"])
}

fn nobody_is_answered_for(cluster: &Cluster) -> Outcome {
    cluster.nodes.iter().try_for_each(|node| {
        wait_for(&format!("{} to answer for nobody", node.name), LIMIT, || {
            let left = node.run("ip", &["neigh", "show", "proxy"])?;
            Ok(if left.trim().is_empty() { Seen::Yes(()) } else { Seen::NotYet(left) })
        })
    })
}

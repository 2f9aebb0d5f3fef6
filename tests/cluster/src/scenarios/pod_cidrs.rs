//! Where nobody of Kubernetes' own gives Nodes their pod CIDRs, hostgw does: one of two replicas, by a Lease.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::control_plane::{CLUSTER_CIDRS, PodCidrs};
use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::install::{NAMESPACE, wait_until_rolled_out};
use crate::lan::addresses;
use crate::wait::{Seen, wait_for};

const LIMIT: Duration = Duration::from_secs(180);
const NODES: &str = "/api/v1/nodes";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/hostgw-podcidr";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/kube-system/deployments/hostgw-podcidr";
/// Numbers of the hosts that are Nodes and nothing else, on a LAN that has nobody there.
const BARE: std::ops::Range<u8> = 200..206;

pub(super) fn given_by_one_of_two(cluster: &mut Cluster) -> Outcome<String> {
    let before = pod_cidrs(cluster)?;
    cluster.plane.start_controllers(PodCidrs::NotGiven)?;
    cluster.chart.install_values(
        "1",
        &json!({"podCIDR": {"clusterCIDRs": CLUSTER_CIDRS.split(',').collect::<Vec<_>>()}}),
    )?;
    let proven = nodes_get_theirs(cluster, &before);
    for number in BARE {
        cluster.api.delete(&format!("{NODES}/{}", name(number)))?;
    }
    cluster.chart.install("1")?;
    cluster.api.delete(LEASE)?;
    cluster.plane.start_controllers(PodCidrs::Given)?;
    wait_until_rolled_out(cluster.api, cluster.nodes.len() as u64)?;
    proven
}

fn nodes_get_theirs(cluster: &mut Cluster, before: &[(String, Vec<IpNet>)]) -> Outcome<String> {
    wait_for("two replicas of the allocator", LIMIT, || {
        let status = cluster.api.get(DEPLOYMENT)?["status"].take();
        Ok(if status["readyReplicas"] == 2 { Seen::Yes(()) } else { Seen::NotYet(status.to_string()) })
    })?;
    let first = holder(cluster)?;
    let (last, others) = (BARE.end - 1, BARE.start..BARE.end - 1);
    for number in others {
        create(cluster, number)?;
    }
    all_have_theirs(cluster, before.len() + BARE.len() - 1)?;
    cluster.api.delete(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{first}"))?;
    // It works until its kubelet has ended it.
    let second = wait_for("another holder of the Lease", LIMIT, || {
        let now = holder(cluster)?;
        Ok(if now == first { Seen::NotYet(now) } else { Seen::Yes(now) })
    })?;
    create(cluster, last)?;
    all_have_theirs(cluster, before.len() + BARE.len())?;
    let after = pod_cidrs(cluster)?;
    if !before.iter().all(|node| after.contains(node)) {
        return Err(TierError::Wrong(format!(
            "the Lease is {second}'s after {first}'s; pod CIDRs were {before:?} and are {after:?}"
        )));
    }
    Ok(format!(
        "with a controller manager that gives none, {} Nodes got a CIDR of each family from one of two replicas, the last after \
         the holder of the Lease was deleted; none overlap, and none that was set was changed",
        BARE.len()
    ))
}

fn name(number: u8) -> String {
    format!("bare-{number}")
}

/// A Node without a kubelet. It is not of the operating system that agents are for, so that none waits to be started there.
fn create(cluster: &Cluster, number: u8) -> Outcome {
    let ips = addresses(number).map(|address| json!({"type": "InternalIP", "address": address}));
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name(number), "labels": {"kubernetes.io/os": "none"}},
        "spec": {"taints": [{"key": "test", "effect": "NoSchedule"}]},
        "status": {"addresses": ips},
    });
    cluster.api.create(NODES, &node).map(drop)
}

/// Who gives them now, by the name of its pod.
fn holder(cluster: &Cluster) -> Outcome<String> {
    wait_for("a holder of the Lease", LIMIT, || {
        let lease = cluster.api.get(LEASE)?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        Ok(if holder.is_empty() { Seen::NotYet(lease.to_string()) } else { Seen::Yes(holder.to_owned()) })
    })
}

/// Waits until so many Nodes have a pod CIDR of each family, and checks that no two overlap.
fn all_have_theirs(cluster: &Cluster, nodes: usize) -> Outcome {
    let all = wait_for(&format!("pod CIDRs of {nodes} nodes"), LIMIT, || {
        let all = pod_cidrs(cluster)?;
        let have = all.iter().filter(|(_, cidrs)| cidrs.len() == 2).count();
        Ok(if have == nodes { Seen::Yes(all) } else { Seen::NotYet(format!("{all:?}")) })
    })?;
    let cidrs: Vec<IpNet> = all.into_iter().flat_map(|(_, cidrs)| cidrs).collect();
    let contains = |outer: &IpNet, ip: IpAddr| outer.contains(&ip);
    for (index, one) in cidrs.iter().enumerate() {
        let others = &cidrs[index + 1..];
        if let Some(other) =
            others.iter().find(|other| contains(one, other.addr()) || contains(other, one.addr()))
        {
            return Err(TierError::Wrong(format!("{one} and {other} overlap")));
        }
    }
    Ok(())
}

/// Each Node with its pod CIDRs.
fn pod_cidrs(cluster: &Cluster) -> Outcome<Vec<(String, Vec<IpNet>)>> {
    let read = |node: &Value| {
        let cidrs = node["spec"]["podCIDRs"].as_array().into_iter().flatten();
        let cidrs = cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect();
        (node["metadata"]["name"].as_str().unwrap_or_default().to_owned(), cidrs)
    };
    Ok(cluster.api.list(NODES)?.iter().map(read).collect())
}

//! Pods reach each other on one node and across nodes, with their own addresses, and the API server over its Service.

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::pod::ask::{Target, ask};
use crate::workload::{PodSpec, delete_pods, wait_running};

use super::reach::{all_answered, slowest_ms};

pub(super) fn pods_reach_each_other(cluster: &mut Cluster) -> Outcome<String> {
    let api = cluster.api;
    let names = ["near-1", "near-2", "far"];
    PodSpec::server("near-1", "kn1").create(api)?;
    PodSpec::server("near-2", "kn1").create(api)?;
    PodSpec::server("far", "kn2").create(api)?;
    let pods = wait_running(api, &names)?;
    for pod in &pods {
        is_of_its_node(cluster, &pod.node, &pod.ips)?;
    }
    let (mut asked, mut slowest) = (0, 0);
    for from in &pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            let answers = cluster.kubectl.ask(&from.name, &to.targets())?;
            let what = format!("{} to {}", from.name, to.name);
            all_answered(&what, &answers, &[&to.name], &from.ips)?;
            (asked, slowest) = (asked + answers.len(), slowest.max(slowest_ms(&answers)));
        }
    }
    // The node's own programs reach its pods: the kubelet's probes do.
    let own = cluster.node("kn1")?;
    for target in pods[0].targets() {
        let answer = ask_from_node(cluster, "kn1", target)?;
        all_answered("kn1 to its pod", &[answer], &["near-1"], &own.addresses())?;
    }
    delete_pods(api, &names)?;
    Ok(format!(
        "{asked} of {asked} first packets answered, same node and across, TCP and UDP, IPv4 and IPv6, sources kept; \
         slowest {slowest} ms; node to pod from its own address"
    ))
}

/// Both addresses lie in the node's pod CIDRs.
fn is_of_its_node(cluster: &Cluster, node: &str, ips: &[std::net::IpAddr]) -> Outcome {
    let found = cluster.api.get(&format!("/api/v1/nodes/{node}"))?;
    let cidrs: Vec<ipnet::IpNet> = found["spec"]["podCIDRs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|cidr| cidr.as_str()?.parse().ok())
        .collect();
    let outside = ips.iter().find(|ip| !cidrs.iter().any(|cidr| cidr.contains(*ip)));
    outside.map_or(Ok(()), |ip| {
        Err(TierError::Wrong(format!("{ip} is in none of {cidrs:?}, the pod CIDRs of {node}")))
    })
}

/// Asks from a node's own network namespace.
pub(super) fn ask_from_node(
    cluster: &Cluster,
    node: &str,
    target: Target,
) -> Outcome<crate::pod::ask::Answer> {
    let process = cluster.node(node)?.first_process()?;
    let path = format!("/proc/{process}/ns/net");
    let netns = kernel::netns::NetNs::open(path.as_ref());
    netns
        .and_then(|netns| netns.run(|| ask(target)))
        .map_err(|error| TierError::Wrong(format!("ask from {node}: {error}")))
}

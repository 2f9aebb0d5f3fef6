//! What is left of pods on the nodes, against the pods that there are.

use std::time::Duration;

use serde_json::Value;

use crate::api::Api;
use crate::error::Outcome;
use crate::inside::Cluster;
use crate::node::Node;
use crate::wait::{Seen, wait_for};

/// The plugin's records of attached pods, one file each; other files lie below.
const RECORDS: &str = "/run/hostgw/ipam/hostgw/records";
/// How long what a dead pod held may stay: the runtime removes sandboxes after their pod is gone.
const LIMIT: Duration = Duration::from_secs(180);

/// Waits until each node holds exactly what its pods need: records, links, and routes of them in both families.
pub(super) fn nothing_left_over(cluster: &Cluster) -> Outcome {
    cluster.nodes.iter().try_for_each(|node| settled(cluster.api, node, LIMIT))
}

/// Waits until a node holds exactly what its pods need.
pub(super) fn settled(api: Api, node: &Node, limit: Duration) -> Outcome {
    wait_for(&format!("nothing left over on {}", node.name), limit, || {
        let pods = pods_with_network(api, &node.name)?;
        let records = records(node)?;
        let links = lines(&node.run("ip", &["-o", "link", "show", "type", "veth"])?);
        let links = links.iter().filter(|line| line.contains(": hgw")).count();
        let routes = |family: &str| -> Outcome<usize> {
            Ok(lines(&node.run("ip", &[family, "route", "show", "proto", "105"])?).len())
        };
        let held = [records.len(), links, routes("-4")?, routes("-6")?];
        if held.iter().all(|count| *count == pods) {
            return Ok(Seen::Yes(()));
        }
        Ok(Seen::NotYet(format!(
            "{pods} pods, {} records, {} links, {} IPv4 and {} IPv6 routes of pods",
            held[0], held[1], held[2], held[3]
        )))
    })
}

/// The attachments of which a node keeps a record, each as `CONTAINER:INTERFACE`.
pub(super) fn records(node: &Node) -> Outcome<Vec<String>> {
    Ok(lines(&node.run("ls", &["-1", RECORDS])?))
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Pods of a node that have a network of their own.
fn pods_with_network(api: Api, node: &str) -> Outcome<usize> {
    let pods = api.list(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"))?;
    let own = |pod: &&Value| pod["spec"]["hostNetwork"] != true;
    Ok(pods.iter().filter(own).count())
}

//! A snapshot written as the Node objects that it was read from, reduced to what was read of them: the file source reads it
//! too, and so can a person.

use std::collections::BTreeMap;

use serde::Serialize;

use super::timestamp::rfc3339;
use super::{ClusterNode, ClusterSnapshot, LAN_SLICE_ANNOTATION};

/// A `NodeList` as `kubectl get nodes -o json` prints one, with only the fields that [`super::NodeObject`] keeps.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeList {
    api_version: &'static str,
    kind: &'static str,
    metadata: ListMetadata,
    items: Vec<Item>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

#[derive(Debug, Serialize)]
struct Item {
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
struct Spec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    addresses: Vec<Address>,
}

#[derive(Debug, Serialize)]
struct Address {
    #[serde(rename = "type")]
    kind: &'static str,
    address: String,
}

/// What stands for a prefix that could not be read; it cannot be read either.
const UNREADABLE: &str = "unreadable";

impl NodeList {
    /// Every node of `snapshot`, as of `resource_version`.
    #[must_use]
    pub fn new(snapshot: &ClusterSnapshot, resource_version: String) -> Self {
        Self {
            api_version: "v1",
            kind: "NodeList",
            metadata: ListMetadata { resource_version },
            items: snapshot.nodes.values().map(item).collect(),
        }
    }
}

fn item(node: &ClusterNode) -> Item {
    let mut pod_cidrs: Vec<String> = node.pod_cidrs.values().map(ToString::to_string).collect();
    pod_cidrs.extend(node.unreadable_pod_cidr.then(|| UNREADABLE.to_owned()));
    let mut slices: Vec<String> = node.lan_slices.values().map(ToString::to_string).collect();
    slices.extend(node.unreadable_lan_slice.then(|| UNREADABLE.to_owned()));
    let slices = (!slices.is_empty()).then(|| (LAN_SLICE_ANNOTATION, slices.join(",")));
    Item {
        kind: "Node",
        metadata: Metadata {
            name: node.name.to_string(),
            uid: node.uid.clone(),
            creation_timestamp: node.created.map(rfc3339),
            // Only that there is one is ever asked.
            deletion_timestamp: node.terminating.then(|| rfc3339(0)),
            annotations: slices.into_iter().collect(),
        },
        spec: Spec { pod_cidrs },
        status: Status {
            addresses: node
                .all_internal_ips()
                .map(|address| Address { kind: "InternalIP", address: address.to_string() })
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use crate::cluster::{Freshness, NodeDocument, SourceKind, snapshot_from_objects};
    use crate::three_nodes::ThreeNodes;

    #[test]
    fn what_is_written_is_read_back_as_the_same_nodes() {
        let mut cluster = ThreeNodes::new();
        cluster.change("node2", |node| {
            node.terminating = true;
            node.further_internal_ips = vec!["192.0.2.99".parse().unwrap(), "2001:db8::99".parse().unwrap()];
            node.created = None;
            node.lan_slices.insert(Family::Ipv4, "10.10.2.0/24".parse().unwrap());
            node.lan_slices.insert(Family::Ipv6, "2001:db8::2:0/112".parse().unwrap());
        });
        cluster.change("node3", |node| {
            node.unreadable_pod_cidr = true;
            node.unreadable_lan_slice = true;
            node.uid.clear();
        });
        let text = serde_json::to_string(&NodeList::new(&cluster.snapshot, "7".to_owned())).unwrap();
        let document: NodeDocument = serde_json::from_str(&text).unwrap();
        let objects = document.into_objects().unwrap();
        let read = snapshot_from_objects(SourceKind::Kubernetes, Freshness::Synced, objects);
        assert_eq!(read.nodes, cluster.snapshot.nodes);
    }
}

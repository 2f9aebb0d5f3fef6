//! What this node's own object says of what this agent writes there.

use std::collections::BTreeMap;

use node_network::cluster::INTERNAL_IP_ANNOTATION;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What stands in the API now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnNode {
    pub(crate) uid: String,
    pub(crate) network_unavailable: Option<ObservedCondition>,
    pub(crate) internal_ip_annotation: Option<String>,
}

/// The condition `NetworkUnavailable`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ObservedCondition {
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    observed: ObservedCondition,
}

impl OwnNode {
    /// Reads a Node; one of another shape says nothing.
    pub(crate) fn parse(raw: &RawValue) -> Option<Self> {
        let Node { metadata, status } = serde_json::from_str(raw.get()).ok()?;
        let conditions = status.conditions.unwrap_or_default();
        let network_unavailable = conditions
            .into_iter()
            .find(|condition| condition.kind == "NetworkUnavailable")
            .map(|found| found.observed);
        let internal_ip_annotation =
            metadata.annotations.and_then(|mut all| all.remove(INTERNAL_IP_ANNOTATION));
        Some(Self { uid: metadata.uid, network_unavailable, internal_ip_annotation })
    }
}

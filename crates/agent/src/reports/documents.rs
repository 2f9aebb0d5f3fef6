//! The documents that are written to the API.

use std::time::Duration;

use node_network::cluster::{INTERNAL_IP_ANNOTATION, rfc3339};
use serde_json::{Value, json};

use super::events::Event;
use super::{NetworkStatus, WantedCondition};

/// Who wrote it, for those who read Events.
const CONTROLLER: &str = "hostgw.io/agent";

/// Strategic merge patch of `nodes/NAME/status`.
pub(super) fn condition(wanted: &WantedCondition, now: Duration) -> Value {
    let now = seconds(now);
    json!({"status": {"conditions": [{
        "type": "NetworkUnavailable",
        "status": if wanted.unavailable { "True" } else { "False" },
        "reason": wanted.reason,
        "message": wanted.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }]}})
}

/// Merge patch of `nodes/NAME`.
pub(super) fn annotation(addresses: &str) -> Value {
    json!({"metadata": {"annotations": {INTERNAL_IP_ANNOTATION: addresses}}})
}

/// A new `NodeNetwork`; it goes with its Node.
pub(super) fn node_network(node: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "hostgw.io/v1alpha1", "kind": "NodeNetwork",
        "metadata": {"name": node, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
    })
}

/// Merge patch of `nodenetworks/NAME/status`.
pub(super) fn network_status(status: &NetworkStatus, now: Duration) -> Value {
    let mut status = json!(status);
    status["since"] = json!(seconds(now));
    json!({ "status": status })
}

/// An Event (events.k8s.io/v1), about a pod or about this node.
pub(super) fn event(event: &Event, node: &str, uid: &str) -> Value {
    let regarding = match &event.occurrence.pod {
        Some(pod) => {
            let mut regarding =
                json!({"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name});
            if let Some(uid) = &pod.uid {
                regarding["uid"] = json!(uid);
            }
            regarding
        }
        None => json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}),
    };
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": event.name, "namespace": event.occurrence.namespace()},
        "eventTime": micros(event.at),
        "reportingController": CONTROLLER, "reportingInstance": node,
        "action": "Reconcile", "reason": event.occurrence.reason, "note": event.occurrence.note,
        "type": if event.occurrence.warning { "Warning" } else { "Normal" },
        "regarding": regarding,
    })
}

/// Merge patch of an Event that happened again.
pub(super) fn series(count: u32, last: Duration) -> Value {
    json!({"series": {"count": count, "lastObservedTime": micros(last)}})
}

fn seconds(since_1970: Duration) -> String {
    rfc3339(i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX))
}

/// `MicroTime` wants six digits.
fn micros(since_1970: Duration) -> String {
    let whole = seconds(since_1970);
    format!("{}.{:06}Z", whole.trim_end_matches('Z'), since_1970.subsec_micros())
}

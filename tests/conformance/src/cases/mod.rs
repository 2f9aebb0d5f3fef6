//! The cases, a file a plugin. Each is networks and steps; what must come of them, the reference says.
#![allow(clippy::needless_pass_by_value, reason = "tables of literals, which references would only clutter")]

mod bandwidth;
mod bridge;
mod chain;
mod firewall;
mod gc;
mod host_local;
mod loopback;
mod portmap;
mod ptp;
mod refused;
mod static_ipam;
mod tuning;
mod verbs;
mod versions;

use serde_json::{Value, json};

use crate::case::Case;

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for some in [
        bridge::cases(),
        ptp::cases(),
        loopback::cases(),
        host_local::cases(),
        static_ipam::cases(),
        portmap::cases(),
        firewall::cases(),
        tuning::cases(),
        bandwidth::cases(),
        chain::cases(),
        gc::cases(),
        verbs::cases(),
        versions::cases(),
        refused::cases(),
    ] {
        cases.extend(some);
    }
    cases
}

/// A network of these plugins in the newest version.
pub(crate) fn network(plugins: Value) -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "plugins": plugins})
}

/// An object with the keys of another put over its own.
pub(crate) fn with(mut conf: Value, patch: &Value) -> Value {
    if let (Some(keys), Some(over)) = (conf.as_object_mut(), patch.as_object()) {
        for (key, value) in over {
            keys.insert(key.clone(), value.clone());
        }
    }
    conf
}

/// `host-local` with a range of each family, and default routes.
pub(crate) fn dual() -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    })
}

/// `host-local` with one range.
pub(crate) fn single() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]})
}

/// A bridge that is its pods' gateway, with keys more.
pub(crate) fn bridge_with(ipam: Value, patch: &Value) -> Value {
    with(json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam}), patch)
}

/// A network of one such bridge.
pub(crate) fn bridged(patch: &Value) -> Value {
    network(json!([bridge_with(single(), patch)]))
}

/// A network of a routed link, with keys more.
pub(crate) fn routed(ipam: Value, patch: &Value) -> Value {
    network(json!([with(json!({"type": "ptp", "ipam": ipam}), patch)]))
}

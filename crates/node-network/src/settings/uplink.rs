//! The bridge into which the node's uplink is moved.

use link_name::LinkName;
use serde::{Deserialize, Serialize};

use super::{Mode, Settings, SettingsError};

/// A move of the node's uplink into a bridge, as `hostgw uplink join` makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UplinkSettings {
    /// The NIC, bond or VLAN link.
    pub link: LinkName,
    /// The bridge that takes over what it holds.
    pub bridge: LinkName,
    /// Who must answer before and after, besides the API server; the default gateways where nobody is named.
    #[serde(default)]
    pub probes: Vec<std::net::IpAddr>,
}

impl UplinkSettings {
    pub(super) fn faults(&self, settings: &Settings) -> Option<SettingsError> {
        let bridge = self.bridge.as_str();
        let of_pods = settings.bridge.as_ref().map(LinkName::as_str);
        let remedy = if self.link == self.bridge {
            "is the link's own name: give the bridge another".to_owned()
        } else if settings.pod_bridge() == Some(bridge) {
            "is the pods' own bridge: give another name, or use mode l2".to_owned()
        } else if let Some(of_pods) = of_pods.filter(|name| settings.mode == Mode::L2 && *name != bridge) {
            format!("pods of the LAN are on `bridge`, {of_pods}: give both the same name")
        } else {
            return None;
        };
        Some(SettingsError { field: "uplink.bridge".to_owned(), value: bridge.to_owned(), remedy })
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;
    use crate::settings::tests::faults;

    #[test]
    fn the_bridge_that_the_uplink_joins_is_that_of_pods_of_the_lan_and_of_no_others() {
        let with = |mode: &str, pods: &str, uplink: &str| {
            let lan = if mode == "l2" {
                serde_json::json!({"subnets": ["192.0.2.0/24"]})
            } else {
                serde_json::json!({})
            };
            serde_json::json!({"mode": mode, "bridge": pods, "lan": lan, "uplink": {"link": "eth0", "bridge": uplink}})
        };
        insta::assert_snapshot!(faults(with("l2", "br1", "br0")), @"setting uplink.bridge is `br0`: pods of the LAN are on `bridge`, br1: give both the same name");
        insta::assert_snapshot!(faults(with("bridge", "br0", "br0")), @"setting uplink.bridge is `br0`: is the pods' own bridge: give another name, or use mode l2");
        for (mode, pods, uplink) in [("l2", "br0", "br0"), ("bridge", "cni0", "br0"), ("ptp", "cni0", "br0")]
        {
            let settings: Settings = serde_json::from_value(with(mode, pods, uplink)).unwrap();
            assert_eq!(settings.validate(), Ok(()), "{mode}");
        }
    }
}

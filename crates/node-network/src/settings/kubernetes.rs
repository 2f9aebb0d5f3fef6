//! What the agent tells the Kubernetes API, and which of this node's addresses it names there.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::SettingsError;

/// What is written to the API. Each of these writes when something changed, and never in the steady state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// Write the Node's condition `NetworkUnavailable`. False where a cloud's route controller does.
    pub network_unavailable: bool,
    /// Write Events about this node.
    pub events: bool,
    /// Keep a `NodeNetwork` object for this node (`kubectl get nodenetworks`).
    pub node_networks: bool,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self { network_unavailable: true, events: true, node_networks: true }
    }
}

/// Which of this node's addresses the others are to reach it by, where that is not the kubelet's choice. With either list
/// the agent keeps the annotation `hostgw.io/internal-ip` of its own Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeAddressSettings {
    /// Names of links, the preferred first; one that ends in `*` is the beginning of a name.
    pub interfaces: Vec<String>,
    /// Prefixes in which the address must lie.
    pub cidrs: Vec<IpNet>,
}

impl NodeAddressSettings {
    /// Nothing is chosen: the Node's own addresses count.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && self.cidrs.is_empty()
    }

    pub(super) fn faults(&self) -> Vec<SettingsError> {
        let mut faults = Vec::new();
        for (index, name) in self.interfaces.iter().enumerate() {
            let stem = name.strip_suffix('*').unwrap_or(name);
            let plain = |c: char| c.is_ascii_graphic() && c != '/' && c != '*';
            if name.is_empty() || stem.len() > 15 || !stem.chars().all(plain) {
                faults.push(SettingsError {
                    field: format!("nodeAddress.interfaces[{index}]"),
                    value: name.chars().take(32).flat_map(char::escape_default).collect(),
                    remedy: "give a link's name, such as wg0, or the beginning of one, such as wg*"
                        .to_owned(),
                });
            }
        }
        for (index, cidr) in self.cidrs.iter().enumerate().filter(|(_, cidr)| **cidr != cidr.trunc()) {
            faults.push(SettingsError {
                field: format!("nodeAddress.cidrs[{index}]"),
                value: cidr.to_string(),
                remedy: format!("has host bits set: write {}", cidr.trunc()),
            });
        }
        faults
    }
}

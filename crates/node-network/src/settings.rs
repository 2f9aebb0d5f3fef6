//! What an operator can choose (`/etc/hostgw/config.yaml`), checked before anything uses it.

mod cni;
mod dhcp;
mod interval;
mod kubernetes;
mod lan;
mod runtime;
mod uplink;

use std::collections::BTreeSet;

use cni_spec::{DEFAULT_BRIDGE, MAX_MTU, MIN_MTU, MIN_MTU_V6};
use ipnet::IpNet;
use link_name::LinkName;
use serde::{Deserialize, Serialize};

use crate::observed::{LinkKind, ObservedLink};
pub use cni::{Chain, CniSettings};
pub use cni_spec::{ClientId, DefaultRoute, ListenerCheck, Mode};
pub use dhcp::DhcpSettings;
pub use interval::Interval;
pub use kubernetes::{KubernetesSettings, NodeAddressSettings};
pub use lan::{LanRoute, LanSettings, Slices};
pub use runtime::RuntimeSettings;
pub use uplink::UplinkSettings;

/// The whole of `/etc/hostgw/config.yaml`. Unknown keys are refused, so that a misspelt one is not silently ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// How pods are joined to the node.
    pub mode: Mode,
    /// The pods' bridge in bridge mode; [`DEFAULT_BRIDGE`] when absent.
    pub bridge: Option<LinkName>,
    /// The link that is moved into a bridge before anything else; none stays where it is.
    pub uplink: Option<UplinkSettings>,
    /// The node's LAN, where pods are hosts of it.
    pub lan: LanSettings,
    /// MTU of pods' links in bytes; 0 means that of the uplink.
    pub mtu: u32,
    /// Routes to other nodes' pods.
    pub routes: RouteSettings,
    /// Address translation of what leaves the cluster.
    pub masquerade: MasqueradeSettings,
    /// Forwarding of pods' packets.
    pub forwarding: ForwardingSettings,
    /// Drop packets of a pod with a source address that is not its own, and router advertisements from pods.
    pub anti_spoof: bool,
    /// The CNI configuration that the agent writes.
    pub cni: CniSettings,
    /// What is told to the Kubernetes API.
    pub kubernetes: KubernetesSettings,
    /// Which address of this node is told there.
    pub node_address: NodeAddressSettings,
    /// The container runtime.
    pub runtime: RuntimeSettings,
    /// How often everything is looked at again although nothing was reported.
    pub resync_interval: Interval,
}

/// Routes to other nodes' pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteSettings {
    /// Metric (`RTA_PRIORITY`) of routes to peers. A value of our own, because the kernel's replace key holds the
    /// metric and not the protocol: with a metric that nobody else uses, ours can never overwrite a foreign route.
    /// 104, like the protocol, so that one recognises it in `ip route`; below IPv6's default of 1024.
    pub metric: u32,
    /// Routing table of routes to peers; 254 is `main`.
    pub table: u32,
    /// Where a WireGuard link leads to a peer: give the AllowedIPs of the peer that has the node's address its pod CIDRs.
    #[serde(rename = "maintainAllowedIPs")]
    pub maintain_allowed_ips: bool,
    /// Peers in these prefixes are on link although no connected route says so: nodes with /32 or /128 addresses.
    pub on_link_prefixes: Vec<OnLinkPrefix>,
}

/// A prefix whose addresses are on link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OnLinkPrefix {
    /// The peers' addresses.
    pub prefix: IpNet,
    /// The link they are on; that of the family's default route when absent.
    #[serde(default)]
    pub link: Option<LinkName>,
}

/// Address translation of what leaves the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MasqueradeSettings {
    /// Translate at all.
    pub enabled: bool,
    /// Destinations that see the pod's own address, besides pods, nodes, multicast and link-local.
    pub never_masquerade: Vec<IpNet>,
    /// The cluster's whole pod ranges. With them, a flow to a node whose Node event is late is not pinned as
    /// masqueraded.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNet>,
}

/// Forwarding of pods' packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ForwardingSettings {
    /// Turn forwarding on where this node has pods of the family.
    pub enabled: bool,
    /// Drop forwarded packets that are neither to nor from a pod of the cluster: the node does not become a router
    /// for its LAN. Off by default because it also stops other forwarding on the node (containers, VMs).
    pub restrict_to_pods: bool,
    /// Add accept rules where an iptables FORWARD chain drops by policy.
    pub foreign_rules: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            bridge: None,
            uplink: None,
            lan: LanSettings::default(),
            mtu: 0,
            routes: RouteSettings::default(),
            masquerade: MasqueradeSettings::default(),
            forwarding: ForwardingSettings::default(),
            anti_spoof: true,
            cni: CniSettings::default(),
            kubernetes: KubernetesSettings::default(),
            node_address: NodeAddressSettings::default(),
            runtime: RuntimeSettings::default(),
            resync_interval: Interval::of_seconds(30),
        }
    }
}

impl Default for RouteSettings {
    fn default() -> Self {
        Self { metric: 104, table: 254, maintain_allowed_ips: false, on_link_prefixes: Vec::new() }
    }
}

impl Default for MasqueradeSettings {
    fn default() -> Self {
        Self { enabled: true, never_masquerade: Vec::new(), cluster_cidrs: Vec::new() }
    }
}

impl Default for ForwardingSettings {
    fn default() -> Self {
        Self { enabled: true, restrict_to_pods: false, foreign_rules: true }
    }
}

/// A setting that cannot be used: which, its value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting {field} is `{value}`: {remedy}")]
pub struct SettingsError {
    /// Path of the key.
    pub field: String,
    /// The value found.
    pub value: String,
    /// What is allowed.
    pub remedy: String,
}

impl Settings {
    /// Name of the bridge that is the pods' alone; `None` in the other modes.
    #[must_use]
    pub fn pod_bridge(&self) -> Option<&str> {
        let name = self.bridge.as_ref().map_or(DEFAULT_BRIDGE, LinkName::as_str);
        (self.mode == Mode::Bridge).then_some(name)
    }

    /// The bridge by which pods are on the LAN, in mode `l2`.
    #[must_use]
    pub fn lan_bridge(&self) -> Option<&str> {
        self.bridge.as_ref().filter(|_| self.mode == Mode::L2).map(LinkName::as_str)
    }

    /// Checks every value and reports every fault.
    pub fn validate(&self) -> Result<(), Vec<SettingsError>> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, value: String, remedy: String| {
            faults.push(SettingsError { field: field.to_owned(), value, remedy });
        };
        if self.mtu != 0 && !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            let remedy = format!(
                "use 0 for the uplink's, or {MIN_MTU} to {MAX_MTU} ({MIN_MTU_V6} at least with IPv6)"
            );
            fault("mtu", self.mtu.to_string(), remedy);
        }
        if self.routes.metric == 0 || self.routes.metric >= crate::desired::GUARD_METRIC {
            let remedy = format!("use 1 to {}", crate::desired::GUARD_METRIC - 1);
            fault("routes.metric", self.routes.metric.to_string(), remedy);
        }
        if self.routes.table == 0 || self.routes.table == 255 {
            fault(
                "routes.table",
                self.routes.table.to_string(),
                "use 254 (main) or a table of your own".to_owned(),
            );
        }
        let mut prefixes = BTreeSet::new();
        for (index, on_link) in self.routes.on_link_prefixes.iter().enumerate() {
            let field = format!("routes.onLinkPrefixes[{index}].prefix");
            if on_link.prefix != on_link.prefix.trunc() {
                fault(
                    &field,
                    on_link.prefix.to_string(),
                    format!("has host bits set: write {}", on_link.prefix.trunc()),
                );
            }
            if !prefixes.insert(on_link.prefix.trunc()) {
                fault(&field, on_link.prefix.to_string(), "is listed twice: remove one".to_owned());
            }
        }
        let lists = [
            ("masquerade.neverMasquerade", &self.masquerade.never_masquerade),
            ("masquerade.clusterCIDRs", &self.masquerade.cluster_cidrs),
        ];
        for (name, list) in lists {
            for (index, cidr) in list.iter().enumerate().filter(|(_, cidr)| **cidr != cidr.trunc()) {
                let remedy = format!("has host bits set: write {}", cidr.trunc());
                fault(&format!("{name}[{index}]"), cidr.to_string(), remedy);
            }
        }
        faults.extend(self.cni.faults(self.mode));
        faults.extend(self.node_address.faults());
        faults.extend(self.runtime.faults());
        faults.extend(self.uplink.iter().flat_map(|uplink| uplink.faults(self)));
        faults.extend(self.lan.faults(self.mode, self.bridge.is_some()));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Whether this link can be a pod's port of the pods' bridge: the reference names them `veth` and 8 digits.
    pub(crate) fn is_pod_port(&self, port: &ObservedLink) -> bool {
        let of_classic_chain =
            self.cni.chain == Chain::Classic && port.kind == LinkKind::Veth && port.name.starts_with("veth");
        port.is_pod_link() || of_classic_chain
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::settings) fn faults(json: serde_json::Value) -> String {
        let settings: Settings = serde_json::from_value(json).unwrap();
        let faults = settings.validate().unwrap_err();
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_defaults_are_valid_and_survive_a_round_trip() {
        let settings = Settings::default();
        settings.validate().unwrap();
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), settings);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<Settings>(r#"{"masqerade":{}}"#).is_err());
        assert!(serde_json::from_str::<Settings>(r#"{"routes":{"metrics":3}}"#).is_err());
    }

    #[test]
    fn every_fault_is_reported_with_its_remedy() {
        insta::assert_snapshot!(faults(serde_json::json!({
            "mtu": 12, "routes": {"metric": 0, "table": 255, "onLinkPrefixes": [{"prefix": "10.0.0.1/8"}]},
            "masquerade": {"neverMasquerade": ["192.0.2.1/24"]},
            "cni": {"networkName": "../x", "confFile": "relative", "logFile": "/var/../x"}})), @r"
        setting mtu is `12`: use 0 for the uplink's, or 68 to 65535 (1280 at least with IPv6)
        setting routes.metric is `0`: use 1 to 103999
        setting routes.table is `255`: use 254 (main) or a table of your own
        setting routes.onLinkPrefixes[0].prefix is `10.0.0.1/8`: has host bits set: write 10.0.0.0/8
        setting masquerade.neverMasquerade[0] is `192.0.2.1/24`: has host bits set: write 192.0.2.0/24
        setting cni.networkName is `../x`: use 1 to 200 letters, digits, `_`, `.` or `-`, beginning with a letter or digit
        setting cni.confFile is `relative`: give an absolute path, without `..` and a `/` at its end
        setting cni.logFile is `/var/../x`: give an absolute path, without `..` and a `/` at its end
        setting cni.confFile is `relative`: the name must end in .conflist
        ");
    }
}

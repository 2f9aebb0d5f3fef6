//! What an operator can choose (`/etc/hostgw/config.yaml`), checked before anything uses it.

mod dhcp;
mod kubernetes;
mod lan;
mod runtime;
mod uplink;

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use link_name::LinkName;
use serde::{Deserialize, Serialize};

use crate::observed::{LinkKind, ObservedLink};
pub use dhcp::{ClientId, DefaultRoute, DhcpSettings};
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

/// The pods' bridge when none is named; the plugin's default too.
pub const DEFAULT_BRIDGE: &str = "cni0";

/// How pods are joined to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A routed veth pair for each pod.
    #[default]
    Ptp,
    /// A port on one bridge.
    Bridge,
    /// A port on a bridge that leads to the node's LAN, with an address of that LAN.
    L2,
    /// A routed veth pair and an address of the node's LAN, on which the node answers for the pod.
    #[serde(rename = "l2-routed")]
    L2Routed,
}

impl Mode {
    /// As the CNI configuration spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
            Self::L2 => "l2",
            Self::L2Routed => "l2-routed",
        }
    }

    /// Whether pods are hosts of the node's own LAN.
    #[must_use]
    pub const fn is_of_lan(self) -> bool {
        matches!(self, Self::L2 | Self::L2Routed)
    }
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

/// The CNI configuration that the agent writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CniSettings {
    /// `name` of the network.
    pub network_name: String,
    /// The plugins that it names.
    pub chain: Chain,
    /// Where the classic chain's `host-local` keeps addresses. Cleared by a reboot, unlike the reference's own default,
    /// whose files of pods that a reboot ended fill the range.
    pub host_local_dir: String,
    /// Path of the conflist; the runtime takes the first by name in the folder.
    pub conf_file: String,
    /// For runtimes that share the configuration folder with another runtime.
    #[serde(rename = "disableGC")]
    pub disable_gc: bool,
    /// A pod may reach itself by its own host port or service address.
    pub hairpin: bool,
    /// Where the plugin writes its log; nowhere when absent.
    pub log_file: Option<String>,
    /// What a pod gets whose host port a program on the node listens on.
    pub host_port_listener_check: ListenerCheck,
    /// Host ports are open on the node's 127.0.0.1 as well (routed pods only).
    pub localhost_ports: bool,
    /// STATUS fails also for a full range or a lost node address. Kubernetes evicts the pods of such a node.
    pub strict_status: bool,
}

/// The plugins that the runtime executes for a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Chain {
    /// Ours, which does all in one.
    #[default]
    Hostgw,
    /// `bridge` with `host-local`, then `portmap`: the reference's, or whatever has these names.
    Classic,
}

/// What becomes of a host port on which a program of the node listens already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerCheck {
    /// The pod is refused.
    #[default]
    Refuse,
    /// The pod gets it, with a warning in the plugin's log.
    Warn,
    /// Nobody looks.
    Off,
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
            resync_interval: Interval(Duration::from_secs(30)),
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

impl Default for CniSettings {
    fn default() -> Self {
        Self {
            network_name: "hostgw".to_owned(),
            chain: Chain::default(),
            host_local_dir: "/run/cni-ipam-state".to_owned(),
            conf_file: "/etc/cni/net.d/10-hostgw.conflist".to_owned(),
            disable_gc: false,
            hairpin: true,
            log_file: None,
            host_port_listener_check: ListenerCheck::default(),
            localhost_ports: false,
            strict_status: false,
        }
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

/// A pod's link must carry any IPv4 packet (RFC 791).
const MIN_MTU: u32 = 68;
/// Each link must carry an IPv6 packet of this many bytes (RFC 8200).
pub(crate) const MIN_IPV6_MTU: u32 = 1_280;
pub(crate) const MAX_MTU: u32 = 65_535;

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
            let remedy =
                format!("use 0 for the uplink's, or {MIN_MTU} to {MAX_MTU} (1280 at least with IPv6)");
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
        if self.cni.localhost_ports && matches!(self.mode, Mode::Bridge | Mode::L2) {
            let remedy = "routed pods only: remove it, or use mode ptp".to_owned();
            fault("cni.localhostPorts", "true".to_owned(), remedy);
        }
        for (field, value) in self.not_of_the_classic_chain() {
            let instead = if field == "mode" { "use bridge" } else { "remove it" };
            fault(field, value, format!("not for the classic chain: {instead}, or use cni.chain hostgw"));
        }
        let name = &self.cni.network_name;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if name.len() > 200
            || !name.bytes().all(plain)
            || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            let shown = name.chars().take(64).flat_map(char::escape_default).collect();
            let remedy = "use 1 to 200 letters, digits, `_`, `.` or `-`, beginning with a letter or digit";
            fault("cni.networkName", shown, remedy.to_owned());
        }
        let paths = [
            ("cni.confFile", Some(&self.cni.conf_file)),
            ("cni.hostLocalDir", Some(&self.cni.host_local_dir)),
            ("cni.logFile", self.cni.log_file.as_ref()),
        ];
        for (field, path) in paths.into_iter().filter_map(|(field, path)| Some((field, path?))) {
            if !path.starts_with('/') || path.ends_with('/') || path.split('/').any(|part| part == "..") {
                fault(
                    field,
                    path.clone(),
                    "give an absolute path, without `..` and a `/` at its end".to_owned(),
                );
            }
        }
        if !self.cni.conf_file.ends_with(".conflist") {
            fault("cni.confFile", self.cni.conf_file.clone(), "the name must end in .conflist".to_owned());
        }
        faults.extend(self.node_address.faults());
        faults.extend(self.runtime.faults());
        faults.extend(self.uplink.iter().flat_map(|uplink| uplink.faults(self)));
        faults.extend(self.lan.faults(self.mode, self.bridge.is_some()));
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Settings that only type `hostgw` can follow, with their values, where the chain is the classic one.
    fn not_of_the_classic_chain(&self) -> Vec<(&'static str, String)> {
        if self.cni.chain != Chain::Classic {
            return Vec::new();
        }
        let cni = &self.cni;
        let chosen = [
            ("mode", self.mode != Mode::Bridge, self.mode.as_str().to_owned()),
            ("cni.localhostPorts", cni.localhost_ports, "true".to_owned()),
            ("cni.strictStatus", cni.strict_status, "true".to_owned()),
            ("cni.logFile", cni.log_file.is_some(), cni.log_file.clone().unwrap_or_default()),
            (
                "cni.hostPortListenerCheck",
                cni.host_port_listener_check != ListenerCheck::default(),
                format!("{:?}", cni.host_port_listener_check).to_lowercase(),
            ),
        ];
        chosen.into_iter().filter(|(_, chosen, _)| *chosen).map(|(field, _, value)| (field, value)).collect()
    }

    /// Whether this link can be a pod's port of the pods' bridge: the reference names them `veth` and 8 digits.
    pub(crate) fn is_pod_port(&self, port: &ObservedLink) -> bool {
        let of_classic_chain =
            self.cni.chain == Chain::Classic && port.kind == LinkKind::Veth && port.name.starts_with("veth");
        port.is_pod_link() || of_classic_chain
    }
}

/// A time span between one second and one hour, written as `30s`, `5m` or `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(Duration);

impl Interval {
    /// The span.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<String> for Interval {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let remedy = || {
            let shown: String = text.chars().take(32).flat_map(char::escape_default).collect();
            format!("`{shown}` is no time span: write 30s, 5m or 1h (1s to 1h)")
        };
        let unit = text.chars().next_back().ok_or_else(remedy)?;
        let seconds_a_unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return Err(remedy()),
        };
        let count: u64 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).ok_or_else(remedy)?;
        match count.checked_mul(seconds_a_unit) {
            Some(seconds @ 1..=3_600) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(remedy()),
        }
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        format!("{}s", interval.0.as_secs())
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

    #[test]
    fn the_classic_chain_is_for_bridged_pods_and_what_it_can_do() {
        insta::assert_snapshot!(faults(serde_json::json!({
            "cni": {"chain": "classic", "strictStatus": true, "hostPortListenerCheck": "off", "hostLocalDir": "x"}})), @r"
        setting mode is `ptp`: not for the classic chain: use bridge, or use cni.chain hostgw
        setting cni.strictStatus is `true`: not for the classic chain: remove it, or use cni.chain hostgw
        setting cni.hostPortListenerCheck is `off`: not for the classic chain: remove it, or use cni.chain hostgw
        setting cni.hostLocalDir is `x`: give an absolute path, without `..` and a `/` at its end
        ");
    }

    #[test]
    fn intervals_are_spans_between_a_second_and_an_hour() {
        let parse = |text: &str| Interval::try_from(text.to_owned());
        assert_eq!(parse("5m").unwrap().as_duration(), Duration::from_secs(300));
        for text in ["", "0s", "2h", "30", "s", "-1s", "1 s", "99999999999999999999h", "1é", "1ss"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

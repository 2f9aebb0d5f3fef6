//! Settings of pods whose addresses the LAN's DHCP server lends.

use cni_spec::{ClientId, DefaultRoute, MAX_DHCP_TIMEOUT, Mode};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::lan::{LanSettings, Slices};
use crate::family::Family;

/// How the plugin asks the LAN's DHCP server, in the place of slices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DhcpSettings {
    /// Who a pod is to the server.
    pub client_id: ClientId,
    /// For how many seconds servers are asked before ADD fails, 1 to 180.
    pub timeout_seconds: u32,
    /// The LAN is asked whether somebody has an address that is lent.
    pub conflict_probe: bool,
    /// Where pods' default route leads on a bridge; to the server's router when absent (mode `l2`).
    pub default_route: Option<DefaultRoute>,
}

impl Default for DhcpSettings {
    fn default() -> Self {
        Self {
            client_id: ClientId::Container,
            timeout_seconds: 10,
            conflict_probe: false,
            default_route: None,
        }
    }
}

/// What of the LAN's settings contradicts addresses that a server lends: field below `lan`, value and remedy.
pub(super) fn faults(lan: &LanSettings, mode: Mode) -> Vec<(&'static str, String, String)> {
    let Some(dhcp) = &lan.dhcp else { return Vec::new() };
    let mut faults = Vec::new();
    if lan.subnet(Family::Ipv4).is_none() {
        let remedy = "name the IPv4 subnet in which the DHCP server lends addresses".to_owned();
        faults.push(("subnets", format!("{:?}", lan.subnets), remedy));
    }
    // IPv6 addresses are not the server's.
    let is_sliced = lan.subnet(Family::Ipv6).is_some() && !lan.slaac;
    let is_of_ipv4 = |net: &IpNet| Family::of_net(net) == Family::Ipv4;
    let of_ipv4 = match &lan.slices {
        Slices::Index { first } => first.iter().any(is_of_ipv4),
        Slices::PodCidr | Slices::Annotation => false,
    };
    let others = [
        ("slices", lan.slices != Slices::default() && (of_ipv4 || !is_sliced)),
        ("reserved", lan.reserved.iter().any(|net| is_of_ipv4(net) || !is_sliced)),
        ("gateways", lan.gateways.iter().any(|gateway| gateway.is_ipv4() || !is_sliced)),
        ("isGateway", !lan.is_gateway),
        ("conflictProbeMs", lan.conflict_probe_ms != 0),
    ];
    for (field, _) in others.into_iter().filter(|(_, is_given)| *is_given) {
        let remedy =
            "the DHCP server decides over IPv4 addresses and routers; remove it, or lan.dhcp".to_owned();
        faults.push((field, "given beside lan.dhcp".to_owned(), remedy));
    }
    if !(1..=MAX_DHCP_TIMEOUT).contains(&dhcp.timeout_seconds) {
        let value = dhcp.timeout_seconds.to_string();
        faults.push(("dhcp.timeoutSeconds", value, format!("use 1 to {MAX_DHCP_TIMEOUT}")));
    }
    if mode == Mode::L2Routed && dhcp.default_route.is_some() {
        let remedy =
            "pods of mode l2-routed send everything to their node; remove it, or use mode l2".to_owned();
        faults.push(("dhcp.defaultRoute", format!("{:?}", dhcp.default_route), remedy));
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    #[test]
    fn what_a_server_decides_is_not_given_beside_it() {
        let faults = |mode: &str, lan: serde_json::Value| -> Vec<String> {
            let json = serde_json::json!({"mode": mode, "bridge": "br0", "lan": lan});
            let settings: Settings = serde_json::from_value(json).unwrap();
            settings.validate().err().unwrap_or_default().iter().map(ToString::to_string).collect()
        };
        let lan = |patch: serde_json::Value| {
            let mut lan = serde_json::json!({"subnets": ["10.10.0.0/16"], "dhcp": {"clientId": "pod"}});
            lan.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
            lan
        };
        assert_eq!(faults("l2", lan(serde_json::json!({}))), [""; 0]);
        for (patch, said) in [
            (serde_json::json!({"subnets": ["fd00::/64"]}), "lan.subnets"),
            (serde_json::json!({"slices": {"index": {"first": ["10.10.0.0/24"]}}}), "lan.slices"),
            (serde_json::json!({"slaac": true}), "lan.slaac"),
            (serde_json::json!({"reserved": ["10.10.0.0/24"]}), "lan.reserved"),
            (serde_json::json!({"gateways": ["10.10.0.1"]}), "lan.gateways"),
            (serde_json::json!({"conflictProbeMs": 100}), "lan.conflictProbeMs"),
            (serde_json::json!({"dhcp": {"timeoutSeconds": 181}}), "lan.dhcp.timeoutSeconds"),
        ] {
            let told = faults("l2", lan(patch.clone()));
            assert!(told.iter().any(|told| told.contains(said)), "{patch}: {told:?}");
        }
        let beside = serde_json::json!({"subnets": ["10.10.0.0/16", "fd00::/64"],
            "slices": {"index": {"first": ["fd00::/112"]}}, "reserved": ["fd00::f:0/112"]});
        assert_eq!(faults("l2", lan(beside)), [""; 0]);
        let formed = serde_json::json!({"subnets": ["10.10.0.0/16", "2000::/3"], "slaac": true});
        assert_eq!(faults("l2-routed", lan(formed)), [""; 0]);
        let routed = faults("l2-routed", lan(serde_json::json!({"dhcp": {"defaultRoute": "router"}})));
        assert!(routed.iter().any(|told| told.contains("lan.dhcp.defaultRoute")), "{routed:?}");
    }
}

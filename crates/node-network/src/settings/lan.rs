//! Settings of modes `l2` and `l2-routed`: the node's LAN, and which part of it is whose.

use std::net::IpAddr;

use cni_spec::MAX_PROBE_MS;
use ipnet::IpNet;
use link_name::LinkName;
use serde::{Deserialize, Serialize};

use super::dhcp::{self, DhcpSettings};
use super::{Mode, SettingsError};
use crate::family::Family;

/// RFC 4862, section 5.5.3, and RFC 4291, section 2.5.1.
const SLAAC_PREFIX: u8 = 64;

/// The LAN that nodes and pods share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LanSettings {
    /// The LAN's subnet, one a family.
    pub subnets: Vec<IpNet>,
    /// Which part of it is a node's.
    pub slices: Slices,
    /// Prefixes of it from which no pod gets an address: the DHCP server's range, routers, printers.
    pub reserved: Vec<IpNet>,
    /// The pods' gateway, at most one a family; this node's own address when absent.
    pub gateways: Vec<IpAddr>,
    /// The gateways are this node's to hold; else they are the LAN's routers (mode `l2`).
    pub is_gateway: bool,
    /// Further networks, and the routers of the LAN that lead to them past the pods' gateway (mode `l2`).
    pub routes: Vec<LanRoute>,
    /// The node's link to the LAN; that of its own address when absent (mode `l2-routed`).
    pub uplink: Option<LinkName>,
    /// The bridge hears every frame of the LAN (mode `l2`).
    pub promisc_mode: bool,
    /// Drop what a pod sends with another Ethernet or IP address than its own (mode `l2`; in `l2-routed` that is
    /// [`super::Settings::anti_spoof`]'s).
    pub anti_spoof: bool,
    /// For how many milliseconds the LAN is asked whether somebody has an address before a pod gets it; 0 does not ask.
    pub conflict_probe_ms: u32,
    /// Pods form their IPv6 addresses of a prefix that the LAN's router announces, within the IPv6 subnet; else they are of
    /// slices.
    pub slaac: bool,
    /// The LAN's DHCP server lends the pods' IPv4 addresses; none: they are of slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<DhcpSettings>,
}

/// A network behind a router of the LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanRoute {
    /// The network.
    pub dst: IpNet,
    /// The router.
    pub gw: IpAddr,
}

/// Which part of the LAN is a node's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Slices {
    /// The node's pod CIDRs.
    #[default]
    PodCidr,
    /// The number at the end of the node's name, counted from `first`.
    Index {
        /// The slice of number 0, one a family; those of other numbers follow.
        first: Vec<IpNet>,
    },
    /// What the node's annotation [`crate::cluster::LAN_SLICE_ANNOTATION`] names.
    Annotation,
}

impl Default for LanSettings {
    fn default() -> Self {
        Self {
            subnets: Vec::new(),
            slices: Slices::default(),
            reserved: Vec::new(),
            gateways: Vec::new(),
            is_gateway: true,
            routes: Vec::new(),
            uplink: None,
            promisc_mode: false,
            anti_spoof: false,
            conflict_probe_ms: 0,
            slaac: false,
            dhcp: None,
        }
    }
}

impl LanSettings {
    /// The LAN's subnet in a family.
    #[must_use]
    pub fn subnet(&self, family: Family) -> Option<IpNet> {
        self.subnets.iter().copied().find(|subnet| Family::of_net(subnet) == family)
    }

    /// The gateway that pods of a family are given.
    #[must_use]
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| Family::of(*gateway) == family)
    }

    /// Whether pods have addresses of a family that are of no node's slice: a DHCP server lends them, or they form
    /// themselves.
    #[must_use]
    pub fn is_unsliced(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.dhcp.is_some(),
            Family::Ipv6 => self.slaac,
        }
    }

    pub(super) fn faults(&self, mode: Mode, has_bridge: bool) -> Vec<SettingsError> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, value: String, remedy: String| {
            faults.push(SettingsError { field: format!("lan.{field}"), value, remedy });
        };
        if !mode.is_of_lan() {
            if *self != Self::default() {
                let remedy = "has no effect; remove `lan`, or use mode l2 or l2-routed".to_owned();
                fault("subnets", format!("{:?}", self.subnets), remedy);
            }
            return faults;
        }
        if self.subnets.is_empty() {
            fault("subnets", "[]".to_owned(), "give the LAN's subnet, as in [\"10.10.0.0/16\"]".to_owned());
        }
        let first: &[IpNet] = match &self.slices {
            Slices::PodCidr | Slices::Annotation => &[],
            Slices::Index { first } => first,
        };
        for (field, list) in [
            ("subnets", self.subnets.as_slice()),
            ("reserved", &self.reserved),
            ("slices.index.first", first),
        ] {
            for (index, net) in list.iter().enumerate() {
                let field = format!("{field}[{index}]");
                if *net != net.trunc() {
                    fault(&field, net.to_string(), format!("has host bits set: write {}", net.trunc()));
                }
            }
        }
        for family in Family::BOTH {
            let twice = |list: &[IpNet]| list.iter().filter(|net| Family::of_net(net) == family).count() > 1;
            if twice(&self.subnets) {
                fault("subnets", format!("{:?}", self.subnets), format!("give one subnet of {family}"));
            }
            if twice(first) {
                fault("slices.index.first", format!("{first:?}"), format!("give one slice of {family}"));
            }
            if let Some(outside) = first.iter().find(|slice| {
                Family::of_net(slice) == family
                    && !self.subnet(family).is_some_and(|subnet| subnet.contains(*slice))
            }) {
                fault(
                    "slices.index.first",
                    outside.to_string(),
                    "give a part of the LAN's subnet".to_owned(),
                );
            }
            let gateways = self.gateways.iter().filter(|gateway| Family::of(**gateway) == family).count();
            if gateways > 1 {
                fault("gateways", format!("{:?}", self.gateways), format!("give one gateway of {family}"));
            }
            if !self.is_gateway && self.subnet(family).is_some() && gateways == 0 {
                let remedy =
                    format!("the {family} gateway is missing: name the LAN's router in lan.gateways");
                fault("isGateway", "false".to_owned(), remedy);
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            let field = format!("routes[{index}]");
            let value = format!("{} via {}", route.dst, route.gw);
            let family = Family::of_net(&route.dst);
            let remedy = if route.dst != route.dst.trunc() {
                format!("has host bits set: write {}", route.dst.trunc())
            } else if route.dst.prefix_len() == 0 {
                "is the default: name its router in lan.gateways, with isGateway: false".to_owned()
            } else if !self.subnet(family).is_some_and(|subnet| subnet.contains(&route.gw)) {
                format!("name a router in the LAN's {family} subnet")
            } else if self.routes[..index].iter().any(|other| other.dst == route.dst) {
                "is listed twice: remove one".to_owned()
            } else {
                continue;
            };
            fault(&field, value, remedy);
        }
        if mode == Mode::L2 && !has_bridge {
            fault(
                "subnets",
                format!("{:?}", self.subnets),
                "name the bridge to the LAN in `bridge`".to_owned(),
            );
        }
        if mode == Mode::L2 && self.uplink.is_some()
            || mode == Mode::L2Routed
                && (self.promisc_mode || self.anti_spoof || !self.is_gateway || !self.routes.is_empty())
        {
            let remedy = format!(
                "lan.uplink is of mode l2-routed, promiscMode, antiSpoof, isGateway and routes are of mode l2; this is mode {}",
                mode.as_str()
            );
            fault("uplink", self.uplink.as_ref().map_or_else(String::new, ToString::to_string), remedy);
        }
        for (field, value, remedy) in dhcp::faults(self, mode) {
            fault(field, value, remedy);
        }
        if self.slaac {
            let remedy = match self.subnet(Family::Ipv6) {
                None => "give an IPv6 subnet in lan.subnets in which the prefix is that the router announces",
                Some(subnet) if subnet.prefix_len() > SLAAC_PREFIX => {
                    "addresses form in prefixes of 64 bits: give an IPv6 subnet of 64 bits or fewer"
                }
                Some(_) if !self.is_gateway || self.gateway(Family::Ipv6).is_some() => {
                    "the IPv6 gateway of addresses that form themselves is their node: remove isGateway and the IPv6 gateway"
                }
                Some(_) => "",
            };
            if !remedy.is_empty() {
                fault("slaac", "true".to_owned(), remedy.to_owned());
            }
        }
        if self.conflict_probe_ms > MAX_PROBE_MS {
            fault("conflictProbeMs", self.conflict_probe_ms.to_string(), format!("use 0 to {MAX_PROBE_MS}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::Settings;

    fn faults(json: serde_json::Value) -> Vec<String> {
        let settings: Settings = serde_json::from_value(json).unwrap();
        settings.validate().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_lan_is_described_whole_or_refused_with_the_field_at_fault() {
        let lan = |mode: &str, lan: serde_json::Value| faults(serde_json::json!({"mode": mode, "lan": lan}));
        assert_eq!(lan("l2-routed", serde_json::json!({"subnets": ["10.10.0.0/16", "fd00::/64"]})), [""; 0]);
        for (mode, wrong, said) in [
            ("ptp", serde_json::json!({"subnets": ["10.10.0.0/16"]}), "has no effect"),
            ("l2-routed", serde_json::json!({}), "lan.subnets"),
            ("l2-routed", serde_json::json!({"subnets": ["10.10.0.1/16"]}), "10.10.0.0/16"),
            (
                "l2-routed",
                serde_json::json!({"subnets": ["10.10.0.0/16", "10.11.0.0/16"]}),
                "one subnet of IPv4",
            ),
            (
                "l2-routed",
                serde_json::json!({"subnets": ["10.10.0.0/16"], "promiscMode": true}),
                "promiscMode",
            ),
            ("l2", serde_json::json!({"subnets": ["10.10.0.0/16"]}), "`bridge`"),
            (
                "l2-routed",
                serde_json::json!({"subnets": ["10.10.0.0/16"], "conflictProbeMs": 10_001}),
                "10000",
            ),
            (
                "l2-routed",
                serde_json::json!({"subnets": ["10.10.0.0/16"], "slices": {"index": {"first": ["10.11.0.0/24"]}}}),
                "part of the LAN's subnet",
            ),
        ] {
            let told = lan(mode, wrong.clone());
            assert!(told.iter().any(|told| told.contains(said)), "{wrong}: {told:?}");
        }
        for (route, said) in [
            (serde_json::json!({"dst": "198.51.100.1/24", "gw": "10.10.0.1"}), "198.51.100.0/24"),
            (serde_json::json!({"dst": "0.0.0.0/0", "gw": "10.10.0.1"}), "lan.gateways"),
            (serde_json::json!({"dst": "198.51.100.0/24", "gw": "10.11.0.1"}), "LAN's IPv4 subnet"),
            (serde_json::json!({"dst": "fd00::/48", "gw": "10.10.0.1"}), "LAN's IPv6 subnet"),
        ] {
            let l2 = serde_json::json!({"mode": "l2", "bridge": "br0",
                "lan": {"subnets": ["10.10.0.0/16"], "routes": [route]}});
            let told = faults(l2);
            assert!(told.len() == 1 && told[0].contains(said), "{said}: {told:?}");
        }
        let bridged = serde_json::json!({"mode": "l2", "bridge": "br0",
            "lan": {"subnets": ["10.10.0.0/16"], "isGateway": false}});
        assert!(faults(bridged).iter().any(|told| told.contains("lan.gateways")));
    }
}

//! The CNI configuration list that makes the runtime call our plugin, or the reference's where the settings say so.

mod classic;

use ipnet::IpNet;
use serde_json::{Value, json};

pub use classic::{GENERATED_BY, GENERATOR};

use super::{PluginPaths, lan_slices};
use crate::cluster::ClusterNode;
use crate::family::{Family, PerFamily};
use crate::settings::{Chain, LanRoute, ListenerCheck, Settings};

/// The conflist of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflist(Value);

impl Conflist {
    /// One range set a family, so that a pod gets an address of each.
    pub(super) fn new(
        this: &ClusterNode,
        pod_cidrs: &PerFamily<IpNet>,
        settings: &Settings,
        paths: &PluginPaths,
    ) -> Self {
        let mut list = match settings.cni.chain {
            Chain::Hostgw => own_list(this, pod_cidrs, settings, paths),
            Chain::Classic => classic::list(pod_cidrs, settings),
        };
        if settings.cni.disable_gc {
            list["disableGC"] = json!(true);
        }
        Self(list)
    }

    /// The file's contents: indented, with a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        format!("{:#}\n", self.0)
    }
}

/// The list that runs our plugin alone.
fn own_list(
    this: &ClusterNode,
    pod_cidrs: &PerFamily<IpNet>,
    settings: &Settings,
    paths: &PluginPaths,
) -> Value {
    let node_addresses: Vec<_> = this.internal_ips.values().collect();
    // Keys in alphabetical order, which is serde_json's own: the bytes are the same whatever it is built with.
    let mut plugin = json!({
        "capabilities": {"bandwidth": true, "ips": true, "mac": true, "portMappings": true},
        "hairpin": settings.cni.hairpin,
        "ipam": ipam(pod_cidrs, settings, paths),
        "mode": settings.mode.as_str(),
        "nodeAddresses": node_addresses,
        "readyFile": paths.ready_file,
        "type": "hostgw",
    });
    if let Some(bridge) = settings.pod_bridge() {
        plugin["bridge"] = json!(bridge);
    }
    if settings.mode.is_of_lan() {
        add_lan(&mut plugin, pod_cidrs, settings);
    }
    if settings.mtu != 0 {
        plugin["mtu"] = json!(settings.mtu);
    }
    if let Some(path) = &settings.cni.log_file {
        plugin["logFile"] = json!(path);
    }
    if settings.cni.host_port_listener_check != ListenerCheck::default() {
        plugin["hostPortListenerCheck"] = json!(settings.cni.host_port_listener_check);
    }
    for (key, wanted) in
        [("localhostPorts", settings.cni.localhost_ports), ("strictStatus", settings.cni.strict_status)]
    {
        if wanted {
            plugin[key] = json!(true);
        }
    }
    // Old runtimes read `cniVersion`; new ones pick the highest of `cniVersions`, which brings STATUS and GC.
    json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": settings.cni.network_name,
        "plugins": [plugin],
    })
}

/// Where a pod's addresses come from.
fn ipam(pod_cidrs: &PerFamily<IpNet>, settings: &Settings, paths: &PluginPaths) -> Value {
    let lan = &settings.lan;
    let mut ipam = json!({"dataDir": paths.data_dir});
    let sliced = pod_cidrs.values().filter(|cidr| !lan.is_unsliced(Family::of_net(cidr)));
    let ranges: Vec<_> = sliced.map(|cidr| json!([range(cidr, settings)])).collect();
    if !ranges.is_empty() || !(lan.slaac || lan.dhcp.is_some()) {
        ipam["ranges"] = json!(ranges);
    }
    if lan.slaac {
        ipam["slaac"] = json!(pod_cidrs.get(Family::Ipv6));
    }
    if let Some(dhcp) = &lan.dhcp {
        ipam["clientID"] = json!(dhcp.client_id);
        ipam["conflictProbe"] = json!(dhcp.conflict_probe);
        ipam["leaseDir"] = json!(paths.lease_dir);
        ipam["subnet"] = json!(lan.subnet(Family::Ipv4));
        ipam["timeout"] = json!(dhcp.timeout_seconds);
        ipam["type"] = json!("dhcp");
        if let Some(way) = dhcp.default_route {
            ipam["defaultRoute"] = json!(way);
        }
    }
    ipam
}

/// What the plugin hands out of a pod CIDR; on the LAN it is a part of the LAN's subnet, from end to end.
fn range(pod_cidr: &IpNet, settings: &Settings) -> Value {
    let family = Family::of_net(pod_cidr);
    let Some(subnet) = settings.lan.subnet(family).filter(|_| settings.mode.is_of_lan()) else {
        return json!({ "subnet": pod_cidr });
    };
    let (first, last) = lan_slices::bounds(pod_cidr, &subnet);
    let mut range = json!({"rangeEnd": last, "rangeStart": first, "subnet": subnet});
    if let Some(gateway) = settings.lan.gateway(family) {
        range["gateway"] = json!(gateway);
    }
    range
}

fn add_lan(plugin: &mut Value, slices: &PerFamily<IpNet>, settings: &Settings) {
    let lan = &settings.lan;
    if let Some(bridge) = settings.lan_bridge() {
        plugin["bridge"] = json!(bridge);
    }
    if let Some(uplink) = &lan.uplink {
        plugin["uplink"] = json!(uplink.as_str());
    }
    if lan.anti_spoof {
        plugin["antiSpoof"] = json!(true);
    }
    if !lan.is_gateway {
        plugin["isGateway"] = json!(false);
    }
    if !lan.routes.is_empty() {
        // Given any route, the plugin adds no default.
        let defaults = slices.iter().map(|(family, _)| json!({"dst": default_destination(family)}));
        let has_pods = |route: &&LanRoute| slices.get(Family::of_net(&route.dst)).is_some();
        let further =
            lan.routes.iter().filter(has_pods).map(|route| json!({"dst": route.dst, "gw": route.gw}));
        plugin["routes"] = defaults.chain(further).collect();
    }
    if lan.promisc_mode {
        plugin["promiscMode"] = json!(true);
    }
    if lan.conflict_probe_ms != 0 {
        plugin["conflictProbeMs"] = json!(lan.conflict_probe_ms);
    }
}

const fn default_destination(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "0.0.0.0/0",
        Family::Ipv6 => "::/0",
    }
}

#[cfg(test)]
mod tests;

//! The CNI configuration list that makes the runtime call our plugin.

use serde_json::{Value, json};

use super::PluginPaths;
use crate::cluster::ClusterNode;
use crate::settings::{ListenerCheck, Settings};

/// The conflist of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflist(Value);

impl Conflist {
    /// One range set a family, so that a pod gets an address of each.
    pub(super) fn new(this: &ClusterNode, settings: &Settings, paths: &PluginPaths) -> Self {
        let ranges: Vec<_> = this.pod_cidrs.values().map(|cidr| json!([{ "subnet": cidr }])).collect();
        let node_addresses: Vec<_> = this.internal_ips.values().collect();
        // Keys in alphabetical order, which is serde_json's own: the bytes are the same whatever it is built with.
        let mut plugin = json!({
            "capabilities": {"bandwidth": true, "ips": true, "mac": true, "portMappings": true},
            "hairpin": settings.cni.hairpin,
            "ipam": {"dataDir": paths.data_dir, "ranges": ranges},
            "mode": settings.mode.as_str(),
            "nodeAddresses": node_addresses,
            "readyFile": paths.ready_file,
            "type": "hostgw",
        });
        if let Some(bridge) = settings.pod_bridge() {
            plugin["bridge"] = json!(bridge);
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
        let mut list = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
            "name": settings.cni.network_name,
            "plugins": [plugin],
        });
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

#[cfg(test)]
mod tests;

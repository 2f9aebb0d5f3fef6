//! The classic chain: `bridge`, `host-local` and `portmap`, for nodes whose runtime executes the reference plugins.

use cni_spec::DEFAULT_BRIDGE;
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::family::{Family, PerFamily};
use crate::settings::Settings;

/// By this key of the list, which no runtime reads, a conflist without any plugin of ours is known to be ours.
pub const GENERATED_BY: &str = "generatedBy";
/// What stands there.
pub const GENERATOR: &str = "hostgw";

/// The list. One version, which every release of the reference since 2022 serves: a list of versions would let the
/// runtime choose one that older plugins refuse.
pub(super) fn list(pod_cidrs: &PerFamily<IpNet>, settings: &Settings) -> Value {
    let ranges: Vec<_> = pod_cidrs.values().map(|cidr| json!([{ "subnet": cidr }])).collect();
    let routes: Vec<_> = pod_cidrs
        .iter()
        .map(|(family, _)| match family {
            Family::Ipv4 => json!({ "dst": "0.0.0.0/0" }),
            Family::Ipv6 => json!({ "dst": "::/0" }),
        })
        .collect();
    let mut bridge = json!({
        "bridge": settings.pod_bridge().unwrap_or(DEFAULT_BRIDGE),
        "hairpinMode": settings.cni.hairpin,
        // The agent masquerades, for all pods of the node.
        "ipMasq": false,
        "ipam": {
            "dataDir": settings.cni.host_local_dir,
            "ranges": ranges,
            "routes": routes,
            "type": "host-local",
        },
        "isDefaultGateway": true,
        "type": "bridge",
    });
    if settings.mtu != 0 {
        bridge["mtu"] = json!(settings.mtu);
    }
    let portmap = json!({"capabilities": {"portMappings": true}, "snat": true, "type": "portmap"});
    json!({
        "cniVersion": "1.0.0",
        GENERATED_BY: GENERATOR,
        "name": settings.cni.network_name,
        "plugins": [bridge, portmap],
    })
}

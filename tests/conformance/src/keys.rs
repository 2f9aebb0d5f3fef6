//! Every key that a configuration of the reference plugins can have, and those that no case has.

use serde_json::Value;

use crate::case::{Case, Step};

/// By plugin, in the reference's words; `.` stands between a key and those within, lists are passed through.
const KEYS: [(&str, &[&str]); 10] = [
    (
        "bridge",
        &[
            "bridge",
            "isGateway",
            "isDefaultGateway",
            "forceAddress",
            "ipMasq",
            "ipMasqBackend",
            "mtu",
            "hairpinMode",
            "promiscMode",
            "vlan",
            "vlanTrunk.id",
            "vlanTrunk.minID",
            "vlanTrunk.maxID",
            "preserveDefaultVlan",
            "macspoofchk",
            "enabledad",
            "disableContainerInterface",
            "portIsolation",
            "args.cni.mac",
            "runtimeConfig.mac",
            "dns",
            "ipam",
            "CNI_ARGS.MAC",
        ],
    ),
    ("ptp", &["ipMasq", "ipMasqBackend", "mtu", "dns", "ipam"]),
    ("loopback", &[]),
    (
        "host-local",
        &[
            "dataDir",
            "resolvConf",
            "routes.dst",
            "routes.gw",
            "routes.mtu",
            "routes.advmss",
            "routes.priority",
            "routes.table",
            "routes.scope",
            "ranges.subnet",
            "ranges.rangeStart",
            "ranges.rangeEnd",
            "ranges.gateway",
            "subnet",
            "rangeStart",
            "rangeEnd",
            "gateway",
            "args.cni.ips",
            "runtimeConfig.ipRanges",
            "runtimeConfig.ips",
            "CNI_ARGS.IP",
        ],
    ),
    (
        "static",
        &[
            "addresses.address",
            "addresses.gateway",
            "routes.dst",
            "routes.gw",
            "routes.mtu",
            "routes.advmss",
            "routes.priority",
            "routes.table",
            "routes.scope",
            "dns",
            "args.cni.ips",
            "runtimeConfig.ips",
            "CNI_ARGS.IP",
            "CNI_ARGS.GATEWAY",
        ],
    ),
    (
        "dhcp",
        &[
            "daemonSocketPath",
            "priority",
            "provide.option",
            "provide.value",
            "provide.fromArg",
            "request.option",
            "request.skipDefault",
        ],
    ),
    (
        "portmap",
        &[
            "backend",
            "snat",
            "masqAll",
            "markMasqBit",
            "externalSetMarkChain",
            "conditionsV4",
            "conditionsV6",
            "runtimeConfig.portMappings.hostPort",
            "runtimeConfig.portMappings.containerPort",
            "runtimeConfig.portMappings.protocol",
            "runtimeConfig.portMappings.hostIP",
        ],
    ),
    ("firewall", &["backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"]),
    (
        "tuning",
        &[
            "dataDir",
            "sysctl",
            "mac",
            "promisc",
            "mtu",
            "txQLen",
            "allmulti",
            "runtimeConfig.mac",
            "args.cni.sysctl",
            "args.cni.mac",
            "args.cni.promisc",
            "args.cni.mtu",
            "args.cni.txQLen",
            "args.cni.allmulti",
            "CNI_ARGS.MAC",
        ],
    ),
    (
        "bandwidth",
        &[
            "ingressRate",
            "ingressBurst",
            "egressRate",
            "egressBurst",
            "shapedSubnets",
            "unshapedSubnets",
            "runtimeConfig.bandwidth.ingressRate",
            "runtimeConfig.bandwidth.ingressBurst",
            "runtimeConfig.bandwidth.egressRate",
            "runtimeConfig.bandwidth.egressBurst",
        ],
    ),
];

/// `plugin key`, for each that neither a case has nor the page lists.
pub(crate) fn missing(cases: &[Case], listed: &[String]) -> Vec<String> {
    let all = KEYS.iter().flat_map(|(plugin, keys)| keys.iter().map(move |key| (*plugin, *key)));
    all.filter(|(plugin, key)| !cases.iter().any(|case| has(case, plugin, key)))
        .map(|(plugin, key)| format!("{plugin} {key}"))
        .filter(|name| !listed.contains(name))
        .collect()
}

fn has(case: &Case, plugin: &str, key: &str) -> bool {
    (0..).zip(&case.networks).any(|(index, network)| {
        let none = Vec::new();
        let plugins = network["plugins"].as_array().unwrap_or(&none).iter();
        let confs = plugins.flat_map(|conf| [conf, &conf["ipam"]]).filter(|conf| conf["type"] == plugin);
        let named: Vec<&Value> = confs.collect();
        if named.is_empty() {
            return false;
        }
        if let Some(argument) = key.strip_prefix("CNI_ARGS.") {
            return calls(case, index)
                .any(|call| call.args.split(';').any(|it| it.split('=').next() == Some(argument)));
        }
        if let Some(asked) = key.strip_prefix("runtimeConfig.") {
            let path: Vec<&str> = asked.split('.').collect();
            return calls(case, index).any(|call| reaches(&call.runtime, &path));
        }
        let path: Vec<&str> = key.split('.').collect();
        // Arguments stand beside `ipam`, not in it.
        let root = network["plugins"].as_array().unwrap_or(&none).iter();
        named
            .iter()
            .copied()
            .chain(root.filter(|_| key.starts_with("args.")))
            .any(|conf| reaches(conf, &path))
    })
}

fn calls(case: &Case, network: usize) -> impl Iterator<Item = &crate::case::Call> {
    case.steps.iter().filter_map(move |step| match step {
        Step::Call(call) if call.network == network => Some(call),
        _ => None,
    })
}

fn reaches(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Array(items), _) => items.iter().any(|item| reaches(item, path)),
        (Value::Object(map), [first, rest @ ..]) => map.get(*first).is_some_and(|below| reaches(below, rest)),
        (_, path) => path.is_empty() && !value.is_null(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::case::add;

    #[test]
    fn a_key_that_no_case_has_is_missing_unless_it_is_listed() {
        let network = json!({"plugins": [{"type": "ptp", "mtu": 1400, "ipam": {"type": "static"}}]});
        let cases = [Case::new("a", network, vec![add("a")])];
        let missing = missing(&cases, &["ptp ipMasq".to_owned()]);
        assert!(!missing.contains(&"ptp mtu".to_owned()) && !missing.contains(&"ptp ipMasq".to_owned()));
        assert!(missing.contains(&"ptp ipMasqBackend".to_owned()));
        assert!(missing.contains(&"static addresses.address".to_owned()));
    }
}

//! The files that tell an agent what it needs: the list of Node objects, and its configuration. Rendering only.

use std::fmt::Write;

use crate::topology::{LAN_BRIDGE, NodePlan, Topology, UPLINK};

/// The Node objects as `kubectl get nodes -o yaml` prints them, as far as a pod network reads them.
#[must_use]
pub(crate) fn nodes_yaml(nodes: &[NodePlan]) -> String {
    let mut yaml = String::from("apiVersion: v1\nkind: List\nitems:");
    if nodes.is_empty() {
        yaml.push_str(" []");
    }
    yaml.push('\n');
    for node in nodes {
        // Writing to a String cannot fail.
        let _ = write_node(&mut yaml, node);
    }
    yaml
}

fn write_node(yaml: &mut String, node: &NodePlan) -> std::fmt::Result {
    let number = node.number;
    writeln!(yaml, "- apiVersion: v1\n  kind: Node\n  metadata:\n    name: {}", node.name)?;
    writeln!(yaml, "    uid: 00000000-0000-4000-8000-0000000000{number:02}")?;
    writeln!(yaml, "    creationTimestamp: \"2024-01-01T00:{:02}:{:02}Z\"", number / 60, number % 60)?;
    writeln!(yaml, "  spec:")?;
    if let Some(first) = node.pod_cidrs.first() {
        writeln!(yaml, "    podCIDR: \"{first}\"\n    podCIDRs:")?;
    }
    for cidr in &node.pod_cidrs {
        writeln!(yaml, "    - \"{cidr}\"")?;
    }
    writeln!(yaml, "  status:\n    addresses:")?;
    for internal in &node.internal {
        writeln!(yaml, "    - type: InternalIP\n      address: \"{}\"", internal.addr())?;
    }
    writeln!(yaml, "    - type: Hostname\n      address: {}", node.name)
}

/// What is left out of an agent's configuration: a planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// The CIDRs that are never masqueraded.
    NeverMasquerade,
    /// Accept rules where others drop by policy.
    ForeignRules,
}

/// An agent's configuration.
#[must_use]
pub(crate) fn config_yaml(topology: &Topology, left_out: Option<LeftOut>) -> String {
    let mut yaml = format!("mode: {}\n", topology.mode);
    if topology.mode == crate::options::Mode::Bridge {
        yaml.push_str("bridge: cni0\n");
    }
    if topology.mode.is_of_lan() {
        if topology.mode == crate::options::Mode::L2 {
            let _ = writeln!(yaml, "bridge: {LAN_BRIDGE}");
            if topology.agents_join {
                let _ = writeln!(yaml, "uplink: {{link: {UPLINK}, bridge: {LAN_BRIDGE}}}");
            }
        }
        yaml.push_str("lan:\n  subnets:\n");
        for subnet in topology.lan_subnets() {
            let _ = writeln!(yaml, "  - \"{subnet}\"");
        }
        if topology.slaac {
            yaml.push_str("  slaac: true\n");
        }
        if topology.dhcp {
            yaml.push_str("  dhcp:\n    clientId: pod\n    timeoutSeconds: 8\n");
            if topology.mode == crate::options::Mode::L2 {
                yaml.push_str("    defaultRoute: node\n");
            }
        }
    }
    if left_out == Some(LeftOut::ForeignRules) {
        yaml.push_str("forwarding:\n  foreignRules: false\n");
    }
    if left_out != Some(LeftOut::NeverMasquerade) {
        yaml.push_str("masquerade:\n  neverMasquerade:\n");
        for cidr in topology.never_masquerade() {
            let _ = writeln!(yaml, "  - \"{cidr}\"");
        }
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Families, Mode};
    use crate::topology::tests::options;

    #[test]
    fn a_dual_stack_node_is_rendered_whole() {
        insta::assert_snapshot!(nodes_yaml(&Topology::new(&options(1, 1, Families::Dual)).nodes));
    }

    #[test]
    fn the_configuration_names_mode_and_exempt_cidrs() {
        let mut wanted = options(1, 1, Families::Dual);
        wanted.mode = Mode::Bridge;
        insta::assert_snapshot!(config_yaml(&Topology::new(&wanted), None));
    }

    #[test]
    fn any_number_of_nodes_is_valid_yaml() {
        for count in [0, 1, 32] {
            let nodes = Topology::new(&options(count, 1, Families::Dual)).nodes;
            let parsed: serde_json::Value = serde_saphyr::from_str(&nodes_yaml(&nodes)).unwrap();
            assert_eq!(parsed["items"].as_array().unwrap().len(), usize::from(count));
        }
    }
}

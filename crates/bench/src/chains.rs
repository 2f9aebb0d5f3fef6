//! The chains of plugins that today's configurations name: executed from the folder of the reference plugins, and from
//! one in which ours stand under their names.

/// A network configuration list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The list itself.
    pub(crate) conflist: &'static str,
    /// Whether its pods have IPv6 addresses, too.
    pub(crate) is_dual_stack: bool,
}

/// What `hostgw` is compared with: everything that it does, by the reference's chain with iptables.
pub(crate) const REFERENCE: Chain =
    Chain { conflist: include_str!("../conf/reference.conflist"), is_dual_stack: true };
/// Bridge, host ports, masquerade, firewall; which backend makes the rules is the plugin's to choose.
pub(crate) const FULL: Chain =
    Chain { conflist: include_str!("../conf/drop-in/full.conflist"), is_dual_stack: true };
/// The same, and the configuration wants iptables.
pub(crate) const FULL_IPTABLES: Chain =
    Chain { conflist: include_str!("../conf/drop-in/full-iptables.conflist"), is_dual_stack: true };
/// Bridge and host-local, without rules.
pub(crate) const BRIDGE_V4: Chain =
    Chain { conflist: include_str!("../conf/drop-in/bridge-v4.conflist"), is_dual_stack: false };
/// A routed link in both families.
pub(crate) const PTP: Chain =
    Chain { conflist: include_str!("../conf/drop-in/ptp.conflist"), is_dual_stack: true };

//! Links and their addresses.

use ipnet::IpNet;

use crate::POD_LINK_PREFIX;

/// A link of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// `ifi_index`.
    pub index: u32,
    /// As the kernel has it; a foreign link may be named in ways that [`link_name::LinkName`] refuses.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// `IFF_UP`.
    pub up: bool,
    /// Payload of a frame, in bytes.
    pub mtu: u32,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<ObservedAddress>,
    /// The kernel itself listens to router advertisements here (`accept_ra` = 1), and it is a link to a network
    /// rather than to containers; it may have heard none yet.
    pub learns_from_router_advertisements: bool,
}

/// What a link is, as far as it matters to routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A dummy link, such as `kube-ipvs0`.
    Dummy,
    /// A WireGuard tunnel: it carries only what its AllowedIPs name.
    Wireguard,
    /// Tun or tap.
    Tun,
    /// A VRF master.
    Vrf,
    /// A NIC, or a kind without special treatment (bond, VLAN, …).
    Other,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedAddress {
    /// Address and prefix length.
    pub address: IpNet,
    /// Usable as a source: neither tentative nor failed in duplicate address detection.
    pub usable: bool,
    /// It is there to stay: neither temporary nor deprecated.
    pub stable: bool,
}

impl ObservedLink {
    /// The host end of a pod's link.
    #[must_use]
    pub fn is_pod_link(&self) -> bool {
        self.name.starts_with(POD_LINK_PREFIX)
    }
}

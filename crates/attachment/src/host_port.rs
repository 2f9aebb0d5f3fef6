//! A port of the node that leads to a pod, and the protocols that have ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use cni_spec::TransportProtocol as Protocol;
use serde::{Deserialize, Serialize};

use crate::claim::Claim;

/// One port mapping (CNI conventions, capability `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// Protocol on both sides.
    pub protocol: Protocol,
    /// The node's address that listens. `None`: every address of both families; an unspecified one (`0.0.0.0`, `::`):
    /// every address of that family.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's port.
    pub container_port: NonZeroU16,
}

impl HostPort {
    /// The names that this mapping occupies. One address of the node and all its addresses are different claims, so
    /// that a port can be served differently on one of them.
    pub fn claims(&self) -> impl Iterator<Item = Claim> + use<> {
        let (protocol, port) = (self.protocol, self.host_port.get());
        let (first, second) = match self.host_ip {
            Some(address) => (address, None),
            None => (Ipv4Addr::UNSPECIFIED.into(), Some(IpAddr::from(Ipv6Addr::UNSPECIFIED))),
        };
        std::iter::once(first)
            .chain(second)
            .map(move |address| Claim::HostPort { protocol, at: SocketAddr::new(address, port) })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(address) => {
                write!(f, "{}:{}", self.protocol, SocketAddr::new(address, self.host_port.get()))
            }
            None => write!(f, "{}:{}", self.protocol, self.host_port),
        }
    }
}

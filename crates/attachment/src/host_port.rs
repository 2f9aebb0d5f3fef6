//! A port of the node that leads to a pod, and the protocols that have ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::claim::Claim;

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// A text that names none of the protocols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("protocol `{}` is not known: give tcp, udp or sctp", .0.chars().take(32).collect::<String>())]
pub struct ProtocolError(String);

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

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| text.eq_ignore_ascii_case(&protocol.to_string()))
            .ok_or_else(|| ProtocolError(text.to_owned()))
    }
}

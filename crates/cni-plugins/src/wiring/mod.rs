//! One way to make a pod's link, used by every plugin here: what is to be done is a list of steps (pure), and doing
//! them is two or three batches of netlink.

mod bridge;
mod detach;
mod execute;
pub mod lan;
mod name;
mod plan;
mod readiness;
mod result_plan;
mod steps;

pub use bridge::{BridgePlan, is_our_bridge_mac};
pub use detach::delete_link;
pub(crate) use detach::{FREED_AFTER, close_behind};
pub use execute::{Wired, attach};
pub(crate) use execute::{attach_anew, give_addresses};
pub(crate) use name::HOST;
pub use name::{HOST_LINK_PREFIX, SHAPING_LINK_PREFIX, host_link_name, shaping_link_name};
pub use plan::{LinkPlan, POD_ROUTE_PROTOCOL, PodAddress, Wiring, host_route, plan_link};
pub(crate) use result_plan::{Port, Wanted, plan_port, plan_routed};
pub use steps::Step;

use std::net::IpAddr;

use kernel::KernelError;
use kernel::link::Mac;

/// Why a pod's link could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The pod has a link of that name, and it is not ours to take.
    #[error(
        "interface `{0}` exists already in the pod's network namespace: choose another CNI_IFNAME, or remove it \
         (an earlier attachment is removed by DEL)"
    )]
    InterfaceExists(String),
    /// The node has a link of the name that is this attachment's.
    #[error("link `{0}` exists already on the node")]
    HostLinkExists(String),
    /// The node has a route of its own to what was to be the pod's address.
    #[error(
        "address {0} is in use: the node has a route to it, to a pod whose record was lost, or by another hand; delete \
         that route, or ask for another address"
    )]
    AddressInUse(IpAddr),
    /// Another host of the LAN has the address.
    #[error(
        "address {ip} is in use on the LAN: {} says that it is its own; free it there, or leave it out of the range",
        shown(.holder)
    )]
    AddressHeld {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        holder: Mac,
    },
    /// The node lacks the link to its LAN.
    #[error("{what} `{name}` does not exist on this node: {remedy}")]
    NoLanLink {
        /// What it was to be.
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The link named as bridge is something else.
    #[error("link `{name}` is a {kind}, not a bridge: name another in `bridge`, or remove it")]
    NotABridge {
        /// The name.
        name: String,
        /// The driver that it has.
        kind: String,
    },
    /// The kernel refused a step.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// IPv6 addresses did not become usable in time.
    #[error("IPv6 address {ip} on `{link}` did not become usable within {seconds} s: {remedy}")]
    NotReady {
        /// The address.
        ip: IpAddr,
        /// The link.
        link: String,
        /// How long was waited.
        seconds: u64,
        /// What to look at.
        remedy: &'static str,
    },
}

fn shown(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// An Ethernet address that follows from an IP address, so that whoever gets the address next is found by the
/// neighbours that remember it. Locally administered, unicast (IEEE 802: second-lowest bit of the first byte).
#[must_use]
pub fn mac_of(ip: IpAddr, side: Side) -> Mac {
    let first = match side {
        Side::Pod => 0x0a,
        Side::Host => 0x0e,
    };
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => fold(ip.octets()),
    };
    [first, 0x58, a, b, c, d]
}

/// Which end of a pod's veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// In the pod.
    Pod,
    /// On the node.
    Host,
}

/// FNV-1a: spreads prefixes that differ anywhere over four bytes.
fn fold(octets: [u8; 16]) -> [u8; 4] {
    octets
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
        .to_be_bytes()
}

/// The link-local address of an Ethernet address (RFC 4291, appendix A).
#[must_use]
pub fn link_local_of(mac: Mac) -> std::net::Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_follows_from_the_address_and_is_unicast_and_local() {
        let mac = mac_of("10.244.1.5".parse().unwrap(), Side::Pod);
        assert_eq!(mac, [0x0a, 0x58, 10, 244, 1, 5]);
        assert_ne!(mac, mac_of("10.244.1.5".parse().unwrap(), Side::Host));
        for side in [Side::Pod, Side::Host] {
            assert_eq!(mac_of("fd00::5".parse().unwrap(), side)[0] & 3, 2);
        }
        assert_ne!(
            mac_of("fd00::5".parse().unwrap(), Side::Pod),
            mac_of("fd00::6".parse().unwrap(), Side::Pod)
        );
    }

    #[test]
    fn a_link_local_address_is_the_modified_eui_64() {
        assert_eq!(link_local_of([0x0a, 0x58, 10, 244, 1, 5]).to_string(), "fe80::858:aff:fef4:105");
    }
}

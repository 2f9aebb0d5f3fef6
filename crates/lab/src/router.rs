//! The LAN's router, as IPv6 hosts hear of it: it announces a prefix of which they form addresses (RFC 4861, RFC 4862).

use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use kernel::KernelError;
use kernel::address::{self, Address, TENTATIVE};
use kernel::events::Group;
use kernel::netlink::{Protocol, Socket};
use kernel::sysctl::Sysctls;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sockopt};

use crate::LabError;
use crate::condition::await_condition;
use crate::lan::index_of;
use crate::place::Place;

/// Sooner than RFC 4861 allows (section 6.2.1): nobody has to ask, and nobody waits for long.
const INTERVAL: Duration = Duration::from_millis(200);
/// No lab lasts longer.
const LIFETIME_S: u32 = 7200;
/// Whoever hears the router has learnt the prefix by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A router that announces itself and a prefix, until it is dropped.
#[derive(Debug)]
pub(crate) struct Router {
    _stop: Sender<()>,
}

impl Router {
    /// Announces `prefix` from a link of `place`.
    pub(crate) fn start(place: &Place, link: &'static str, prefix: Ipv6Net) -> Result<Self, LabError> {
        let name = place.name().to_owned();
        let (socket, index) = place.run(move || {
            let open = || {
                let failed = |errno| KernelError::new("open a socket of ICMPv6", errno);
                let socket =
                    rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))
                        .map_err(failed)?;
                // Only who forwards says in neighbour advertisements that it is a router, and is no default route's end otherwise
                // (RFC 4861, section 7.2.5); nor does it learn from itself.
                Sysctls::default().write(&format!("net/ipv6/conf/{link}/forwarding"), "1")?;
                // RFC 4861, section 6.1.2: any other was forged from afar.
                sockopt::set_ipv6_multicast_hops(&socket, 255).map_err(failed)?;
                Ok((socket, index_of(&mut Socket::open(Protocol::Route)?, link)?))
            };
            open().map_err(LabError::kernel(&*name))
        })?;
        let (stop, stopped) = channel::<()>();
        let (message, everybody) = (advertisement(prefix), SocketAddrV6::new(ALL_NODES, 0, 0, index));
        thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // What is lost comes again.
                let _ = rustix::net::sendto(&socket, &message, SendFlags::empty(), &everybody);
            }
        });
        Ok(Self { _stop: stop })
    }
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// RFC 4861, sections 4.2 and 4.6.2; the kernel fills the checksum in.
fn advertisement(prefix: Ipv6Net) -> Vec<u8> {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const HOP_LIMIT: u8 = 64;
    const PREFIX_INFORMATION: u8 = 3;
    /// On link, and to form addresses of.
    const FLAGS: u8 = 0xc0;
    let seconds = LIFETIME_S.to_be_bytes();
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, 0];
    message.extend(&seconds[2..]);
    message.extend([0; 8]);
    message.extend([PREFIX_INFORMATION, 4, prefix.prefix_len(), FLAGS]);
    message.extend([seconds, seconds, [0; 4]].concat());
    message.extend(prefix.network().octets());
    message
}

/// Waits until the kernel has formed its address; runs in the node.
pub(crate) fn await_formed(node: &str, address: IpNet) -> Result<(), LabError> {
    let missing = await_condition(node, &[Group::Ipv6Addresses], PATIENCE, || {
        let is_formed = |held: &Address| held.ip == address && held.flags & TENTATIVE == 0;
        let held = address::dump(&mut Socket::open(Protocol::Route)?)?;
        Ok((!held.iter().any(is_formed))
            .then(|| format!("{node} has not formed {address}: it hears no router announce that prefix")))
    })?;
    missing.map_or(Ok(()), |message| Err(LabError::Inner { message, exit: 1 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_names_the_router_and_the_prefix() {
        let message = advertisement("2001:db8:0:1::/64".parse().unwrap());
        assert_eq!(message.len(), 48);
        assert_eq!((message[0], &message[6..8]), (134, &[0x1c, 0x20][..]));
        assert_eq!(message[16..20], [3, 4, 64, 0xc0]);
        assert_eq!(message[20..28], [0, 0, 0x1c, 0x20, 0, 0, 0x1c, 0x20]);
        assert_eq!(message[32..40], [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1]);
    }
}

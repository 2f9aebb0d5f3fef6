//! The steps that make one end of a link usable. A step knows neither the link's index nor its namespace: those are
//! the business of who carries it out.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::link::{self, Mac};
use kernel::netlink::Batch;
use kernel::route::{self, Hop, Route};
use kernel::{address, neighbour};

/// One change to a link, or to what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No link-local address from the kernel: it would be tentative for a second.
    NoAutomaticLinkLocal,
    /// An address. IPv6 ones skip duplicate detection: the reservation has made them unique.
    Address(IpNet),
    /// Up.
    Up,
    /// A route over this link.
    Route(Route),
    /// A neighbour whose Ethernet address we know.
    Neighbour(IpAddr, Mac),
    /// The loopback link up as well.
    LoopbackUp,
    /// This bridge port may send a frame back to where it came from.
    Hairpin,
    /// Makes the kernel finish what "up" began, see [`link::request`].
    Settle,
}

impl Step {
    /// Writes the step for the link of this index.
    pub fn write(&self, batch: &mut Batch, index: u32) {
        match self {
            Self::NoAutomaticLinkLocal => link::set_no_automatic_link_local(batch, index),
            Self::Address(ip) => {
                let flags = if ip.addr().is_ipv6() { address::NODAD } else { 0 };
                address::add(batch, index, *ip, flags);
            }
            Self::Up => link::set_up(batch, index),
            Self::Route(route) => {
                let mut route = route.clone();
                match route.hops.first_mut() {
                    Some(hop) => hop.index = Some(index),
                    None => route.hops.push(Hop { index: Some(index), ..Hop::default() }),
                }
                route::add(batch, &route);
            }
            Self::Neighbour(ip, mac) => neighbour::set_permanent(batch, index, *ip, *mac),
            Self::LoopbackUp => link::set_up(batch, LOOPBACK_INDEX),
            Self::Hairpin => link::set_hairpin(batch, index, true),
            Self::Settle => link::request(batch, index),
        }
    }
}

/// Every network namespace is born with its loopback link as number 1.
const LOOPBACK_INDEX: u32 = 1;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAutomaticLinkLocal => f.write_str("turn off the automatic link-local address"),
            Self::Address(ip) => write!(f, "add address {ip}"),
            Self::Up => f.write_str("set the link up"),
            Self::Route(route) => {
                write!(f, "add route {route}")?;
                if let Some(source) = route.source {
                    write!(f, " source {source}")?;
                }
                if route.metric != 0 {
                    write!(f, " metric {}", route.metric)?;
                }
                write!(f, " protocol {}", route.protocol)
            }
            Self::Neighbour(ip, [a, b, c, d, e, g]) => {
                write!(f, "add permanent neighbour {ip} at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::LoopbackUp => f.write_str("set the loopback link up"),
            Self::Hairpin => f.write_str("let the port send frames back"),
            Self::Settle => f.write_str("look the link up again"),
        }
    }
}

//! The steps that make one end of a link usable. A step knows neither the link's index nor its namespace: those are
//! the business of who carries it out.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use kernel::KernelError;
use kernel::link::{self, Mac};
use kernel::netlink::Batch;
use kernel::route::{self, Hop, Route};
use kernel::sysctl::Sysctls;
use kernel::{address, neighbour};
use link_name::LinkName;
use rustix::io::Errno;

use super::plan::DEAF_TO_ROUTERS;

/// One change to a link, or to what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No link-local address from the kernel: it would be tentative for a second.
    NoAutomaticLinkLocal,
    /// An address. IPv6 ones skip duplicate detection: the reservation has made them unique.
    Address(IpNet),
    /// The same without the kernel's own route to its subnet.
    AddressWithoutRoute(IpNet),
    /// An IPv6 address that is used only once nobody else on the link answers to it (RFC 4862).
    DetectedAddress(IpNet),
    /// Words by which the link is known again, whoever made it.
    Alias(String),
    /// This bridge port reaches no other that is isolated, too.
    Isolated,
    /// Gratuitous ARP once the link is up.
    ArpNotify,
    /// The payload that a frame may have, in bytes.
    Mtu(u32),
    /// Up.
    Up,
    /// A route over this link.
    Route(Route),
    /// A route over this link, also where another link has one to the same destination: the new one is preferred.
    PreferredRoute(Route),
    /// A neighbour whose Ethernet address we know.
    Neighbour(IpAddr, Mac),
    /// This bridge port may send a frame back to where it came from.
    Hairpin,
    /// Makes the kernel finish what "up" began, see [`link::request`].
    Settle,
    /// Learns what the link was born with.
    Examine,
    /// The link-local address that the kernel would give as soon as there is a carrier. Given before that, it is as good at
    /// once, and its groups are reported within a second instead of on the spot: the kernel does that under the lock that
    /// all changes of links take, and every port of a bridge hears it.
    LinkLocal(IpNet),
    /// A link-local address from the kernel, should the link go down and come up again.
    AutomaticLinkLocal,
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
            Self::AddressWithoutRoute(ip) => {
                let flags = if ip.addr().is_ipv6() { address::NODAD } else { 0 };
                address::add(batch, index, *ip, flags | address::NOPREFIXROUTE);
            }
            Self::DetectedAddress(ip) => address::add(batch, index, *ip, 0),
            Self::Alias(alias) => link::set_alias(batch, index, alias),
            Self::Isolated => link::set_isolated(batch, index, true),
            Self::ArpNotify => link::set_arp_notify(batch, index),
            Self::Mtu(mtu) => link::set_mtu(batch, index, *mtu),
            Self::Up => link::set_up(batch, index),
            Self::Route(route) => route::add(batch, &over(route, index)),
            Self::PreferredRoute(route) => route::prepend(batch, &over(route, index)),
            Self::Neighbour(ip, mac) => neighbour::set_permanent(batch, index, *ip, *mac),
            Self::Hairpin => link::set_hairpin(batch, index, true),
            Self::Settle | Self::Examine => link::request(batch, index),
            Self::LinkLocal(ip) => address::add(batch, index, *ip, address::NODAD),
            Self::AutomaticLinkLocal => link::set_link_local_from_mac(batch, index),
        }
    }
}

impl Step {
    /// Whether nothing is lost by this step's failing so: a link without IPv6 (an MTU below 1280, or a kernel without it)
    /// makes no link-local address anyway.
    pub(super) fn may_fail(&self, error: &KernelError) -> bool {
        match self {
            Self::NoAutomaticLinkLocal => error.errno == Errno::AFNOSUPPORT,
            // Of a pod without any other IPv6 address.
            Self::LinkLocal(_) | Self::AutomaticLinkLocal => true,
            _ => false,
        }
    }
}

impl Step {
    /// Whether the kernel refuses this because IPv6 is switched off on the link (`addrconf_add_dev` in
    /// `net/ipv6/addrconf.c`).
    pub(super) fn lacks_ipv6(&self, error: &KernelError) -> bool {
        let ip = match self {
            Self::Address(ip) | Self::AddressWithoutRoute(ip) | Self::DetectedAddress(ip) => ip,
            _ => return false,
        };
        error.errno == Errno::ACCESS && ip.addr().is_ipv6()
    }
}

fn over(route: &Route, index: u32) -> Route {
    let mut route = route.clone();
    match route.hops.first_mut() {
        Some(hop) => hop.index = Some(index),
        None => route.hops.push(Hop { index: Some(index), ..Hop::default() }),
    }
    route
}

/// What a pod says of routers is none of the node's business: on a node that forwards no IPv6, an advertisement would give
/// it an address and a default route (CVE-2020-10749). To be said before the node's end of a routed link comes up; of a
/// bridge's port the node's own stack hears nothing.
pub(super) fn be_deaf_to_routers(link: &LinkName, sysctls: &Sysctls) -> Result<(), KernelError> {
    match sysctls.write(&DEAF_TO_ROUTERS.0.replace("{link}", link.as_str()), DEAF_TO_ROUTERS.1) {
        // A link without IPv6 hears none.
        Err(error) if error.errno == Errno::NOENT => Ok(()),
        outcome => outcome,
    }
}

/// Switches IPv6 on where it is off.
pub(super) fn enable_ipv6(link: &LinkName) -> Result<(), KernelError> {
    let sysctls = Sysctls::default();
    let key = format!("net/ipv6/conf/{link}/disable_ipv6");
    if sysctls.read(&key)?.as_deref() == Some("1") {
        sysctls.write(&key, "0")?;
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAutomaticLinkLocal => f.write_str("turn off the automatic link-local address"),
            Self::Address(ip) => write!(f, "add address {ip}"),
            Self::AddressWithoutRoute(ip) => write!(f, "add address {ip} without a route to its subnet"),
            Self::DetectedAddress(ip) => write!(f, "add address {ip} once it is nobody else's"),
            Self::Alias(alias) => write!(f, "call the link {alias}"),
            Self::Isolated => f.write_str("keep the port from other isolated ones"),
            Self::ArpNotify => f.write_str("tell neighbours when the link comes up"),
            Self::Mtu(mtu) => write!(f, "set the MTU to {mtu}"),
            Self::Up => f.write_str("set the link up"),
            Self::Route(route) | Self::PreferredRoute(route) => {
                write!(f, "add route {route}")?;
                if let Some(source) = route.source {
                    write!(f, " source {source}")?;
                }
                if route.metric != 0 {
                    write!(f, " metric {}", route.metric)?;
                }
                let preferred = if matches!(self, Self::PreferredRoute(_)) { " before others" } else { "" };
                write!(f, " protocol {}{preferred}", route.protocol)
            }
            Self::Neighbour(ip, [a, b, c, d, e, g]) => {
                write!(f, "add permanent neighbour {ip} at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::Hairpin => f.write_str("let the port send frames back"),
            Self::Settle => f.write_str("look the link up again"),
            Self::Examine => f.write_str("look the link up"),
            Self::LinkLocal(ip) => write!(f, "add address {ip} where the kernel would"),
            Self::AutomaticLinkLocal => f.write_str("turn on the automatic link-local address"),
        }
    }
}

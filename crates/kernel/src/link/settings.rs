//! What may be changed on a link that is there.

use super::{
    IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_MODE, IFLA_IFALIAS,
    IFLA_INET6_ADDR_GEN_MODE, IFLA_MASTER, IFLA_MTU, IN6_ADDR_GEN_MODE_EUI64, IN6_ADDR_GEN_MODE_NONE, Mac,
    PROMISCUOUS, RTM_NEWLINK, RTM_SETLINK, UP, header,
};
use crate::netlink::{AF_BRIDGE, AF_INET, AF_INET6, Batch, Message};

const IFLA_PROTINFO: u16 = 12;
const IFLA_INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_ARP_NOTIFY` and `IPV4_DEVCONF_ROUTE_LOCALNET` (`linux/ip.h`).
const ARP_NOTIFY: u16 = 22;
const ROUTE_LOCALNET: u16 = 26;
pub(super) const IFLA_TXQLEN: u16 = 13;
pub(super) const IFLA_PROMISCUITY: u16 = 30;
/// `IFF_ALLMULTI`.
pub const ALL_MULTICAST: u32 = 0x200;

/// Sets a link up.
pub fn set_up(batch: &mut Batch, index: u32) {
    batch.message("set a link up", RTM_NEWLINK, 0, &header(0, index, UP, UP));
}

/// Sets a link down.
pub fn set_down(batch: &mut Batch, index: u32) {
    batch.message("set a link down", RTM_NEWLINK, 0, &header(0, index, 0, UP));
}

/// Keeps the kernel from giving the link an IPv6 link-local address of its own accord (`addr_gen_mode none`).
pub fn set_no_automatic_link_local(batch: &mut Batch, index: u32) {
    set_addr_gen_mode(batch, index, "turn off the automatic link-local address", IN6_ADDR_GEN_MODE_NONE);
}

/// Lets the kernel give the link an IPv6 link-local address that follows from its Ethernet address, whenever it comes up
/// from now on (`addr_gen_mode eui64`); one that is up already gets none.
pub fn set_link_local_from_mac(batch: &mut Batch, index: u32) {
    set_addr_gen_mode(batch, index, "turn on the automatic link-local address", IN6_ADDR_GEN_MODE_EUI64);
}

fn set_addr_gen_mode(batch: &mut Batch, index: u32, what: &'static str, mode: u8) {
    set_of_family(batch, index, what, AF_INET6, |inet6| {
        inet6.u8(IFLA_INET6_ADDR_GEN_MODE, mode);
    });
}

/// Lets 127.0.0.0/8 be routed over this link (`net.ipv4.conf.….route_localnet`), which exposes what listens on loopback
/// to whoever is at its other end: drop their packets to it first.
pub fn set_route_localnet(batch: &mut Batch, index: u32) {
    set_ipv4(batch, index, "turn on route_localnet", ROUTE_LOCALNET);
}

/// Lets the link tell its IPv4 addresses by gratuitous ARP when it comes up (`net.ipv4.conf.….arp_notify`).
pub fn set_arp_notify(batch: &mut Batch, index: u32) {
    set_ipv4(batch, index, "turn on arp_notify", ARP_NOTIFY);
}

/// Sets one of the link's IPv4 settings to 1, without the file that it also is: to look one up below `/proc/sys` costs
/// more than the whole message.
fn set_ipv4(batch: &mut Batch, index: u32, what: &'static str, setting: u16) {
    set_of_family(batch, index, what, AF_INET, |inet| {
        inet.nest(IFLA_INET_CONF, |conf| {
            conf.u32(setting, 1);
        });
    });
}

/// Sets what `settings` writes of an address family's settings of the link.
fn set_of_family(
    batch: &mut Batch,
    index: u32,
    what: &'static str,
    family: u8,
    settings: impl FnOnce(&mut Message<'_>),
) {
    batch.message(what, RTM_SETLINK, 0, &header(0, index, 0, 0)).nest(IFLA_AF_SPEC, |families| {
        families.nest(family.into(), settings);
    });
}

/// Makes a link a port of `master`, or of nothing (0).
pub fn set_master(batch: &mut Batch, index: u32, master: u32) {
    batch.message("set a link's master", RTM_SETLINK, 0, &header(0, index, 0, 0)).u32(IFLA_MASTER, master);
}

/// Sets the payload that a frame may have.
pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.message("set a link's MTU", RTM_SETLINK, 0, &header(0, index, 0, 0)).u32(IFLA_MTU, mtu);
}

/// Sets a link's Ethernet address.
pub fn set_mac(batch: &mut Batch, index: u32, mac: Mac) {
    batch
        .message("set a link's address", RTM_SETLINK, 0, &header(0, index, 0, 0))
        .attribute(IFLA_ADDRESS, &mac);
}

/// Lets a bridge port send a frame back to where it came from, or forbids it.
pub fn set_hairpin(batch: &mut Batch, index: u32, hairpin: bool) {
    batch.message("set a bridge port's hairpin mode", RTM_SETLINK, 0, &header(AF_BRIDGE, index, 0, 0)).nest(
        IFLA_PROTINFO,
        |port| {
            port.u8(IFLA_BRPORT_MODE, u8::from(hairpin));
        },
    );
}

/// Keeps a bridge port from other ports of which the same is said, or not.
pub fn set_isolated(batch: &mut Batch, index: u32, isolated: bool) {
    batch.message("set a bridge port's isolation", RTM_SETLINK, 0, &header(AF_BRIDGE, index, 0, 0)).nest(
        IFLA_PROTINFO,
        |port| {
            port.u8(IFLA_BRPORT_ISOLATED, u8::from(isolated));
        },
    );
}

/// Lets a link take frames that are for others.
pub fn set_promiscuous(batch: &mut Batch, index: u32) {
    batch.message("set a link promiscuous", RTM_NEWLINK, 0, &header(0, index, PROMISCUOUS, PROMISCUOUS));
}

/// Gives a link words by which it is known again, at most 255 bytes (`IFALIASZ`).
pub fn set_alias(batch: &mut Batch, index: u32, alias: &str) {
    batch
        .message("set a link's alias", RTM_SETLINK, 0, &header(0, index, 0, 0))
        .attribute(IFLA_IFALIAS, alias.as_bytes());
}

/// Sets or clears flags (`IFF_…`), and leaves all others.
pub fn set_flags(batch: &mut Batch, index: u32, flags: u32, on: bool) {
    let value = if on { flags } else { 0 };
    batch.message("set a link's flags", RTM_SETLINK, 0, &header(0, index, value, flags));
}

/// How many packets may wait to be sent.
pub fn set_tx_queue_len(batch: &mut Batch, index: u32, packets: u32) {
    batch
        .message("set a link's transmit queue length", RTM_SETLINK, 0, &header(0, index, 0, 0))
        .u32(IFLA_TXQLEN, packets);
}

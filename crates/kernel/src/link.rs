//! Links (`linux/if_link.h`): read here, made, changed and deleted in the modules below.

mod create;
mod netconf;
mod settings;

use rustix::io::Errno;

use crate::KernelError;
use crate::netlink::{AF_INET6, Attributes, Batch, Socket};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_SETLINK: u16 = 19;

pub use create::{Made, Veth, VethEnd, create_bridge, create_ifb, create_veth, delete, make};
pub use netconf::{forwarding, netconf_index};
pub use settings::{
    ALL_MULTICAST, set_alias, set_arp_notify, set_down, set_flags, set_hairpin, set_isolated,
    set_link_local_from_mac, set_mac, set_master, set_mtu, set_no_automatic_link_local, set_promiscuous,
    set_route_localnet, set_tx_queue_len, set_up,
};
use settings::{IFLA_PROMISCUITY, IFLA_TXQLEN};

const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_IFALIAS: u16 = 20;
pub(crate) const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
pub(crate) const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
pub(crate) const IFLA_INFO_KIND: u16 = 1;
pub(crate) const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_EUI64: u8 = 0;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// `DEVCONF_ACCEPT_RA` and `DEVCONF_DISABLE_IPV6` (`linux/ipv6.h`): places in the row of 32-bit settings.
const DEVCONF_ACCEPT_RA: usize = 3;
const DEVCONF_DISABLE_IPV6: usize = 26;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// `IFF_UP`: the administrator wants it up.
pub const UP: u32 = 0x1;
/// `IFF_LOOPBACK`.
pub const LOOPBACK: u32 = 0x8;
/// `IFF_PROMISC`: it takes frames for others, too.
pub const PROMISCUOUS: u32 = 0x100;
/// `IFF_POINTOPOINT`.
pub const POINTOPOINT: u32 = 0x10;
/// `IFF_NOARP`.
pub const NOARP: u32 = 0x80;
/// `IFF_LOWER_UP`: there is a carrier.
pub const LOWER_UP: u32 = 0x1_0000;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Whence a link has its link-local address (`IN6_ADDR_GEN_MODE_…`, `linux/if_link.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLocal {
    /// It follows from the link's Ethernet address.
    #[default]
    FromMac,
    /// The kernel gives none.
    NotAutomatic,
    /// Another one of the kernel's ways, by its number: from a secret, or by chance.
    Other(u8),
}

impl From<u8> for LinkLocal {
    fn from(mode: u8) -> Self {
        match mode {
            IN6_ADDR_GEN_MODE_EUI64 => Self::FromMac,
            IN6_ADDR_GEN_MODE_NONE => Self::NotAutomatic,
            other => Self::Other(other),
        }
    }
}

/// What IPv6 does on a link, as far as pods' links need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ipv6Settings {
    /// How the kernel gives the link a link-local address of its own accord (`addr_gen_mode`).
    pub link_local: LinkLocal,
    /// `accept_ra`: 0 hears no router advertisements.
    pub accept_ra: u32,
    /// `disable_ipv6`.
    pub disabled: bool,
}

impl Ipv6Settings {
    /// Reads what `IFLA_AF_SPEC` says of IPv6.
    fn parse(inet6: Attributes<'_>) -> Self {
        let mut settings = Self::default();
        for attribute in inet6 {
            match attribute.kind() {
                IFLA_INET6_ADDR_GEN_MODE => {
                    settings.link_local = LinkLocal::from(attribute.u8().unwrap_or_default());
                }
                IFLA_INET6_CONF => {
                    let (words, _) = attribute.value().as_chunks::<4>();
                    let word = |place: usize| words.get(place).copied().map_or(0, u32::from_ne_bytes);
                    settings.accept_ra = word(DEVCONF_ACCEPT_RA);
                    settings.disabled = word(DEVCONF_DISABLE_IPV6) != 0;
                }
                _ => {}
            }
        }
        settings
    }
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name; text, because foreign links may have names that we would not give.
    pub name: String,
    /// `IFF_…` flags.
    pub flags: u32,
    /// Bytes of payload in a frame.
    pub mtu: u32,
    /// Its Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// The driver's name (`veth`, `bridge`, `wireguard`, …); a physical link has none.
    pub kind: Option<String>,
    /// The driver of which it is a port (`bridge`, `bond`), and the index of that master.
    pub master: Option<u32>,
    /// What kind of port it is.
    pub port_kind: Option<String>,
    /// The index of the peer (veth) or lower link, in the namespace that `peer_netns` tells.
    pub peer: Option<u32>,
    /// The peer's namespace, as an id that is local to this one; none where it is the same.
    pub peer_netns: Option<i32>,
    /// `IF_OPER_…` (RFC 2863).
    pub oper_state: u8,
    /// Whether there is a carrier, as far as the driver says.
    pub carrier: bool,
    /// The group that it was put in (`ip link … group`).
    pub group: u32,
    /// How many packets may wait to be sent.
    pub tx_queue_len: u32,
    /// How many want it to receive every frame, whoever it is for.
    pub promiscuity: u32,
    /// Whether a bridge's port may send a frame back to where it came from; none where it is no bridge's port.
    pub hairpin: Option<bool>,
    /// Whether a bridge's port is kept from other such ports; none where it is no bridge's port.
    pub isolated: Option<bool>,
    /// Words that somebody gave it (`ip link … alias`).
    pub alias: Option<String>,
    /// What IPv6 does on it; none where the kernel, or the link, has none.
    pub ipv6: Option<Ipv6Settings>,
}

impl Link {
    /// Whether the administrator wants it up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & UP != 0
    }

    /// Reads the payload of an `RTM_NEWLINK` or `RTM_DELLINK` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: [u8; 16] = payload.get(..16)?.try_into().ok()?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut link = Self { index: word(4), flags: word(8), ..Self::default() };
        let mut port_data = None;
        for attribute in Attributes::new(&payload[16..]) {
            match attribute.kind() {
                IFLA_ADDRESS => link.mac = attribute.mac(),
                IFLA_IFNAME => link.name = attribute.text(),
                IFLA_MTU => link.mtu = attribute.u32().unwrap_or_default(),
                IFLA_LINK => link.peer = attribute.u32().filter(|index| *index != 0),
                IFLA_LINK_NETNSID => link.peer_netns = attribute.array().map(i32::from_ne_bytes),
                IFLA_MASTER => link.master = attribute.u32().filter(|index| *index != 0),
                IFLA_OPERSTATE => link.oper_state = attribute.u8().unwrap_or_default(),
                IFLA_CARRIER => link.carrier = attribute.u8() == Some(1),
                IFLA_TXQLEN => link.tx_queue_len = attribute.u32().unwrap_or_default(),
                IFLA_PROMISCUITY => link.promiscuity = attribute.u32().unwrap_or_default(),
                IFLA_IFALIAS => link.alias = Some(attribute.text()),
                IFLA_GROUP => link.group = attribute.u32().unwrap_or_default(),
                IFLA_LINKINFO => {
                    for info in attribute.nested() {
                        match info.kind() {
                            IFLA_INFO_KIND => link.kind = Some(info.text()),
                            IFLA_INFO_SLAVE_KIND => link.port_kind = Some(info.text()),
                            IFLA_INFO_SLAVE_DATA => port_data = Some(info.nested()),
                            _ => {}
                        }
                    }
                }
                IFLA_AF_SPEC => {
                    link.ipv6 = attribute
                        .nested()
                        .get(AF_INET6.into())
                        .map(|inet6| Ipv6Settings::parse(inet6.nested()));
                }
                _ => {}
            }
        }
        if link.port_kind.as_deref() == Some("bridge") {
            let is_set = |kind| {
                let value = port_data.as_ref().and_then(|data| data.get(kind)).and_then(|value| value.u8());
                value.map(|value| value != 0)
            };
            link.hairpin = is_set(IFLA_BRPORT_MODE);
            link.isolated = is_set(IFLA_BRPORT_ISOLATED);
        }
        Some(link)
    }
}

/// `struct ifinfomsg`: only the flags in `change` are changed.
pub(crate) fn header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Every link of the namespace.
pub fn dump(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    let mut request = Batch::new();
    request
        .message("list links", RTM_GETLINK, 0, &header(0, 0, 0, 0))
        .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    collect(socket, &mut request)
}

/// Every link of one driver.
pub fn dump_kind(socket: &mut Socket, kind: &str) -> Result<Vec<Link>, KernelError> {
    let mut request = Batch::new();
    request
        .message("list links of one kind", RTM_GETLINK, 0, &header(0, 0, 0, 0))
        .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, kind);
        });
    let mut links = collect(socket, &mut request)?;
    // A kernel where the driver is absent answers with every link.
    links.retain(|link| link.kind.as_deref() == Some(kind));
    Ok(links)
}

fn collect(socket: &mut Socket, request: &mut Batch) -> Result<Vec<Link>, KernelError> {
    let mut links = Vec::new();
    socket.dump(request, |object| match object {
        Some((RTM_NEWLINK, payload)) => links.extend(Link::parse(payload)),
        Some(_) => {}
        None => links.clear(),
    })?;
    Ok(links)
}

/// The link of this name, if there is one.
pub fn by_name(socket: &mut Socket, name: &str) -> Result<Option<Link>, KernelError> {
    let mut batch = Batch::new();
    request_by_name(&mut batch, name);
    one(socket, &mut batch)
}

/// The link of this index, if there is one.
pub fn by_index(socket: &mut Socket, index: u32) -> Result<Option<Link>, KernelError> {
    let mut batch = Batch::new();
    request(&mut batch, index);
    one(socket, &mut batch)
}

fn one(socket: &mut Socket, batch: &mut Batch) -> Result<Option<Link>, KernelError> {
    let mut found = None;
    let failures = socket.execute_reading(batch, |kind, payload| {
        if kind == RTM_NEWLINK {
            found = Link::parse(payload);
        }
    })?;
    match failures.into_iter().next() {
        None => Ok(found),
        Some(failure) if failure.error.errno == Errno::NODEV => Ok(None),
        Some(failure) => Err(failure.error),
    }
}

/// Asks for the link of this index. Besides giving it, this makes the kernel finish pending carrier changes
/// (`linkwatch`), without which the first packet after "up" may wait for a second.
pub fn request(batch: &mut Batch, index: u32) {
    batch
        .message("look up a link by index", RTM_GETLINK, 0, &header(0, index, 0, 0))
        .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/// Asks for the link of this name; see [`request`].
pub fn request_by_name(batch: &mut Batch, name: &str) {
    batch
        .message("look up a link by name", RTM_GETLINK, 0, &header(0, 0, 0, 0))
        .u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        .text(IFLA_IFNAME, name);
}

/// The reader for answers to [`request`] and [`request_by_name`] within a larger batch.
#[must_use]
pub fn answer(kind: u16, payload: &[u8]) -> Option<Link> {
    (kind == RTM_NEWLINK).then(|| Link::parse(payload)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Link::parse(&bytes);
        }
    }
}

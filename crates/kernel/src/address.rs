//! Addresses on links (`linux/if_addr.h`).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::KernelError;
use crate::netlink::{Attributes, Batch, CREATE, EXCL, Socket, family_of};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_TARGET_NETNSID: u16 = 10;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;

/// `IFA_F_TEMPORARY` (IPv6): a privacy address, never a stable identity. (For IPv4 the same bit is "secondary".)
pub const TEMPORARY: u32 = 0x01;
/// `IFA_F_NODAD`: skip duplicate address detection.
pub const NODAD: u32 = 0x02;
/// `IFA_F_DADFAILED`: somebody else has the address.
pub const DADFAILED: u32 = 0x08;
/// `IFA_F_DEPRECATED`: not for new flows.
pub const DEPRECATED: u32 = 0x20;
/// `IFA_F_TENTATIVE`: duplicate address detection goes on.
pub const TENTATIVE: u32 = 0x40;
/// `IFA_F_PERMANENT`: not learnt, does not expire.
pub const PERMANENT: u32 = 0x80;
/// `IFA_F_NOPREFIXROUTE`: no route of its own for the prefix.
pub const NOPREFIXROUTE: u32 = 0x200;

/// An address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address and the prefix it lies in. On a point-to-point link the address is our end.
    pub ip: IpNet,
    /// The other end's address, where it differs.
    pub peer: Option<IpAddr>,
    /// `IFA_F_…` flags.
    pub flags: u32,
    /// `RT_SCOPE_…`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Seconds for which it may be used; `u32::MAX` is for ever.
    pub valid_lifetime: u32,
    /// Seconds for which it may be used for new flows.
    pub preferred_lifetime: u32,
}

impl Address {
    /// Reads the payload of an `RTM_NEWADDR` or `RTM_DELADDR` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: [u8; 8] = payload.get(..8)?.try_into().ok()?;
        let [_, prefix_len, flags, scope, ..] = header;
        let mut address = None;
        let mut local = None;
        let mut flags = u32::from(flags);
        let (mut preferred_lifetime, mut valid_lifetime) = (u32::MAX, u32::MAX);
        for attribute in Attributes::new(&payload[8..]) {
            match attribute.kind() {
                IFA_ADDRESS => address = attribute.ip(),
                IFA_LOCAL => local = attribute.ip(),
                IFA_FLAGS => flags = attribute.u32().unwrap_or(flags),
                IFA_CACHEINFO => {
                    if let Some(info) = attribute.array::<8>() {
                        preferred_lifetime = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                        valid_lifetime = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
                    }
                }
                _ => {}
            }
        }
        let own = local.or(address)?;
        Some(Self {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            ip: IpNet::new(own, prefix_len).ok()?,
            peer: address.filter(|peer| *peer != own),
            flags,
            scope,
            valid_lifetime,
            preferred_lifetime,
        })
    }

    /// Whether it may serve as a stable identity of this node: neither temporary, nor tentative, nor refused.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        let unfit = if self.ip.addr().is_ipv6() {
            TEMPORARY | TENTATIVE | DADFAILED | DEPRECATED
        } else {
            DEPRECATED
        };
        self.flags & unfit == 0
    }
}

/// Every address of the namespace.
pub fn dump(socket: &mut Socket) -> Result<Vec<Address>, KernelError> {
    let mut request = Batch::new();
    request.message("list addresses", RTM_GETADDR, 0, &[0; 8]);
    collect(socket, request)
}

/// The addresses of one link. The kernel looks at no other, however many there are.
pub fn dump_of(socket: &mut Socket, index: u32) -> Result<Vec<Address>, KernelError> {
    let mut request = Batch::new();
    request.message("list a link's addresses", RTM_GETADDR, 0, &header_of(index));
    of_link(collect(socket, request), index)
}

/// The addresses of one link of another namespace, which has the id `netns` here (`IFA_TARGET_NETNSID`), as a link's
/// peer has in [`crate::link::Link::peer_netns`].
pub fn dump_in(socket: &mut Socket, netns: i32, index: u32) -> Result<Vec<Address>, KernelError> {
    let mut request = Batch::new();
    request
        .message("list addresses in another namespace", RTM_GETADDR, 0, &header_of(index))
        .u32(IFA_TARGET_NETNSID, netns.cast_unsigned());
    of_link(collect(socket, request), index)
}

/// `struct ifaddrmsg` with nothing but the link.
fn header_of(index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [0, 0, 0, 0, a, b, c, d]
}

fn collect(socket: &mut Socket, mut request: Batch) -> Result<Vec<Address>, KernelError> {
    let mut addresses = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((RTM_NEWADDR, payload)) => addresses.extend(Address::parse(payload)),
        Some(_) => {}
        None => addresses.clear(),
    })?;
    Ok(addresses)
}

/// Kernels before 4.20 list all links' addresses, and one without such a link says so.
fn of_link(listed: Result<Vec<Address>, KernelError>, index: u32) -> Result<Vec<Address>, KernelError> {
    listed.map(|all| all.into_iter().filter(|address| address.index == index).collect())
}

/// Adds an address; `flags` are `IFA_F_…`.
pub fn add(batch: &mut Batch, index: u32, ip: IpNet, flags: u32) {
    write(batch, ("add an address", RTM_NEWADDR, CREATE | EXCL), index, ip, flags);
}

/// Takes an address away.
pub fn delete(batch: &mut Batch, index: u32, ip: IpNet) {
    write(batch, ("delete an address", RTM_DELADDR, 0), index, ip, 0);
}

fn write(batch: &mut Batch, (what, kind, mode): (&'static str, u16, u16), index: u32, ip: IpNet, flags: u32) {
    let is_of_link = match ip.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let scope = if is_of_link { SCOPE_LINK } else { 0 };
    let mut header = [family_of(ip.addr()), ip.prefix_len(), 0, scope, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = batch.message(what, kind, mode, &header);
    message.ip(IFA_LOCAL, ip.addr()).ip(IFA_ADDRESS, ip.addr());
    if let IpNet::V4(ip) = ip
        && ip.prefix_len() < 31
        && kind == RTM_NEWADDR
    {
        message.attribute(IFA_BROADCAST, &ip.broadcast().octets());
    }
    if flags != 0 {
        message.u32(IFA_FLAGS, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["10.244.1.1/24", "fd00::1/128", "fe80::1/64"] {
            let ip: IpNet = text.parse().unwrap();
            let mut batch = Batch::new();
            add(&mut batch, 7, ip, NODAD | NOPREFIXROUTE);
            let read = Address::parse(&batch.bytes()[16..]).unwrap();
            assert_eq!((read.index, read.ip, read.flags), (7, ip, NODAD | NOPREFIXROUTE));
        }
    }

    #[test]
    fn a_privacy_address_is_no_stable_identity() {
        let address = Address {
            index: 1,
            ip: "2001:db8::1/64".parse().unwrap(),
            peer: None,
            flags: TEMPORARY,
            scope: 0,
            valid_lifetime: 10,
            preferred_lifetime: 10,
        };
        assert!(!address.is_stable());
        assert!(Address { flags: PERMANENT, ..address }.is_stable());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Address::parse(&bytes);
        }
    }
}

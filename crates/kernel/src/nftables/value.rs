//! Values in sets, maps and comparisons, and the bytes that stand for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use link_name::LinkName;

use crate::route;

/// The longest key (`NFT_DATA_VALUE_MAXLEN`).
const MAX_LEN: usize = 64;
/// `IFNAMSIZ`.
const LINK_NAME_LEN: u32 = 16;

/// A type of nft's (`enum datatypes` in its sources): the kernel keeps the number for nft's sake, and checks the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataType {
    /// An IPv4 address.
    Ipv4Addr,
    /// An IPv6 address.
    Ipv6Addr,
    /// A transport protocol.
    InetProto,
    /// A port.
    InetService,
    /// A link's name.
    IfName,
    /// A link's index.
    IfIndex,
    /// A packet's mark.
    Mark,
    /// Anything else, read from foreign sets.
    Other {
        /// nft's number.
        id: u32,
        /// Bytes.
        length: u32,
    },
}

impl DataType {
    const KNOWN: [Self; 7] = [
        Self::Ipv4Addr,
        Self::Ipv6Addr,
        Self::InetProto,
        Self::InetService,
        Self::IfName,
        Self::IfIndex,
        Self::Mark,
    ];

    pub(super) const fn id(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::IfIndex => 20,
            Self::IfName => 41,
            Self::Other { id, .. } => id,
        }
    }

    /// Bytes.
    pub(super) const fn length(self) -> u32 {
        match self {
            Self::Ipv4Addr | Self::Mark | Self::IfIndex => 4,
            Self::Ipv6Addr => 16,
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::IfName => LINK_NAME_LEN,
            Self::Other { length, .. } => length,
        }
    }

    /// nft's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::IfName => "ifname",
            Self::IfIndex => "iface_index",
            Self::Mark => "mark",
            Self::Other { .. } => "integer",
        }
    }

    /// `enum byteorder` in nft's sources: 1 is the machine's, 2 the network's.
    pub(super) const fn byte_order(self) -> u32 {
        match self {
            Self::IfName | Self::IfIndex | Self::Mark => 1,
            _ => 2,
        }
    }

    /// An address of this version.
    #[must_use]
    pub const fn address(version: route::Family) -> Self {
        match version {
            route::Family::V4 => Self::Ipv4Addr,
            route::Family::V6 => Self::Ipv6Addr,
        }
    }

    fn from_id(id: u32, length: u32) -> Self {
        Self::KNOWN.into_iter().find(|known| known.id() == id).unwrap_or(Self::Other { id, length })
    }

    /// nft packs the types of a concatenation into one number, six bits each, the first highest.
    pub(super) fn pack(types: &[Self]) -> u32 {
        types.iter().fold(0, |packed, part| packed << 6 | part.id())
    }

    /// The types in a packed number; `length` serves where there is one that we do not know.
    pub(super) fn unpack(packed: u32, length: u32) -> Vec<Self> {
        let parts: Vec<u32> =
            (0..6).map(|part| packed >> (30 - 6 * part) & 0x3f).skip_while(|id| *id == 0).collect();
        match parts.as_slice() {
            [id] => vec![Self::from_id(*id, length)],
            [] => vec![Self::Other { id: packed, length }],
            parts => {
                let types: Vec<Self> = parts.iter().map(|id| Self::from_id(*id, 0)).collect();
                let known = types.iter().map(|part| part.length().next_multiple_of(4)).sum::<u32>();
                if known == length { types } else { vec![Self::Other { id: packed, length }] }
            }
        }
    }

    /// The bytes that a key of these types has: each part of several starts at a register of four bytes.
    pub(super) fn key_length(types: &[Self]) -> u32 {
        match types {
            [only] => only.length(),
            parts => parts.iter().map(|part| part.length().next_multiple_of(4)).sum(),
        }
    }
}

/// A value, or several values that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// An address.
    Ip(IpAddr),
    /// All addresses of a prefix.
    Net(IpNet),
    /// A transport protocol (`IPPROTO_…`).
    Proto(u8),
    /// A port.
    Port(u16),
    /// Ports from the first to the second, which belongs to them.
    Ports(u16, u16),
    /// A link's name.
    IfName(LinkName),
    /// All links whose names start so; only in comparisons.
    IfNameStart(LinkName),
    /// A link's index.
    IfIndex(u32),
    /// A mark.
    Mark(u32),
    /// IPv4 or IPv6 (`meta nfproto`).
    Version(route::Family),
    /// The type of an ICMPv6 message (RFC 4443, RFC 4861).
    Icmpv6Type(u8),
    /// `RTN_…`, see [`super::address_type`].
    AddressType(u32),
    /// The direction of a tracked flow: whether it is that of the replies.
    Reply(bool),
    /// Bytes of a type that we do not know.
    Bytes(Vec<u8>),
}

/// The bytes of a value or key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoded {
    bytes: [u8; MAX_LEN],
    length: usize,
}

impl Encoded {
    pub(super) const EMPTY: Self = Self { bytes: [0; MAX_LEN], length: 0 };

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// More than the kernel's maximum is left out, and then refused by the kernel for its length.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
            self.length = end;
        }
    }

    fn pad(&mut self) {
        self.length = self.length.next_multiple_of(4).min(MAX_LEN);
    }
}

/// Which end of a value that may be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The first.
    Low,
    /// The last.
    High,
}

impl Value {
    fn write(&self, end: End, out: &mut Encoded) {
        let address = |out: &mut Encoded, ip: IpAddr| match ip {
            IpAddr::V4(ip) => out.push(&ip.octets()),
            IpAddr::V6(ip) => out.push(&ip.octets()),
        };
        match self {
            Self::Ip(ip) => address(out, *ip),
            Self::Net(net) => address(out, if end == End::Low { net.network() } else { net.broadcast() }),
            Self::Port(port) => out.push(&port.to_be_bytes()),
            Self::Ports(low, high) => out.push(&if end == End::Low { *low } else { *high }.to_be_bytes()),
            Self::IfName(name) => {
                let mut padded = [0; LINK_NAME_LEN as usize];
                padded[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
                out.push(&padded);
            }
            Self::IfNameStart(name) => out.push(name.as_str().as_bytes()),
            Self::IfIndex(number) | Self::Mark(number) | Self::AddressType(number) => {
                out.push(&number.to_ne_bytes());
            }
            Self::Proto(byte) | Self::Icmpv6Type(byte) => out.push(&[*byte]),
            Self::Version(version) => out.push(&[super::encode::nfproto(*version)]),
            Self::Reply(reply) => out.push(&[u8::from(*reply)]),
            Self::Bytes(bytes) => out.push(bytes),
        }
    }

    /// The bytes of a value that stands alone.
    pub(super) fn encode(&self, end: End) -> Encoded {
        let mut out = Encoded::EMPTY;
        self.write(end, &mut out);
        out
    }

    /// The order in which people count: by the first value, numbers as numbers.
    pub(super) fn rank(&self) -> Vec<u8> {
        match self {
            Self::IfIndex(number) | Self::Mark(number) => number.to_be_bytes().to_vec(),
            _ => self.encode(End::Low).as_slice().to_vec(),
        }
    }

    /// Reads the bytes of an exact value.
    pub(super) fn decode(data_type: DataType, bytes: &[u8]) -> Self {
        Self::decode_known(data_type, bytes).unwrap_or_else(|| Self::Bytes(bytes.to_vec()))
    }

    fn decode_known(data_type: DataType, bytes: &[u8]) -> Option<Self> {
        let word = || Some(u32::from_ne_bytes(bytes.try_into().ok()?));
        Some(match data_type {
            DataType::Ipv4Addr => Self::Ip(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            DataType::Ipv6Addr => Self::Ip(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
            DataType::InetProto => Self::Proto(*bytes.first()?),
            DataType::InetService => Self::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
            DataType::IfName => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                Self::IfName(LinkName::new(std::str::from_utf8(&bytes[..end]).ok()?).ok()?)
            }
            DataType::IfIndex => Self::IfIndex(word()?),
            DataType::Mark => Self::Mark(word()?),
            DataType::Other { .. } => return None,
        })
    }

    /// The one way to say it: a prefix of one address is that address, a range of one port that port.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => Self::Ip(net.addr()),
            Self::Net(net) => Self::Net(net.trunc()),
            Self::Ports(low, high) if low == high => Self::Port(low),
            other => other,
        }
    }
}

/// The bytes of a key: one value as it is, several each padded to a register.
pub(super) fn encode_key(values: &[Value], end: End) -> Encoded {
    match values {
        [only] => only.encode(end),
        values => {
            let mut out = Encoded::EMPTY;
            for value in values {
                value.write(end, &mut out);
                out.pad();
            }
            out
        }
    }
}

/// Cuts a key into the bytes of its parts.
pub(super) fn split_key<'bytes>(
    types: &[DataType],
    bytes: &'bytes [u8],
) -> Option<Vec<(DataType, &'bytes [u8])>> {
    if let [only] = types {
        return Some(vec![(*only, bytes)]);
    }
    let mut rest = bytes;
    types
        .iter()
        .map(|part| {
            let length = usize::try_from(part.length()).ok()?;
            let value = rest.get(..length)?;
            rest = rest.get(length.next_multiple_of(4)..)?;
            Some((*part, value))
        })
        .collect()
}

impl From<IpAddr> for Value {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl From<IpNet> for Value {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

impl From<LinkName> for Value {
    fn from(name: LinkName) -> Self {
        Self::IfName(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concatenation_of_types_packs_as_nft_packs_it() {
        let types = [DataType::InetProto, DataType::InetService];
        assert_eq!(DataType::pack(&types), 12 << 6 | 13);
        assert_eq!(DataType::unpack(12 << 6 | 13, 8), types);
        assert_eq!(DataType::unpack(7, 4), [DataType::Ipv4Addr]);
        assert_eq!(DataType::unpack(9 << 6 | 13, 12), [DataType::Other { id: 9 << 6 | 13, length: 12 }]);
    }

    #[test]
    fn ports_in_a_key_are_big_endian_and_padded_to_a_register() {
        let key = encode_key(&[Value::Proto(6), Value::Port(0x1f90)], End::Low);
        assert_eq!(key.as_slice(), [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(Value::Port(0x1f90).encode(End::Low).as_slice(), [0x1f, 0x90]);
    }

    #[test]
    fn a_key_longer_than_the_kernels_maximum_is_cut_and_not_a_panic() {
        let key = vec![Value::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)); 9];
        assert_eq!(encode_key(&key, End::Low).as_slice().len(), MAX_LEN);
    }
}

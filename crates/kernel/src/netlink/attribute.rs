//! Reading netlink attributes (`struct nlattr`): every length is checked, nothing panics, junk ends the walk.

use super::aligned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `NLA_TYPE_MASK`: the type less the nested and byte-order flags.
const TYPE_MASK: u16 = 0x3fff;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'bytes> {
    kind: u16,
    value: &'bytes [u8],
}

impl<'bytes> Attribute<'bytes> {
    /// The type, without flags.
    #[must_use]
    pub fn kind(&self) -> u16 {
        self.kind
    }

    /// The bytes.
    #[must_use]
    pub fn value(&self) -> &'bytes [u8] {
        self.value
    }

    /// The attributes inside.
    #[must_use]
    pub fn nested(&self) -> Attributes<'bytes> {
        Attributes::new(self.value)
    }

    /// One byte.
    #[must_use]
    pub fn u8(&self) -> Option<u8> {
        self.value.first().copied()
    }

    /// Two bytes in the machine's order.
    #[must_use]
    pub fn u16(&self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    /// Four bytes in the machine's order.
    #[must_use]
    pub fn u32(&self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Two bytes in network order.
    #[must_use]
    pub fn be16(&self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes in network order.
    #[must_use]
    pub fn be32(&self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes in network order.
    #[must_use]
    pub fn be64(&self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The first `N` bytes.
    #[must_use]
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.value.get(..N)?.try_into().ok()
    }

    /// Text up to the first NUL; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        String::from_utf8_lossy(&self.value[..end]).into_owned()
    }

    /// An address: four bytes are IPv4, sixteen IPv6.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self.value.len() {
            4 => self.array::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
            16 => self.array::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        }
    }

    /// A link-layer address of six bytes.
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        if self.value.len() == 6 { self.array() } else { None }
    }
}

/// The attributes in a piece of memory, in order.
#[derive(Clone, Debug)]
pub struct Attributes<'bytes> {
    rest: &'bytes [u8],
}

impl<'bytes> Attributes<'bytes> {
    /// Walks `bytes`.
    #[must_use]
    pub fn new(bytes: &'bytes [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The first attribute of this type.
    #[must_use]
    pub fn get(&self, kind: u16) -> Option<Attribute<'bytes>> {
        self.clone().find(|attribute| attribute.kind() == kind)
    }
}

impl<'bytes> Iterator for Attributes<'bytes> {
    type Item = Attribute<'bytes>;

    fn next(&mut self) -> Option<Attribute<'bytes>> {
        let header: [u8; 4] = self.rest.get(..4)?.try_into().ok()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = if length < 4 { None } else { self.rest.get(4..length) };
        let Some(value) = value else {
            self.rest = &[];
            return None;
        };
        self.rest = self.rest.get(aligned(length)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_beyond_the_memory_ends_the_walk() {
        assert_eq!(Attributes::new(&[200, 0, 1, 0, 1, 2, 3, 4]).count(), 0);
        assert_eq!(Attributes::new(&[3, 0, 1, 0, 1, 2, 3, 4]).count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for attribute in Attributes::new(&bytes) {
                let _ = (attribute.u8(), attribute.u16(), attribute.u32(), attribute.be64(), attribute.text());
                let _ = (attribute.ip(), attribute.mac(), attribute.nested().count());
            }
        }
    }
}

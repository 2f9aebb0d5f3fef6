//! Addresses as numbers, so that IPv4 and IPv6 are computed by the same code, and addresses as configurations spell
//! them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The default route's destination.
    #[must_use]
    pub fn default_route(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::default().into(),
            Self::V6 => Ipv6Net::default().into(),
        }
    }

    /// The address whose bits are `number`; for IPv4 the low 32 bits.
    pub(crate) fn address(self, number: u128) -> IpAddr {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "numbers of IPv4 addresses have 32 bits")]
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The bits of an address.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Reads an address. An IPv4 address in IPv6 clothing is the IPv4 address, as for the reference plugins.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Reads `<address>` or `<address>/<prefix>`; the prefix is checked and dropped, as by `host-local`.
pub(crate) fn parse_ip_maybe_prefixed(text: &str) -> Option<IpAddr> {
    if text.contains('/') {
        text.parse::<IpNet>().ok().map(|net| net.addr().to_canonical())
    } else {
        parse_ip(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(parse_ip("::ffff:10.0.0.1"), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(parse_ip_maybe_prefixed("10.0.0.1/24"), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(parse_ip_maybe_prefixed("10.0.0.1/33"), None);
        assert_eq!(parse_ip("010.0.0.1"), None);
    }

    #[test]
    fn default_routes_have_no_bits() {
        assert_eq!(IpFamily::BOTH.map(|family| family.default_route().to_string()), ["0.0.0.0/0", "::/0"]);
    }

    proptest! {
        #[test]
        fn an_address_survives_being_a_number(address: IpAddr) {
            prop_assert_eq!(IpFamily::of(address).address(number(address)), address);
        }
    }
}

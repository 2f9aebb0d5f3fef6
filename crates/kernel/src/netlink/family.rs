//! Address families, as messages of every kind number them (`linux/socket.h`).

use std::net::IpAddr;

/// IPv4.
pub(crate) const AF_INET: u8 = 2;
/// A bridge and its ports.
pub(crate) const AF_BRIDGE: u8 = 7;
/// IPv6.
pub(crate) const AF_INET6: u8 = 10;

/// That of an address.
pub(crate) const fn family_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

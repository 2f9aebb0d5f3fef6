//! One range of addresses to hand out, in the terms of `host-local`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{IpFamily, number};

/// The addresses from `start` to `end` of a subnet, and the gateway, which is never handed out.
///
/// Addresses are computed one at a time: no range is ever spelled out, so an IPv6 /64 costs what a /24 does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    start: IpAddr,
    end: IpAddr,
    gateway: IpAddr,
    is_gateway_given: bool,
}

/// Why a range is refused: what it is, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The subnet is not spelled by its network address.
    #[error("{given} has host bits set: write {canonical}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// The same subnet by its network address.
        canonical: IpNet,
    },
    /// Too small to hold a gateway and a pod, by the rule of `host-local`.
    #[error("{0} is too small to allocate from: give a prefix of at most {max} bits", max = .0.max_prefix_len() - 2)]
    TooSmall(IpNet),
    /// Not addresses that a pod can have.
    #[error("{0} does not hold unicast addresses of a network: give the node's pod CIDR")]
    NotUnicast(IpNet),
    /// The first address is outside.
    #[error("{address} is not in {subnet}: give an address inside it, or leave it out")]
    StartOutside {
        /// As given.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// The last address is outside.
    #[error("{address} is not in {subnet}: give an address inside it, or leave it out")]
    EndOutside {
        /// As given.
        address: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// The last address is before the first.
    #[error("{end} is before the range's first address {start}: swap them")]
    Reversed {
        /// The first address.
        start: IpAddr,
        /// The last address.
        end: IpAddr,
    },
    /// The gateway cannot be one for this subnet.
    #[error("{gateway} cannot be a gateway for {subnet}: give a unicast address of the same family")]
    Gateway {
        /// As given.
        gateway: IpAddr,
        /// The subnet.
        subnet: IpNet,
    },
    /// Nothing is left to hand out.
    #[error("the range holds only its gateway {0}: widen it")]
    OnlyGateway(IpAddr),
}

impl RangeError {
    /// The key of the configuration that is at fault.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::HostBits { .. } | Self::TooSmall(_) | Self::NotUnicast(_) => "subnet",
            Self::StartOutside { .. } => "rangeStart",
            Self::EndOutside { .. } | Self::Reversed { .. } | Self::OnlyGateway(_) => "rangeEnd",
            Self::Gateway { .. } => "gateway",
        }
    }
}

impl Range {
    /// Checks a range and fills in what was left out, as `host-local` does: the gateway is the first address after the
    /// network's, the range goes from there to the last address (IPv4: the last before broadcast).
    pub fn new(
        subnet: IpNet,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, RangeError> {
        let family = IpFamily::of(subnet.addr());
        let canonical = subnet.trunc();
        if subnet != canonical {
            return Err(RangeError::HostBits { given: subnet, canonical });
        }
        if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
            return Err(RangeError::TooSmall(subnet));
        }
        if subnet.prefix_len() == 0 || !is_unicast(subnet.network()) || !is_unicast(next(subnet.network())) {
            return Err(RangeError::NotUnicast(subnet));
        }
        let first = next(subnet.network());
        let last = match family {
            IpFamily::V4 => family.address(number(subnet.broadcast()) - 1),
            IpFamily::V6 => subnet.broadcast(),
        };
        let start = start.unwrap_or(first);
        if !subnet.contains(&start) {
            return Err(RangeError::StartOutside { address: start, subnet });
        }
        let end = end.unwrap_or(last);
        if !subnet.contains(&end) {
            return Err(RangeError::EndOutside { address: end, subnet });
        }
        if number(end) < number(start) {
            return Err(RangeError::Reversed { start, end });
        }
        let is_gateway_given = gateway.is_some();
        let gateway = gateway.unwrap_or(first);
        // Outside the subnet is allowed, as by `host-local`: a routed pod's gateway need not be in it, and is often
        // link-local.
        if IpFamily::of(gateway) != family || !is_unicast(gateway) && !is_link_local(gateway) {
            return Err(RangeError::Gateway { gateway, subnet });
        }
        if start == end && start == gateway {
            return Err(RangeError::OnlyGateway(gateway));
        }
        Ok(Self { subnet, start, end, gateway, is_gateway_given })
    }

    /// The subnet, whose prefix the addresses carry.
    #[must_use]
    pub const fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The first address of the range.
    #[must_use]
    pub const fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address of the range.
    #[must_use]
    pub const fn end(&self) -> IpAddr {
        self.end
    }

    /// The gateway. May lie inside or outside the range.
    #[must_use]
    pub const fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The gateway, where it was given and is not the default.
    #[must_use]
    pub const fn given_gateway(&self) -> Option<IpAddr> {
        if self.is_gateway_given { Some(self.gateway) } else { None }
    }

    /// The family of every address here.
    #[must_use]
    pub const fn family(&self) -> IpFamily {
        IpFamily::of(self.start)
    }

    /// How many addresses there are from the first to the last, a gateway among them counted.
    #[must_use]
    pub fn size(&self) -> u128 {
        // No overflow: a subnet of prefix 0 was refused.
        number(self.end) - number(self.start) + 1
    }

    /// Whether the address lies between the first and the last.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let within = number(self.start)..=number(self.end);
        IpFamily::of(address) == self.family() && within.contains(&number(address))
    }

    /// Whether the ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family() == other.family()
            && number(self.start) <= number(other.end)
            && number(other.start) <= number(self.end)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// The address after one that is not the last of its family.
fn next(address: IpAddr) -> IpAddr {
    IpFamily::of(address).address(number(address).saturating_add(1))
}

/// One that a pod can be reached at from other nodes.
fn is_unicast(address: IpAddr) -> bool {
    let reserved = match address {
        // 240.0.0.0/4 is not in this list: the kernel routes it, and large clusters use it.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    !(reserved || is_link_local(address) || address.is_loopback() || address.is_multicast())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range, RangeError> {
        let ip = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Range::new(subnet.parse().unwrap(), ip(start), ip(end), ip(gateway))
    }

    #[test]
    fn defaults_are_those_of_host_local() {
        let v4 = range("10.1.2.0/24", "", "", "").unwrap();
        assert_eq!(v4.to_string(), "10.1.2.1-10.1.2.254");
        assert_eq!((v4.gateway().to_string(), v4.size()), ("10.1.2.1".to_owned(), 254));
        let v6 = range("fd00:1::/64", "", "", "").unwrap();
        assert_eq!(v6.to_string(), "fd00:1::1-fd00:1::ffff:ffff:ffff:ffff");
        assert_eq!((v6.gateway().to_string(), v6.size()), ("fd00:1::1".to_owned(), (1 << 64) - 1));
        assert_eq!(range("10.0.0.0/30", "", "", "").unwrap().size(), 2);
    }

    #[test]
    fn an_address_inside_the_subnet_is_never_taken_for_its_network_address() {
        assert!(range("10.10.0.0/16", "", "", "10.10.1.0").is_ok());
        assert!(range("10.10.0.0/16", "10.10.255.0", "10.10.255.255", "").is_ok());
    }

    #[test]
    fn each_fault_names_its_key_and_remedy() {
        let refused = |subnet: &str, start: &str, end: &str, gateway: &str| {
            let error = range(subnet, start, end, gateway).unwrap_err();
            format!("{}: {error}", error.key())
        };
        insta::assert_debug_snapshot!([
            refused("10.1.2.3/24", "", "", ""),
            refused("10.1.2.0/31", "", "", ""),
            refused("fd00::/128", "", "", ""),
            refused("127.0.0.0/8", "", "", ""),
            refused("0.0.0.0/0", "", "", ""),
            refused("::/0", "", "", ""),
            refused("ff00::/8", "", "", ""),
            refused("10.1.2.0/24", "10.1.3.1", "", ""),
            refused("10.1.2.0/24", "fd00::1", "", ""),
            refused("10.1.2.0/24", "", "10.1.3.1", ""),
            refused("10.1.2.0/24", "10.1.2.9", "10.1.2.8", ""),
            refused("10.1.2.0/24", "", "", "fd00::1"),
            refused("10.1.2.0/24", "", "", "224.0.0.1"),
            refused("10.1.2.0/24", "10.1.2.1", "10.1.2.1", ""),
        ]);
    }

    #[test]
    fn a_gateway_may_be_link_local_and_pods_may_not() {
        assert!(range("10.1.2.0/24", "", "", "169.254.1.1").is_ok());
        assert!(range("fd00::/64", "", "", "fe80::1").is_ok());
        assert!(range("169.254.0.0/16", "", "", "").is_err());
        assert!(range("fe80::/64", "", "", "").is_err());
        assert!(range("240.0.0.0/8", "", "", "").is_ok());
    }

    #[test]
    fn the_widest_range_has_a_size() {
        assert_eq!(range("8000::/1", "8000::", "", "").unwrap().size(), 1 << 127);
        assert_eq!(range("2000::/3", "2000::", "", "").unwrap().size(), 1 << 125);
    }

    fn any_subnet() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<u32>(), 0u8..=32).prop_map(|(bits, prefix)| (IpAddr::V4(bits.into()), prefix)),
            (any::<u128>(), 0u8..=128).prop_map(|(bits, prefix)| (IpAddr::V6(bits.into()), prefix)),
        ]
        .prop_map(|(address, prefix)| IpNet::new(address, prefix).unwrap().trunc())
    }

    proptest! {
        #[test]
        fn a_range_holds_what_lies_between_its_ends(subnet in any_subnet(), address: IpAddr) {
            if let Ok(range) = Range::new(subnet, None, None, None) {
                prop_assert!(range.contains(range.start()) && range.contains(range.end()));
                prop_assert!(!range.contains(address) || subnet.contains(&address));
            }
        }

        #[test]
        fn overlap_means_a_shared_end(a in any_subnet(), b in any_subnet()) {
            if let (Ok(a), Ok(b)) = (Range::new(a, None, None, None), Range::new(b, None, None, None)) {
                let shared = [b.start(), b.end()].iter().any(|ip| a.contains(*ip))
                    || [a.start(), a.end()].iter().any(|ip| b.contains(*ip));
                prop_assert_eq!(a.overlaps(&b), shared);
                prop_assert!(a.overlaps(&a));
            }
        }

        #[test]
        fn any_mix_of_addresses_is_a_range_or_an_error(
            subnet in any_subnet(), start: Option<IpAddr>, end: Option<IpAddr>, gateway: Option<IpAddr>,
        ) {
            if let Ok(range) = Range::new(subnet, start, end, gateway) {
                prop_assert!(range.size() > 0 && subnet.contains(&range.start()) && subnet.contains(&range.end()));
            }
        }
    }
}

//! Addresses as ranges of numbers: those are sorted and joined several times faster than prefixes.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::family::Family;

/// An address as a number.
pub(super) trait Number: Copy + Ord {
    /// The last address of the prefix that begins here.
    fn last_of(self, prefix_len: u8) -> Self;
    /// The next address; of the last one itself.
    fn next(self) -> Self;
}

impl Number for u32 {
    fn last_of(self, prefix_len: u8) -> Self {
        self | Self::MAX.checked_shr(prefix_len.into()).unwrap_or_default()
    }

    fn next(self) -> Self {
        self.saturating_add(1)
    }
}

impl Number for u128 {
    fn last_of(self, prefix_len: u8) -> Self {
        self | Self::MAX.checked_shr(prefix_len.into()).unwrap_or_default()
    }

    fn next(self) -> Self {
        self.saturating_add(1)
    }
}

/// First and last address of each range, in any order, also with overlaps.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressRanges {
    pub(super) v4: Vec<(u32, u32)>,
    pub(super) v6: Vec<(u128, u128)>,
}

impl AddressRanges {
    /// The fewest prefixes that hold these addresses and no others, in order.
    pub(super) fn prefixes(&mut self, family: Family) -> Vec<IpNet> {
        match family {
            Family::Ipv4 => {
                join(&mut self.v4);
                let subnets =
                    |&(first, last)| Ipv4Subnets::new(Ipv4Addr::from(first), Ipv4Addr::from(last), 0);
                self.v4.iter().flat_map(subnets).map(IpNet::V4).collect()
            }
            Family::Ipv6 => {
                join(&mut self.v6);
                let subnets =
                    |&(first, last)| Ipv6Subnets::new(Ipv6Addr::from(first), Ipv6Addr::from(last), 0);
                self.v6.iter().flat_map(subnets).map(IpNet::V6).collect()
            }
        }
    }
}

impl Extend<IpNet> for AddressRanges {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, prefixes: I) {
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => self.v4.push((prefix.network().into(), prefix.broadcast().into())),
                IpNet::V6(prefix) => self.v6.push((prefix.network().into(), prefix.broadcast().into())),
            }
        }
    }
}

/// Puts ranges in order, and makes one of those that touch or overlap.
fn join<A: Number>(ranges: &mut Vec<(A, A)>) {
    // A stable sort, because it merges what has been put together from lists that were in order.
    ranges.sort();
    ranges.dedup_by(|next, kept| {
        let touches = next.0 <= kept.1.next();
        if touches {
            kept.1 = kept.1.max(next.1);
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn any_net() -> impl Strategy<Value = IpNet> {
        (any::<[u8; 16]>(), 0_u8..=32, any::<bool>(), 0_u8..4).prop_map(|(bytes, length, is_v4, near)| {
            // Most of them lie next to each other.
            let crowd = if near > 0 { 8 } else { 0 };
            let address: IpAddr = match is_v4 {
                true => [bytes[0] >> crowd.min(7), bytes[1] >> crowd.min(7), bytes[2], bytes[3]].into(),
                false => bytes.into(),
            };
            IpNet::new(address, length).unwrap().trunc()
        })
    }

    #[test]
    fn both_ends_of_the_address_space_are_addresses() {
        let all = |nets: &[&str], family| {
            let mut ranges = AddressRanges::default();
            ranges.extend(nets.iter().map(|net| net.parse().unwrap()));
            ranges.prefixes(family)
        };
        assert_eq!(all(&["255.255.255.255/32", "0.0.0.0/0"], Family::Ipv4), ["0.0.0.0/0".parse().unwrap()]);
        assert_eq!(all(&["8000::/1", "::/1"], Family::Ipv6), ["::/0".parse().unwrap()]);
        assert_eq!(all(&["10.0.0.0/8"], Family::Ipv6), []);
    }

    proptest! {
        #[test]
        fn the_prefixes_are_the_aggregate(nets in proptest::collection::vec(any_net(), 0..40)) {
            let mut ranges = AddressRanges::default();
            ranges.extend(nets.iter().copied());
            let found: Vec<IpNet> = Family::BOTH.iter().flat_map(|family| ranges.prefixes(*family)).collect();
            prop_assert_eq!(found, IpNet::aggregate(&nets));
        }
    }
}

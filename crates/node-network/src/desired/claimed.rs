//! The addresses that nodes claim for their pods, as numbers in order: those are sorted several times faster than
//! prefixes, and compared with others in order by one walk.

use ipnet::IpNet;

/// A range for each claim: its first and its last address.
pub(super) struct Claimed {
    pub(super) v4: Vec<(u32, u32)>,
    pub(super) v6: Vec<(u128, u128)>,
}

impl Claimed {
    /// Of prefixes in any order.
    pub(super) fn of(cidrs: impl Iterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for cidr in cidrs {
            match cidr {
                IpNet::V4(cidr) => v4.push((cidr.network().into(), cidr.broadcast().into())),
                IpNet::V6(cidr) => v6.push((cidr.network().into(), cidr.broadcast().into())),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { v4, v6 }
    }

    /// No two claims share an address.
    pub(super) fn are_disjoint(&self) -> bool {
        are_apart(&self.v4) && are_apart(&self.v6)
    }
}

/// Whether each of these ranges ends before the next one begins.
fn are_apart<A: Copy + Ord>(ranges: &[(A, A)]) -> bool {
    ranges.windows(2).all(|pair| pair[0].1 < pair[1].0)
}

/// Whether one of `addresses`, which are in order, lies in one of `ranges`, which are in order and apart.
pub(super) fn one_lies_in<A: Copy + Ord>(addresses: impl Iterator<Item = A>, ranges: &[(A, A)]) -> bool {
    let mut ranges = ranges.iter().peekable();
    addresses.into_iter().any(|address| {
        while ranges.next_if(|(_, last)| *last < address).is_some() {}
        ranges.peek().is_some_and(|(first, _)| *first <= address)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn claims_are_disjoint_unless_one_holds_another_of_its_family() {
        let disjoint =
            |cidrs: &[&str]| Claimed::of(cidrs.iter().map(|cidr| cidr.parse().unwrap())).are_disjoint();
        assert!(disjoint(&["10.2.0.0/16", "10.1.0.0/16", "::/0", "10.0.0.0/16"]));
        assert!(!disjoint(&["10.2.0.0/16", "10.0.0.0/24", "10.0.0.0/8"]));
        assert!(!disjoint(&["fd00::/64", "10.0.0.0/24", "fd00::/64"]));
    }

    proptest! {
        #[test]
        fn the_walk_finds_what_looking_at_every_range_finds(
            bounds in proptest::collection::btree_set(0_u32..60, 0..12),
            addresses in proptest::collection::btree_set(0_u32..60, 0..12),
        ) {
            let bounds: Vec<u32> = bounds.into_iter().collect();
            let ranges: Vec<(u32, u32)> = bounds.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let expected =
                addresses.iter().any(|address| ranges.iter().any(|(first, last)| (*first..=*last).contains(address)));
            prop_assert_eq!(one_lies_in(addresses.iter().copied(), &ranges), expected);
        }
    }
}

//! The addresses that nodes claim for their pods, as numbers in order: those are sorted several times faster than
//! prefixes, and compared with others in order by one walk.

use ipnet::IpNet;

use super::address_ranges::{AddressRanges, Number};

/// What is claimed, in order.
pub(super) struct Claimed {
    v4: Vec<ClaimedRange<u32>>,
    v6: Vec<ClaimedRange<u128>>,
    /// No two of `v4` share an address; so of `v6`. Asked often, and dear to find out.
    are_apart: (bool, bool),
}

/// In order like the prefixes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ClaimedRange<A> {
    first: A,
    prefix_len: u8,
    /// Which of the claims it is.
    claim: u32,
}

impl<A: Number> ClaimedRange<A> {
    fn bounds(&self) -> (A, A) {
        (self.first, self.first.last_of(self.prefix_len))
    }
}

impl Claimed {
    /// Of prefixes in any order.
    pub(super) fn of(cidrs: impl Iterator<Item = IpNet>) -> Self {
        let most = cidrs.size_hint().0;
        let (mut v4, mut v6) = (Vec::with_capacity(most), Vec::with_capacity(most));
        for (claim, cidr) in (0_u32..).zip(cidrs) {
            let prefix_len = cidr.prefix_len();
            match cidr {
                IpNet::V4(cidr) => v4.push(ClaimedRange { first: cidr.network().into(), prefix_len, claim }),
                IpNet::V6(cidr) => v6.push(ClaimedRange { first: cidr.network().into(), prefix_len, claim }),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        let are_apart = (are_apart(&v4), are_apart(&v6));
        Self { v4, v6, are_apart }
    }

    /// No two claims share an address.
    pub(super) fn are_disjoint(&self) -> bool {
        self.are_apart.0 && self.are_apart.1
    }

    /// Which claims these are, in the order of their prefixes.
    pub(super) fn in_order(&self) -> impl Iterator<Item = usize> {
        let v4 = self.v4.iter().map(|range| range.claim as usize);
        v4.chain(self.v6.iter().map(|range| range.claim as usize))
    }

    /// Whether one of these addresses lies in what is claimed; of claims that are disjoint. Both lists are in order.
    pub(super) fn hold_one_of(&self, v4: impl Iterator<Item = u32>, v6: impl Iterator<Item = u128>) -> bool {
        let (of_v4, of_v6) = (self.v4.iter(), self.v6.iter());
        one_lies_in(v4, of_v4.map(ClaimedRange::bounds)) || one_lies_in(v6, of_v6.map(ClaimedRange::bounds))
    }

    /// Whether an address of `prefix` may be claimed. Only of claims that are disjoint it is certain.
    pub(super) fn may_touch(&self, prefix: &IpNet) -> bool {
        match prefix {
            IpNet::V4(prefix) => {
                !self.are_apart.0 || touches(&self.v4, prefix.network().into(), prefix.broadcast().into())
            }
            IpNet::V6(prefix) => {
                !self.are_apart.1 || touches(&self.v6, prefix.network().into(), prefix.broadcast().into())
            }
        }
    }

    /// All claimed addresses, in order.
    pub(super) fn ranges(&self) -> AddressRanges {
        AddressRanges {
            v4: self.v4.iter().map(ClaimedRange::bounds).collect(),
            v6: self.v6.iter().map(ClaimedRange::bounds).collect(),
        }
    }
}

/// Whether each of these ranges ends before the next one begins.
fn are_apart<A: Number>(ranges: &[ClaimedRange<A>]) -> bool {
    ranges.windows(2).all(|pair| pair[0].bounds().1 < pair[1].first)
}

/// Whether one of `ranges`, which are apart, has an address in common with this one: only the last that begins in it or
/// before it can.
fn touches<A: Number>(ranges: &[ClaimedRange<A>], first: A, last: A) -> bool {
    let behind = ranges.partition_point(|range| range.first <= last);
    let nearest = behind.checked_sub(1).and_then(|at| ranges.get(at));
    nearest.is_some_and(|range| range.bounds().1 >= first)
}

/// Whether one of `addresses`, which are in order, lies in one of `ranges`, which are in order and apart.
fn one_lies_in<A: Number>(addresses: impl Iterator<Item = A>, ranges: impl Iterator<Item = (A, A)>) -> bool {
    let mut ranges = ranges.peekable();
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

    #[test]
    fn claims_in_order_are_prefixes_in_order() {
        let cidrs = ["fd00:2::/64", "10.2.0.0/16", "fd00:1::/64", "10.1.0.0/24", "10.1.0.0/16"];
        let cidrs: Vec<IpNet> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        let mut sorted = cidrs.clone();
        sorted.sort();
        let found: Vec<IpNet> =
            Claimed::of(cidrs.iter().copied()).in_order().map(|claim| cidrs[claim]).collect();
        assert_eq!(found, sorted);
    }

    proptest! {
        #[test]
        fn a_prefix_touches_what_is_claimed_if_it_overlaps_a_claim(
            claims in proptest::collection::btree_set(0_u8..32, 0..12), number in 0_u8..32, length in 20_u8..=24,
        ) {
            let net = |number: u8, length| IpNet::new([10, 0, number, 0].into(), length).unwrap().trunc();
            let claims: Vec<IpNet> = claims.into_iter().map(|number| net(number, 24)).collect();
            let prefix = net(number, length);
            let expected = claims.iter().any(|claim| crate::family::overlaps(claim, &prefix));
            prop_assert_eq!(Claimed::of(claims.into_iter()).may_touch(&prefix), expected);
        }

        #[test]
        fn the_walk_finds_what_looking_at_every_range_finds(
            bounds in proptest::collection::btree_set(0_u32..60, 0..12),
            addresses in proptest::collection::btree_set(0_u32..60, 0..12),
        ) {
            let bounds: Vec<u32> = bounds.into_iter().collect();
            let ranges: Vec<(u32, u32)> = bounds.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let expected =
                addresses.iter().any(|address| ranges.iter().any(|(first, last)| (*first..=*last).contains(address)));
            prop_assert_eq!(one_lies_in(addresses.iter().copied(), ranges.iter().copied()), expected);
        }
    }
}

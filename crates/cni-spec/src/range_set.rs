//! Range sets: a pod gets one address from each; within a set, the next range is used when the one before is full.

use std::fmt;

use crate::address::{IpFamily, number};
use crate::range::Range;

/// Ranges of one family, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
}

/// Every range set of a network, no two ranges overlapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSets {
    sets: Vec<RangeSet>,
}

/// Why ranges do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeSetError {
    /// No range at all.
    #[error("holds no range: give at least one subnet")]
    Empty,
    /// IPv4 and IPv6 in one set.
    #[error("holds both {first} and {other}: a set is of one family, so put them in two sets")]
    MixedFamilies {
        /// The first range.
        first: String,
        /// The first range of the other family.
        other: String,
    },
    /// An address would be in two ranges.
    #[error("{first} and {other} overlap: give each address to one range only")]
    Overlap {
        /// The range that starts first.
        first: String,
        /// The other.
        other: String,
    },
}

impl RangeSet {
    /// Checks that there are ranges, and that they are of one family.
    pub fn new(ranges: Vec<Range>) -> Result<Self, RangeSetError> {
        let first = ranges.first().ok_or(RangeSetError::Empty)?;
        if let Some(other) = ranges.iter().find(|range| range.family() != first.family()) {
            return Err(RangeSetError::MixedFamilies { first: first.to_string(), other: other.to_string() });
        }
        Ok(Self { ranges })
    }

    /// The ranges, in the order of use.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The family of every range.
    #[must_use]
    pub fn family(&self) -> IpFamily {
        // Never empty; the fallback only spares a panic.
        self.ranges.first().map_or(IpFamily::V4, Range::family)
    }
}

impl RangeSets {
    /// Checks that there is a set, and that no address is in two ranges of any set.
    pub fn new(sets: Vec<RangeSet>) -> Result<Self, RangeSetError> {
        if sets.is_empty() {
            return Err(RangeSetError::Empty);
        }
        let mut ranges: Vec<&Range> = sets.iter().flat_map(RangeSet::ranges).collect();
        ranges.sort_unstable_by_key(|range| (range.family(), number(range.start())));
        // Sorted by their starts, two that overlap imply two neighbours that do.
        for pair in ranges.windows(2) {
            if let [first, other] = pair
                && first.overlaps(other)
            {
                return Err(RangeSetError::Overlap { first: first.to_string(), other: other.to_string() });
            }
        }
        Ok(Self { sets })
    }

    /// No set: the addresses are somebody else's.
    #[must_use]
    pub const fn none() -> Self {
        Self { sets: Vec::new() }
    }

    /// These, and behind them those of `others` whose family has none here.
    #[must_use]
    pub fn and_of_other_families(mut self, others: &Self) -> Self {
        let missing = others.sets.iter().filter(|set| !self.has_family(set.family()));
        let missing: Vec<RangeSet> = missing.cloned().collect();
        self.sets.extend(missing);
        self
    }

    /// The sets, in the order of a pod's addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[RangeSet] {
        &self.sets
    }

    /// Whether a pod gets an address of this family.
    #[must_use]
    pub fn has_family(&self, family: IpFamily) -> bool {
        self.sets.iter().any(|set| set.family() == family)
    }

    /// Every range of every set.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.sets.iter().flat_map(RangeSet::ranges)
    }
}

impl fmt::Display for RangeSets {
    /// At most eight ranges, so that an error stays readable.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let count = self.ranges().count();
        for (index, range) in self.ranges().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{range}")?;
        }
        if count > SHOWN { write!(f, " and {} more", count - SHOWN) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(subnet: &str) -> Range {
        Range::new(subnet.parse().unwrap(), None, None, None).unwrap()
    }

    fn sets(subnets: &[&[&str]]) -> Result<RangeSets, RangeSetError> {
        let set = |subnets: &&[&str]| RangeSet::new(subnets.iter().map(|subnet| range(subnet)).collect());
        RangeSets::new(subnets.iter().map(set).collect::<Result<_, _>>()?)
    }

    #[test]
    fn sets_that_do_not_go_together_are_refused() {
        assert_eq!(sets(&[]), Err(RangeSetError::Empty));
        assert_eq!(sets(&[&[]]), Err(RangeSetError::Empty));
        assert!(matches!(sets(&[&["10.1.0.0/24", "fd00::/64"]]), Err(RangeSetError::MixedFamilies { .. })));
        assert!(matches!(sets(&[&["10.1.0.0/24"], &["10.1.0.0/16"]]), Err(RangeSetError::Overlap { .. })));
        assert!(matches!(sets(&[&["10.1.0.0/24", "10.1.0.0/24"]]), Err(RangeSetError::Overlap { .. })));
    }

    proptest! {
        #[test]
        fn sorting_finds_an_overlap_iff_comparing_all_pairs_does(
            starts in prop::collection::vec((0u8..64, 24u8..30), 1..12),
        ) {
            let ranges: Vec<Range> = starts.iter().map(|(start, prefix)| range(
                &format!("{}", ipnet::IpNet::new([10, 0, start / 16, start % 16 * 16].into(), *prefix).unwrap().trunc()),
            )).collect();
            let pairwise = ranges.iter().enumerate()
                .any(|(index, a)| ranges.iter().skip(index + 1).any(|b| a.overlaps(b)));
            let sets = ranges.into_iter().map(|range| RangeSet::new(vec![range]).unwrap()).collect();
            prop_assert_eq!(RangeSets::new(sets).is_err(), pairwise);
        }
    }
}

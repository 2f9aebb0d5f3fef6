//! Which address a range set hands out next: in turn, from the one after the last, as the reference does. The search is
//! that of the attachment store; what is taken is learnt by trying, and from the folder's listing after a few failures.

use std::net::IpAddr;

use attachment::AddressRange;
use attachment::allocator::{Standing, WINDOW_BYTES, WINDOW_INDEXES, Window, next_free, search_order};
use cni_spec::RangeSet;

/// So many addresses are tried before the folder is listed.
const TRIES: u32 = 8;

/// Why nothing was found.
#[derive(Debug)]
pub(super) enum SearchError<E> {
    /// All is taken.
    Exhausted,
    /// An attempt, or the listing, failed.
    Failed(E),
}

/// The first address that can be claimed: neither one of `gateways`, nor taken as `claim` finds it. `list` gives all
/// that are taken, in order.
pub(super) fn search<E>(
    set: &RangeSet,
    last: Option<IpAddr>,
    gateways: &[IpAddr],
    mut claim: impl FnMut(IpAddr) -> Result<bool, E>,
    mut list: impl FnMut() -> Result<Vec<IpAddr>, E>,
) -> Result<IpAddr, SearchError<E>> {
    let ranges: Vec<AddressRange> =
        set.ranges().iter().filter_map(|range| AddressRange::new(range.start(), range.end()).ok()).collect();
    let standings: Vec<Standing> = ranges.iter().map(|range| standing(range, last)).collect();
    let mut taken: Vec<IpAddr> = Vec::new();
    let mut tries = 0;
    for stretch in search_order(&standings) {
        let range = &ranges[stretch.range];
        let is_gateway = |index| range.address_at(index).is_none_or(|address| gateways.contains(&address));
        let mut from = stretch.from;
        loop {
            let window = |number| Ok::<_, E>(window(range, &taken, number));
            let free = next_free(from, stretch.until, window, is_gateway).map_err(SearchError::Failed)?;
            let Some((index, address)) = free.and_then(|index| Some((index, range.address_at(index)?)))
            else {
                break;
            };
            if claim(address).map_err(SearchError::Failed)? {
                return Ok(address);
            }
            from = index + 1;
            tries += 1;
            if tries == TRIES {
                taken = list().map_err(SearchError::Failed)?;
            }
        }
    }
    Err(SearchError::Exhausted)
}

fn standing(range: &AddressRange, last: Option<IpAddr>) -> Standing {
    let after = last.and_then(|last| range.index_of(last)).map(|index| index + 1);
    Standing { indexes: range.indexes(), cursor: after.unwrap_or(0), turn: u64::from(after.is_some()) }
}

/// Which indexes of a window of the range are among `taken`, which is in order.
fn window(range: &AddressRange, taken: &[IpAddr], number: u64) -> Window {
    let mut window = [0; WINDOW_BYTES];
    let first = number.saturating_mul(WINDOW_INDEXES);
    let from = match range.address_at(first) {
        Some(address) => taken.partition_point(|taken| *taken < address),
        None => return window,
    };
    let indexes = taken[from..].iter().map_while(|address| range.index_of(*address));
    for bit in indexes.map_while(|index| index.checked_sub(first)).take_while(|bit| *bit < WINDOW_INDEXES) {
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|byte| window.get_mut(byte)) {
            *byte |= 1 << (bit % 8);
        }
    }
    window
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_spec::Range;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    fn set(ranges: &[(&str, &str)]) -> RangeSet {
        let range = |(start, end): &(&str, &str)| {
            let (start, end) = (start.parse().unwrap(), end.parse().unwrap());
            Range::new("10.1.0.0/16".parse().unwrap(), Some(start), Some(end), None).unwrap()
        };
        RangeSet::new(ranges.iter().map(range).collect()).unwrap()
    }

    fn found(set: &RangeSet, last: Option<IpAddr>, taken: &BTreeSet<IpAddr>) -> (Option<IpAddr>, u32, u32) {
        let (mut claims, mut lists) = (0, 0);
        let found = search::<Infallible>(
            set,
            last,
            &["10.1.0.1".parse().unwrap()],
            |address| {
                claims += 1;
                Ok(!taken.contains(&address))
            },
            || {
                lists += 1;
                Ok(taken.iter().copied().collect())
            },
        );
        (found.ok(), claims, lists)
    }

    #[test]
    fn the_next_after_the_last_is_one_attempt_and_no_listing() {
        let taken: BTreeSet<IpAddr> = (2..=200).map(|last| IpAddr::from([10, 1, 0, last])).collect();
        let set = set(&[("10.1.0.1", "10.1.0.254")]);
        let next = found(&set, Some("10.1.0.200".parse().unwrap()), &taken);
        assert_eq!(next, (Some("10.1.0.201".parse().unwrap()), 1, 0));
        // Nobody knows the turn: a few attempts, one listing, and one more attempt.
        assert_eq!(found(&set, None, &taken), (Some("10.1.0.201".parse().unwrap()), TRIES + 1, 1));
    }

    #[test]
    fn the_gateway_is_never_handed_out_and_a_full_set_is_exhausted() {
        let set = set(&[("10.1.0.1", "10.1.0.2"), ("10.1.3.0", "10.1.3.1")]);
        let mut taken = BTreeSet::new();
        while let (Some(address), ..) = found(&set, taken.last().copied(), &taken) {
            taken.insert(address);
        }
        assert_eq!(taken, ["10.1.0.2", "10.1.3.0", "10.1.3.1"].map(|ip| ip.parse().unwrap()).into());
    }

    proptest! {
        #[test]
        fn what_is_found_is_the_first_that_is_free_in_the_order_of_the_reference(
            taken in proptest::collection::btree_set(0..40_u8, 0..40),
            last in proptest::option::of(0..50_u8),
        ) {
            let ip = |last: u8| IpAddr::from([10, 1, 0, last]);
            let set = set(&[("10.1.0.0", "10.1.0.9"), ("10.1.0.20", "10.1.0.39")]);
            let all: Vec<u8> = (0..=9).chain(20..=39).collect();
            let start = last.and_then(|last| all.iter().position(|each| *each == last)).map_or(0, |at| at + 1);
            let order = all[start..].iter().chain(&all[..start]);
            let expected = order.copied().find(|each| *each != 1 && !taken.contains(each)).map(ip);
            let taken: BTreeSet<IpAddr> = taken.into_iter().map(ip).collect();
            prop_assert_eq!(found(&set, last.map(ip), &taken).0, expected);
        }
    }
}

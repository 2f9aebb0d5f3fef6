//! Which address is next: a search through a map of bits, a window at a time. Pure; where the bits come from, and
//! whether they are true, is the caller's matter.

/// Bytes of the map that are looked at in one step.
pub const WINDOW_BYTES: usize = 512;
/// Indexes in one window.
pub const WINDOW_INDEXES: u64 = WINDOW_BYTES as u64 * 8;

/// One step of the map: bit `i % 8` of byte `i / 8` is set where index `i` of the window is taken.
pub type Window = [u8; WINDOW_BYTES];

/// A stretch of one range of a set, to be searched from `from` up to but not including `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which range of the set.
    pub range: usize,
    /// The first index to look at.
    pub from: u64,
    /// The index after the last one to look at.
    pub until: u64,
}

/// Where each range of a set stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many indexes the range has.
    pub indexes: u64,
    /// The index after the one handed out last.
    pub cursor: u64,
    /// Grows with each index handed out of the set: the range with the highest was used last.
    pub turn: u64,
}

/// The whole set, once, from the place after the address handed out last: an address that was released rests for as
/// long as there are others.
#[must_use]
pub fn search_order(ranges: &[Standing]) -> Vec<Stretch> {
    // Of equals, the first: a set that was never used starts at its start.
    let Some(last_used) = (0..ranges.len()).rev().max_by_key(|&range| ranges[range].turn) else {
        return Vec::new();
    };
    let Standing { indexes, cursor, .. } = ranges[last_used];
    let cursor = cursor.min(indexes);
    let others = (last_used + 1..ranges.len()).chain(0..last_used);
    std::iter::once(Stretch { range: last_used, from: cursor, until: indexes })
        .chain(others.map(|range| Stretch { range, from: 0, until: ranges[range].indexes }))
        .chain(std::iter::once(Stretch { range: last_used, from: 0, until: cursor }))
        .filter(|stretch| stretch.from < stretch.until)
        .collect()
}

/// The first index in `from..until` that is neither set in the map nor `excluded`. `window` yields the n-th window of
/// the map.
pub fn next_free<E>(
    from: u64,
    until: u64,
    mut window: impl FnMut(u64) -> Result<Window, E>,
    excluded: impl Fn(u64) -> bool,
) -> Result<Option<u64>, E> {
    let mut index = from;
    while index < until {
        let number = index / WINDOW_INDEXES;
        let end = until.min((number + 1).saturating_mul(WINDOW_INDEXES));
        let bits = window(number)?;
        while let Some(free) = next_zero(&bits, index % WINDOW_INDEXES) {
            index = number * WINDOW_INDEXES + free;
            if index >= end {
                break;
            }
            if !excluded(index) {
                return Ok(Some(index));
            }
            index += 1;
            if index == end {
                break;
            }
        }
        index = end;
    }
    Ok(None)
}

/// The first clear bit at or after `from`.
fn next_zero(bits: &Window, from: u64) -> Option<u64> {
    let (words, _) = bits.as_chunks::<8>();
    let first = from / 64;
    // Bits before `from` count as taken.
    let mut before = (1u64 << (from % 64)) - 1;
    for (word, number) in words.iter().skip(usize::try_from(first).ok()?).zip(first..) {
        let free = !(u64::from_le_bytes(*word) | before);
        if free != 0 {
            return Some(number * 64 + u64::from(free.trailing_zeros()));
        }
        before = 0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    fn window_of(taken: &BTreeSet<u64>, number: u64) -> Result<Window, Infallible> {
        let mut window = [0; WINDOW_BYTES];
        for index in taken.range(number * WINDOW_INDEXES..(number + 1) * WINDOW_INDEXES) {
            let bit = index % WINDOW_INDEXES;
            window[usize::try_from(bit / 8).unwrap()] |= 1 << (bit % 8);
        }
        Ok(window)
    }

    fn found(from: u64, until: u64, taken: &BTreeSet<u64>, excluded: &BTreeSet<u64>) -> Option<u64> {
        let Ok(found) = next_free(from, until, |n| window_of(taken, n), |index| excluded.contains(&index));
        found
    }

    #[test]
    fn a_search_looks_at_one_window_where_the_next_index_is_free() {
        let taken: BTreeSet<u64> = (0..30_000).collect();
        let mut looks = 0;
        let Ok(free) = next_free(30_000, 65_534, |n| (looks += 1, window_of(&taken, n)).1, |_| false);
        assert_eq!((free, looks), (Some(30_000), 1));
    }

    #[test]
    fn nothing_is_found_in_an_empty_stretch_or_a_full_one() {
        assert_eq!(found(5, 5, &BTreeSet::new(), &BTreeSet::new()), None);
        assert_eq!(found(0, 9_000, &(0..9_000).collect(), &BTreeSet::new()), None);
        assert_eq!(found(0, 9_000, &BTreeSet::new(), &(0..9_000).collect()), None);
    }

    #[test]
    fn a_set_never_used_is_searched_from_its_start() {
        let fresh = Standing { indexes: 4, cursor: 0, turn: 0 };
        let order = search_order(&[fresh, fresh]);
        assert_eq!(order, [Stretch { range: 0, from: 0, until: 4 }, Stretch { range: 1, from: 0, until: 4 }]);
    }

    #[test]
    fn the_search_goes_on_in_the_range_used_last_and_wraps_round_the_set() {
        let set = [
            Standing { indexes: 4, cursor: 4, turn: 4 },
            Standing { indexes: 9, cursor: 3, turn: 7 },
            Standing { indexes: 2, cursor: 0, turn: 0 },
        ];
        let order = |set: &[Standing]| -> Vec<_> {
            search_order(set).iter().map(|stretch| (stretch.range, stretch.from, stretch.until)).collect()
        };
        assert_eq!(order(&set), [(1, 3, 9), (2, 0, 2), (0, 0, 4), (1, 0, 3)]);
        let used_to_its_end = [Standing { cursor: 9, ..set[1] }, set[2]];
        assert_eq!(order(&used_to_its_end), [(1, 0, 2), (0, 0, 9)]);
    }

    proptest! {
        #[test]
        fn the_first_free_index_is_found_exactly_if_there_is_one(
            from in 0..9_000u64,
            length in 0..9_000u64,
            runs in vec((0..12_000u64, 0..5_000u64), 0..6),
            excluded in btree_set(0..12_000u64, 0..40),
        ) {
            let taken: BTreeSet<u64> = runs.iter().flat_map(|&(at, run)| at..at + run).collect();
            let expected = (from..from + length).find(|index| !taken.contains(index) && !excluded.contains(index));
            prop_assert_eq!(found(from, from + length, &taken, &excluded), expected);
        }

        #[test]
        fn every_index_of_a_set_is_searched_once(ranges in vec((1..50u64, 0..60u64, 0..5u64), 1..5)) {
            let ranges: Vec<_> =
                ranges.into_iter().map(|(indexes, cursor, turn)| Standing { indexes, cursor, turn }).collect();
            let mut searched = Vec::new();
            for stretch in search_order(&ranges) {
                searched.extend((stretch.from..stretch.until).map(|index| (stretch.range, index)));
            }
            searched.sort_unstable();
            let all: Vec<_> = ranges.iter().zip(0..).flat_map(|(r, n)| (0..r.indexes).map(move |i| (n, i))).collect();
            prop_assert_eq!(searched, all);
        }

        #[test]
        fn a_range_is_handed_out_whole_in_order_before_an_address_returns(
            indexes in 1..300u64,
            start in 0..300u64,
            excluded in btree_set(0..300u64, 0..20),
        ) {
            let mut taken = BTreeSet::new();
            let mut cursor = start % indexes;
            let mut handed_out = Vec::new();
            // Each is released at once: only the cursor keeps it from being handed out again.
            for _ in 0..indexes {
                let order = search_order(&[Standing { indexes, cursor, turn: 1 }]);
                let next = order.iter().find_map(|s| found(s.from, s.until, &taken, &excluded));
                let Some(next) = next else { break };
                handed_out.push(next);
                cursor = next + 1;
                taken.clear();
            }
            let usable = indexes - excluded.iter().filter(|&&index| index < indexes).count() as u64;
            let distinct: BTreeSet<_> = handed_out.iter().take(usize::try_from(usable).unwrap()).collect();
            prop_assert_eq!(distinct.len() as u64, usable);
            prop_assert!(handed_out.iter().all(|index| *index < indexes && !excluded.contains(index)));
        }
    }
}

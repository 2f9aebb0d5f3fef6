//! Which known name a misspelt one most likely means.

/// The known name that takes the fewest changes of a character to write, if those are few for its length.
pub(crate) fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    // No name of ours is near this length, and the work grows with its square.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_ascii_lowercase();
    known
        .iter()
        .map(|name| (distance(&given, &name.to_ascii_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 6)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many bytes must be inserted, removed, replaced or swapped with their neighbour to make one text the other
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut from_before = None;
    for (row, &a) in from.iter().enumerate() {
        let mut current = Vec::with_capacity(to.len() + 1);
        let mut left = row + 1;
        current.push(left);
        let mut to_before = None;
        for (column, (&b, pair)) in to.iter().zip(last.windows(2)).enumerate() {
            let &[diagonal, above] = pair else { continue };
            let mut least = (above + 1).min(left + 1).min(diagonal + usize::from(a != b));
            if from_before == Some(b)
                && to_before == Some(a)
                && let Some(swapped) = column.checked_sub(1).and_then(|column| before_last.get(column))
            {
                least = least.min(swapped + 1);
            }
            current.push(least);
            left = least;
            to_before = Some(b);
        }
        before_last = std::mem::replace(&mut last, current);
        from_before = Some(a);
    }
    last.last().copied().unwrap_or(from.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slip_of_the_hand_is_recognised_and_another_word_is_not() {
        let known = ["rangeStart", "rangeEnd", "gateway", "mtu", "mode"];
        for (given, meant) in [
            ("rangStart", Some("rangeStart")),
            ("range_start", Some("rangeStart")),
            ("rangesStar", Some("rangeStart")),
            ("gatewya", Some("gateway")),
            ("mut", Some("mtu")),
            ("MTUU", Some("mtu")),
            ("keyring", None),
            ("ipMasq", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &known), meant, "{given}");
        }
    }

    proptest! {
        #[test]
        fn distance_is_zero_for_equals_alone_and_the_same_both_ways(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}

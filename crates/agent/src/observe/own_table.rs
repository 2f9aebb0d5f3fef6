//! Our table in nftables as the kernel last told of it: read once, then kept in step with what it tells of our own changes
//! of elements. To read it anew is dear where a set holds thousands of prefixes (docs/decisions/0037).

use std::collections::BTreeMap;

use ipnet::IpNet;
use kernel::nftables::{ToldBoundary, told_boundaries, told_prefixes};
use node_network::desired::BaseChain;
use node_network::observed::ObservedNftTable;

/// More changes than this are read sooner than they are put in one by one.
const MOST_TOLD: usize = 1024;

/// The table, and the chains that it was compared with as it was read; none while it is in doubt.
#[derive(Debug, Default)]
pub(super) struct OwnTable {
    known: Option<(Vec<BaseChain>, Option<ObservedNftTable>)>,
    /// What was told of a transaction whose end was not.
    told: Vec<ToldBoundary>,
}

impl OwnTable {
    /// It has to be read anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// It was read, and compared with these chains.
    pub(super) fn hold(&mut self, chains: Vec<BaseChain>, table: Option<ObservedNftTable>) {
        *self = Self { known: Some((chains, table)), told: Vec::new() };
    }

    /// The table as it is, if it is known as compared with these chains.
    pub(super) fn compared_with(&self, chains: &[BaseChain]) -> Option<&Option<ObservedNftTable>> {
        let (compared, table) = self.known.as_ref()?;
        (compared == chains && self.told.is_empty()).then_some(table)
    }

    /// An event about its elements, of a transaction of our own.
    pub(super) fn tell(&mut self, kind: u16, payload: &[u8]) {
        if self.known.is_none() {
            return;
        }
        match told_boundaries(kind, payload) {
            Some(told) if self.told.len() + told.len() <= MOST_TOLD => self.told.extend(told),
            _ => self.forget(),
        }
    }

    /// The transaction that was being told of is over.
    pub(super) fn told_all(&mut self) {
        let told = std::mem::take(&mut self.told);
        if told.is_empty() {
            return;
        }
        let table = self.known.as_mut().and_then(|(_, table)| table.as_mut());
        if !table.is_some_and(|table| put_in(&mut table.sets, &told)) {
            self.forget();
        }
    }

    #[cfg(test)]
    pub(super) const fn is_known(&self) -> bool {
        self.known.is_some()
    }
}

/// Puts in what one transaction has changed; whether it fits what is known.
fn put_in(sets: &mut BTreeMap<String, Vec<IpNet>>, told: &[ToldBoundary]) -> bool {
    // What goes was told before what comes in its place.
    [true, false].into_iter().all(|gone| {
        sets.iter_mut().all(|(name, set)| {
            let of_set = told.iter().filter(|told| told.gone == gone && told.set == *name);
            let Some(prefixes) = told_prefixes(of_set) else { return false };
            prefixes.into_iter().all(|prefix| match (gone, set.binary_search(&prefix)) {
                (true, Ok(at)) => {
                    set.remove(at);
                    true
                }
                (false, Err(at)) => {
                    set.insert(at, prefix);
                    true
                }
                (true, Err(_)) | (false, Ok(_)) => false,
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    const SET: &str = "never_masquerade4";
    const NEWSETELEM: u16 = 10 << 8 | 12;
    const DELSETELEM: u16 = 10 << 8 | 14;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// What the kernel tells of one boundary.
    fn event(set: &str, key: Ipv4Addr, is_end: bool) -> Vec<u8> {
        let key = attribute(1, &attribute(1, &key.octets()));
        let flags = attribute(3, &u32::from(is_end).to_be_bytes());
        let list = attribute(3, &attribute(1, &[key, flags].concat()));
        [vec![1, 0, 0, 0], attribute(1, b"hostgw\0"), attribute(2, &[set.as_bytes(), &[0]].concat()), list]
            .concat()
    }

    fn net(number: u8) -> IpNet {
        IpNet::new([10, 0, number, 0].into(), 24).unwrap()
    }

    fn tell(table: &mut OwnTable, kind: u16, prefix: IpNet) {
        let (IpAddr::V4(first), IpAddr::V4(last)) = (prefix.network(), prefix.broadcast()) else {
            unreachable!()
        };
        table.tell(kind, &event(SET, first, false));
        table.tell(kind, &event(SET, Ipv4Addr::from(u32::from(last) + 1), true));
    }

    fn holding(prefixes: &BTreeSet<IpNet>) -> OwnTable {
        let sets = [(SET.to_owned(), prefixes.iter().copied().collect()), ("other".to_owned(), Vec::new())];
        let mut table = OwnTable::default();
        table.hold(Vec::new(), Some(ObservedNftTable { sets: sets.into(), ..ObservedNftTable::default() }));
        table
    }

    fn held(table: &OwnTable) -> Option<BTreeSet<IpNet>> {
        let table = table.compared_with(&[])?.as_ref()?;
        Some(table.sets.get(SET)?.iter().copied().collect())
    }

    #[test]
    fn a_transaction_whose_end_was_not_told_leaves_the_table_in_doubt() {
        let mut table = holding(&[net(1)].into());
        tell(&mut table, NEWSETELEM, net(2));
        assert_eq!(held(&table), None);
        table.told_all();
        assert_eq!(held(&table), Some([net(1), net(2)].into()));
    }

    #[test]
    fn what_does_not_fit_what_is_known_has_the_table_read_anew() {
        let after = |kind, prefix| {
            let mut table = holding(&[net(1)].into());
            tell(&mut table, kind, prefix);
            table.told_all();
            held(&table)
        };
        assert_eq!(after(NEWSETELEM, net(1)), None, "it was there");
        assert_eq!(after(DELSETELEM, net(2)), None, "it was not");
        let mut table = holding(&[net(1)].into());
        table.tell(NEWSETELEM, &event(SET, Ipv4Addr::new(10, 0, 7, 0), false));
        table.told_all();
        assert_eq!(held(&table), None, "an interval without an end");
        let mut table = holding(&[net(1)].into());
        table.tell(NEWSETELEM, &[1, 0, 0, 0]);
        assert_eq!(held(&table), None, "which elements cannot be read");
        let mut table = holding(&[net(1)].into());
        (0..=MOST_TOLD).for_each(|_| tell(&mut table, NEWSETELEM, net(2)));
        assert_eq!(held(&table), None, "too many");
    }

    #[test]
    fn a_table_that_was_compared_with_other_chains_is_not_known() {
        let chain = BaseChain {
            name: "forward",
            kind: node_network::desired::ChainKind::Filter,
            hook: node_network::desired::Hook::Forward,
            priority: 0,
            rules: Vec::new(),
        };
        assert_eq!(holding(&BTreeSet::new()).compared_with(&[chain]), None);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_transactions_have_left(
            first in proptest::collection::btree_set(0_u8..12, 0..8),
            transactions in proptest::collection::vec(proptest::collection::btree_set(0_u8..12, 1..6), 0..8),
        ) {
            let mut kernel: BTreeSet<IpNet> = first.into_iter().map(net).collect();
            let mut table = holding(&kernel);
            for changed in transactions {
                let (gone, new): (Vec<IpNet>, Vec<IpNet>) =
                    changed.into_iter().map(net).partition(|prefix| kernel.contains(prefix));
                for prefix in gone {
                    kernel.remove(&prefix);
                    tell(&mut table, DELSETELEM, prefix);
                }
                for prefix in new {
                    kernel.insert(prefix);
                    tell(&mut table, NEWSETELEM, prefix);
                }
                table.told_all();
            }
            prop_assert_eq!(held(&table), Some(kernel));
        }
    }
}

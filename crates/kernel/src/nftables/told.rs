//! What an event of nftables is about, and what it tells of a set of prefixes.

use ipnet::IpNet;

use super::interval::{self, Boundary};
use super::set::{DATA_VALUE, ELEM_FLAGS, ELEM_INTERVAL_END, ELEM_KEY};
use super::table::{Family, TableName};
use super::transaction::{LIST_ELEMENTS, LIST_SET};
use super::value::{DataType, Value};
use super::{
    DELCHAIN, DELRULE, DELSETELEM, DELTABLE, NEWCHAIN, NEWGEN, NEWRULE, NEWSETELEM, NEWTABLE, SUBSYSTEM,
};
use crate::netlink::{Attribute, Attributes};

/// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`: the table's name is the first
/// attribute of every object.
const TABLE: u16 = 1;

/// What a change that nftables tells of is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A transaction is over; what it changed was told before.
    Generation,
    /// A table, or a chain or rule in it.
    Rules(TableName),
    /// Elements of one of a table's sets and maps.
    Elements(TableName),
    /// Anything else, or something that cannot be read.
    Other,
}

/// Reads an event's type and payload ([`crate::events::Event`]).
#[must_use]
pub fn told(kind: u16, payload: &[u8]) -> Told {
    let table = || {
        let family = Family::from_number(*payload.first()?)?;
        let name = Attributes::new(payload.get(4..)?).get(TABLE)?.text();
        Some(TableName { family, name })
    };
    if kind >> 8 != SUBSYSTEM {
        return Told::Other;
    }
    match (kind & 0xff, table()) {
        (NEWGEN, _) => Told::Generation,
        (NEWTABLE | DELTABLE | NEWCHAIN | DELCHAIN | NEWRULE | DELRULE, Some(table)) => Told::Rules(table),
        (NEWSETELEM | DELSETELEM, Some(table)) => Told::Elements(table),
        _ => Told::Other,
    }
}

/// Where an interval of a set begins or ends, as an event told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldBoundary {
    /// The set.
    pub set: String,
    /// It was removed; else it was added.
    pub gone: bool,
    boundary: Boundary<()>,
}

/// What an event about elements tells, if it can be read.
#[must_use]
pub fn told_boundaries(kind: u16, payload: &[u8]) -> Option<Vec<ToldBoundary>> {
    let gone = match kind & 0xff {
        NEWSETELEM => false,
        DELSETELEM => true,
        _ => return None,
    };
    let list = Attributes::new(payload.get(4..)?);
    let set = list.get(LIST_SET)?.text();
    let boundary = |element: Attribute<'_>| {
        let key = element.nested().get(ELEM_KEY)?.nested().get(DATA_VALUE)?.value().to_vec();
        let flags = element.nested().get(ELEM_FLAGS).and_then(|flags| flags.be32()).unwrap_or_default();
        let boundary = Boundary { key, is_end: flags & ELEM_INTERVAL_END != 0, carries: () };
        Some(ToldBoundary { set: set.clone(), gone, boundary })
    };
    list.get(LIST_ELEMENTS)?.nested().map(boundary).collect()
}

/// The prefixes that these boundaries of one set make; none where an interval lacks one of its two, as does the one that
/// reaches to the last address.
#[must_use]
pub fn told_prefixes<'a>(boundaries: impl IntoIterator<Item = &'a ToldBoundary>) -> Option<Vec<IpNet>> {
    let boundaries: Vec<Boundary<()>> = boundaries.into_iter().map(|told| told.boundary.clone()).collect();
    let (begins, ends) = (boundaries.iter().filter(|it| !it.is_end).count(), boundaries.len());
    let data_type = match boundaries.first().map_or(4, |it| it.key.len()) {
        4 => DataType::Ipv4Addr,
        16 => DataType::Ipv6Addr,
        _ => return None,
    };
    let intervals = interval::pair(boundaries);
    if 2 * begins != ends || intervals.len() != begins {
        return None;
    }
    let values = intervals.iter().flat_map(|(low, high, ())| interval::values(data_type, low, high));
    let prefix = |value| match value {
        Value::Ip(address) => Some(IpNet::from(address)),
        Value::Net(prefix) => Some(prefix),
        _ => None,
    };
    values.map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use super::super::message_type;
    use super::*;
    use proptest::prelude::*;

    /// `struct nfgenmsg` of family `inet`, and the name of a table.
    const OF_T: [u8; 12] = [1, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0];

    #[test]
    fn an_event_says_which_table_it_is_about() {
        let table = TableName::new(Family::Inet, "t");
        assert_eq!(told(message_type(DELRULE), &OF_T), Told::Rules(table.clone()));
        assert_eq!(told(message_type(NEWSETELEM), &OF_T), Told::Elements(table));
        assert_eq!(told(message_type(NEWGEN), &[0; 4]), Told::Generation);
        assert_eq!(told(message_type(NEWRULE), &[1, 0, 0, 0]), Told::Other);
        assert_eq!(told(NEWRULE, &OF_T), Told::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(kind: u16, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _told = told(kind, &bytes);
            let _prefixes = told_boundaries(kind, &bytes).and_then(|told| told_prefixes(&told));
        }
    }
}

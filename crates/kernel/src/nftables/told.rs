//! What an event of nftables is about.

use super::table::{Family, TableName};
use super::{
    DELCHAIN, DELRULE, DELSETELEM, DELTABLE, NEWCHAIN, NEWGEN, NEWRULE, NEWSETELEM, NEWTABLE, SUBSYSTEM,
};
use crate::netlink::Attributes;

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
        }
    }
}

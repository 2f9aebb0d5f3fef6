//! Which message of a transaction was refused, in words.

use super::table::Family;
use super::transaction::{CHAIN_NAME, RULE_CHAIN, TABLE_NAME};
use super::{DELCHAIN, DELTABLE, NEWCHAIN, NEWTABLE, SUBSYSTEM};
use crate::netlink::Attributes;

/// What the message of this number is about (family, table, and chain or set), read from its own bytes, so that naming
/// it costs nothing where nothing fails.
pub(super) fn describe(bytes: &[u8], index: usize) -> Option<String> {
    let mut rest = bytes;
    for _ in 0..index {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
        rest = rest.get(usize::try_from(length).ok()?..)?;
    }
    let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
    if kind >> 8 != SUBSYSTEM {
        return None;
    }
    let family = Family::from_number(*rest.get(16)?)?;
    let attributes = Attributes::new(rest.get(20..length)?);
    let second = match kind & 0xff {
        NEWTABLE | DELTABLE => None,
        NEWCHAIN | DELCHAIN => attributes.get(CHAIN_NAME),
        _ => attributes.get(RULE_CHAIN),
    };
    let mut names = format!("{} {}", family.as_str(), attributes.get(TABLE_NAME)?.text());
    if let Some(second) = second {
        names.push(' ');
        names.push_str(&second.text());
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::{TableName, Transaction};

    #[test]
    fn a_refusal_is_described_by_family_table_and_chain() {
        let table = TableName::new(Family::Inet, "hostgw");
        let mut transaction = Transaction::new();
        transaction.delete_table(&table).flush_chain(&table, "forward");
        let bytes = transaction.batch.bytes();
        assert_eq!(describe(bytes, 0), None);
        assert_eq!(describe(bytes, 1).as_deref(), Some("inet hostgw"));
        assert_eq!(describe(bytes, 2).as_deref(), Some("inet hostgw forward"));
        assert_eq!(describe(bytes, 3), None);
    }
}

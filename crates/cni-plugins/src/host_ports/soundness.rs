//! Whether the table does what it is for: elements in a table whose rules somebody flushed open no port.

use std::net::IpAddr;

use kernel::address::Address;
use kernel::link::Link;
use kernel::netlink::{self, Socket};
use kernel::nftables::{Difference, Existing, ObservedTable, Transaction, chain_uses};
use kernel::{KernelError, address, link};

use super::table::{CHAIN_USES, empty_table, exclude, table_name};

/// What was found where the table should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Soundness {
    /// Every chain is there, with as many rules as it should have.
    Sound,
    /// Some are not.
    Damaged,
    /// There is no table.
    Missing,
}

impl Soundness {
    /// Looks, in one round trip. A rule that was changed for another is not seen; CHECK and the agent compare them all.
    pub(super) fn look(socket: &mut Socket) -> Result<Self, KernelError> {
        let uses = chain_uses(socket, &table_name(), &CHAIN_USES.map(|(chain, _)| chain))?;
        Ok(if uses.iter().all(Option::is_none) {
            Self::Missing
        } else if uses.iter().zip(CHAIN_USES).all(|(found, (_, wanted))| *found == Some(wanted)) {
            Self::Sound
        } else {
            Self::Damaged
        })
    }

    /// Writes what makes the table sound.
    pub(super) fn mend(self, transaction: &mut Transaction) -> Result<(), KernelError> {
        match self {
            Self::Sound => {}
            Self::Damaged => {
                transaction.repair(&empty_table());
            }
            // Two first pods at once: one makes table, chains and rules, the other is refused and comes back.
            Self::Missing => {
                let mut table = empty_table();
                exclude(&mut table, &addresses_of_dummies()?);
                transaction.create(&table, Existing::Refuse);
            }
        }
        Ok(())
    }
}

/// What of the table's frame is not as it should be, for CHECK: in words, and whatever its elements are.
pub(super) fn flaws(found: &ObservedTable) -> Vec<String> {
    let described = found.differences(&empty_table()).into_iter().filter_map(|difference| match difference {
        Difference::Table => Some("the table is asleep".to_owned()),
        Difference::Chain(name) => Some(format!("chain `{name}` is missing or changed")),
        Difference::Rules(name) => Some(format!("the rules of chain `{name}` were changed")),
        Difference::Set(name) => Some(format!("set `{name}` is missing or changed")),
        // What is there in addition is the agent's to judge.
        Difference::UnexpectedChain(_) | Difference::UnexpectedSet(_) | Difference::Elements { .. } => None,
    });
    described.map(|flaw| format!("host ports: {flaw} (table `inet {}`)", found.name.name)).collect()
}

/// The addresses of dummy links, for the table's birth; afterwards the agent keeps them.
fn addresses_of_dummies() -> Result<Vec<IpAddr>, KernelError> {
    let mut socket = Socket::open(netlink::Protocol::Route)?;
    let dummies = link::dump_kind(&mut socket, "dummy")?;
    match dummies.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(held_by(&dummies, &address::dump(&mut socket)?)),
    }
}

fn held_by(dummies: &[Link], addresses: &[Address]) -> Vec<IpAddr> {
    let of_dummy = |held: &&Address| dummies.iter().any(|dummy| dummy.index == held.index);
    addresses.iter().filter(of_dummy).map(|held| held.ip.addr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_ports::table::{V4, V6};
    use kernel::nftables::{Element, Value};

    #[test]
    fn a_table_is_born_without_host_ports_on_dummy_links_addresses() {
        let held = |index, ip: &str| Address {
            index,
            ip: ip.parse().unwrap(),
            peer: None,
            flags: 0,
            scope: 0,
            valid_lifetime: u32::MAX,
            preferred_lifetime: u32::MAX,
        };
        let dummies = [4, 5].map(|index| Link { index, ..Link::default() });
        let addresses = [
            held(4, "169.254.20.10/32"),
            held(2, "192.0.2.11/24"),
            held(5, "10.96.0.1/32"),
            held(5, "fd00:53::10/128"),
            held(4, "10.96.0.1/32"),
        ];
        let mut table = empty_table();
        exclude(&mut table, &held_by(&dummies, &addresses));
        let elements = |name| &table.sets.iter().find(|set| set.name == name).unwrap().elements;
        let of = |ip: &str| Element::of([Value::Ip(ip.parse().unwrap())]);
        assert_eq!(*elements(V4.excluded), [of("10.96.0.1"), of("169.254.20.10")]);
        assert_eq!(*elements(V6.excluded), [of("fd00:53::10")]);
    }
}

//! nftables over netlink (`linux/netfilter/nf_tables.h`): a table as a value, written in one atomic transaction, read
//! back, compared and rendered. Nothing here knows what a pod is.
//!
//! [`Table`] is the whole wanted state; [`Transaction`] changes the kernel, all of it or nothing; [`ObservedTable`] is
//! what the kernel holds, and [`ObservedTable::differences`] says where the two part.

mod compare;
mod decode;
mod dump;
mod encode;
mod expression;
mod interval;
mod observed;
mod refusal;
mod render;
mod rule;
mod set;
mod table;
mod told;
mod transaction;
mod userdata;
mod value;
pub mod xtables;

pub use compare::Difference;
pub use dump::{base_chains, chain_uses, chains, elements, generation, observe, rules, sets, tables};
pub use observed::{ObservedChain, ObservedRule, ObservedSet, ObservedTable};
pub use rule::{
    Fib, FibAddress, NatFlags, NatKind, NatTarget, Reject, Rule, Selector, Statement, Transport, Unit,
    Verdict, address_type, ct_state, ct_status,
};
pub use set::{Data, Element, MapData, Set};
pub use table::{BaseChain, Chain, ChainKind, Family, Hook, Policy, Table, TableName, priority};
pub use told::{Told, ToldBoundary, told, told_boundaries, told_prefixes};
pub use transaction::{Existing, Transaction};
pub use userdata::Comment;
pub use value::{DataType, Value};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NEWGEN: u16 = 15;
const GETGEN: u16 = 16;

/// `NFTA_LIST_ELEM`: one of a list.
const LIST_ELEM: u16 = 1;

/// `nlmsg_type` of one of our messages.
const fn message_type(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// `struct nfgenmsg`: family, version, resource id in network order.
const fn header(family: u8, resource: u16) -> [u8; 4] {
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

//! Reading what nftables holds.

use super::decode::{RawElement, assemble, attributes, parse_chain, parse_rule, parse_set, parse_table};
use super::observed::{ObservedChain, ObservedRule, ObservedSet, ObservedTable};
use super::set::SET_TABLE;
use super::table::{BaseChain, Family, Hook, TableName};
use super::transaction::{
    CHAIN_NAME, CHAIN_TABLE, LIST_ELEMENTS, LIST_SET, LIST_TABLE, RULE_CHAIN, RULE_TABLE,
};
use super::value::Value;
use super::{
    Element, GETCHAIN, GETGEN, GETRULE, GETSET, GETSETELEM, GETTABLE, NEWCHAIN, NEWGEN, NEWRULE, NEWSET,
    NEWSETELEM, NEWTABLE, Set, header, message_type,
};
use crate::KernelError;
use crate::netlink::{Batch, Message, Socket};
use rustix::io::Errno;

const CHAIN_USE: u16 = 6;
const GEN_ID: u16 = 1;
/// How often a ruleset that changes while it is read is read again.
const ATTEMPTS: usize = 16;

/// The number of the ruleset as it is; each change adds one.
pub fn generation(socket: &mut Socket) -> Result<u32, KernelError> {
    const ATTEMPTED: &str = "read the generation of nftables";
    let mut batch = Batch::new();
    drop(batch.message(ATTEMPTED, message_type(GETGEN), 0, &header(0, 0)));
    let mut found = None;
    let failures = socket.execute_reading(&mut batch, |kind, payload| {
        if kind == message_type(NEWGEN) {
            found = attributes(payload).get(GEN_ID).and_then(|generation| generation.be32());
        }
    })?;
    match (failures.into_iter().next(), found) {
        (Some(failure), _) => Err(failure.error),
        (None, Some(generation)) => Ok(generation),
        (None, None) => Err(KernelError::new(ATTEMPTED, Errno::NODATA)),
    }
}

/// A table with all in it, from one moment; none where there is no such table.
pub fn observe(socket: &mut Socket, name: &TableName) -> Result<Option<ObservedTable>, KernelError> {
    for _ in 0..ATTEMPTS {
        let before = generation(socket)?;
        let observed = match observe_once(socket, name) {
            // It was deleted between two dumps; the generation tells.
            Err(error) if error.is_absent() => None,
            other => other?,
        };
        if generation(socket)? == before {
            return Ok(observed);
        }
    }
    let attempted = format!(
        "read table {} {}, which changes faster than it can be read",
        name.family.as_str(),
        name.name
    );
    Err(KernelError::new(attempted, Errno::AGAIN))
}

fn observe_once(socket: &mut Socket, name: &TableName) -> Result<Option<ObservedTable>, KernelError> {
    let Some(mut table) = tables(socket, Some(name.family))?.into_iter().find(|table| table.name == *name)
    else {
        return Ok(None);
    };
    table.chains = chains(socket, Some(name.family))?;
    table.chains.retain(|chain| chain.table == *name);
    for rule in rules(socket, name, None)? {
        if let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == rule.chain) {
            chain.rules.push(rule);
        }
    }
    table.sets = sets(socket, name)?;
    for observed in &mut table.sets {
        observed.set.elements = elements(socket, name, &observed.set)?;
    }
    Ok(Some(table))
}

/// Every table of a family, or of all, without what is in it.
pub fn tables(socket: &mut Socket, family: Option<Family>) -> Result<Vec<ObservedTable>, KernelError> {
    dump(socket, ("list tables", GETTABLE, NEWTABLE), family, |_| {}, parse_table)
}

/// Every chain of a family, or of all, without its rules.
pub fn chains(socket: &mut Socket, family: Option<Family>) -> Result<Vec<ObservedChain>, KernelError> {
    dump(socket, ("list chains", GETCHAIN, NEWCHAIN), family, |_| {}, parse_chain)
}

/// How many rules each of these chains has, and how many others jump to it, together (`NFTA_CHAIN_USE`); none for one
/// that is not there. One round trip, whatever the table holds. A change that is under way may be counted.
pub fn chain_uses(
    socket: &mut Socket,
    table: &TableName,
    chains: &[&str],
) -> Result<Vec<Option<u32>>, KernelError> {
    let mut batch = Batch::new();
    for chain in chains {
        batch
            .message("look at a chain", message_type(GETCHAIN), 0, &header(table.family.number(), 0))
            .text(CHAIN_TABLE, &table.name)
            .text(CHAIN_NAME, chain);
    }
    let mut uses = vec![None; chains.len()];
    let failures = socket.execute_reading(&mut batch, |kind, payload| {
        if kind != message_type(NEWCHAIN) {
            return;
        }
        let found = attributes(payload);
        let name = found.get(CHAIN_NAME).map(|name| name.text());
        if let Some(at) = chains.iter().position(|chain| Some(*chain) == name.as_deref()) {
            uses[at] = found.get(CHAIN_USE).and_then(|uses| uses.be32());
        }
    })?;
    match failures.into_iter().find(|failure| !failure.error.is_absent()) {
        Some(failure) => Err(failure.error),
        None => Ok(uses),
    }
}

/// The base chains of all tables at a hook, whoever's they are, in the order in which packets meet them.
pub fn base_chains(socket: &mut Socket, hook: Hook) -> Result<Vec<(ObservedChain, BaseChain)>, KernelError> {
    let mut found: Vec<(ObservedChain, BaseChain)> = chains(socket, None)?
        .into_iter()
        .filter_map(|chain| chain.base.clone().map(|base| (chain, base)))
        .filter(|(_, base)| base.hook == hook)
        .collect();
    found.sort_by_key(|(_, base)| base.priority);
    Ok(found)
}

/// The rules of a table, or of one of its chains, in order.
pub fn rules(
    socket: &mut Socket,
    table: &TableName,
    chain: Option<&str>,
) -> Result<Vec<ObservedRule>, KernelError> {
    let narrow = |message: &mut Message<'_>| {
        message.text(RULE_TABLE, &table.name);
        if let Some(chain) = chain {
            message.text(RULE_CHAIN, chain);
        }
    };
    let mut rules = dump(socket, ("list rules", GETRULE, NEWRULE), Some(table.family), narrow, parse_rule)?;
    rules.retain(|rule| rule.table == *table && chain.is_none_or(|chain| chain == rule.chain));
    Ok(rules)
}

/// The sets and maps of a table, without their elements.
pub fn sets(socket: &mut Socket, table: &TableName) -> Result<Vec<ObservedSet>, KernelError> {
    let narrow = |message: &mut Message<'_>| {
        message.text(SET_TABLE, &table.name);
    };
    let mut sets = dump(socket, ("list sets", GETSET, NEWSET), Some(table.family), narrow, parse_set)?;
    sets.retain(|set| set.table == *table);
    Ok(sets)
}

/// The elements of a set or map whose declaration is `set`, by key.
pub fn elements(socket: &mut Socket, table: &TableName, set: &Set) -> Result<Vec<Element>, KernelError> {
    let narrow = |message: &mut Message<'_>| {
        message.text(LIST_TABLE, &table.name).text(LIST_SET, &set.name);
    };
    let what = ("list elements", GETSETELEM, NEWSETELEM);
    let lists: Vec<Vec<RawElement>> = dump(socket, what, Some(table.family), narrow, |payload| {
        let list = attributes(payload).get(LIST_ELEMENTS)?;
        Some(list.nested().filter_map(|element| RawElement::parse(set, element)).collect())
    })?;
    let mut elements = assemble(set, lists.into_iter().flatten().collect());
    elements.sort_by_cached_key(|element| element.key.iter().map(Value::rank).collect::<Vec<_>>());
    Ok(elements)
}

fn dump<T>(
    socket: &mut Socket,
    (attempted, get, new): (&'static str, u16, u16),
    family: Option<Family>,
    narrow: impl FnOnce(&mut Message<'_>),
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, KernelError> {
    let mut request = Batch::new();
    let family = family.map_or(0, Family::number);
    narrow(&mut request.message(attempted, message_type(get), 0, &header(family, 0)));
    let mut found = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((kind, payload)) if kind == message_type(new) => found.extend(parse(payload)),
        Some(_) => {}
        None => found.clear(),
    })?;
    Ok(found)
}

//! Reading what nftables holds.

use super::interval::{self, Boundary};
use super::set::{
    DATA_VALUE, DATA_VERDICT, ELEM_DATA, ELEM_FLAGS, ELEM_INTERVAL_END, ELEM_KEY, ELEM_KEY_END,
    ELEM_USERDATA, FLAG_CONSTANT, FLAG_INTERVAL, FLAG_MAP, SET_DATA_LEN, SET_DATA_TYPE, SET_FLAGS,
    SET_KEY_LEN, SET_KEY_TYPE, SET_NAME, SET_TABLE, SET_USERDATA, VERDICT_TYPE,
};
use super::table::{BaseChain, ChainKind, Family, Hook, Policy, TableName};
use super::transaction::{
    CHAIN_HANDLE, CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, HOOK_NUMBER, HOOK_PRIORITY,
    LIST_ELEMENTS, LIST_SET, LIST_TABLE, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE,
    RULE_USERDATA, TABLE_NAME, TABLE_USERDATA,
};
use super::value::{DataType, Value, split_key};
use super::{
    Comment, Data, Element, GETCHAIN, GETGEN, GETRULE, GETSET, GETSETELEM, GETTABLE, MapData, NEWCHAIN,
    NEWGEN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, Set, Verdict, expression, header, message_type, userdata,
};
use crate::KernelError;
use crate::netlink::{Attribute, Attributes, Batch, Message, Socket};
use rustix::io::Errno;

const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_OWNER: u16 = 7;
const CHAIN_USE: u16 = 6;
const SET_HANDLE: u16 = 16;
const GEN_ID: u16 = 1;
/// How often a ruleset that changes while it is read is read again.
const ATTEMPTS: usize = 16;

/// A table, and in [`observe`]'s answer all in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTable {
    /// Its name.
    pub name: TableName,
    /// The kernel's number for it.
    pub handle: u64,
    /// Whether it is asleep (`NFT_TABLE_F_DORMANT`).
    pub dormant: bool,
    /// The netlink port of the program that alone may change it (`NFT_TABLE_F_OWNER`).
    pub owner: Option<u32>,
    /// A word on whose it is.
    pub comment: Option<Comment>,
    /// Its sets and maps.
    pub sets: Vec<ObservedSet>,
    /// Its chains, with their rules.
    pub chains: Vec<ObservedChain>,
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    /// Its table.
    pub table: TableName,
    /// The kernel's number for it.
    pub handle: u64,
    /// What it is, and in [`observe`]'s answer its elements.
    pub set: Set,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedChain {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// Where the kernel enters it.
    pub base: Option<BaseChain>,
    /// Its rules, in [`observe`]'s answer.
    pub rules: Vec<ObservedRule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRule {
    /// Its table.
    pub table: TableName,
    /// Its chain.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// The comment in its user data. (iptables' comments are expressions.)
    pub comment: Option<Comment>,
    /// The bytes of its expressions (`NFTA_RULE_EXPRESSIONS`).
    pub expressions: Vec<u8>,
}

impl ObservedRule {
    /// The names of its expressions, in order.
    #[must_use]
    pub fn expression_names(&self) -> Vec<String> {
        expression::parse(&self.expressions).map(|(name, _)| name).collect()
    }

    /// Whether it drops or rejects every packet that comes to it, also where iptables wrote it.
    #[must_use]
    pub fn refuses_everything(&self) -> bool {
        let mut refuses = false;
        for (name, data) in expression::parse(&self.expressions) {
            let attributes = Attributes::new(data);
            match name.as_str() {
                "counter" | "log" => {}
                "reject" => refuses = true,
                "target" => {
                    let target = attributes.get(1).map(|name| name.text());
                    refuses = matches!(target.as_deref(), Some("REJECT" | "DROP"));
                }
                "immediate" => refuses = immediate_verdict(&attributes) == Some(Verdict::Drop),
                // A match, or something that is no end.
                _ => return false,
            }
        }
        refuses
    }

    /// The chain to which it sends the packets that it is for, if that is what it does.
    #[must_use]
    pub fn jumps_to(&self) -> Option<String> {
        expression::parse(&self.expressions).filter(|(name, _)| name == "immediate").find_map(|(_, data)| {
            match immediate_verdict(&Attributes::new(data)) {
                Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain),
                _ => None,
            }
        })
    }

    /// The chain to which it sends every packet that comes to it, if that is what it does.
    #[must_use]
    pub fn sends_everything_to(&self) -> Option<String> {
        let mut to = None;
        for (name, data) in expression::parse(&self.expressions) {
            match name.as_str() {
                "counter" | "log" => {}
                "immediate" => match immediate_verdict(&Attributes::new(data)) {
                    Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => to = Some(chain),
                    _ => return None,
                },
                _ => return None,
            }
        }
        to
    }
}

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

/// What stands behind `struct nfgenmsg`.
fn attributes(payload: &[u8]) -> Attributes<'_> {
    Attributes::new(payload.get(4..).unwrap_or_default())
}

fn table_name(payload: &[u8], attribute: u16) -> Option<TableName> {
    let family = Family::from_number(*payload.first()?)?;
    Some(TableName { family, name: attributes(payload).get(attribute)?.text() })
}

fn parse_table(payload: &[u8]) -> Option<ObservedTable> {
    let attributes = attributes(payload);
    let flags = attributes.get(TABLE_FLAGS).and_then(|flags| flags.be32()).unwrap_or_default();
    Some(ObservedTable {
        name: table_name(payload, TABLE_NAME)?,
        handle: attributes.get(TABLE_HANDLE)?.be64()?,
        dormant: flags & 1 != 0,
        owner: attributes.get(TABLE_OWNER).and_then(|owner| owner.be32()),
        comment: attributes
            .get(TABLE_USERDATA)
            .and_then(|data| userdata::read_comment(data.value(), userdata::COMMENT)),
        sets: Vec::new(),
        chains: Vec::new(),
    })
}

fn parse_chain(payload: &[u8]) -> Option<ObservedChain> {
    let attributes = attributes(payload);
    let table = table_name(payload, CHAIN_TABLE)?;
    let base = attributes.get(CHAIN_HOOK).and_then(|hook| {
        let hook = hook.nested();
        Some(BaseChain {
            kind: ChainKind::from_name(attributes.get(CHAIN_TYPE)?.text()),
            hook: Hook::from_number(table.family, hook.get(HOOK_NUMBER)?.be32()?),
            priority: hook.get(HOOK_PRIORITY)?.be32()?.cast_signed(),
            policy: match attributes.get(CHAIN_POLICY).and_then(|policy| policy.be32()) {
                Some(0) => Policy::Drop,
                _ => Policy::Accept,
            },
        })
    });
    Some(ObservedChain {
        name: attributes.get(CHAIN_NAME)?.text(),
        handle: attributes.get(CHAIN_HANDLE)?.be64()?,
        base,
        rules: Vec::new(),
        table,
    })
}

fn parse_rule(payload: &[u8]) -> Option<ObservedRule> {
    let attributes = attributes(payload);
    Some(ObservedRule {
        table: table_name(payload, RULE_TABLE)?,
        chain: attributes.get(RULE_CHAIN)?.text(),
        handle: attributes.get(RULE_HANDLE)?.be64()?,
        comment: attributes
            .get(RULE_USERDATA)
            .and_then(|data| userdata::read_comment(data.value(), userdata::COMMENT)),
        expressions: attributes.get(RULE_EXPRESSIONS).map(|list| list.value().to_vec()).unwrap_or_default(),
    })
}

fn parse_set(payload: &[u8]) -> Option<ObservedSet> {
    let attributes = attributes(payload);
    let word = |kind| attributes.get(kind).and_then(|word| word.be32());
    let flags = word(SET_FLAGS).unwrap_or_default();
    let data = (flags & FLAG_MAP != 0).then(|| match word(SET_DATA_TYPE).unwrap_or_default() {
        VERDICT_TYPE => MapData::Verdict,
        packed => MapData::Values(DataType::unpack(packed, word(SET_DATA_LEN).unwrap_or_default())),
    });
    Some(ObservedSet {
        table: table_name(payload, SET_TABLE)?,
        handle: attributes.get(SET_HANDLE).and_then(|handle| handle.be64()).unwrap_or_default(),
        set: Set {
            name: attributes.get(SET_NAME)?.text(),
            key: DataType::unpack(word(SET_KEY_TYPE)?, word(SET_KEY_LEN)?),
            data,
            interval: flags & FLAG_INTERVAL != 0,
            constant: flags & FLAG_CONSTANT != 0,
            comment: attributes
                .get(SET_USERDATA)
                .and_then(|data| userdata::read_comment(data.value(), userdata::SET_COMMENT)),
            elements: Vec::new(),
        },
    })
}

/// An element before its boundaries or its low and high keys are made values.
#[derive(Clone, Debug)]
struct RawElement {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    is_end: bool,
    data: Option<Data>,
    comment: Option<Comment>,
}

impl RawElement {
    fn parse(set: &Set, element: Attribute<'_>) -> Option<Self> {
        let bytes = |kind| Some(element.nested().get(kind)?.nested().get(DATA_VALUE)?.value().to_vec());
        let data = element.nested().get(ELEM_DATA).and_then(|data| {
            if let Some(verdict) = data.nested().get(DATA_VERDICT) {
                return Some(Data::Verdict(parse_verdict(verdict)?));
            }
            let Some(MapData::Values(types)) = &set.data else { return None };
            let value = data.nested().get(DATA_VALUE)?;
            let parts = split_key(types, value.value())?;
            Some(Data::Values(parts.into_iter().map(|(part, bytes)| Value::decode(part, bytes)).collect()))
        });
        let flags = element.nested().get(ELEM_FLAGS).and_then(|flags| flags.be32()).unwrap_or_default();
        Some(Self {
            key: bytes(ELEM_KEY)?,
            key_end: bytes(ELEM_KEY_END),
            is_end: flags & ELEM_INTERVAL_END != 0,
            data,
            comment: element
                .nested()
                .get(ELEM_USERDATA)
                .and_then(|data| userdata::read_comment(data.value(), userdata::COMMENT)),
        })
    }
}

/// What `immediate` does with a packet, where that is what it sets.
fn immediate_verdict(attributes: &Attributes<'_>) -> Option<Verdict> {
    parse_verdict(attributes.get(2)?.nested().get(DATA_VERDICT)?)
}

fn parse_verdict(verdict: Attribute<'_>) -> Option<Verdict> {
    let chain = || verdict.nested().get(2).map(|chain| chain.text());
    Some(match verdict.nested().get(1)?.be32()?.cast_signed() {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    })
}

fn assemble(set: &Set, raw: Vec<RawElement>) -> Vec<Element> {
    match set.key.as_slice() {
        [only] if set.interval => {
            let boundaries = raw
                .into_iter()
                .map(|raw| Boundary { key: raw.key, is_end: raw.is_end, carries: (raw.data, raw.comment) })
                .collect();
            interval::pair(boundaries)
                .into_iter()
                .flat_map(|(low, high, (data, comment))| {
                    interval::values(*only, &low, &high).into_iter().map(move |value| Element {
                        key: vec![value],
                        data: data.clone(),
                        comment: comment.clone(),
                    })
                })
                .collect()
        }
        types => raw
            .into_iter()
            .filter_map(|raw| {
                let low = split_key(types, &raw.key)?;
                let high = split_key(types, raw.key_end.as_deref().unwrap_or(&raw.key))?;
                let key = low.into_iter().zip(high).map(|((part, low), (_, high))| {
                    let mut values = interval::values(part, low, high);
                    // A part is a prefix or range by nature of such sets; anything else is shown as its bytes.
                    if values.len() == 1 { values.remove(0) } else { Value::Bytes([low, high].concat()) }
                });
                Some(Element { key: key.collect(), data: raw.data, comment: raw.comment })
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), interval: bool, concatenated: bool,
        ) {
            let _ = (parse_table(&bytes), parse_chain(&bytes), parse_rule(&bytes), parse_set(&bytes));
            let key = if concatenated { vec![DataType::Ipv4Addr, DataType::InetService] } else { vec![DataType::Ipv6Addr] };
            let data = MapData::Values(vec![DataType::Ipv4Addr, DataType::InetService]);
            let set = Set { interval, ..Set::map("m", key, data) };
            let raw = Attributes::new(&bytes).filter_map(|element| RawElement::parse(&set, element)).collect();
            let _ = assemble(&set, raw);
            let _ = expression::same(&bytes, &bytes);
        }
    }
}

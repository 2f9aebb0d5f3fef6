//! What nftables told, as bytes, into values: the counterpart of `encode.rs`.

use super::interval::{self, Boundary};
use super::observed::{ObservedChain, ObservedRule, ObservedSet, ObservedTable};
use super::set::{
    DATA_VALUE, DATA_VERDICT, ELEM_DATA, ELEM_FLAGS, ELEM_INTERVAL_END, ELEM_KEY, ELEM_KEY_END,
    ELEM_USERDATA, FLAG_CONSTANT, FLAG_INTERVAL, FLAG_MAP, SET_DATA_LEN, SET_DATA_TYPE, SET_FLAGS,
    SET_KEY_LEN, SET_KEY_TYPE, SET_NAME, SET_TABLE, SET_USERDATA, VERDICT_TYPE,
};
use super::table::{BaseChain, ChainKind, Family, Hook, Policy, TableName};
use super::transaction::{
    CHAIN_HANDLE, CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, HOOK_NUMBER, HOOK_PRIORITY,
    RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE, RULE_USERDATA, TABLE_NAME, TABLE_USERDATA,
};
use super::value::{DataType, Value, split_key};
use super::{Comment, Data, Element, MapData, Set, Verdict, userdata};
use crate::netlink::{Attribute, Attributes};

const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
const TABLE_OWNER: u16 = 7;
const SET_HANDLE: u16 = 16;

/// What stands behind `struct nfgenmsg`.
pub(super) fn attributes(payload: &[u8]) -> Attributes<'_> {
    Attributes::new(payload.get(4..).unwrap_or_default())
}

pub(super) fn table_name(payload: &[u8], attribute: u16) -> Option<TableName> {
    let family = Family::from_number(*payload.first()?)?;
    Some(TableName { family, name: attributes(payload).get(attribute)?.text() })
}

pub(super) fn parse_table(payload: &[u8]) -> Option<ObservedTable> {
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

pub(super) fn parse_chain(payload: &[u8]) -> Option<ObservedChain> {
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

pub(super) fn parse_rule(payload: &[u8]) -> Option<ObservedRule> {
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

pub(super) fn parse_set(payload: &[u8]) -> Option<ObservedSet> {
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
pub(super) struct RawElement {
    key: Vec<u8>,
    key_end: Option<Vec<u8>>,
    is_end: bool,
    data: Option<Data>,
    comment: Option<Comment>,
}

impl RawElement {
    pub(super) fn parse(set: &Set, element: Attribute<'_>) -> Option<Self> {
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

pub(super) fn parse_verdict(verdict: Attribute<'_>) -> Option<Verdict> {
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

pub(super) fn assemble(set: &Set, raw: Vec<RawElement>) -> Vec<Element> {
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
    use crate::nftables::expression;
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

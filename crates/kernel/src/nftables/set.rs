//! Sets and maps: what they hold as values, and how that is written into messages.

use ipnet::IpNet;

use super::encode::write_verdict;
use super::value::{DataType, Encoded, End, Value, encode_key};
use super::{Comment, LIST_ELEM, Verdict, interval, userdata};
use crate::netlink::Message;
use crate::route;

pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LEN: u16 = 5;
pub(super) const SET_DATA_TYPE: u16 = 6;
pub(super) const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
pub(super) const SET_USERDATA: u16 = 13;
const SET_DESC_CONCAT: u16 = 2;
const SET_FIELD_LEN: u16 = 1;

pub(super) const ELEM_KEY: u16 = 1;
pub(super) const ELEM_DATA: u16 = 2;
pub(super) const ELEM_FLAGS: u16 = 3;
pub(super) const ELEM_USERDATA: u16 = 6;
pub(super) const ELEM_KEY_END: u16 = 10;
pub(super) const ELEM_INTERVAL_END: u32 = 1;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;

pub(super) const FLAG_CONSTANT: u32 = 0x2;
pub(super) const FLAG_INTERVAL: u32 = 0x4;
pub(super) const FLAG_MAP: u32 = 0x8;
const FLAG_CONCAT: u32 = 0x80;
/// `NFT_DATA_VERDICT`: the type of a map's data that are verdicts.
pub(super) const VERDICT_TYPE: u32 = 0xffff_ff00;
/// A verdict's place in registers.
const VERDICT_LEN: u32 = 16;

/// A set, or with data a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The parts of a key.
    pub key: Vec<DataType>,
    /// What a map gives for a key.
    pub data: Option<MapData>,
    /// Whether keys may be prefixes and ranges.
    pub interval: bool,
    /// Whether the elements stay as they are once rules use them.
    pub constant: bool,
    /// A word on what it is for.
    pub comment: Option<Comment>,
    /// The elements.
    pub elements: Vec<Element>,
}

/// What a map gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MapData {
    /// A value, or a concatenation of several.
    Values(Vec<DataType>),
    /// A verdict.
    Verdict,
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The parts of its key.
    pub key: Vec<Value>,
    /// What a map gives for it.
    pub data: Option<Data>,
    /// A word on whose it is.
    pub comment: Option<Comment>,
}

/// A map's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// Values, as [`MapData::Values`] says.
    Values(Vec<Value>),
    /// A verdict.
    Verdict(Verdict),
}

impl Set {
    /// An empty set of exact keys.
    #[must_use]
    pub fn new(name: impl Into<String>, key: impl Into<Vec<DataType>>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            data: None,
            interval: false,
            constant: false,
            comment: None,
            elements: Vec::new(),
        }
    }

    /// An empty map of exact keys.
    #[must_use]
    pub fn map(name: impl Into<String>, key: impl Into<Vec<DataType>>, data: MapData) -> Self {
        Self { data: Some(data), ..Self::new(name, key) }
    }

    /// A set of prefixes. Those of the other version are left out; the others are merged as far as they overlap or
    /// make a larger prefix, because the kernel refuses overlaps.
    #[must_use]
    pub fn prefixes(name: impl Into<String>, version: route::Family, nets: &[IpNet]) -> Self {
        let of_version: Vec<IpNet> = nets
            .iter()
            .copied()
            .filter(|net| matches!(net, IpNet::V4(_)) == (version == route::Family::V4))
            .collect();
        let elements = IpNet::aggregate(&of_version)
            .into_iter()
            .map(|net| Element::of([Value::Net(net).canonical()]))
            .collect();
        Self { interval: true, elements, ..Self::new(name, [DataType::address(version)]) }
    }

    /// The same with these elements.
    #[must_use]
    pub fn with(mut self, elements: impl IntoIterator<Item = Element>) -> Self {
        self.elements = elements.into_iter().collect();
        self
    }

    /// Whether it keeps intervals as pairs of boundaries (one type), rather than as low and high keys.
    pub(super) fn has_boundaries(&self) -> bool {
        self.interval && self.key.len() == 1
    }

    /// The attributes of an `NFT_MSG_NEWSET`; `id` is any number not used twice in the transaction.
    pub(super) fn write(&self, table: &str, id: u32, message: &mut Message<'_>) {
        let concatenated = self.interval && self.key.len() > 1;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        message
            .text(SET_TABLE, table)
            .text(SET_NAME, &self.name)
            .be32(
                SET_FLAGS,
                flag(self.constant, FLAG_CONSTANT)
                    | flag(self.interval, FLAG_INTERVAL)
                    | flag(self.data.is_some(), FLAG_MAP)
                    | flag(concatenated, FLAG_CONCAT),
            )
            .be32(SET_KEY_TYPE, DataType::pack(&self.key))
            .be32(SET_KEY_LEN, DataType::key_length(&self.key));
        match &self.data {
            None => {}
            Some(MapData::Verdict) => {
                message.be32(SET_DATA_TYPE, VERDICT_TYPE).be32(SET_DATA_LEN, VERDICT_LEN);
            }
            Some(MapData::Values(types)) => {
                message
                    .be32(SET_DATA_TYPE, DataType::pack(types))
                    .be32(SET_DATA_LEN, DataType::key_length(types));
            }
        }
        message.be32(SET_ID, id);
        if concatenated {
            message.nest_unflagged(SET_DESC, |desc| {
                desc.nest_unflagged(SET_DESC_CONCAT, |fields| {
                    for part in &self.key {
                        fields.nest_unflagged(LIST_ELEM, |field| {
                            field.be32(SET_FIELD_LEN, part.length());
                        });
                    }
                });
            });
        }
        message.attribute(SET_USERDATA, &self.userdata());
    }

    /// What nft needs to print numbers in the right byte order, and the comment.
    fn userdata(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(16);
        if let [only] = self.key.as_slice() {
            userdata::write_u32(&mut data, userdata::SET_KEY_BYTE_ORDER, only.byte_order());
        }
        if let Some(MapData::Values(types)) = &self.data
            && let [only] = types.as_slice()
        {
            userdata::write_u32(&mut data, userdata::SET_DATA_BYTE_ORDER, only.byte_order());
        }
        if let Some(comment) = &self.comment {
            userdata::write_comment(&mut data, userdata::SET_COMMENT, comment);
        }
        data
    }
}

impl Element {
    /// An element of a set.
    #[must_use]
    pub fn of(key: impl Into<Vec<Value>>) -> Self {
        Self { key: key.into(), data: None, comment: None }
    }

    /// An element of a map of values.
    #[must_use]
    pub fn mapping(key: impl Into<Vec<Value>>, values: impl Into<Vec<Value>>) -> Self {
        Self { data: Some(Data::Values(values.into())), ..Self::of(key) }
    }

    /// An element of a map of verdicts.
    #[must_use]
    pub fn deciding(key: impl Into<Vec<Value>>, verdict: Verdict) -> Self {
        Self { data: Some(Data::Verdict(verdict)), ..Self::of(key) }
    }

    /// The same with a word on whose it is.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<Comment>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The one way to say it, see [`Value::canonical`].
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.key = self.key.into_iter().map(Value::canonical).collect();
        self
    }

    /// The element within `NFTA_SET_ELEM_LIST_ELEMENTS`; for a deletion its key suffices.
    pub(super) fn write(&self, set: &Set, key_only: bool, list: &mut Message<'_>) {
        let low = encode_key(&self.key, End::Low);
        list.nest_unflagged(LIST_ELEM, |element| {
            write_value(element, ELEM_KEY, &low);
            if set.interval && !set.has_boundaries() {
                write_value(element, ELEM_KEY_END, &encode_key(&self.key, End::High));
            }
            if key_only {
                return;
            }
            match &self.data {
                None => {}
                Some(Data::Values(values)) => {
                    write_value(element, ELEM_DATA, &encode_key(values, End::Low));
                }
                Some(Data::Verdict(verdict)) => {
                    element.nest_unflagged(ELEM_DATA, |data| write_verdict(data, verdict));
                }
            }
            if let Some(comment) = &self.comment {
                let mut data = Vec::with_capacity(comment.as_str().len() + 3);
                userdata::write_comment(&mut data, userdata::COMMENT, comment);
                element.attribute(ELEM_USERDATA, &data);
            }
        });
        if set.has_boundaries()
            && let Some(end) = interval::after(encode_key(&self.key, End::High).as_slice())
        {
            list.nest_unflagged(LIST_ELEM, |element| {
                element.be32(ELEM_FLAGS, ELEM_INTERVAL_END).nest_unflagged(ELEM_KEY, |key| {
                    key.attribute(DATA_VALUE, &end);
                });
            });
        }
    }
}

fn write_value(message: &mut Message<'_>, kind: u16, value: &Encoded) {
    message.nest_unflagged(kind, |nest| {
        nest.attribute(DATA_VALUE, value.as_slice());
    });
}

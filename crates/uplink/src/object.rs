//! Addresses, routes, rules and neighbours as the kernel's own bytes, so that moving one keeps every attribute, also those
//! that nobody here has heard of. Pure.

mod address;
mod neighbour;
mod route;
mod rule;

use std::fmt;
use std::net::IpAddr;

use kernel::netlink::{Attribute, Attributes};
use serde::{Deserialize, Serialize};

pub use route::RouteKey;

/// A link, by what messages name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkRef {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `RTM_NEWADDR`.
    Address,
    /// `RTM_NEWROUTE`.
    Route,
    /// `RTM_NEWRULE`.
    Rule,
    /// `RTM_NEWNEIGH`.
    Neighbour,
}

impl Kind {
    /// The message that makes one; `RTM_DEL…` is one more.
    #[must_use]
    pub const fn new_message(self) -> u16 {
        match self {
            Self::Address => 20,
            Self::Route => 24,
            Self::Neighbour => 28,
            Self::Rule => 32,
        }
    }

    /// Bytes of the family's fixed header.
    const fn header(self) -> usize {
        match self {
            Self::Address => 8,
            Self::Route | Self::Rule | Self::Neighbour => 12,
        }
    }
}

/// One object in its settled form: without what only a moment's state says (counters, timestamps, derived flags), and
/// therefore fit to be sent back to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    kind: Kind,
    #[serde(with = "hexadecimal")]
    bytes: Vec<u8>,
}

impl Object {
    /// Reads the payload of a message of a dump. None where it is an object that the kernel makes and keeps by itself, or
    /// no such object at all.
    #[must_use]
    pub fn settle(kind: Kind, payload: &[u8]) -> Option<Self> {
        if payload.len() < kind.header() {
            return None;
        }
        let bytes = match kind {
            Kind::Address => address::settle(payload),
            Kind::Route => route::settle(payload),
            Kind::Rule => rule::settle(payload),
            Kind::Neighbour => neighbour::settle(payload),
        }?;
        Some(Self { kind, bytes })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The payload of a message that makes it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is IPv6's.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        i32::from(self.bytes[0]) == libc::AF_INET6
    }

    /// Whether it lies on, leads over, or names this link.
    #[must_use]
    pub fn is_on(&self, link: &LinkRef) -> bool {
        match self.kind {
            Kind::Address | Kind::Neighbour => self.word(4) == link.index,
            Kind::Route => route::leads_over(&self.bytes, link.index),
            Kind::Rule => rule::names(&self.bytes, &link.name),
        }
    }

    /// The same on another link; what concerns neither link stays.
    #[must_use]
    pub fn moved(&self, from: &LinkRef, to: &LinkRef) -> Self {
        let mut bytes = self.bytes.clone();
        match self.kind {
            Kind::Address => {
                if self.word(4) == from.index {
                    bytes[4..8].copy_from_slice(&to.index.to_ne_bytes());
                }
                bytes = address::relabelled(&bytes, &from.name, &to.name);
            }
            Kind::Neighbour => {
                if self.word(4) == from.index {
                    bytes[4..8].copy_from_slice(&to.index.to_ne_bytes());
                }
            }
            Kind::Route => route::lead_over(&mut bytes, from.index, to.index),
            Kind::Rule => bytes = rule::renamed(&bytes, &from.name, &to.name),
        }
        Self { kind: self.kind, bytes }
    }

    /// The same `seconds` later: finite lifetimes are shorter. None once it has expired.
    #[must_use]
    pub fn aged(&self, seconds: u32) -> Option<Self> {
        let bytes = match self.kind {
            Kind::Address => address::aged(&self.bytes, seconds)?,
            Kind::Route => route::aged(&self.bytes, seconds)?,
            Kind::Rule | Kind::Neighbour => return Some(self.clone()),
        };
        Some(Self { kind: self.kind, bytes })
    }

    /// What tells it from others, without its remaining lifetime; to be compared, not to be sent.
    #[must_use]
    pub fn identity(&self) -> Self {
        let bytes = match self.kind {
            Kind::Address => address::timeless(&self.bytes),
            Kind::Route => route::timeless(&self.bytes),
            Kind::Rule | Kind::Neighbour => self.bytes.clone(),
        };
        Self { kind: self.kind, bytes: sorted(&bytes, self.kind.header()) }
    }

    /// An address with flags besides its own: `IFA_F_NODAD`, so that it serves from the first instant.
    #[must_use]
    pub fn without_detection(&self) -> Self {
        match self.kind {
            Kind::Address => {
                Self { kind: self.kind, bytes: address::flagged(&self.bytes, kernel::address::NODAD) }
            }
            _ => self.clone(),
        }
    }

    /// The address itself; none for what is no address.
    #[must_use]
    pub fn address(&self) -> Option<kernel::address::Address> {
        (self.kind == Kind::Address).then(|| kernel::address::Address::parse(&self.bytes)).flatten()
    }

    /// What a route competes with.
    #[must_use]
    pub fn route_key(&self) -> Option<RouteKey> {
        (self.kind == Kind::Route).then(|| RouteKey::of(&self.bytes)).flatten()
    }

    /// An IPv6 multipath route as one route a leg, as the kernel keeps them; anything else as it is.
    #[must_use]
    pub fn legs(&self) -> Vec<Self> {
        if self.kind == Kind::Route && self.is_ipv6() {
            route::legs(&self.bytes).into_iter().map(|bytes| Self { kind: self.kind, bytes }).collect()
        } else {
            vec![self.clone()]
        }
    }

    /// Where a default route leads, with the link.
    #[must_use]
    pub fn default_gateways(&self) -> Vec<(IpAddr, u32)> {
        let Some(route) = self.route() else { return Vec::new() };
        if route.destination.prefix_len() != 0 {
            return Vec::new();
        }
        route.hops.iter().filter_map(|hop| Some((hop.gateway?, hop.index?))).collect()
    }

    /// A route, read.
    #[must_use]
    pub fn route(&self) -> Option<kernel::route::Route> {
        (self.kind == Kind::Route).then(|| kernel::route::Route::parse(&self.bytes)).flatten()
    }

    fn word(&self, at: usize) -> u32 {
        word(&self.bytes, at)
    }
}

/// As `ip` would write it, in short.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Address => match self.address() {
                Some(address) => write!(f, "address {}", address.ip),
                None => f.write_str("address"),
            },
            Kind::Route => match self.route() {
                Some(route) => {
                    write!(f, "route {}", route.destination)?;
                    for hop in &route.hops {
                        if let Some(gateway) = hop.gateway {
                            write!(f, " via {gateway}")?;
                        }
                    }
                    if route.metric != 0 {
                        write!(f, " metric {}", route.metric)?;
                    }
                    if route.table != kernel::route::TABLE_MAIN {
                        write!(f, " table {}", route.table)?;
                    }
                    write!(f, " proto {}", route.protocol)
                }
                None => f.write_str("route"),
            },
            Kind::Rule => rule::show(&self.bytes, f),
            Kind::Neighbour => match kernel::neighbour::Neighbour::parse(&self.bytes) {
                Some(neighbour) if neighbour.proxy => write!(f, "proxy neighbour {}", neighbour.ip),
                Some(neighbour) => write!(f, "neighbour {}", neighbour.ip),
                None => f.write_str("neighbour"),
            },
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A message's payload with its attributes written anew: `keep` gives each attribute's new value, or none to leave it out.
fn rewritten<'a>(
    payload: &'a [u8],
    header: usize,
    mut keep: impl FnMut(&Attribute<'a>) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let mut bytes = payload[..header].to_vec();
    for attribute in Attributes::new(&payload[header..]) {
        if let Some(value) = keep(&attribute) {
            append(&mut bytes, attribute.kind(), &value);
        }
    }
    bytes
}

/// The attributes in the order of their kinds: the kernel does not always write them in the same.
fn sorted(payload: &[u8], header: usize) -> Vec<u8> {
    let mut attributes: Vec<_> = Attributes::new(&payload[header..]).collect();
    attributes.sort_by_key(Attribute::kind);
    let mut bytes = payload[..header].to_vec();
    for attribute in attributes {
        append(&mut bytes, attribute.kind(), attribute.value());
    }
    bytes
}

/// Writes one attribute (`struct nlattr`) behind the others. Values come from attributes, so their length fits.
fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Bytes as text in the journal.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect();
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
            }
            _ => Err(D::Error::custom("not an even number of hexadecimal digits")),
        }
    }
}

//! `struct rtmsg` and its attributes (`linux/rtnetlink.h`).

use kernel::netlink::Attributes;
use kernel::route::{ONLINK, Route};

use super::{append, rewritten, word};

const HEADER: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_EXPIRES: u16 = 23;
const PROTOCOL_KERNEL: u8 = 2;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `USER_HZ`: what `rta_expires` counts in.
const TICKS: i32 = 100;
/// `struct rtnexthop`: length, flags, weight, index.
const LEG: usize = 8;

/// What routes of one key compete by: of those, the kernel takes the first (IPv4) or spreads over all (IPv6).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Destination and length.
    pub destination: ipnet::IpNet,
    /// Table.
    pub table: u32,
    /// Type of service.
    pub tos: u8,
    /// Metric.
    pub metric: u32,
}

impl RouteKey {
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let Route { destination, table, tos, metric, .. } = Route::parse(bytes)?;
        Some(Self { destination, table, tos, metric })
    }
}

pub(super) fn settle(payload: &[u8]) -> Option<Vec<u8>> {
    // Cached ones and other families are none.
    Route::parse(payload)?;
    // What the kernel makes with an address, it makes with that address on the other link too: local, broadcast, anycast
    // and multicast routes.
    if payload[5] == PROTOCOL_KERNEL && payload[7] != UNICAST {
        return None;
    }
    let mut bytes = rewritten(payload, HEADER, |attribute| match attribute.kind() {
        RTA_CACHEINFO => None,
        RTA_MULTIPATH => Some(without_state(attribute.value())),
        _ => Some(attribute.value().to_vec()),
    });
    let flags = word(payload, 8) & ONLINK;
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    // `struct rta_cacheinfo`: the third word says when it ends.
    let info = Attributes::new(&payload[HEADER..]).get(RTA_CACHEINFO);
    let ticks = info.and_then(|info| info.array::<12>()).map_or(0, |info| word(&info, 8)).cast_signed();
    if ticks != 0 {
        // One that ends this very moment is given one more second, since 0 would mean for ever.
        let seconds = u32::try_from(ticks / TICKS).unwrap_or_default().max(1);
        append(&mut bytes, RTA_EXPIRES, &seconds.to_ne_bytes());
    }
    Some(bytes)
}

/// Legs without the flags that only say how they fare.
fn without_state(legs: &[u8]) -> Vec<u8> {
    let mut legs = legs.to_vec();
    for start in starts(&legs) {
        legs[start + 2] &= ONLINK.to_le_bytes()[0];
    }
    legs
}

/// Where each `struct rtnexthop` starts.
fn starts(legs: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(header) = legs.get(at..at + LEG) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if length < LEG || at + length > legs.len() {
            break;
        }
        starts.push(at);
        at += length.next_multiple_of(4);
    }
    starts
}

/// Where in `bytes` the link's index stands: each leg's, or the only one.
fn index_places(bytes: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = HEADER;
    for attribute in Attributes::new(&bytes[HEADER..]) {
        let value = at + 4;
        match attribute.kind() {
            RTA_OIF if attribute.value().len() >= 4 => places.push(value),
            RTA_MULTIPATH => {
                places.extend(starts(attribute.value()).into_iter().map(|start| value + start + 4));
            }
            _ => {}
        }
        at = value + attribute.value().len().next_multiple_of(4);
    }
    places
}

pub(super) fn leads_over(bytes: &[u8], index: u32) -> bool {
    index_places(bytes).into_iter().any(|place| word(bytes, place) == index)
}

pub(super) fn lead_over(bytes: &mut [u8], from: u32, to: u32) {
    for place in index_places(bytes) {
        if word(bytes, place) == from {
            bytes[place..place + 4].copy_from_slice(&to.to_ne_bytes());
        }
    }
}

/// An IPv6 route of several legs as one route each, which is how the kernel keeps them: it dumps them as one. Only a leg
/// with a weight needs the multipath form, which is the only one that can say it.
pub(super) fn legs(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some(legs) = Attributes::new(&bytes[HEADER..]).get(RTA_MULTIPATH) else {
        return vec![bytes.to_vec()];
    };
    let legs = legs.value();
    let leg = |start: usize| {
        let length = usize::from(u16::from_ne_bytes([*legs.get(start)?, *legs.get(start + 1)?]));
        Some(alone(bytes, legs.get(start..start + length)?, true))
    };
    starts(legs).into_iter().filter_map(leg).collect()
}

fn alone(bytes: &[u8], leg: &[u8], weighed: bool) -> Vec<u8> {
    let weight = leg.get(3).copied().unwrap_or_default();
    if weighed && weight != 0 {
        return rewritten(bytes, HEADER, |attribute| {
            let value = if attribute.kind() == RTA_MULTIPATH { leg } else { attribute.value() };
            Some(value.to_vec())
        });
    }
    let mut alone = rewritten(bytes, HEADER, |attribute| {
        (attribute.kind() != RTA_MULTIPATH).then(|| attribute.value().to_vec())
    });
    alone[8] |= leg.get(2).copied().unwrap_or_default();
    for attribute in Attributes::new(leg.get(LEG..).unwrap_or_default()) {
        append(&mut alone, attribute.kind(), attribute.value());
    }
    append(&mut alone, RTA_OIF, leg.get(4..LEG).unwrap_or_default());
    alone
}

pub(super) fn aged(bytes: &[u8], seconds: u32) -> Option<Vec<u8>> {
    let expires = Attributes::new(&bytes[HEADER..]).get(RTA_EXPIRES).and_then(|seconds| seconds.u32());
    match expires {
        None => Some(bytes.to_vec()),
        Some(left) if left <= seconds => None,
        Some(left) => {
            let mut bytes = rewritten(bytes, HEADER, |attribute| {
                (attribute.kind() != RTA_EXPIRES).then(|| attribute.value().to_vec())
            });
            append(&mut bytes, RTA_EXPIRES, &(left - seconds).to_ne_bytes());
            Some(bytes)
        }
    }
}

/// Without its end, and a lone IPv6 leg without its weight, which the kernel does not tell.
pub(super) fn timeless(bytes: &[u8]) -> Vec<u8> {
    let legs = Attributes::new(&bytes[HEADER..]).get(RTA_MULTIPATH).map(|legs| legs.value());
    let bytes = match legs {
        Some(legs) if i32::from(bytes[0]) == libc::AF_INET6 && starts(legs).len() == 1 => {
            alone(bytes, legs, false)
        }
        _ => bytes.to_vec(),
    };
    rewritten(&bytes, HEADER, |attribute| {
        (attribute.kind() != RTA_EXPIRES).then(|| attribute.value().to_vec())
    })
}

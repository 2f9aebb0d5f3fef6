//! A route as bytes: `struct rtmsg` and its attributes, both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Hop, ONLINK, Route, RouteKind};
use crate::netlink::{AF_INET, AF_INET6, Attributes, Message, family_of};

pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
pub(super) const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

/// `RTM_F_CLONED`: an exception that the kernel cached, no route of anybody's.
const CLONED: u32 = 0x200;

impl RouteKind {
    fn number(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            other => Self::Other(other),
        }
    }
}

impl Route {
    /// Reads the payload of an `RTM_NEWROUTE` or `RTM_DELROUTE` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: [u8; 12] = payload.get(..12)?.try_into().ok()?;
        let [family, prefix_len, _, tos, table, protocol, scope, kind, ..] = header;
        let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        if flags & CLONED != 0 {
            return None;
        }
        let unspecified: IpAddr = match family {
            AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let mut route = Self::to(IpNet::new(unspecified, 0).ok()?);
        (route.table, route.protocol, route.scope, route.tos) = (u32::from(table), protocol, scope, tos);
        route.kind = RouteKind::from_number(kind);
        let mut address = unspecified;
        let mut hop = Hop { flags: flags & 0xff, ..Hop::default() };
        for attribute in Attributes::new(&payload[12..]) {
            match attribute.kind() {
                RTA_DST => address = attribute.ip()?,
                RTA_OIF => hop.index = attribute.u32(),
                RTA_GATEWAY => hop.gateway = attribute.ip(),
                RTA_VIA => hop.gateway = via(attribute.value()),
                RTA_PRIORITY => route.metric = attribute.u32()?,
                RTA_PREFSRC => route.source = attribute.ip(),
                RTA_TABLE => route.table = attribute.u32()?,
                RTA_NH_ID => route.nexthop_id = attribute.u32(),
                RTA_MULTIPATH => route.hops = multipath(attribute.value()),
                RTA_METRICS => {
                    route.mtu = attribute.nested().get(RTAX_MTU).and_then(|mtu| mtu.u32());
                    route.advmss = attribute.nested().get(RTAX_ADVMSS).and_then(|mss| mss.u32());
                }
                _ => {}
            }
        }
        route.destination = IpNet::new(address, prefix_len).ok()?;
        if route.hops.is_empty() && (hop.index.is_some() || hop.gateway.is_some()) {
            route.hops.push(hop);
        }
        Some(route)
    }

    pub(super) fn write(&self, message: &mut Message<'_>) {
        if self.destination.prefix_len() > 0 {
            message.ip(RTA_DST, self.destination.network());
        }
        message.u32(RTA_TABLE, self.table);
        if self.metric != 0 {
            message.u32(RTA_PRIORITY, self.metric);
        }
        if let Some(source) = self.source {
            message.ip(RTA_PREFSRC, source);
        }
        if self.mtu.is_some() || self.advmss.is_some() {
            message.nest(RTA_METRICS, |metrics| {
                if let Some(mtu) = self.mtu {
                    metrics.u32(RTAX_MTU, mtu);
                }
                if let Some(advmss) = self.advmss {
                    metrics.u32(RTAX_ADVMSS, advmss);
                }
            });
        }
        match self.hops.as_slice() {
            [] => {}
            [hop] => self.write_hop(message, hop),
            hops => {
                message.nest(RTA_MULTIPATH, |legs| {
                    for hop in hops {
                        self.write_leg(legs, hop);
                    }
                });
            }
        }
    }

    fn write_hop(&self, message: &mut Message<'_>, hop: &Hop) {
        if let Some(index) = hop.index {
            message.u32(RTA_OIF, index);
        }
        match (hop.gateway, self.destination) {
            (Some(IpAddr::V6(gateway)), IpNet::V4(_)) => {
                let mut via = u16::from(AF_INET6).to_ne_bytes().to_vec();
                via.extend(gateway.octets());
                message.attribute(RTA_VIA, &via);
            }
            (Some(gateway), _) => {
                message.ip(RTA_GATEWAY, gateway);
            }
            (None, _) => {}
        }
    }

    /// `struct rtnexthop` and its attributes; the length covers both.
    fn write_leg(&self, legs: &mut Message<'_>, hop: &Hop) {
        let gateway_length = match hop.gateway {
            None => 0,
            Some(IpAddr::V4(_)) => 8,
            Some(IpAddr::V6(_)) => 20,
        };
        let length: u16 = 8 + gateway_length;
        let mut header = [0; 8];
        header[..2].copy_from_slice(&length.to_ne_bytes());
        header[2] = u8::try_from(hop.flags & 0xff).unwrap_or_default();
        header[3] = hop.weight;
        header[4..].copy_from_slice(&hop.index.unwrap_or_default().to_ne_bytes());
        legs.raw(&header);
        if let Some(gateway) = hop.gateway {
            legs.ip(RTA_GATEWAY, gateway);
        }
    }

    pub(super) fn header(&self) -> [u8; 12] {
        let mut header = [0; 12];
        header[0] = family_of(self.destination.addr());
        header[1] = self.destination.prefix_len();
        header[3] = self.tos;
        header[4] = u8::try_from(self.table).unwrap_or(0);
        header[5] = self.protocol;
        header[6] = self.scope;
        header[7] = self.kind.number();
        if let [hop] = self.hops.as_slice() {
            header[8..].copy_from_slice(&(hop.flags & ONLINK).to_ne_bytes());
        }
        header
    }
}

/// `struct rtvia`: a family and an address of it.
fn via(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        6 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&value[2..]).ok()?))),
        18 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&value[2..]).ok()?))),
        _ => None,
    }
}

/// A row of `struct rtnexthop`, each with attributes behind it.
fn multipath(mut rest: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let Some(header) = rest.get(..8).and_then(|header| <[u8; 8]>::try_from(header).ok()) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let Some(attributes) = (length >= 8).then(|| rest.get(8..length)).flatten() else { break };
        let mut hop = Hop {
            gateway: None,
            index: Some(u32::from_ne_bytes([header[4], header[5], header[6], header[7]])),
            flags: u32::from(header[2]),
            weight: header[3],
        };
        for attribute in Attributes::new(attributes) {
            match attribute.kind() {
                RTA_GATEWAY => hop.gateway = attribute.ip(),
                RTA_VIA => hop.gateway = via(attribute.value()),
                _ => {}
            }
        }
        hops.push(hop);
        rest = rest.get((length + 3) & !3..).unwrap_or(&[]);
    }
    hops
}

/// The answer to a look-up is marked as a clone where it is one of a packet's own.
pub(super) fn uncloned(payload: &[u8]) -> Option<Route> {
    let mut payload = payload.to_vec();
    let flags = payload.get_mut(8..12)?;
    let cleared = u32::from_ne_bytes(<[u8; 4]>::try_from(&*flags).ok()?) & !CLONED;
    flags.copy_from_slice(&cleared.to_ne_bytes());
    Route::parse(&payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Batch;
    use crate::route::add;
    use proptest::prelude::*;

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Route::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(
            ip in any_ip(), length in 1u8..=32, gateway in any_ip(), index in 1u32..1000, metric in 0u32..5000,
            protocol in any::<u8>(), table in 1u32..100_000, legs in 1u32..4,
        ) {
            prop_assume!(ip.is_ipv4() == gateway.is_ipv4() || legs == 1 && ip.is_ipv4());
            let destination = IpNet::new(ip, length).unwrap().trunc();
            let hops = (0..legs)
                .map(|leg| Hop { gateway: Some(gateway), index: Some(index + leg), flags: 0, weight: 0 })
                .collect();
            let route = Route { metric, protocol, table, hops, ..Route::to(destination) };
            let mut batch = Batch::new();
            add(&mut batch, &route);
            prop_assert_eq!(Route::parse(&batch.bytes()[16..]), Some(route));
        }
    }
}

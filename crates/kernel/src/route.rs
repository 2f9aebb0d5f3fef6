//! Routes: list, add, replace and delete by their whole key, and ask which one wins (`linux/rtnetlink.h`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::io::Errno;

use crate::KernelError;
use crate::netlink::{Attributes, Batch, CREATE, EXCL, Message, REPLACE, Socket};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;

/// `RTM_F_CLONED`: an exception that the kernel cached, no route of anybody's.
const CLONED: u32 = 0x200;
/// `RTM_F_FIB_MATCH`: a look-up answers with the route itself.
const FIB_MATCH: u32 = 0x2000;
/// `RTNH_F_ONLINK`: trust that the gateway is on the link.
pub const ONLINK: u32 = 4;
/// `RTNH_F_DEAD`: the link is gone or down.
pub const DEAD: u32 = 1;
/// `RTNH_F_LINKDOWN`: there is no carrier.
pub const LINKDOWN: u32 = 16;

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;
/// The table of local addresses.
pub const TABLE_LOCAL: u32 = 255;

/// `RTN_…`: what a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Delivers it here.
    Local,
    /// Drops it and says "unreachable".
    Unreachable,
    /// Drops it silently.
    Blackhole,
    /// Any other kind, by number.
    Other(u8),
}

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

/// One way that a route goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The router; none where the destination is on the link. It may be of the other family (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The outgoing link.
    pub index: Option<u32>,
    /// `RTNH_F_…` flags.
    pub flags: u32,
    /// Weight less one.
    pub weight: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// In which table.
    pub table: u32,
    /// Who put it there (`RTPROT_…`).
    pub protocol: u8,
    /// What it does.
    pub kind: RouteKind,
    /// `RT_SCOPE_…`: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Type of service that it is for.
    pub tos: u8,
    /// Lower wins. IPv6 routes without one are given 1024 by the kernel.
    pub metric: u32,
    /// Source address for packets of this host.
    pub source: Option<IpAddr>,
    /// The ways; several are multipath.
    pub hops: Vec<Hop>,
    /// A nexthop object (`RTA_NH_ID`) stands in the place of hops.
    pub nexthop_id: Option<u32>,
    /// MTU that the route sets.
    pub mtu: Option<u32>,
    /// Maximum segment size that TCP announces over it.
    pub advmss: Option<u32>,
}

impl Route {
    /// A unicast route in the main table, of protocol `boot`, without a hop yet.
    #[must_use]
    pub fn to(destination: IpNet) -> Self {
        Self {
            destination,
            table: TABLE_MAIN,
            protocol: 3,
            kind: RouteKind::Unicast,
            scope: 0,
            tos: 0,
            metric: 0,
            source: None,
            hops: Vec::new(),
            nexthop_id: None,
            mtu: None,
            advmss: None,
        }
    }

    /// Reads the payload of an `RTM_NEWROUTE` or `RTM_DELROUTE` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: [u8; 12] = payload.get(..12)?.try_into().ok()?;
        let [family, prefix_len, _, tos, table, protocol, scope, kind, ..] = header;
        let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        if flags & CLONED != 0 {
            return None;
        }
        let unspecified: IpAddr = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
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

    fn write(&self, message: &mut Message<'_>) {
        if self.destination.prefix_len() > 0 {
            match self.destination {
                IpNet::V4(net) => message.attribute(RTA_DST, &net.network().octets()),
                IpNet::V6(net) => message.attribute(RTA_DST, &net.network().octets()),
            };
        }
        message.u32(RTA_TABLE, self.table);
        if self.metric != 0 {
            message.u32(RTA_PRIORITY, self.metric);
        }
        if let Some(source) = self.source {
            ip_attribute(message, RTA_PREFSRC, source);
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
                let mut via = libc::AF_INET6.to_ne_bytes()[..2].to_vec();
                if cfg!(target_endian = "big") {
                    via = libc::AF_INET6.to_ne_bytes()[2..].to_vec();
                }
                via.extend(gateway.octets());
                message.attribute(RTA_VIA, &via);
            }
            (Some(gateway), _) => ip_attribute(message, RTA_GATEWAY, gateway),
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
            ip_attribute(legs, RTA_GATEWAY, gateway);
        }
    }

    fn header(&self) -> [u8; 12] {
        let mut header = [0; 12];
        header[0] = family(self.destination.addr());
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

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == RouteKind::Unreachable {
            f.write_str("unreachable ")?;
        }
        write!(f, "{}", self.destination)?;
        for hop in &self.hops {
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            if let Some(index) = hop.index {
                write!(f, " link {index}")?;
            }
        }
        Ok(())
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

fn ip_attribute(message: &mut Message<'_>, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => message.attribute(kind, &ip.octets()),
        IpAddr::V6(ip) => message.attribute(kind, &ip.octets()),
    };
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

/// Which routes a dump gives. The kernel filters (`NETLINK_GET_STRICT_CHK`), so that 100,000 foreign routes cost
/// little; older kernels give all, and the filter is applied here once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this protocol.
    pub protocol: Option<u8>,
    /// Only of this table.
    pub table: Option<u32>,
    /// Only over this link.
    pub index: Option<u32>,
}

/// IPv4 or IPv6 routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}

/// Every route that passes the filter, in the order in which the kernel holds them.
pub fn dump(socket: &mut Socket, family: Family, filter: Filter) -> Result<Vec<Route>, KernelError> {
    let mut header = [0; 12];
    header[0] = if family == Family::V4 { 2 } else { 10 };
    header[5] = filter.protocol.unwrap_or(0);
    let mut request = Batch::new();
    {
        let mut message = request.message("list routes", RTM_GETROUTE, 0, &header);
        if let Some(table) = filter.table {
            message.u32(RTA_TABLE, table);
        }
        if let Some(index) = filter.index {
            message.u32(RTA_OIF, index);
        }
    }
    let mut routes = Vec::new();
    let listed = socket.dump(&mut request, |object| match object {
        Some((RTM_NEWROUTE, payload)) => routes.extend(Route::parse(payload).filter(|route| {
            filter.protocol.is_none_or(|protocol| protocol == route.protocol)
                && filter.table.is_none_or(|table| table == route.table)
                && filter.index.is_none_or(|index| route.hops.iter().any(|hop| hop.index == Some(index)))
        })),
        Some(_) => {}
        None => routes.clear(),
    });
    match listed {
        // A table that nobody has used yet does not exist.
        Err(error) if error.errno == Errno::NOENT && filter.table.is_some() => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(routes),
    }
}

/// Adds a route; refused where one with the same destination, table, TOS and metric is there, whoever's it is.
pub fn add(batch: &mut Batch, route: &Route) {
    route.write(&mut batch.message("add a route", RTM_NEWROUTE, CREATE | EXCL, &route.header()));
}

/// Puts a route in the place of the one with the same destination, table, TOS and metric. The protocol is NOT part of
/// that key: only for routes that were seen to be ours.
pub fn replace(batch: &mut Batch, route: &Route) {
    route.write(&mut batch.message("replace a route", RTM_NEWROUTE, REPLACE, &route.header()));
}

/// Deletes the route that is like this one in all that is named here: table, metric, protocol, kind, hop.
pub fn delete(batch: &mut Batch, route: &Route) {
    let bare = Route { source: None, mtu: None, advmss: None, ..route.clone() };
    bare.write(&mut batch.message("delete a route", RTM_DELROUTE, 0, &route.header()));
}

/// What a packet of this host to `destination` would do: the route that wins, not a cached copy
/// (`RTM_F_FIB_MATCH`). `Err` with `NETUNREACH`, `HOSTUNREACH` or such where a route refuses it.
pub fn look_up(
    socket: &mut Socket,
    destination: IpAddr,
    source: Option<IpAddr>,
) -> Result<Route, KernelError> {
    get(socket, destination, (source, None), FIB_MATCH)
}

/// What a packet from `source` that comes in by the link `index` would do, as [`look_up`]: policy rules, and what the
/// kernel thinks of such a source on that link, are part of the answer.
pub fn look_up_forwarded(
    socket: &mut Socket,
    destination: IpAddr,
    source: IpAddr,
    index: u32,
) -> Result<Route, KernelError> {
    get(socket, destination, (Some(source), Some(index)), FIB_MATCH)
}

/// As [`look_up`], with the source address and the link that the kernel would choose, as `source` and the only hop.
pub fn resolve(socket: &mut Socket, destination: IpAddr) -> Result<Route, KernelError> {
    get(socket, destination, (None, None), 0)
}

fn get(
    socket: &mut Socket,
    to: IpAddr,
    (from, over): (Option<IpAddr>, Option<u32>),
    flags: u32,
) -> Result<Route, KernelError> {
    let mut header = [0; 12];
    header[0] = family(to);
    let whole = if to.is_ipv4() { 32 } else { 128 };
    header[1] = whole;
    header[2] = if from.is_some() { whole } else { 0 };
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    let mut batch = Batch::new();
    {
        let mut message = batch.message("look up a route", RTM_GETROUTE, 0, &header);
        ip_attribute(&mut message, RTA_DST, to);
        if let Some(from) = from {
            const RTA_SRC: u16 = 2;
            ip_attribute(&mut message, RTA_SRC, from);
        }
        if let Some(index) = over {
            const RTA_IIF: u16 = 3;
            message.u32(RTA_IIF, index);
        }
    }
    let mut found = None;
    let failures = socket.execute_reading(&mut batch, |kind, payload| {
        if kind == RTM_NEWROUTE {
            found = uncloned(payload);
        }
    })?;
    match (failures.into_iter().next(), found) {
        (Some(failure), _) => Err(failure.error.attempting(format!("look up the route to {to}"))),
        (None, Some(route)) => Ok(route),
        (None, None) => Err(KernelError::new(format!("look up the route to {to}"), Errno::NODATA)),
    }
}

/// The answer to a look-up is marked as a clone where it is one of a packet's own.
fn uncloned(payload: &[u8]) -> Option<Route> {
    let mut payload = payload.to_vec();
    let flags = payload.get_mut(8..12)?;
    let cleared = u32::from_ne_bytes(<[u8; 4]>::try_from(&*flags).ok()?) & !CLONED;
    flags.copy_from_slice(&cleared.to_ne_bytes());
    Route::parse(&payload)
}

/// The default destination of a family.
#[must_use]
pub fn default_destination(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

//! Tracked flows: list some, forget some (`linux/netfilter/nfnetlink_conntrack.h`).
//!
//! A translation is decided at a flow's first packet and then kept. TCP flows end; UDP and SCTP ones may go on for as
//! long as the client sends, and so keep going to where a host port led before.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::KernelError;
use crate::netlink::{Attribute, Attributes, Batch, Message, Socket};
use crate::route;

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const CT_NEW: u16 = SUBSYSTEM << 8;
const CT_GET: u16 = SUBSYSTEM << 8 | 1;
const CT_DELETE: u16 = SUBSYSTEM << 8 | 2;
const CT_GET_STATS: u16 = SUBSYSTEM << 8 | 5;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

// `enum ctattr_filter_flags`-like bits of `net/netfilter/nf_conntrack_netlink.c`.
const FILTER_IP_SRC: u32 = 1;
const FILTER_IP_DST: u32 = 1 << 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_SRC_PORT: u32 = 1 << 4;
const FILTER_DST_PORT: u32 = 1 << 5;

/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// `IPPROTO_SCTP`.
pub const SCTP: u8 = 132;

/// What the packets of one direction carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// `IPPROTO_…`.
    pub protocol: u8,
    /// From which port; 0 where the protocol has none.
    pub source_port: u16,
    /// To which port; 0 where the protocol has none.
    pub destination_port: u16,
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The first packet, before translation.
    pub original: Tuple,
    /// The answer to it: its source is where the flow really goes.
    pub reply: Tuple,
    /// `IPS_…` flags.
    pub status: u32,
    /// The flow's mark.
    pub mark: u32,
    /// The bytes of the original tuple, its zone and its number, by which the kernel finds the flow again.
    key: Vec<u8>,
    zone: Option<u16>,
    id: Option<u32>,
}

impl Flow {
    /// Reads the payload of an `IPCTNL_MSG_CT_NEW` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let attributes = Attributes::new(payload.get(4..)?);
        let original = attributes.get(CTA_TUPLE_ORIG)?;
        let word = |kind| attributes.get(kind).and_then(|word| word.be32());
        Some(Self {
            original: Tuple::parse(original)?,
            reply: Tuple::parse(attributes.get(CTA_TUPLE_REPLY)?)?,
            status: word(CTA_STATUS).unwrap_or_default(),
            mark: word(CTA_MARK).unwrap_or_default(),
            key: original.value().to_vec(),
            zone: attributes.get(CTA_ZONE).and_then(|zone| zone.be16()),
            id: word(CTA_ID),
        })
    }
}

impl Tuple {
    fn parse(tuple: Attribute<'_>) -> Option<Self> {
        let ip = tuple.nested().get(CTA_TUPLE_IP)?.nested();
        let proto = tuple.nested().get(CTA_TUPLE_PROTO)?.nested();
        let address = |v4, v6| ip.get(v4).or_else(|| ip.get(v6))?.ip();
        let port = |kind| proto.get(kind).and_then(|port| port.be16()).unwrap_or_default();
        Some(Self {
            source: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
            destination: address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
            protocol: proto.get(CTA_PROTO_NUM)?.u8()?,
            source_port: port(CTA_PROTO_SRC_PORT),
            destination_port: port(CTA_PROTO_DST_PORT),
        })
    }
}

/// Which flows: of one protocol, and of these what is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// IPv4 or IPv6.
    pub family: route::Family,
    /// `IPPROTO_…`.
    pub protocol: u8,
    /// The first packet's destination address, before translation.
    pub original_destination: Option<IpAddr>,
    /// The first packet's destination port, before translation.
    pub original_destination_port: Option<u16>,
    /// Who really answers.
    pub reply_source: Option<IpAddr>,
    /// From which port the answers really come.
    pub reply_source_port: Option<u16>,
}

impl Filter {
    /// All flows of a protocol.
    #[must_use]
    pub const fn protocol(family: route::Family, protocol: u8) -> Self {
        Self {
            family,
            protocol,
            original_destination: None,
            original_destination_port: None,
            reply_source: None,
            reply_source_port: None,
        }
    }

    fn admits(&self, flow: &Flow) -> bool {
        flow.original.protocol == self.protocol
            && flow.original.destination.is_ipv4() == (self.family == route::Family::V4)
            && self.original_destination.is_none_or(|wanted| wanted == flow.original.destination)
            && self.original_destination_port.is_none_or(|wanted| wanted == flow.original.destination_port)
            && self.reply_source.is_none_or(|wanted| wanted == flow.reply.source)
            && self.reply_source_port.is_none_or(|wanted| wanted == flow.reply.source_port)
    }

    /// Lets the kernel look (`CTA_FILTER`, Linux 5.8); an older one gives all.
    fn write(&self, message: &mut Message<'_>) {
        let flag = |given: bool, flag: u32| if given { flag } else { 0 };
        let original = FILTER_PROTO_NUM
            | flag(self.original_destination.is_some(), FILTER_IP_DST)
            | flag(self.original_destination_port.is_some(), FILTER_DST_PORT);
        let reply = flag(self.reply_source.is_some(), FILTER_IP_SRC)
            | flag(self.reply_source_port.is_some(), FILTER_PROTO_NUM | FILTER_SRC_PORT);
        message.nest(CTA_TUPLE_ORIG, |tuple| {
            let port = self.original_destination_port.map(|port| (CTA_PROTO_DST_PORT, port));
            let kinds = (CTA_IP_V4_DST, CTA_IP_V6_DST);
            write_tuple(tuple, self.original_destination, kinds, self.protocol, port);
        });
        if reply != 0 {
            message.nest(CTA_TUPLE_REPLY, |tuple| {
                let port = self.reply_source_port.map(|port| (CTA_PROTO_SRC_PORT, port));
                write_tuple(tuple, self.reply_source, (CTA_IP_V4_SRC, CTA_IP_V6_SRC), self.protocol, port);
            });
        }
        message.nest(CTA_FILTER, |filter| {
            filter.u32(CTA_FILTER_ORIG_FLAGS, original).u32(CTA_FILTER_REPLY_FLAGS, reply);
        });
    }
}

fn write_tuple(
    tuple: &mut Message<'_>,
    ip: Option<IpAddr>,
    (v4, v6): (u16, u16),
    protocol: u8,
    port: Option<(u16, u16)>,
) {
    if let Some(ip) = ip {
        tuple.nest(CTA_TUPLE_IP, |nest| {
            match ip {
                IpAddr::V4(ip) => nest.attribute(v4, &ip.octets()),
                IpAddr::V6(ip) => nest.attribute(v6, &ip.octets()),
            };
        });
    }
    tuple.nest(CTA_TUPLE_PROTO, |nest| {
        nest.u8(CTA_PROTO_NUM, protocol);
        if let Some((kind, port)) = port {
            nest.be16(kind, port);
        }
    });
}

/// `struct nfgenmsg`.
fn header(family: route::Family) -> [u8; 4] {
    [family.number(), 0, 0, 0]
}

/// How many flows are tracked in this namespace.
fn count(socket: &mut Socket) -> Result<u32, KernelError> {
    let mut batch = Batch::new();
    drop(batch.message("count the tracked flows", CT_GET_STATS, 0, &header(route::Family::V4)));
    let mut count = None;
    let failures = socket.execute_reading(&mut batch, |kind, payload| {
        if kind == CT_GET_STATS {
            let attributes = payload.get(4..).map(Attributes::new);
            count = attributes.and_then(|found| found.get(CTA_STATS_GLOBAL_ENTRIES)?.be32());
        }
    })?;
    match failures.into_iter().next() {
        Some(failure) => Err(failure.error),
        // A kernel that answers otherwise has some, as far as anybody knows.
        None => Ok(count.unwrap_or(u32::MAX)),
    }
}

/// The flows that pass the filter.
pub fn dump(socket: &mut Socket, filter: &Filter) -> Result<Vec<Flow>, KernelError> {
    let mut request = Batch::new();
    filter.write(&mut request.message("list tracked flows", CT_GET, 0, &header(filter.family)));
    let mut flows = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((CT_NEW, payload)) => flows.extend(Flow::parse(payload).filter(|flow| filter.admits(flow))),
        Some(_) => {}
        None => flows.clear(),
    })?;
    Ok(flows)
}

/// Forgets a flow: its next packet is a first one again.
pub fn delete(batch: &mut Batch, family: route::Family, flow: &Flow) {
    let mut message = batch.message("forget a tracked flow", CT_DELETE, 0, &header(family));
    message.nest(CTA_TUPLE_ORIG, |tuple| {
        tuple.raw(&flow.key);
    });
    if let Some(zone) = flow.zone {
        message.be16(CTA_ZONE, zone);
    }
    if let Some(id) = flow.id {
        message.be32(CTA_ID, id);
    }
}

/// Forgets the flows that pass the filter, and says how many there were.
pub fn delete_all(socket: &mut Socket, filter: &Filter) -> Result<usize, KernelError> {
    delete_those(socket, filter, |_| true)
}

/// Forgets those flows of the filter that are `meant`, and says how many there were.
pub fn delete_those(
    socket: &mut Socket,
    filter: &Filter,
    mut meant: impl FnMut(&Flow) -> bool,
) -> Result<usize, KernelError> {
    // To look for a flow is to walk a table that is the whole machine's, and as large as its memory allows.
    if count(socket)? == 0 {
        return Ok(0);
    }
    let mut flows = dump(socket, filter)?;
    flows.retain(|flow| meant(flow));
    let mut batch = Batch::new();
    for flow in &flows {
        delete(&mut batch, filter.family, flow);
    }
    // A flow may end by itself meanwhile, and another take its tuple: both are `ENOENT`.
    match socket.execute(&mut batch)?.into_iter().find(|failure| failure.error.errno != Errno::NOENT) {
        None => Ok(flows.len()),
        Some(failure) => Err(failure.error),
    }
}

/// Forgets the flows that were sent to a port, wherever they went, if their destination is `meant`: another host may
/// serve the same port, and flows to it pass here. For when something new shall answer there.
pub fn delete_to_port(
    socket: &mut Socket,
    family: route::Family,
    protocol: u8,
    port: u16,
    mut meant: impl FnMut(IpAddr) -> bool,
) -> Result<usize, KernelError> {
    let filter = Filter { original_destination_port: Some(port), ..Filter::protocol(family, protocol) };
    delete_those(socket, &filter, |flow| meant(flow.original.destination))
}

/// Forgets the flows that this address and port answers, wherever they were sent to. For when it is gone.
pub fn delete_replies_from(
    socket: &mut Socket,
    ip: IpAddr,
    protocol: u8,
    port: u16,
) -> Result<usize, KernelError> {
    let family = if ip.is_ipv4() { route::Family::V4 } else { route::Family::V6 };
    let filter = Filter {
        reply_source: Some(ip),
        reply_source_port: Some(port),
        ..Filter::protocol(family, protocol)
    };
    delete_all(socket, &filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Flow::parse(&bytes);
        }
    }

    #[test]
    fn a_flow_of_another_port_or_answerer_is_not_admitted() {
        let tuple = |destination: &str, destination_port| Tuple {
            source: "192.0.2.9".parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: UDP,
            source_port: 5353,
            destination_port,
        };
        let flow = Flow {
            original: tuple("192.0.2.1", 53),
            reply: tuple("192.0.2.9", 40000),
            status: 0,
            mark: 0,
            key: Vec::new(),
            zone: None,
            id: None,
        };
        let all = Filter::protocol(route::Family::V4, UDP);
        assert!(all.admits(&flow));
        assert!(
            Filter { original_destination_port: Some(53), reply_source_port: Some(5353), ..all }
                .admits(&flow)
        );
        assert!(!Filter { original_destination_port: Some(54), ..all }.admits(&flow));
        assert!(!Filter { original_destination: Some("192.0.2.2".parse().unwrap()), ..all }.admits(&flow));
        assert!(!Filter { reply_source: Some("192.0.2.8".parse().unwrap()), ..all }.admits(&flow));
        assert!(!Filter::protocol(route::Family::V4, SCTP).admits(&flow));
        assert!(!Filter::protocol(route::Family::V6, UDP).admits(&flow));
    }
}

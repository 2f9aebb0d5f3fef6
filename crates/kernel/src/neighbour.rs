//! Neighbours: which Ethernet address an IP address has on a link, and which addresses we answer for
//! (`linux/neighbour.h`).

use std::net::IpAddr;

use crate::KernelError;
use crate::link::Mac;
use crate::netlink::{Attributes, Batch, CREATE, REPLACE, Socket, family_of};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PROTOCOL: u16 = 12;
const NTF_PROXY: u8 = 0x08;

/// `NUD_PERMANENT`: set by an administrator, never probed.
pub const PERMANENT: u16 = 0x80;
/// `NUD_REACHABLE`: it answered lately.
pub const REACHABLE: u16 = 0x02;
/// `NUD_PROBE`: it is being asked.
const PROBE: u16 = 0x10;

/// An entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub index: u32,
    /// The IP address.
    pub ip: IpAddr,
    /// The Ethernet address; none while it is being asked for.
    pub mac: Option<Mac>,
    /// `NUD_…` state.
    pub state: u16,
    /// Whether we answer for the address (`NTF_PROXY`), rather than talk to it.
    pub proxy: bool,
    /// Who made the entry (`RTPROT_…`); 0 where nobody said.
    pub protocol: u8,
}

impl Neighbour {
    /// Reads the payload of an `RTM_NEWNEIGH` message.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let header: [u8; 12] = payload.get(..12)?.try_into().ok()?;
        let attributes = Attributes::new(&payload[12..]);
        Some(Self {
            index: u32::from_ne_bytes([header[4], header[5], header[6], header[7]]),
            ip: attributes.get(NDA_DST)?.ip()?,
            mac: attributes.get(NDA_LLADDR).and_then(|attribute| attribute.mac()),
            state: u16::from_ne_bytes([header[8], header[9]]),
            proxy: header[10] & NTF_PROXY != 0,
            protocol: attributes.get(NDA_PROTOCOL).and_then(|attribute| attribute.u8()).unwrap_or(0),
        })
    }
}

fn header(ip: Option<IpAddr>, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = ip.map_or(0, family_of);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

/// Every neighbour, or with `proxy` every address that we answer for.
pub fn dump(socket: &mut Socket, proxy: bool) -> Result<Vec<Neighbour>, KernelError> {
    let mut request = Batch::new();
    request.message(
        "list neighbours",
        RTM_GETNEIGH,
        0,
        &header(None, 0, 0, if proxy { NTF_PROXY } else { 0 }),
    );
    let mut neighbours = Vec::new();
    socket.dump(&mut request, |object| match object {
        Some((RTM_NEWNEIGH, payload)) => neighbours.extend(Neighbour::parse(payload)),
        Some(_) => {}
        None => neighbours.clear(),
    })?;
    Ok(neighbours)
}

/// Fixes the Ethernet address of `ip` on a link, whatever was known before.
pub fn set_permanent(batch: &mut Batch, index: u32, ip: IpAddr, mac: Mac) {
    let header = header(Some(ip), index, PERMANENT, 0);
    let mut message = batch.message("set a permanent neighbour", RTM_NEWNEIGH, CREATE | REPLACE, &header);
    message.ip(NDA_DST, ip).attribute(NDA_LLADDR, &mac);
}

/// Asks at once for a neighbour that is known: until it answers, it does not count as reachable. One that is not known is
/// refused.
pub fn solicit(batch: &mut Batch, index: u32, ip: IpAddr) {
    let header = header(Some(ip), index, PROBE, 0);
    batch.message("probe a neighbour", RTM_NEWNEIGH, REPLACE, &header).ip(NDA_DST, ip);
}

/// Forgets a neighbour.
pub fn delete(batch: &mut Batch, index: u32, ip: IpAddr) {
    batch.message("delete a neighbour", RTM_DELNEIGH, 0, &header(Some(ip), index, 0, 0)).ip(NDA_DST, ip);
}

/// Answers ARP or neighbour solicitations for `ip` on a link, marked with who asked for it (`RTPROT_…`).
pub fn add_proxy(batch: &mut Batch, index: u32, ip: IpAddr, protocol: u8) {
    let header = header(Some(ip), index, PERMANENT, NTF_PROXY);
    let mut message = batch.message("add a proxy neighbour", RTM_NEWNEIGH, CREATE | REPLACE, &header);
    message.ip(NDA_DST, ip).u8(NDA_PROTOCOL, protocol);
}

/// Stops answering for `ip`.
pub fn delete_proxy(batch: &mut Batch, index: u32, ip: IpAddr) {
    let header = header(Some(ip), index, 0, NTF_PROXY);
    batch.message("delete a proxy neighbour", RTM_DELNEIGH, 0, &header).ip(NDA_DST, ip);
}

//! A message as an Ethernet frame: a client without an address cannot leave that to the kernel.

use std::net::Ipv4Addr;

use crate::Mac;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients listen.
pub const CLIENT_PORT: u16 = 68;

const ETHERNET_LEN: usize = 14;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const TYPE_IPV4: [u8; 2] = [8, 0];
const UDP: u8 = 17;
const TTL: u8 = 64;

/// From whom to whom a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender's Ethernet address.
    pub source_mac: Mac,
    /// The receiver's Ethernet address.
    pub destination_mac: Mac,
    /// The sender's address, unspecified while it has none.
    pub source: Ipv4Addr,
    /// The receiver's address.
    pub destination: Ipv4Addr,
}

/// The frame that takes `payload` from a client to a server.
#[must_use]
pub fn build_frame(endpoints: &Endpoints, payload: &[u8]) -> Vec<u8> {
    let length = |of: usize| u16::try_from(of).unwrap_or(u16::MAX).to_be_bytes();
    let mut ip = [0; IP_LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length(IP_LEN + UDP_LEN + payload.len()));
    ip[8] = TTL;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&endpoints.source.octets());
    ip[16..20].copy_from_slice(&endpoints.destination.octets());
    let sum = checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = Vec::with_capacity(UDP_LEN + payload.len());
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(length(UDP_LEN + payload.len()));
    udp.extend([0, 0]);
    udp.extend_from_slice(payload);
    let pseudo = u32::from(UDP) + u32::try_from(udp.len()).unwrap_or_default();
    let addresses = ip[12..20].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = match checksum(&udp, pseudo + addresses.sum::<u32>()) {
        // Zero would mean that there is none (RFC 768).
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Vec::with_capacity(ETHERNET_LEN + IP_LEN + udp.len());
    frame.extend(endpoints.destination_mac);
    frame.extend(endpoints.source_mac);
    frame.extend(TYPE_IPV4);
    frame.extend(ip);
    frame.extend(udp);
    frame
}

/// The message in a frame from a server to a client, and who sent it; none in any other frame.
///
/// The checksum of UDP is not looked at: a server on the same machine leaves it to a network card that is none, and the
/// packet comes here without it.
#[must_use]
pub fn parse_frame(frame: &[u8]) -> Option<(Endpoints, &[u8])> {
    let (ethernet, rest) = frame.split_first_chunk::<ETHERNET_LEN>()?;
    let fixed: &[u8; IP_LEN] = rest.first_chunk()?;
    let header = usize::from(fixed[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff;
    let well_formed = ethernet[12..] == TYPE_IPV4
        && fixed[0] >> 4 == 4
        && header >= IP_LEN
        && fixed[9] == UDP
        && fragment == 0;
    if !well_formed || checksum(rest.get(..header)?, 0) != 0 {
        return None;
    }
    let (udp, payload) = rest.get(header..total)?.split_first_chunk::<UDP_LEN>()?;
    let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    let payload = payload.get(..usize::from(port(4)).checked_sub(UDP_LEN)?)?;
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
    let mac = |at: usize| {
        [
            ethernet[at],
            ethernet[at + 1],
            ethernet[at + 2],
            ethernet[at + 3],
            ethernet[at + 4],
            ethernet[at + 5],
        ]
    };
    let endpoints = Endpoints {
        source_mac: mac(6),
        destination_mac: mac(0),
        source: address(12),
        destination: address(16),
    };
    (port(0) == SERVER_PORT && port(2) == CLIENT_PORT).then_some((endpoints, payload))
}

/// The internet checksum (RFC 1071), on top of a sum.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum = sum + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM_SERVER: Endpoints = Endpoints {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [255; 6],
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::BROADCAST,
    };

    /// As a server answers.
    fn reply(payload: &[u8]) -> Vec<u8> {
        let mut frame = build_frame(&FROM_SERVER, payload);
        frame[34..36].copy_from_slice(&SERVER_PORT.to_be_bytes());
        frame[36..38].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        frame
    }

    #[test]
    fn the_checksums_are_those_of_the_rfc() {
        let frame = build_frame(&FROM_SERVER, b"odd");
        assert_eq!(checksum(&frame[14..34], 0), 0);
        let pseudo =
            17 + 11 + frame[26..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
        assert_eq!(checksum(&frame[34..], pseudo), 0);
    }

    #[test]
    fn only_what_a_server_sends_to_a_client_is_taken() {
        assert_eq!(parse_frame(&reply(b"hello")), Some((FROM_SERVER, &b"hello"[..])));
        assert_eq!(parse_frame(&build_frame(&FROM_SERVER, b"hello")), None);
        let mut fragment = reply(b"hello");
        fragment[20] = 0x20;
        assert_eq!(parse_frame(&fragment), None);
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_reader_panic(
            flips in proptest::collection::vec((0..80_usize, any::<u8>()), 0..6),
            cut in 0..80_usize,
        ) {
            let mut frame = reply(b"the payload of a message that is none");
            for (at, byte) in flips {
                let at = at % frame.len();
                frame[at] = byte;
            }
            frame.truncate(frame.len().saturating_sub(cut));
            let _read = parse_frame(&frame);
        }
    }
}

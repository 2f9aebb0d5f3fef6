//! Telling the LAN where an address is: gratuitous ARP (RFC 5227), unsolicited neighbour advertisements and router
//! solicitations (RFC 4861), written as whole frames; [`crate::packet::send_all`] sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::link::Mac;

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
pub(crate) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub(crate) const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
/// The flags Router and Override of a neighbour advertisement.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// The frame that tells all hosts on the link that `ip` is at `mac`: an ARP announcement, or a neighbour advertisement with
/// the Override flag, and the Router flag where this host forwards.
#[must_use]
pub fn announcement(ip: IpAddr, mac: Mac, router: bool) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp_request(mac, ip, ip),
        IpAddr::V6(ip) => {
            let flags = OVERRIDE | if router { ROUTER } else { 0 };
            let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
            message.extend(ip.octets());
            message.extend([OPTION_TARGET, 1]);
            message.extend(mac);
            icmpv6_frame(ip, ALL_NODES, mac, &message)
        }
    }
}

/// The frame that asks routers on the link for an advertisement. `source` is a link-local address of the link.
#[must_use]
pub fn router_solicitation(source: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut message = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend([OPTION_SOURCE, 1]);
    message.extend(mac);
    icmpv6_frame(source, ALL_ROUTERS, mac, &message)
}

/// RFC 826, to everybody. Where sender and target are one, it is an announcement.
pub(crate) fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &mac, &ETHERTYPE_ARP].concat();
    // Ethernet, IPv4, lengths of their addresses, a request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

pub(crate) fn icmpv6_frame(source: Ipv6Addr, group: Ipv6Addr, mac: Mac, message: &[u8]) -> Vec<u8> {
    let [.., a, b, c, d] = group.octets();
    let mut frame = [&[0x33, 0x33, a, b, c, d], &mac[..], &ETHERTYPE_IPV6].concat();
    let length = u16::try_from(message.len()).unwrap_or_default();
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    // RFC 4861: whoever gets a lower hop limit takes it for forged.
    frame.extend([ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    let mut message = message.to_vec();
    let pseudo = [
        &source.octets()[..],
        &group.octets(),
        &u32::from(length).to_be_bytes(),
        &u32::from(ICMPV6).to_be_bytes(),
    ];
    let sum = checksum(pseudo.concat().iter().chain(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.extend(message);
    frame
}

/// RFC 1071 over an even number of bytes.
pub(crate) fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u16 {
    let mut sum = 0_u32;
    for (place, byte) in bytes.enumerate() {
        sum += u32::from(*byte) << if place % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_arp_announcement_names_the_address_as_sender_and_target() {
        let frame = announcement("192.0.2.7".parse().unwrap(), MAC, false);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!((&frame[28..32], &frame[38..42]), (&[192, 0, 2, 7][..], &[192, 0, 2, 7][..]));
        assert_eq!(frame.len(), 42);
    }

    #[test]
    fn a_neighbour_advertisement_overrides_and_its_checksum_is_right() {
        let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
        for (router, flags) in [(false, 0x20), (true, 0xa0)] {
            let frame = announcement(ip.into(), MAC, router);
            assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
            assert_eq!((frame[21], frame[54], frame[58]), (255, NEIGHBOUR_ADVERTISEMENT, flags));
            assert!(sums_up(&frame));
        }
    }

    #[test]
    fn a_router_solicitation_goes_to_all_routers_with_a_right_checksum() {
        let frame = router_solicitation("fe80::7".parse().unwrap(), MAC);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 2]);
        assert!(sums_up(&frame));
    }

    /// A message with its checksum in place sums up to nothing.
    fn sums_up(frame: &[u8]) -> bool {
        let length = u32::try_from(frame.len() - 54).unwrap();
        let pseudo = [&frame[22..54], &length.to_be_bytes(), &u32::from(ICMPV6).to_be_bytes()].concat();
        checksum(pseudo.iter().chain(&frame[54..])) == 0
    }
}

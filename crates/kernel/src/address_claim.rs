//! Whether an address is somebody's: the frames that ask the LAN, by ARP (RFC 5227) and neighbour discovery (RFC 4862),
//! and reading who claims it. [`crate::packet`] sends and hears them; [`crate::announce`] is for who has an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::announce::{
    ETHERTYPE_ARP, ETHERTYPE_IPV6, ICMPV6, NEIGHBOUR_ADVERTISEMENT, arp_request, icmpv6_frame,
};
use crate::link::Mac;

/// Ethernet, IPv4, their addresses' lengths.
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: [u8; 2] = [0, 1];
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Octets of an Ethernet header and one of IPv6.
const IPV6: usize = 54;

/// Asks whether anybody has `ip`, without claiming it: an ARP probe, or the solicitation of duplicate address detection.
#[must_use]
pub fn probe(ip: IpAddr, mac: Mac) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp_request(mac, Ipv4Addr::UNSPECIFIED, ip),
        IpAddr::V6(ip) => {
            let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(ip.octets());
            icmpv6_frame(Ipv6Addr::UNSPECIFIED, solicited_node(ip), mac, &message)
        }
    }
}

/// Who says by this frame that `ip` is theirs, or is about to take it, other than `own`; none where it says neither.
#[must_use]
pub fn claimant(frame: &[u8], ip: IpAddr, own: Mac) -> Option<Mac> {
    let source: Mac = frame.get(6..12)?.try_into().ok()?;
    let claims = match ip {
        IpAddr::V4(ip) => arp_claims(frame, ip),
        IpAddr::V6(ip) => nd_claims(frame, ip),
    };
    (claims? && source != own).then_some(source)
}

/// RFC 5227, section 2.1.1: a packet from the address, or another host's probe for it.
fn arp_claims(frame: &[u8], ip: Ipv4Addr) -> Option<bool> {
    let is_arp = frame.get(12..14)? == ETHERTYPE_ARP && frame.get(14..20)? == ARP_HEADER;
    let sender: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    let target: [u8; 4] = frame.get(38..42)?.try_into().ok()?;
    let is_request = frame.get(20..22)? == ARP_REQUEST;
    let is_probe = is_request && Ipv4Addr::from(sender).is_unspecified() && target == ip.octets();
    Some(is_arp && (sender == ip.octets() || is_probe))
}

/// RFC 4862, section 5.4: an advertisement of the address, or another host's duplicate address detection.
fn nd_claims(frame: &[u8], ip: Ipv6Addr) -> Option<bool> {
    let is_icmpv6 = frame.get(12..14)? == ETHERTYPE_IPV6 && *frame.get(20)? == ICMPV6;
    // What came from beyond the link has a lower hop limit.
    let is_of_link = *frame.get(21)? == 255;
    let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
    let kind = *frame.get(IPV6)?;
    let detects = kind == NEIGHBOUR_SOLICITATION && Ipv6Addr::from(source).is_unspecified();
    let target = frame.get(IPV6 + 8..IPV6 + 24)?;
    let claims = (kind == NEIGHBOUR_ADVERTISEMENT || detects) && target == ip.octets();
    Some(is_icmpv6 && is_of_link && claims)
}

/// `ff02::1:ffXX:XXXX` (RFC 4291, section 2.7.1).
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a & 0xff, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: Mac = [0x0a, 0x58, 10, 10, 1, 5];
    const THEIRS: Mac = [0x02, 0, 0, 0, 0, 9];

    fn announcement(ip: IpAddr, mac: Mac) -> Vec<u8> {
        crate::announce::announcement(ip, mac, false)
    }

    #[test]
    fn an_answer_and_another_probe_claim_an_address_and_our_own_probe_does_not() {
        for ip in ["10.10.1.5", "fd00::1:5"].map(|ip| ip.parse::<IpAddr>().unwrap()) {
            assert_eq!(claimant(&announcement(ip, THEIRS), ip, OURS), Some(THEIRS));
            assert_eq!(claimant(&probe(ip, THEIRS), ip, OURS), Some(THEIRS));
            assert_eq!(claimant(&probe(ip, OURS), ip, OURS), None);
        }
        let other = "10.10.1.6".parse().unwrap();
        assert_eq!(claimant(&announcement(other, THEIRS), "10.10.1.5".parse().unwrap(), OURS), None);
    }

    #[test]
    fn an_arp_reply_claims_its_sender_and_nothing_when_cut() {
        let (ours, theirs) = (Ipv4Addr::new(10, 10, 1, 5), Ipv4Addr::new(10, 10, 1, 9));
        let mut reply = arp_request(THEIRS, ours, theirs);
        reply[21] = 2;
        assert_eq!(claimant(&reply, ours.into(), OURS), Some(THEIRS));
        assert_eq!(claimant(&reply, theirs.into(), OURS), None);
        assert_eq!(claimant(&reply, ours.into(), THEIRS), None);
        reply.truncate(41);
        assert_eq!(claimant(&reply, ours.into(), OURS), None);
    }

    #[test]
    fn a_mere_question_claims_nothing() {
        let mut question = arp_request(THEIRS, Ipv4Addr::new(10, 10, 0, 7), Ipv4Addr::new(10, 10, 1, 5));
        assert_eq!(claimant(&question, "10.10.1.5".parse().unwrap(), OURS), None);
        question.truncate(41);
        assert_eq!(claimant(&question, "10.10.0.7".parse().unwrap(), OURS), None);
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_reader_panic(frame in proptest::collection::vec(any::<u8>(), 0..100)) {
            for ip in ["10.10.1.5", "fd00::5"] {
                let _claims = claimant(&frame, ip.parse().unwrap(), OURS);
            }
        }
    }
}

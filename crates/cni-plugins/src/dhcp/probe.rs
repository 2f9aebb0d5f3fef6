//! Whether somebody on the link has an address already (RFC 5227), asked before it is used.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dhcp_client::Mac;
use kernel::KernelError;
use kernel::packet::{EtherType, PacketSocket};

use super::line::wait_readable;

/// The RFC asks thrice over some seven seconds, for links that lose much; a pod waits here.
const PROBES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

const FRAME: usize = 42;
/// Ethernet and IPv4, lengths of their addresses.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Asks for `address` on the link of `index`; who answers for it, or asks for it as well.
pub(super) fn holder_of(index: u32, mac: Mac, address: Ipv4Addr) -> Result<Option<Mac>, KernelError> {
    let socket = PacketSocket::open(index, EtherType::Arp, &[])?;
    for _ in 0..PROBES {
        socket.send(&probe(mac, address))?;
        let asked = Instant::now();
        while let Some(left) = PAUSE.checked_sub(asked.elapsed()).filter(|left| !left.is_zero()) {
            wait_readable(&socket, left)?;
            let mut frame = [0; 64];
            while let Some(length) = socket.receive(&mut frame)? {
                if let Some(holder) = conflict(&frame[..length], mac, address) {
                    return Ok(Some(holder));
                }
            }
        }
    }
    Ok(None)
}

fn probe(mac: Mac, address: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].fill(255);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&[8, 6]);
    frame[14..20].copy_from_slice(&HEAD);
    frame[21] = 1;
    frame[22..28].copy_from_slice(&mac);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

/// The sender of a frame that says that `address` is or becomes another's (RFC 5227, section 2.1.1).
fn conflict(frame: &[u8], own: Mac, address: Ipv4Addr) -> Option<Mac> {
    let frame: &[u8; FRAME] = frame.first_chunk()?;
    let sender: Mac = frame[22..28].try_into().ok()?;
    if frame[14..20] != HEAD || sender == own {
        return None;
    }
    let has_it = frame[28..32] == address.octets();
    let wants_it = frame[28..32] == [0; 4] && frame[38..42] == address.octets() && frame[21] == 1;
    (has_it || wants_it).then_some(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);

    #[test]
    fn whoever_has_the_address_or_probes_for_it_too_is_a_conflict() {
        assert_eq!(conflict(&probe(OTHER, ADDRESS), OWN, ADDRESS), Some(OTHER));
        assert_eq!(conflict(&probe(OWN, ADDRESS), OWN, ADDRESS), None);
        assert_eq!(conflict(&probe(OTHER, Ipv4Addr::new(192, 0, 2, 6)), OWN, ADDRESS), None);
        let mut answer = probe(OTHER, Ipv4Addr::new(192, 0, 2, 9));
        answer[21] = 2;
        answer[28..32].copy_from_slice(&ADDRESS.octets());
        assert_eq!(conflict(&answer, OWN, ADDRESS), Some(OTHER));
        assert_eq!(conflict(&answer[..41], OWN, ADDRESS), None);
    }
}

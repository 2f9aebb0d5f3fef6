//! `struct ndmsg` and its attributes (`linux/neighbour.h`).

use super::rewritten;

const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PROTOCOL: u16 = 12;
const NDA_FLAGS_EXT: u16 = 15;
const NUD_STALE: u16 = 0x04;
/// Whose Ethernet address is known: REACHABLE, STALE, DELAY, PROBE.
const NUD_KNOWN: u16 = 0x02 | 0x04 | 0x08 | 0x10;
const NUD_PERMANENT: u16 = 0x80;
const NTF_PROXY: u8 = 0x08;

/// Learnt entries are kept as stale: they serve at once, and are confirmed by their first use. Entries without an Ethernet
/// address and the kernel's own (`NOARP`, multicast) are left out.
pub(super) fn settle(payload: &[u8]) -> Option<Vec<u8>> {
    let neighbour = kernel::neighbour::Neighbour::parse(payload)?;
    let state = match neighbour.state {
        _ if neighbour.proxy => 0,
        state if state & NUD_PERMANENT != 0 => NUD_PERMANENT,
        state if state & NUD_KNOWN != 0 && neighbour.mac.is_some() => NUD_STALE,
        _ => return None,
    };
    let mut bytes = rewritten(payload, HEADER, |attribute| match attribute.kind() {
        NDA_DST | NDA_LLADDR | NDA_PROTOCOL | NDA_FLAGS_EXT => Some(attribute.value().to_vec()),
        _ => None,
    });
    bytes[8..10].copy_from_slice(&state.to_ne_bytes());
    // The kind of address is the kernel's to say.
    bytes[11] = 0;
    debug_assert_eq!(neighbour.proxy, bytes[10] & NTF_PROXY != 0);
    Some(bytes)
}

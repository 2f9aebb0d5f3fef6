//! `struct ifaddrmsg` and its attributes (`linux/if_addr.h`).

use kernel::netlink::Attributes;

use super::{append, rewritten, text, word};

const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
/// What can be asked for: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN. The kernel derives the others.
const SETTABLE: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const FOREVER: u32 = u32::MAX;
/// The kernel keeps 15 bytes (`IFNAMSIZ` less the NUL).
const LABEL_MAX: usize = 15;

/// `IFA_FLAGS`, or the older byte of the header.
fn flags(payload: &[u8]) -> u32 {
    Attributes::new(&payload[HEADER..])
        .get(IFA_FLAGS)
        .and_then(|flags| flags.u32())
        .unwrap_or(u32::from(payload[2]))
}

pub(super) fn settle(payload: &[u8]) -> Option<Vec<u8>> {
    kernel::address::Address::parse(payload)?;
    let flags = flags(payload) & SETTABLE;
    let mut bytes = rewritten(payload, HEADER, |attribute| match attribute.kind() {
        IFA_ADDRESS | IFA_LOCAL | IFA_LABEL | IFA_BROADCAST | IFA_RT_PRIORITY | IFA_PROTO => {
            Some(attribute.value().to_vec())
        }
        // `struct ifa_cacheinfo`: preferred, valid, and two timestamps.
        IFA_CACHEINFO => attribute.array::<8>().map(|lifetimes| [lifetimes, [0; 8]].concat()),
        _ => None,
    });
    bytes[2] = flags.to_le_bytes()[0];
    if flags != 0 {
        append(&mut bytes, IFA_FLAGS, &flags.to_ne_bytes());
    }
    Some(bytes)
}

/// The same with further flags.
pub(super) fn flagged(bytes: &[u8], more: u32) -> Vec<u8> {
    let flags = flags(bytes) | more;
    let mut bytes = rewritten(bytes, HEADER, |attribute| {
        (attribute.kind() != IFA_FLAGS).then(|| attribute.value().to_vec())
    });
    bytes[2] = flags.to_le_bytes()[0];
    append(&mut bytes, IFA_FLAGS, &flags.to_ne_bytes());
    bytes
}

/// An IPv4 label is the link's name, or begins with it and a colon. One that would grow too long is left to the kernel.
pub(super) fn relabelled(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    rewritten(bytes, HEADER, |attribute| {
        if attribute.kind() != IFA_LABEL {
            return Some(attribute.value().to_vec());
        }
        let label = attribute.text();
        let renamed = match label.strip_prefix(from) {
            Some("") => to.to_owned(),
            Some(rest) if rest.starts_with(':') => format!("{to}{rest}"),
            _ => label,
        };
        Some(text(if renamed.len() <= LABEL_MAX { &renamed } else { to }))
    })
}

fn with_lifetimes(bytes: &[u8], change: impl Fn(u32) -> u32) -> Vec<u8> {
    rewritten(bytes, HEADER, |attribute| match (attribute.kind(), attribute.array::<16>()) {
        (IFA_CACHEINFO, Some(mut info)) => {
            for at in [0, 4] {
                let lifetime = change(word(&info, at));
                info[at..at + 4].copy_from_slice(&lifetime.to_ne_bytes());
            }
            Some(info.to_vec())
        }
        _ => Some(attribute.value().to_vec()),
    })
}

pub(super) fn aged(bytes: &[u8], seconds: u32) -> Option<Vec<u8>> {
    let info = Attributes::new(&bytes[HEADER..]).get(IFA_CACHEINFO);
    let valid = info.and_then(|info| info.array::<8>()).map_or(FOREVER, |info| word(&info, 4));
    if valid != FOREVER && valid <= seconds {
        return None;
    }
    let shorter =
        |lifetime: u32| if lifetime == FOREVER { FOREVER } else { lifetime.saturating_sub(seconds) };
    Some(with_lifetimes(bytes, shorter))
}

/// Whether a lifetime ends remains, when does not.
pub(super) fn timeless(bytes: &[u8]) -> Vec<u8> {
    with_lifetimes(bytes, |lifetime| if lifetime == FOREVER { FOREVER } else { 0 })
}

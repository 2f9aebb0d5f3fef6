//! What the FORWARD chain of iptables-legacy does with a packet that nothing else accepts. nftables shows nothing of
//! these tables; they are read by socket options (`linux/netfilter_ipv4/ip_tables.h`, and the same of IPv6).
#![allow(unsafe_code, reason = "socket options of iptables have no safe wrapper")]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};

use crate::KernelError;
use crate::route::Family;

/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: libc::c_int = 65;
/// A table that is longer is not read: 4 MiB are some 20,000 rules.
const ENTRIES_MAX: usize = 4 << 20;
/// How often a table that is replaced while it is read is read again.
const ATTEMPTS: usize = 16;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: a name, the hooks, five entries, five underflows, number and size.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// `struct ipt_get_entries` up to its entries, which are aligned to 8.
const ENTRIES_HEAD: usize = NAME + 8;
/// `NF_INET_FORWARD`.
const FORWARD: usize = 2;
/// `XT_STANDARD_TARGET` with `-NF_DROP - 1`.
const DROP: i32 = -1;
/// `XT_STANDARD_TARGET` with `-NF_ACCEPT - 1`.
const ACCEPT: i32 = -2;

/// The FORWARD chain of the table `filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyForward {
    /// What nothing accepts is dropped or rejected, by the policy or by a rule for all packets.
    pub drops: bool,
    /// Everything from these prefixes is accepted before.
    pub from: Vec<IpNet>,
    /// Everything to these prefixes is accepted before.
    pub to: Vec<IpNet>,
}

/// The chain of this network namespace; none where the table was never used. It takes `CAP_NET_ADMIN`.
pub fn forward(family: Family) -> Result<Option<LegacyForward>, KernelError> {
    let layout = Layout::of(family);
    // Asking for a table that is not there would bring it into being.
    let names = match std::fs::read_to_string(layout.names) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            return Err(KernelError::new(format!("read {}", layout.names), errno));
        }
    };
    if !names.lines().any(|name| name == "filter") {
        return Ok(None);
    }
    // A table that is replaced meanwhile has another size, and the kernel says so.
    let mut found = read_filter(&layout);
    for _ in 1..ATTEMPTS {
        if !matches!(&found, Err(error) if error.errno == Errno::AGAIN) {
            break;
        }
        found = read_filter(&layout);
    }
    found.map(Some)
}

fn read_filter(layout: &Layout) -> Result<LegacyForward, KernelError> {
    let failed = |errno| KernelError::new(format!("read table filter of {}", layout.program), errno);
    let socket = rustix::net::socket(layout.domain, SocketType::DGRAM, None).map_err(failed)?;
    let mut info = vec![0; INFO];
    info[..6].copy_from_slice(b"filter");
    get(&socket, layout.level, GET_INFO, &mut info).map_err(failed)?;
    let word = |at: usize| u32_at(&info, at).map(|word| word as usize).ok_or_else(|| failed(Errno::BADMSG));
    let size = word(INFO - 4)?;
    if size > ENTRIES_MAX {
        return Err(failed(Errno::FBIG));
    }
    let (first, underflow) = (word(NAME + 4 + 4 * FORWARD)?, word(NAME + 24 + 4 * FORWARD)?);
    let mut entries = vec![0; ENTRIES_HEAD + size];
    entries[..6].copy_from_slice(b"filter");
    entries[NAME..NAME + 4].copy_from_slice(&info[INFO - 4..]);
    get(&socket, layout.level, GET_ENTRIES, &mut entries).map_err(failed)?;
    Ok(read_chain(layout, &entries[ENTRIES_HEAD..], first, underflow))
}

/// Fills `buffer`, which also says what is asked for.
fn get(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, buffer: &mut [u8]) -> Result<(), Errno> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::FBIG)?;
    // SAFETY: the kernel writes at most `length` bytes, which are the buffer's.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Where things stand in an entry of either family.
struct Layout {
    family: Family,
    program: &'static str,
    names: &'static str,
    domain: AddressFamily,
    level: libc::c_int,
    /// Bytes of an address.
    address: usize,
    /// Bytes of what addresses, links and protocol must be: `struct ipt_ip`, `struct ip6t_ip6`.
    matched: usize,
    /// Where `target_offset` stands, and behind it `next_offset`.
    offsets: usize,
    /// `sizeof(struct ipt_entry)`: matches begin there, if there are any.
    entry: usize,
}

impl Layout {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                program: "iptables-legacy",
                names: "/proc/thread-self/net/ip_tables_names",
                domain: AddressFamily::INET,
                level: libc::SOL_IP,
                address: 4,
                matched: 84,
                offsets: 88,
                entry: 112,
            },
            Family::V6 => Self {
                family,
                program: "ip6tables-legacy",
                names: "/proc/thread-self/net/ip6_tables_names",
                domain: AddressFamily::INET6,
                level: libc::SOL_IPV6,
                address: 16,
                matched: 136,
                offsets: 140,
                entry: 168,
            },
        }
    }

    fn prefix(&self, address: &[u8], mask: &[u8]) -> Option<IpNet> {
        match self.family {
            Family::V4 => {
                let address = Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?);
                let mask = Ipv4Addr::from(<[u8; 4]>::try_from(mask).ok()?);
                Ipv4Net::with_netmask(address, mask).ok().map(IpNet::V4)
            }
            Family::V6 => {
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
                let mask = Ipv6Addr::from(<[u8; 16]>::try_from(mask).ok()?);
                Ipv6Net::with_netmask(address, mask).ok().map(IpNet::V6)
            }
        }
    }
}

/// What an entry does with the packets that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepts,
    Drops,
    Other,
}

struct Entry {
    /// Source and destination, where nothing else is asked of a packet.
    matched: Option<(IpNet, IpNet)>,
    verdict: Verdict,
    next: usize,
}

/// Reads one entry; none where it does not fit.
fn entry(layout: &Layout, bytes: &[u8]) -> Option<Entry> {
    let target_offset = usize::from(u16_at(bytes, layout.offsets)?);
    let next = usize::from(u16_at(bytes, layout.offsets + 2)?);
    if target_offset < layout.entry || next <= target_offset || next > bytes.len() {
        return None;
    }
    // `struct xt_entry_target`: its size, 29 bytes of name, a revision, then its own.
    let target = bytes.get(target_offset..next)?;
    let name = target.get(2..31)?.split(|byte| *byte == 0).next()?;
    let verdict = match (name, u32_at(target, 32).map(u32::cast_signed)) {
        (b"", Some(ACCEPT)) => Verdict::Accepts,
        (b"", Some(DROP)) | (b"REJECT", _) => Verdict::Drops,
        _ => Verdict::Other,
    };
    let size = layout.address;
    let part = |index: usize| bytes.get(index * size..(index + 1) * size);
    // Both addresses, then both masks.
    let source = layout.prefix(part(0)?, part(2)?);
    let destination = layout.prefix(part(1)?, part(3)?);
    let asks_no_more =
        target_offset == layout.entry && bytes.get(4 * size..layout.matched)?.iter().all(|byte| *byte == 0);
    Some(Entry { matched: source.zip(destination).filter(|_| asks_no_more), verdict, next })
}

/// Walks a base chain from its first entry to its policy. What cannot be read ends the walk.
fn read_chain(layout: &Layout, entries: &[u8], first: usize, underflow: usize) -> LegacyForward {
    let mut chain = LegacyForward::default();
    let mut at = first;
    while let Some(found) = entries.get(at..).and_then(|rest| entry(layout, rest)) {
        if let Some((source, destination)) = found.matched {
            let (any_source, any_destination) = (source.prefix_len() == 0, destination.prefix_len() == 0);
            match (found.verdict, any_source, any_destination) {
                (Verdict::Drops, true, true) => {
                    chain.drops = true;
                    break;
                }
                (Verdict::Accepts, true, true) => break,
                (Verdict::Accepts, false, true) => chain.from.push(source),
                (Verdict::Accepts, true, false) => chain.to.push(destination),
                _ => {}
            }
        }
        if at >= underflow {
            break;
        }
        at += found.next;
    }
    chain
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), first in 0usize..700, underflow in 0usize..700,
            target in 0u16..300, next in 0u16..300,
        ) {
            for layout in [Layout::of(Family::V4), Layout::of(Family::V6)] {
                let mut bytes = bytes.clone();
                if bytes.len() > layout.entry {
                    bytes[layout.offsets..layout.offsets + 2].copy_from_slice(&target.to_ne_bytes());
                    bytes[layout.offsets + 2..layout.offsets + 4].copy_from_slice(&next.to_ne_bytes());
                }
                let _ = (read_chain(&layout, &bytes, first, underflow), read_chain(&layout, &bytes, 0, underflow));
            }
        }
    }
}

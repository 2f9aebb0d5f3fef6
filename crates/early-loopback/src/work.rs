//! Setting `lo` up or down, and asking for its addresses: one datagram to the kernel.

use core::mem::MaybeUninit;

use crate::answer::Line;
use crate::call::{Call, Verb};
use crate::conf::Conf;
use crate::system::{self, ANY, Descriptor, NETLINK};

const NLMSG_ERROR: u32 = 2;
const NLMSG_DONE: u32 = 3;
const RTM_NEWLINK: u32 = 16;
const RTM_NEWADDR: u32 = 20;
const RTM_GETADDR: u32 = 22;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const ACKNOWLEDGED: u32 = 5 << 16;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u32 = 0x301 << 16;
/// `NLM_F_DUMP_INTR`: what is listed changed meanwhile.
const INTERRUPTED: u32 = 0x10 << 16;
/// Every network namespace is born with its loopback link as number 1.
const LOOPBACK: u32 = 1;
const UP: u32 = 1;

/// `struct nlmsghdr` and `struct ifinfomsg`, then the header and the whole of a `struct ifaddrmsg`.
const ADD: [u32; 14] =
    [32, RTM_NEWLINK | ACKNOWLEDGED, 1, 0, 0, LOOPBACK, UP, UP, 24, RTM_GETADDR | DUMP, 2, 0, 0, 0];
const DEL: [u32; 8] = [32, RTM_NEWLINK | ACKNOWLEDGED, 1, 0, 0, LOOPBACK, 0, UP];

/// More than the addresses of a new namespace take.
const ROOM: usize = 4096;

/// Serves the call; none where anything fails, after which nothing is left open, and the namespace is the one before.
pub(crate) fn serve(call: Call<'_>, conf: Conf<'_>) -> Option<()> {
    let pod = Descriptor::open(call.netns)?;
    let own = Descriptor::socket(ANY)?.namespace()?;
    if pod.identity()? == own.identity()? {
        return None;
    }
    pod.enter()?;
    let served = match call.verb {
        Verb::Add => {
            let mut line = Line::new();
            add()
                .and_then(|has_ipv6| line.tell(conf.version, call.netns, has_ipv6))
                .and_then(|()| give(line.as_bytes()))
        }
        Verb::Del => del(),
    };
    if served.is_none() {
        own.enter();
    }
    served
}

/// Whether `lo` has an IPv6 address beside its IPv4 one; none where it has others.
fn add() -> Option<bool> {
    let socket = Descriptor::socket(NETLINK)?;
    socket.send(&ADD)?;
    let mut buffer = [const { MaybeUninit::uninit() }; ROOM];
    let (mut has_ipv4, mut has_ipv6) = (false, false);
    loop {
        let mut messages = socket.receive(&mut buffer)?;
        while !messages.is_empty() {
            let (kind, payload, rest) = split(messages)?;
            messages = rest;
            match kind {
                NLMSG_ERROR => is_well(payload)?,
                NLMSG_DONE => return has_ipv4.then_some(has_ipv6),
                RTM_NEWADDR if word(payload, 4)? != LOOPBACK => {}
                // Family, length of the prefix, `IFA_ADDRESS`, and for IPv4 the same as `IFA_LOCAL`.
                RTM_NEWADDR => match payload {
                    [2, 8, _, _, _, _, _, _, 8, 0, 1, 0, 127, 0, 0, 1, 8, 0, 2, 0, 127, 0, 0, 1, ..]
                        if !has_ipv4 =>
                    {
                        has_ipv4 = true;
                    }
                    [10, 128, _, _, _, _, _, _, 20, 0, 1, 0, ip @ ..] if !has_ipv6 && is_one(ip) => {
                        has_ipv6 = true;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }
}

fn del() -> Option<()> {
    let socket = Descriptor::socket(NETLINK)?;
    socket.send(&DEL)?;
    let mut buffer = [const { MaybeUninit::uninit() }; ROOM];
    match split(socket.receive(&mut buffer)?)? {
        (NLMSG_ERROR, payload, _) => is_well(payload),
        _ => None,
    }
}

/// The first message: its kind and flags, what it says, and what is behind it.
fn split(messages: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    const HEADER: usize = 16;
    let length = word(messages, 0)? as usize;
    let kind = word(messages, 4)?;
    let payload = messages.get(HEADER..length)?;
    let rest = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    (kind & INTERRUPTED == 0).then_some((kind & 0xffff, payload, rest))
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// An acknowledgement is an error of 0.
fn is_well(payload: &[u8]) -> Option<()> {
    (word(payload, 0)? == 0).then_some(())
}

/// Whether the address is `::1`.
fn is_one(ip: &[u8]) -> bool {
    ip.get(..15).is_some_and(|zeros| zeros.iter().all(|byte| *byte == 0)) && ip.get(15) == Some(&1)
}

fn give(text: &[u8]) -> Option<()> {
    match system::write(1, text)? {
        written if written == text.len() => Some(()),
        // The rest would follow what is there already.
        _ => system::exit(1),
    }
}

//! Reading netlink messages that the kernel sent.

use super::{Attributes, HEADER, aligned};
use rustix::io::Errno;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// First type that is not netlink's own (`NLMSG_MIN_TYPE`).
const NLMSG_MIN_TYPE: u16 = 0x10;
/// `NLM_F_CAPPED`: the request was not repeated behind the error.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow.
const ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`.
const ATTR_MSG: u16 = 1;
/// `NLM_F_DUMP_INTR`.
const DUMP_INTR: u16 = 0x10;

/// What one message of the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'bytes> {
    /// An object: its type, and the bytes behind `struct nlmsghdr`.
    Object {
        /// `nlmsg_type`.
        kind: u16,
        /// The family's header and its attributes.
        payload: &'bytes [u8],
    },
    /// A request was carried out.
    Acknowledged,
    /// A request was refused.
    Refused {
        /// Why.
        errno: Errno,
        /// The kernel's own words, where it had some.
        kernel_says: Option<String>,
    },
    /// A dump is complete.
    Done,
    /// Messages were lost (`NLMSG_OVERRUN`).
    Overrun,
}

/// The messages in one datagram.
#[derive(Clone, Debug)]
pub struct Replies<'bytes> {
    rest: &'bytes [u8],
    port: u32,
    flags: u16,
}

impl<'bytes> Replies<'bytes> {
    /// Walks a datagram.
    #[must_use]
    pub fn new(bytes: &'bytes [u8]) -> Self {
        Self { rest: bytes, port: 0, flags: 0 }
    }

    /// The port (`nlmsg_pid`) of the message that was given last: of an event, that of the socket through which the change
    /// was asked for; 0 is the kernel itself.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The flags (`nlmsg_flags`) of the message that was given last.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.flags
    }
}

/// A reply, the sequence number of what it answers, and whether the dump it belongs to was interrupted.
pub(super) type Sequenced<'bytes> = (u32, bool, Reply<'bytes>);

impl<'bytes> Iterator for Replies<'bytes> {
    type Item = Sequenced<'bytes>;

    fn next(&mut self) -> Option<Sequenced<'bytes>> {
        loop {
            let header: [u8; HEADER] = self.rest.get(..HEADER)?.try_into().ok()?;
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let flags = u16::from_ne_bytes([header[6], header[7]]);
            let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            self.port = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
            self.flags = flags;
            let payload = if length < HEADER { None } else { self.rest.get(HEADER..length) };
            let Some(payload) = payload else {
                self.rest = &[];
                return None;
            };
            self.rest = self.rest.get(aligned(length)..).unwrap_or(&[]);
            let reply = match kind {
                NLMSG_ERROR => acknowledgement(payload, flags),
                NLMSG_DONE => done(payload),
                NLMSG_OVERRUN => Reply::Overrun,
                kind if kind >= NLMSG_MIN_TYPE => Reply::Object { kind, payload },
                _ => continue,
            };
            return Some((sequence, flags & DUMP_INTR != 0, reply));
        }
    }
}

fn errno_of(payload: &[u8]) -> Option<i32> {
    payload.get(..4)?.try_into().ok().map(i32::from_ne_bytes)
}

fn acknowledgement(payload: &[u8], flags: u16) -> Reply<'_> {
    match errno_of(payload) {
        Some(0) => Reply::Acknowledged,
        Some(code) => {
            let errno = Errno::from_raw_os_error(code.checked_neg().unwrap_or(libc::EIO).clamp(1, 4095));
            Reply::Refused { errno, kernel_says: kernel_says(payload, flags) }
        }
        None => Reply::Refused { errno: Errno::BADMSG, kernel_says: None },
    }
}

/// The end of a dump carries an error number too, where the dump failed half-way.
fn done(payload: &[u8]) -> Reply<'_> {
    match errno_of(payload) {
        Some(code) if code < 0 => {
            let errno = Errno::from_raw_os_error(code.checked_neg().unwrap_or(libc::EIO).clamp(1, 4095));
            Reply::Refused { errno, kernel_says: None }
        }
        _ => Reply::Done,
    }
}

/// `struct nlmsgerr` is the error number and the request's header; the request itself follows unless capped.
fn kernel_says(payload: &[u8], flags: u16) -> Option<String> {
    if flags & ACK_TLVS == 0 {
        return None;
    }
    let request = payload.get(4..4 + HEADER)?;
    let request_length = u32::from_ne_bytes([request[0], request[1], request[2], request[3]]) as usize;
    let start = if flags & CAPPED == 0 { 4 + aligned(request_length.max(HEADER)) } else { 4 + HEADER };
    let says = Attributes::new(payload.get(start..)?).get(ATTR_MSG)?.text();
    (!says.is_empty()).then_some(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Replies::new(&bytes).count() <= bytes.len() / HEADER + 1);
        }

        #[test]
        fn an_error_with_any_content_is_read(code in any::<i32>(), flags in any::<u16>(), tail in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut payload = code.to_ne_bytes().to_vec();
            payload.extend(tail);
            let reply = acknowledgement(&payload, flags);
            prop_assert_eq!(matches!(reply, Reply::Acknowledged), code == 0);
        }
    }
}

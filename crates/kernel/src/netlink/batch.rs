//! Writing netlink messages, many to a buffer, so that one system call carries them all.

use std::net::IpAddr;

use super::{HEADER, aligned};

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// Messages to be sent together. Sequence numbers and acknowledgements are the socket's affair.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) messages: Vec<Written>,
    /// An attribute outgrew the 16 bits that netlink has for its length.
    pub(super) overflowed: Option<&'static str>,
}

/// Where a message starts, and what it was meant to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) start: usize,
    pub(super) attempted: &'static str,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The bytes as they would be sent, for snapshots in tests.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the messages and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
        self.overflowed = None;
    }

    /// Starts a message; it is complete when the returned writer is dropped.
    ///
    /// `attempted` follows "failed to" in errors; `kind` and `flags` are those of `struct nlmsghdr`, `header` is the
    /// family's fixed part (`struct rtmsg`, `struct nfgenmsg`, …).
    pub fn message(&mut self, attempted: &'static str, kind: u16, flags: u16, header: &[u8]) -> Message<'_> {
        let start = self.bytes.len();
        self.messages.push(Written { start, attempted });
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        debug_assert_eq!(HEADER + header.len(), self.bytes.len() - start);
        let mut message = Message { batch: self, start };
        message.pad();
        message
    }

    /// Where the message with this number ends.
    pub(super) fn end_of(&self, index: usize) -> usize {
        self.messages.get(index + 1).map_or(self.bytes.len(), |next| next.start)
    }
}

/// A message being written.
#[derive(Debug)]
pub struct Message<'batch> {
    batch: &'batch mut Batch,
    start: usize,
}

impl Message<'_> {
    /// Bytes written so far, for those who must begin another message before a nest outgrows its length.
    #[must_use]
    pub fn written(&self) -> usize {
        self.batch.bytes.len() - self.start
    }

    fn pad(&mut self) {
        let length = self.batch.bytes.len();
        self.batch.bytes.resize(aligned(length), 0);
    }

    /// An attribute of raw bytes.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.value(kind, |bytes| bytes.extend_from_slice(value))
    }

    /// An attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// An attribute of two bytes in the machine's order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// An attribute of four bytes in the machine's order (rtnetlink).
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// An attribute of eight bytes in the machine's order (rtnetlink).
    pub fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// An attribute of two bytes in network order (nfnetlink).
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute of four bytes in network order (nfnetlink).
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute of eight bytes in network order (nfnetlink).
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an IP address: four bytes or sixteen.
    pub fn ip(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }

    /// A text with the NUL that the kernel wants behind it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.value(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        })
    }

    /// An attribute that holds attributes, flagged as such (`NLA_F_NESTED`).
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_unflagged(kind | NESTED, inner)
    }

    /// An attribute that holds attributes, for the old families that know no flag.
    pub fn nest_unflagged(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind);
        inner(self);
        self.close(start);
        self
    }

    /// Bytes without an attribute header of their own: a fixed structure inside a nest (`VETH_INFO_PEER`).
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.batch.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    fn value(&mut self, kind: u16, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.open(kind);
        write(&mut self.batch.bytes);
        self.close(start);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(&[0; 2]);
        self.batch.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = self.batch.bytes.len() - start;
        if let Ok(length) = u16::try_from(length) {
            self.batch.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        } else {
            self.batch.overflowed = self.batch.messages.last().map(|message| message.attempted);
        }
        self.pad();
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        self.pad();
        let length = self.batch.bytes.len() - self.start;
        if let Ok(length) = u32::try_from(length) {
            self.batch.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        } else {
            self.batch.overflowed = self.batch.messages.last().map(|message| message.attempted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Attributes, CREATE};

    #[test]
    fn attributes_are_padded_and_nests_carry_their_length() {
        let mut batch = Batch::new();
        batch.message("make a link", 16, CREATE, &[0; 16]).text(3, "eth0").nest(18, |nest| {
            nest.text(1, "veth").u8(7, 1);
        });
        let bytes = batch.bytes();
        assert_eq!(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize, bytes.len());
        let found: Vec<_> = Attributes::new(&bytes[32..]).map(|attribute| attribute.kind()).collect();
        assert_eq!(found, [3, 18]);
        let nest = Attributes::new(&bytes[32..]).find(|attribute| attribute.kind() == 18).unwrap();
        assert_eq!(nest.nested().map(|attribute| attribute.kind()).collect::<Vec<_>>(), [1, 7]);
    }

    #[test]
    fn an_attribute_that_outgrows_its_length_field_is_remembered() {
        let mut batch = Batch::new();
        batch.message("add elements", 1, 0, &[0; 4]).attribute(1, &vec![0; 70_000]);
        assert_eq!(batch.overflowed, Some("add elements"));
    }
}

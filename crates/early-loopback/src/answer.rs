//! The answer to ADD, as the ordinary plugin gives it (pure).

use core::mem::MaybeUninit;

use crate::call::LONGEST_PATH;

/// The longest path, and more than all else has together.
const ROOM: usize = LONGEST_PATH + 512;

/// A line, of which as much is there as was written to it.
pub(crate) struct Line {
    bytes: [MaybeUninit<u8>; ROOM],
    length: usize,
}

impl Line {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self { bytes: [const { MaybeUninit::uninit() }; ROOM], length: 0 }
    }

    /// What `lo` in the namespace of this path (with its NUL) has, in words of this version of the specification. Written
    /// in place: to move a line is to call `memcpy`.
    pub(crate) fn tell(&mut self, version: &[u8], netns: &[u8], has_ipv6: bool) -> Option<()> {
        // Before 1.0.0, addresses have a version, and there is an empty `dns`.
        let is_old = version.first() == Some(&b'0');
        let line = self;
        line.push(br#"{"cniVersion":""#)?;
        line.push(version)?;
        line.push(br#"","interfaces":[{"name":"lo","mac":"00:00:00:00:00:00","sandbox":""#)?;
        line.push(netns.get(..netns.len().checked_sub(1)?)?)?;
        line.push(br#""}],"ips":[{"#)?;
        line.push(if is_old { br#""version":"4","#.as_slice() } else { b"" })?;
        line.push(br#""interface":0,"address":"127.0.0.1/8"}"#)?;
        if has_ipv6 {
            line.push(b",{")?;
            line.push(if is_old { br#""version":"6","#.as_slice() } else { b"" })?;
            line.push(br#""interface":0,"address":"::1/128"}"#)?;
        }
        line.push(if is_old { b"],\"dns\":{}}\n".as_slice() } else { b"]}\n" })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        let written = self.bytes.get(..self.length).unwrap_or_default();
        // SAFETY: `push` has written as many.
        unsafe { written.assume_init_ref() }
    }

    fn push(&mut self, text: &[u8]) -> Option<()> {
        let end = self.length.checked_add(text.len())?;
        for (place, byte) in self.bytes.get_mut(self.length..end)?.iter_mut().zip(text) {
            place.write(*byte);
        }
        self.length = end;
        Some(())
    }
}

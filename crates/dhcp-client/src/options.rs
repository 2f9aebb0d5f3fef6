//! The options of a message (RFC 2132), several instances of one joined (RFC 3396).

use crate::message::MessageError;

/// The numbers of the options that are spoken here (RFC 2132, 3442).
pub mod code {
    /// Fills up, and has no length.
    pub const PAD: u8 = 0;
    /// Subnet mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers, best first.
    pub const ROUTER: u8 = 3;
    /// Name servers, best first.
    pub const NAME_SERVER: u8 = 6;
    /// The client's name.
    pub const HOST_NAME: u8 = 12;
    /// The client's domain.
    pub const DOMAIN_NAME: u8 = 15;
    /// The link's MTU.
    pub const MTU: u8 = 26;
    /// Routes by class, which nobody should send any more.
    pub const STATIC_ROUTE: u8 = 33;
    /// The address that the client asks for.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// For how many seconds the address is lent.
    pub const LEASE_TIME: u8 = 51;
    /// The fields `file` and `sname` hold options, too.
    pub const OVERLOAD: u8 = 52;
    /// The kind of message.
    pub const MESSAGE_KIND: u8 = 53;
    /// The server's address, by which it is chosen.
    pub const SERVER: u8 = 54;
    /// What the client would like to be told.
    pub const REQUEST_LIST: u8 = 55;
    /// Why, in words.
    pub const REASON: u8 = 56;
    /// The longest message that the client takes.
    pub const MAX_SIZE: u8 = 57;
    /// T1.
    pub const RENEW_TIME: u8 = 58;
    /// T2.
    pub const REBIND_TIME: u8 = 59;
    /// The client's vendor.
    pub const VENDOR_CLASS: u8 = 60;
    /// Who the client is.
    pub const CLIENT_ID: u8 = 61;
    /// The client's class.
    pub const USER_CLASS: u8 = 77;
    /// Classless routes (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// Ends the options.
    pub const END: u8 = 255;
}

/// Options by number, each once, in the order in which they were met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    entries: Vec<(u8, Vec<u8>)>,
}

impl Options {
    /// The bytes of an option.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.entries.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    /// Sets an option, in the place of one that is there.
    pub fn set(&mut self, code: u8, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.entries.iter_mut().find(|(known, _)| *known == code) {
            Some((_, old)) => *old = value,
            None => self.entries.push((code, value)),
        }
    }

    /// An option of four bytes as a number; none where it has another length.
    #[must_use]
    pub fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends what `bytes` hold, up to the end marker or the end of the field.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        let mut rest = bytes;
        loop {
            match *rest {
                [] | [code::END, ..] => return Ok(()),
                [code::PAD, ref after @ ..] => rest = after,
                [code, length, ref after @ ..] if after.len() >= usize::from(length) => {
                    let (value, after) = after.split_at(usize::from(length));
                    match self.entries.iter_mut().find(|(known, _)| *known == code) {
                        Some((_, whole)) => whole.extend_from_slice(value),
                        None => self.entries.push((code, value.to_vec())),
                    }
                    rest = after;
                }
                [code, ..] => return Err(MessageError::OptionTooLong { code }),
            }
        }
    }

    /// Appends the options but the kind to `bytes`, long ones in several parts, and the end marker.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        for (code, value) in self.entries.iter().filter(|(code, _)| *code != code::MESSAGE_KIND) {
            if value.is_empty() {
                bytes.extend([*code, 0]);
            }
            for part in value.chunks(usize::from(u8::MAX)) {
                bytes.push(*code);
                bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
                bytes.extend_from_slice(part);
            }
        }
        bytes.push(code::END);
    }
}

//! One message (RFC 2131, section 2): fields of fixed places, then options.

use std::net::Ipv4Addr;

use crate::Mac;
use crate::options::{Options, code};

const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const BROADCAST: u16 = 0x8000;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where `sname`, `file` and the options begin.
const SERVER_NAME_AT: usize = 44;
const FILE_AT: usize = 108;
const COOKIE_AT: usize = 236;
/// Relays of old drop what is shorter (RFC 1542, section 2.1).
const MIN_LEN: usize = 300;
/// The longest message that is read: what fits one Ethernet frame.
pub const MAX_MESSAGE: usize = 1472;

/// What a message is about (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who has an address?
    Discover = 1,
    /// This one.
    Offer = 2,
    /// That one, please.
    Request = 3,
    /// It is in use already.
    Decline = 4,
    /// It is yours.
    Ack = 5,
    /// It is not yours.
    Nak = 6,
    /// I need it no more.
    Release = 7,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        [Self::Discover, Self::Offer, Self::Request, Self::Decline, Self::Ack, Self::Nak, Self::Release]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// From a server.
    pub is_reply: bool,
    /// What it is about.
    pub kind: Kind,
    /// Which exchange it belongs to.
    pub xid: u32,
    /// For how many seconds the client has been asking.
    pub seconds: u16,
    /// The answer is to be broadcast.
    pub broadcast: bool,
    /// The address that the client has.
    pub client_address: Ipv4Addr,
    /// The address that the client gets.
    pub your_address: Ipv4Addr,
    /// The relay, if any.
    pub relay: Ipv4Addr,
    /// The client's hardware.
    pub mac: Mac,
    /// The options; the kind's own is written whatever stands here.
    pub options: Options,
}

/// Why bytes are no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than the fixed fields.
    #[error("it is cut short")]
    Short,
    /// Longer than what is read.
    #[error("it is longer than {MAX_MESSAGE} bytes")]
    Long,
    /// No DHCP, or not for Ethernet.
    #[error("it is no DHCP for Ethernet")]
    Foreign,
    /// Without a kind, or with one that is not known.
    #[error("it does not say which kind of message it is")]
    NoKind,
    /// An option is longer than what follows it.
    #[error("option {code} is longer than the message")]
    OptionTooLong {
        /// Which.
        code: u8,
    },
}

impl Message {
    /// Reads a UDP payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(MessageError::Long);
        }
        let fixed: &[u8; COOKIE_AT + 4] = bytes.first_chunk().ok_or(MessageError::Short)?;
        let [operation, hardware, length, ..] = *fixed;
        let is_reply = operation == BOOT_REPLY;
        if !(is_reply || operation == BOOT_REQUEST)
            || hardware != ETHERNET
            || length != 6
            || fixed[COOKIE_AT..] != COOKIE
        {
            return Err(MessageError::Foreign);
        }
        let mut options = Options::default();
        options.read(&bytes[COOKIE_AT + 4..])?;
        // `file` before `sname` (RFC 3396, section 5).
        let overload = options.get(code::OVERLOAD).and_then(|value| value.first().copied()).unwrap_or(0);
        if overload & 1 != 0 {
            options.read(&fixed[FILE_AT..COOKIE_AT])?;
        }
        if overload & 2 != 0 {
            options.read(&fixed[SERVER_NAME_AT..FILE_AT])?;
        }
        let kind = match options.get(code::MESSAGE_KIND) {
            Some([number]) => Kind::of(*number).ok_or(MessageError::NoKind)?,
            _ => return Err(MessageError::NoKind),
        };
        let word = |at: usize| [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        Ok(Self {
            is_reply,
            kind,
            xid: u32::from_be_bytes(word(4)),
            seconds: u16::from_be_bytes([fixed[8], fixed[9]]),
            broadcast: u16::from_be_bytes([fixed[10], fixed[11]]) & BROADCAST != 0,
            client_address: word(12).into(),
            your_address: word(16).into(),
            relay: word(24).into(),
            mac: [fixed[28], fixed[29], fixed[30], fixed[31], fixed[32], fixed[33]],
            options,
        })
    }

    /// The UDP payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; COOKIE_AT];
        bytes[0] = if self.is_reply { BOOT_REPLY } else { BOOT_REQUEST };
        bytes[1] = ETHERNET;
        bytes[2] = 6;
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        let flags = if self.broadcast { BROADCAST } else { 0 };
        bytes[10..12].copy_from_slice(&flags.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.client_address.octets());
        bytes[16..20].copy_from_slice(&self.your_address.octets());
        bytes[24..28].copy_from_slice(&self.relay.octets());
        bytes[28..34].copy_from_slice(&self.mac);
        bytes.extend(COOKIE);
        bytes.extend([code::MESSAGE_KIND, 1, self.kind as u8]);
        self.options.write(&mut bytes);
        bytes.resize(bytes.len().max(MIN_LEN), code::PAD);
        bytes
    }

    /// An option that is an address.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.options.number(code).map(Ipv4Addr::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let value = proptest::collection::vec(any::<u8>(), 0..300);
        let options = proptest::collection::btree_map(1..=51_u8, value, 0..4);
        (any::<[u32; 4]>(), any::<(bool, bool, u16, Mac)>(), 1..=7_u8, options).prop_map(
            |([xid, a, b, c], (is_reply, broadcast, seconds, mac), kind, entries)| {
                let mut options = Options::default();
                options.set(code::MESSAGE_KIND, [kind]);
                entries.into_iter().for_each(|(code, value)| options.set(code, value));
                Message {
                    is_reply,
                    kind: Kind::of(kind).unwrap(),
                    xid,
                    seconds,
                    broadcast,
                    client_address: a.into(),
                    your_address: b.into(),
                    relay: c.into(),
                    mac,
                    options,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            message in message(),
            flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..20),
            cut: usize,
        ) {
            let mut bytes = message.encode();
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut % (bytes.len() + 1));
            let _read = Message::decode(&bytes);
        }
    }

    fn with_options(options: &[u8], overload: impl FnOnce(&mut [u8])) -> Result<Message, MessageError> {
        let mut bytes = vec![0; COOKIE_AT];
        bytes[..3].copy_from_slice(&[BOOT_REPLY, ETHERNET, 6]);
        overload(&mut bytes);
        bytes.extend(COOKIE);
        bytes.extend(options);
        Message::decode(&bytes)
    }

    #[test]
    fn parts_of_an_option_are_joined_also_those_in_the_file_and_server_name() {
        let options = [53, 1, 5, 52, 1, 3, 121, 2, 1, 2, 255, 121, 1, 9];
        let message = with_options(&options, |fixed| {
            fixed[FILE_AT..FILE_AT + 4].copy_from_slice(&[121, 1, 3, 255]);
            fixed[SERVER_NAME_AT..SERVER_NAME_AT + 3].copy_from_slice(&[121, 1, 4]);
        });
        assert_eq!(message.unwrap().options.get(121), Some(&[1, 2, 3, 4][..]));
    }

    #[test]
    fn an_option_that_is_longer_than_the_message_is_refused_by_its_number() {
        let error = with_options(&[53, 1, 5, 3, 200, 1, 2], |_| ()).unwrap_err();
        assert_eq!(error, MessageError::OptionTooLong { code: 3 });
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert_eq!(Message::decode(&[0; 100]), Err(MessageError::Short));
        assert_eq!(Message::decode(&[0; 1500]), Err(MessageError::Long));
        assert_eq!(Message::decode(&[0; 300]), Err(MessageError::Foreign));
        assert_eq!(with_options(&[53, 1, 77], |_| ()), Err(MessageError::NoKind));
        assert_eq!(with_options(&[], |_| ()), Err(MessageError::NoKind));
    }
}

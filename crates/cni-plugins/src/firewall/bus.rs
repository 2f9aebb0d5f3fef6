//! As much of D-Bus as it takes to call a method with texts and read a text or a truth value (D-Bus Specification 0.43,
//! "Message Protocol" and "Authentication Protocol"). Bounded in bytes and in time: a bus that hangs must not hang a pod.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing that is asked for here is near this long, in bytes.
const REPLY_MAX: usize = 64 << 10;
/// Signals that may come before the reply.
const MESSAGES_MAX: usize = 64;

const BUS: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR: u8 = 4;
const FIELD_REPLY_TO: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// Why the bus could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error("failed to speak to the system's bus at {0}: {1}")]
    Io(String, io::Error),
    #[error("the system's bus does not know this program's user: {0}")]
    NotAuthenticated(String),
    #[error("the system's bus sent what cannot be read")]
    Unreadable,
}

/// What came back of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Truth(bool),
    /// Something else, or nothing.
    Other,
    /// An error, in its own words.
    Refused(String),
}

/// A connection to the system's bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    path: String,
    serial: u32,
}

impl Bus {
    /// Connects and authenticates as the process's user.
    pub(super) fn connect() -> Result<Self, BusError> {
        let path = std::env::var("DBUS_SYSTEM_BUS_ADDRESS")
            .ok()
            .and_then(|address| {
                Some(address.strip_prefix("unix:path=")?.split([',', ';']).next()?.to_owned())
            })
            .unwrap_or_else(|| SYSTEM_BUS.to_owned());
        let failed = |error| BusError::Io(path.clone(), error);
        let mut stream = UnixStream::connect(PathBuf::from(&path)).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let user: String = rustix::process::geteuid()
            .as_raw()
            .to_string()
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).map_err(failed)?;
        let answer = read_line(&mut stream).map_err(failed)?;
        if !answer.starts_with("OK") {
            return Err(BusError::NotAuthenticated(answer));
        }
        stream.write_all(b"BEGIN\r\n").map_err(failed)?;
        let mut bus = Self { stream, path, serial: 0 };
        bus.call(BUS.0, BUS.1, BUS.2, "Hello", &[])?;
        Ok(bus)
    }

    /// Whether somebody goes by this name.
    pub(super) fn has_owner(&mut self, name: &str) -> Result<bool, BusError> {
        Ok(self.call(BUS.0, BUS.1, BUS.2, "NameHasOwner", &[name])? == Reply::Truth(true))
    }

    /// Calls a method with texts, and waits for its reply.
    pub(super) fn call(
        &mut self,
        to: &str,
        path: &str,
        interface: &str,
        method: &str,
        texts: &[&str],
    ) -> Result<Reply, BusError> {
        self.serial += 1;
        let message = encode(self.serial, [path, interface, method, to], texts);
        let failed = |error| BusError::Io(self.path.clone(), error);
        self.stream.write_all(&message).map_err(failed)?;
        for _ in 0..MESSAGES_MAX {
            let bytes = read_message(&mut self.stream).map_err(failed)?;
            if let Some(reply) = decode(&bytes, self.serial).ok_or(BusError::Unreadable)? {
                return Ok(reply);
            }
        }
        Err(BusError::Unreadable)
    }
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") && line.len() < 512 {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The fixed part says how long the rest is.
fn read_message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message)?;
    let unreadable = || io::Error::from(io::ErrorKind::InvalidData);
    let (body, fields) =
        word(&message, 4).zip(word(&message, 12)).filter(|_| message[0] == b'l').ok_or_else(unreadable)?;
    let rest =
        (fields as usize).checked_next_multiple_of(8).and_then(|fields| fields.checked_add(body as usize));
    let rest = rest.filter(|rest| *rest <= REPLY_MAX).ok_or_else(unreadable)?;
    message.resize(16 + rest, 0);
    stream.read_exact(&mut message[16..])?;
    Ok(message)
}

/// A method call in little-endian order; `names` are path, interface, member and destination.
fn encode(serial: u32, names: [&str; 4], texts: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for text in texts {
        push_text(&mut body, text);
    }
    let mut fields = Vec::new();
    let kinds =
        [(FIELD_PATH, b'o'), (FIELD_INTERFACE, b's'), (FIELD_MEMBER, b's'), (FIELD_DESTINATION, b's')];
    for ((field, kind), name) in kinds.into_iter().zip(names) {
        pad(&mut fields, 8);
        fields.extend_from_slice(&[field, 1, kind, 0]);
        push_text(&mut fields, name);
    }
    if !texts.is_empty() {
        pad(&mut fields, 8);
        // At most two are ever given.
        let count = u8::try_from(texts.len()).unwrap_or(u8::MAX);
        fields.extend_from_slice(&[FIELD_SIGNATURE, 1, b'g', 0, count]);
        fields.extend(texts.iter().map(|_| b's'));
        fields.push(0);
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    message.extend_from_slice(&length(&body));
    message.extend_from_slice(&serial.to_le_bytes());
    message.extend_from_slice(&length(&fields));
    message.extend_from_slice(&fields);
    pad(&mut message, 8);
    message.extend_from_slice(&body);
    message
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    pad(out, 4);
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn text(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let length = word(bytes, at)? as usize;
    let end = at.checked_add(4)?.checked_add(length)?;
    Some((String::from_utf8_lossy(bytes.get(at + 4..end)?).into_owned(), end + 1))
}

/// What a message says to the call of this serial: nothing where it is another's. `None` where it cannot be read.
fn decode(message: &[u8], serial: u32) -> Option<Option<Reply>> {
    let kind = *message.get(1)?;
    let fields_end = 16usize.checked_add(word(message, 12)? as usize)?;
    let mut at = 16;
    let (mut reply_to, mut signature, mut error) = (None, String::new(), String::new());
    while at < fields_end {
        at = at.checked_next_multiple_of(8)?;
        let (field, of_kind) = (*message.get(at)?, *message.get(at + 2)?);
        at += 4;
        match of_kind {
            b'u' => {
                let number = word(message, at)?;
                at += 4;
                if field == FIELD_REPLY_TO {
                    reply_to = Some(number);
                }
            }
            b'g' => {
                let length = usize::from(*message.get(at)?);
                let found = message.get(at + 1..at + 1 + length)?;
                if field == FIELD_SIGNATURE {
                    signature = String::from_utf8_lossy(found).into_owned();
                }
                at += length + 2;
            }
            _ => {
                let (found, next) = text(message, at)?;
                at = next;
                if field == FIELD_ERROR {
                    error = found;
                }
            }
        }
    }
    if reply_to != Some(serial) {
        return Some(None);
    }
    let body = fields_end.checked_next_multiple_of(8)?;
    Some(Some(match (kind, signature.chars().next()) {
        (ERROR, Some('s')) => Reply::Refused(format!("{error}: {}", text(message, body)?.0)),
        (ERROR, _) => Reply::Refused(error),
        (METHOD_RETURN, Some('s')) => Reply::Text(text(message, body)?.0),
        (METHOD_RETURN, Some('b')) => Reply::Truth(word(message, body)? != 0),
        _ => Reply::Other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A reply as a bus sends it, made of a call by changing what differs.
    fn reply(kind: u8, to: u32, signature: &[u8], body: &[u8]) -> Vec<u8> {
        let mut fields = vec![FIELD_REPLY_TO, 1, b'u', 0];
        fields.extend_from_slice(&to.to_le_bytes());
        if !signature.is_empty() {
            fields.extend_from_slice(&[FIELD_SIGNATURE, 1, b'g', 0, u8::try_from(signature.len()).unwrap()]);
            fields.extend_from_slice(signature);
            fields.push(0);
        }
        let mut message = vec![b'l', kind, 0, 1];
        message.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        message.extend_from_slice(&7u32.to_le_bytes());
        message.extend_from_slice(&u32::try_from(fields.len()).unwrap().to_le_bytes());
        message.extend_from_slice(&fields);
        pad(&mut message, 8);
        message.extend_from_slice(body);
        message
    }

    #[test]
    fn replies_are_read_and_those_of_others_passed_over() {
        assert_eq!(
            decode(&reply(METHOD_RETURN, 3, b"b", &1u32.to_le_bytes()), 3),
            Some(Some(Reply::Truth(true)))
        );
        assert_eq!(decode(&reply(METHOD_RETURN, 3, b"b", &1u32.to_le_bytes()), 4), Some(None));
        assert_eq!(decode(&reply(METHOD_RETURN, 3, b"", b""), 3), Some(Some(Reply::Other)));
        let mut body = Vec::new();
        push_text(&mut body, "ZONE_ALREADY_SET: 'trusted'");
        let refused = Reply::Refused(": ZONE_ALREADY_SET: 'trusted'".to_owned());
        assert_eq!(decode(&reply(ERROR, 3, b"s", &body), 3), Some(Some(refused)));
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = encode(1, ["/p", "i", "m", "d"], &["zone"]);
        assert_eq!(word(&call, 4), Some(9));
        let fields = word(&call, 12).unwrap() as usize;
        assert_eq!(call.len(), 16 + fields.next_multiple_of(8) + 9);
        assert_eq!(text(&call, call.len() - 9).unwrap().0, "zone");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), serial: u32) {
            let _ = decode(&bytes, serial);
        }
    }
}

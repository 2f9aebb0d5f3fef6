//! Whether a configuration is a usual one of `loopback` (pure): one flat object of three texts without escapes, and
//! for DEL what ADD answered, which it does not need.

use crate::bytes::{is_identifier, position, same};
use crate::call::Verb;

/// A usual configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conf<'a> {
    /// `cniVersion`: 0.3.0 or later, one that there is.
    pub version: &'a [u8],
}

impl<'a> Conf<'a> {
    /// Reads what the runtime wrote; none where anything is missing, wrong or only unusual.
    pub fn read(stdin: &'a [u8], verb: Verb) -> Option<Self> {
        let mut text = Text(stdin);
        let (mut version, mut name, mut plugin, mut prev_result) = (None, false, false, false);
        text.expect(b'{')?;
        loop {
            let key = text.string()?;
            text.expect(b':')?;
            if same(key, b"cniVersion") && version.is_none() {
                version = Some(text.string().filter(|version| is_known(version))?);
            } else if same(key, b"name") && !name {
                name = is_identifier(text.string()?);
                name.then_some(())?;
            } else if same(key, b"type") && !plugin {
                plugin = is_identifier(text.string()?);
                plugin.then_some(())?;
            } else if same(key, b"prevResult") && verb == Verb::Del && !prev_result {
                text.skip_value()?;
                prev_result = true;
            } else {
                return None;
            }
            match text.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        let is_whole = text.peek().is_none() && name && plugin;
        version.filter(|_| is_whole).map(|version| Self { version })
    }
}

/// The versions in which an answer is a list of addresses.
fn is_known(version: &[u8]) -> bool {
    same(version, b"0.3.0")
        || same(version, b"0.3.1")
        || same(version, b"0.4.0")
        || same(version, b"1.0.0")
        || same(version, b"1.1.0")
}

/// What is left of a JSON text.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some((first, rest)) = self.0.split_first() {
            if position(b" \t\r\n", *first).is_none() {
                return Some(*first);
            }
            self.0 = rest;
        }
        None
    }

    fn next(&mut self) -> Option<u8> {
        let next = self.peek()?;
        self.0 = self.0.get(1..)?;
        Some(next)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    /// A text without escapes, of printable ASCII.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let (text, rest) = self.0.split_at_checked(position(self.0, b'"')?)?;
        self.0 = rest.get(1..)?;
        text.iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'\\').then_some(text)
    }

    /// Goes past an object whose texts have no escapes. What is in it is not looked at.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1)?,
                _ if depth == 0 => return None,
                _ => {}
            }
            self.0 = self.0.get(1..)?;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

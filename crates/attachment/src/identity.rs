//! Names that become file names: a network, and an attachment. Checked once, so that no path can be smuggled in.

use std::fmt;
use std::str::FromStr;

use link_name::{LinkName, LinkNameError};
use serde::{Deserialize, Serialize};

/// A file name holds 255 bytes on Linux (`NAME_MAX`, `linux/limits.h`).
const NAME_MAX: usize = 255;

/// The name of a CNI network: a letter or digit, then letters, digits, `_`, `.` or `-` (CNI spec, "Configuration
/// format").
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

/// One interface of one container: what a CNI runtime adds and deletes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "AttachmentParts")]
pub struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: LinkName,
}

/// Why a text names no network or attachment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nothing was given.
    #[error("{what} is empty: give one")]
    Empty {
        /// Which of the names.
        what: &'static str,
    },
    /// A file of that name could not exist.
    #[error("{what} `{}…` is {length} bytes long: at most {limit} fit into a file name", shown(.value))]
    TooLong {
        /// Which of the names.
        what: &'static str,
        /// What was given.
        value: String,
        /// Its length, in bytes.
        length: usize,
        /// The most that fits, in bytes.
        limit: usize,
    },
    /// A character outside the CNI specification's set, or one of `_.-` in front.
    #[error(
        "{what} `{}` contains {found:?}: use letters and digits, and after the first also `_`, `.` or `-`",
        shown(.value)
    )]
    BadCharacter {
        /// Which of the names.
        what: &'static str,
        /// What was given.
        value: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// The interface part is no link name.
    #[error(transparent)]
    Ifname(#[from] LinkNameError),
    /// A file name without the `:` that parts container and interface.
    #[error("`{}` is not of the form <containerID>:<ifname>", shown(.0))]
    NoAttachment(String),
}

/// Bounded and escaped, so that hostile input cannot flood a log.
fn shown(value: &str) -> String {
    value.chars().take(64).flat_map(char::escape_default).collect()
}

/// The character set that the CNI specification gives both for network names and for container ids.
fn check(what: &'static str, value: &str, limit: usize) -> Result<(), IdentityError> {
    if value.is_empty() {
        return Err(IdentityError::Empty { what });
    }
    let length = value.len();
    if length > limit {
        return Err(IdentityError::TooLong { what, value: value.to_owned(), length, limit });
    }
    let allowed =
        |(at, c): (usize, char)| c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '_' | '.' | '-'));
    match value.char_indices().find(|&at| !allowed(at)) {
        Some((_, found)) => Err(IdentityError::BadCharacter { what, value: value.to_owned(), found }),
        None => Ok(()),
    }
}

impl NetworkName {
    /// Checks `name` by the CNI specification.
    pub fn new(name: impl Into<String>) -> Result<Self, IdentityError> {
        let name = name.into();
        check("network name", &name, NAME_MAX)?;
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NetworkName {
    type Err = IdentityError;
    fn from_str(name: &str) -> Result<Self, IdentityError> {
        Self::new(name)
    }
}

impl TryFrom<String> for NetworkName {
    type Error = IdentityError;
    fn try_from(name: String) -> Result<Self, IdentityError> {
        Self::new(name)
    }
}

impl From<NetworkName> for String {
    fn from(name: NetworkName) -> Self {
        name.0
    }
}

impl Attachment {
    /// Checks the container id by the CNI specification (`CNI_CONTAINERID`).
    pub fn new(container_id: impl Into<String>, ifname: LinkName) -> Result<Self, IdentityError> {
        let container_id = container_id.into();
        check("container id", &container_id, NAME_MAX - 1 - link_name::MAX_LEN)?;
        Ok(Self { container_id, ifname })
    }

    /// The runtime's id of the container (`CNI_CONTAINERID`).
    #[must_use]
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The interface's name inside the pod (`CNI_IFNAME`).
    #[must_use]
    pub fn ifname(&self) -> &LinkName {
        &self.ifname
    }
}

/// `<containerID>:<ifname>`, which is also the record's file name: `:` occurs in neither part.
impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container_id, self.ifname)
    }
}

impl FromStr for Attachment {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let Some((container_id, ifname)) = text.split_once(':') else {
            return Err(IdentityError::NoAttachment(text.to_owned()));
        };
        Self::new(container_id, LinkName::new(ifname)?)
    }
}

/// What a document holds before it is checked.
#[derive(Deserialize)]
struct AttachmentParts {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: LinkName,
}

impl TryFrom<AttachmentParts> for Attachment {
    type Error = IdentityError;
    fn try_from(parts: AttachmentParts) -> Result<Self, IdentityError> {
        Self::new(parts.container_id, parts.ifname)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "-a", "_a", "a:b", "a b", "a\0", "é", &"a".repeat(256)] {
            assert!(NetworkName::new(name).is_err(), "{name:?}");
        }
        assert!(Attachment::new("a".repeat(240), LinkName::new("eth0").unwrap()).is_err());
    }

    #[test]
    fn the_longest_attachment_fits_a_file_name() {
        let longest = Attachment::new("a".repeat(239), LinkName::new("e".repeat(15)).unwrap()).unwrap();
        assert_eq!(longest.to_string().len(), NAME_MAX);
    }

    #[test]
    fn a_long_hostile_name_gives_a_short_error() {
        assert!(NetworkName::new("\x1b".repeat(10_000)).unwrap_err().to_string().len() < 1_000);
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_back(id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", ifname in "[a-z][a-z0-9.]{0,14}") {
            let attachment = Attachment::new(id, LinkName::new(ifname).unwrap()).unwrap();
            prop_assert_eq!(attachment.to_string().parse::<Attachment>().unwrap(), attachment);
        }
    }
}

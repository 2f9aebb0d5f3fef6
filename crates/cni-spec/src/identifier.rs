//! Container ids and network names: checked once, because both become names of files.

use std::fmt;
use std::str::FromStr;

use link_name::LinkName;
use serde::{Deserialize, Serialize};

use crate::excerpt::quoted;

/// The longest container id or network name, in bytes. The specification sets no bound, but a record's file is named
/// after both the container id and the interface (255 bytes are all that a file name has, `NAME_MAX`).
pub const MAX_IDENTIFIER_LEN: usize = 200;

/// Why a text is none, in words that follow the name of the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentifierError(String);

fn check(text: &str) -> Result<(), IdentifierError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let reason = if text.is_empty() {
        "is empty: give a letter or digit, then letters, digits, `_`, `.` or `-`".to_owned()
    } else if text.len() > MAX_IDENTIFIER_LEN {
        format!("is {}: longer than {MAX_IDENTIFIER_LEN} bytes; shorten it", quoted(text))
    } else if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) || !text.bytes().all(allowed) {
        format!("is {}: use a letter or digit, then letters, digits, `_`, `.` or `-`", quoted(text))
    } else {
        return Ok(());
    };
    Err(IdentifierError(reason))
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$` and [`MAX_IDENTIFIER_LEN`]. The error is the
            /// reason and the remedy, to follow the name of the field.
            pub fn new(text: impl Into<String>) -> Result<Self, IdentifierError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentifierError;
            fn try_from(text: String) -> Result<Self, IdentifierError> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = IdentifierError;
            fn from_str(text: &str) -> Result<Self, IdentifierError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

identifier! {
    /// The runtime's name of a container (`CNI_CONTAINERID`).
    ContainerId
}
identifier! {
    /// The name of a network (`name` in its configuration).
    NetworkName
}

/// One interface of one container: the key of everything that a plugin keeps. Its text, `<containerID>:<ifname>`, is
/// a file name: `:` occurs in neither part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    container_id: ContainerId,
    ifname: LinkName,
}

impl Attachment {
    /// An interface of a container.
    #[must_use]
    pub const fn new(container_id: ContainerId, ifname: LinkName) -> Self {
        Self { container_id, ifname }
    }

    /// The container.
    #[must_use]
    pub fn container_id(&self) -> &str {
        self.container_id.as_str()
    }

    /// The interface's name inside the container.
    #[must_use]
    pub const fn ifname(&self) -> &LinkName {
        &self.ifname
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container_id, self.ifname)
    }
}

impl FromStr for Attachment {
    type Err = IdentifierError;
    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let Some((container_id, ifname)) = text.split_once(':') else {
            return Err(IdentifierError(format!(
                "is {}: not of the form <containerID>:<ifname>",
                quoted(text)
            )));
        };
        let ifname = LinkName::new(ifname).map_err(|error| IdentifierError(error.to_string()))?;
        Ok(Self::new(ContainerId::new(container_id)?, ifname))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_leave_a_folder_or_hide_in_it_is_refused() {
        for text in ["", ".", "..", ".hidden", "a/b", "-a", "_a", "a b", "a\n", "é", "a:b", "a\0"] {
            assert!(ContainerId::new(text).is_err(), "{text:?}");
        }
        for text in ["a", "0", "A-b_c.d", "4f1d"] {
            assert!(NetworkName::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn two_hundred_bytes_fit_and_one_more_does_not() {
        assert!(ContainerId::new("a".repeat(200)).is_ok());
        assert!(ContainerId::new("a".repeat(201)).unwrap_err().to_string().contains("200 bytes"));
    }

    #[test]
    fn the_longest_attachment_fits_a_file_name() {
        let container_id = ContainerId::new("a".repeat(MAX_IDENTIFIER_LEN)).unwrap();
        let longest = Attachment::new(container_id, LinkName::new("e".repeat(15)).unwrap());
        assert!(longest.to_string().len() <= 255);
    }

    proptest! {
        #[test]
        fn an_attachments_text_parses_back(id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", ifname in "[a-z][a-z0-9.]{0,14}") {
            let attachment = Attachment::new(ContainerId::new(id).unwrap(), LinkName::new(ifname).unwrap());
            prop_assert_eq!(attachment.to_string().parse::<Attachment>().unwrap(), attachment);
        }

        #[test]
        fn an_accepted_identifier_is_a_safe_file_name(text in ".{0,12}") {
            if let Ok(id) = ContainerId::new(text.clone()) {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert!(!text.starts_with('.') && !text.contains(['/', '\0', ':']));
            }
        }
    }
}

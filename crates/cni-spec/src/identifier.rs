//! Container ids and network names: checked once, because both become names of files.

use std::fmt;

use link_name::LinkName;

use crate::excerpt::quoted;

/// The longest container id or network name, in bytes. The specification sets no bound, but a record's file is named
/// after both the container id and the interface (255 bytes are all that a file name has, `NAME_MAX`).
pub const MAX_IDENTIFIER_LEN: usize = 200;

/// Why a text is neither, in words that follow the name of the field.
fn check(text: &str) -> Result<(), String> {
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
    Err(reason)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$` and [`MAX_IDENTIFIER_LEN`]. The error is the
            /// reason and the remedy, to follow the name of the field.
            pub fn new(text: impl Into<String>) -> Result<Self, String> {
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

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
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

/// One interface of one container: the key of everything that a plugin keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The container.
    pub container_id: ContainerId,
    /// The interface's name inside the container.
    pub ifname: LinkName,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container_id, self.ifname)
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
        assert!(ContainerId::new("a".repeat(201)).unwrap_err().contains("200 bytes"));
    }

    proptest! {
        #[test]
        fn an_accepted_identifier_is_a_safe_file_name(text in ".{0,12}") {
            if let Ok(id) = ContainerId::new(text.clone()) {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert!(!text.starts_with('.') && !text.contains(['/', '\0', ':']));
            }
        }
    }
}

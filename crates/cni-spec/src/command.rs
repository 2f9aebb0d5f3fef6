//! The verbs of a call, and since which version of the specification each exists.

use std::fmt;

use crate::error::{CniError, ErrorCode};
use crate::excerpt::quoted;
use crate::version::SpecVersion;

/// What the runtime asks for (`CNI_COMMAND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Undo an attachment; succeeds on what is gone.
    Del,
    /// Is an attachment as ADD left it?
    Check,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Can ADD be served?
    Status,
    /// Which versions are supported?
    Version,
}

impl Command {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// The verb as `CNI_COMMAND` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Reads a `CNI_COMMAND`.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        Self::ALL.into_iter().find(|command| command.as_str() == text).ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidEnvironment,
                format!(
                    "`CNI_COMMAND` is {}: not a verb; use one of {}",
                    quoted(text),
                    Self::ALL.map(Self::as_str).join(", ")
                ),
            )
        })
    }

    /// The first version of the specification that has this verb.
    #[must_use]
    pub const fn since(self) -> SpecVersion {
        match self {
            // The reference library answers VERSION whatever the configuration says.
            Self::Add | Self::Del | Self::Version => SpecVersion::V0_1_0,
            Self::Check => SpecVersion::V0_4_0,
            Self::Gc | Self::Status => SpecVersion::V1_1_0,
        }
    }

    /// Refuses a verb that the configuration's version does not have.
    pub fn check_allowed_in(self, version: SpecVersion) -> Result<(), CniError> {
        if version >= self.since() {
            return Ok(());
        }
        Err(CniError::new(
            ErrorCode::IncompatibleVersion,
            format!(
                "`cniVersion` {version} does not have {self}: it exists since {}; raise `cniVersion`",
                self.since()
            ),
        ))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_needs_0_4_and_gc_and_status_need_1_1() {
        assert!(Command::Check.check_allowed_in(SpecVersion::V0_3_1).is_err());
        assert!(Command::Check.check_allowed_in(SpecVersion::V0_4_0).is_ok());
        for command in [Command::Gc, Command::Status] {
            let error = command.check_allowed_in(SpecVersion::V1_0_0).unwrap_err();
            assert_eq!(error.code, ErrorCode::IncompatibleVersion);
            assert!(command.check_allowed_in(SpecVersion::V1_1_0).is_ok());
        }
        assert!(Command::Del.check_allowed_in(SpecVersion::V0_1_0).is_ok());
    }

    #[test]
    fn verbs_are_upper_case() {
        assert_eq!(Command::parse("ADD"), Ok(Command::Add));
        assert_eq!(Command::parse("add").unwrap_err().code, ErrorCode::InvalidEnvironment);
    }
}

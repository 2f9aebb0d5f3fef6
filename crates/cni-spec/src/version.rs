//! The versions of the specification, and the answer to VERSION.

use std::fmt;

use serde_json::Value;

use crate::error::{CniError, ErrorCode};
use crate::excerpt::quoted;
use crate::field::MAX_INPUT_LEN;

/// A published version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpecVersion {
    /// The first: one address a family.
    V0_1_0,
    /// Adds the VERSION verb.
    V0_2_0,
    /// Adds interfaces, several addresses, and chains.
    V0_3_0,
    /// As 0.3.0, a misprint corrected.
    V0_3_1,
    /// Adds the CHECK verb, and `prevResult` on DEL.
    V0_4_0,
    /// Drops `ips[].version`.
    V1_0_0,
    /// Adds the GC and STATUS verbs, and details of interfaces and routes.
    V1_1_0,
}

impl SpecVersion {
    /// The newest version supported.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Every version supported, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The version as a configuration spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a `cniVersion`. The reference library takes an empty one, and a missing one, for 0.1.0.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::named(text).ok_or_else(|| {
            CniError::new(
                ErrorCode::IncompatibleVersion,
                format!(
                    "`cniVersion` is {}: not supported; use one of {}",
                    quoted(text),
                    Self::ALL.map(Self::as_str).join(", ")
                ),
            )
        })
    }

    fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION for what the runtime wrote to stdin.
///
/// The `cniVersion` is that which was asked for; VERSION never fails, so where none can be made out it is the newest.
#[must_use]
pub fn version_report(stdin: &[u8]) -> String {
    let asked = if stdin.len() > MAX_INPUT_LEN {
        None
    } else {
        serde_json::from_slice::<Value>(stdin)
            .ok()
            .and_then(|conf| SpecVersion::named(conf.get("cniVersion")?.as_str()?))
    };
    let supported = SpecVersion::ALL.map(SpecVersion::as_str).join(r#"",""#);
    format!(
        r#"{{"cniVersion":"{}","supportedVersions":["{supported}"]}}"#,
        asked.unwrap_or(SpecVersion::NEWEST)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_parses_to_itself_and_they_are_in_order() {
        for version in SpecVersion::ALL {
            assert_eq!(SpecVersion::parse(version.as_str()), Ok(version));
        }
        assert!(SpecVersion::ALL.is_sorted());
    }

    #[test]
    fn a_missing_version_is_the_first() {
        assert_eq!(SpecVersion::parse(""), Ok(SpecVersion::V0_1_0));
    }

    #[test]
    fn an_unsupported_version_is_named_beside_those_supported() {
        let error = SpecVersion::parse("2.0.0").unwrap_err();
        assert_eq!(error.code, ErrorCode::IncompatibleVersion);
        insta::assert_snapshot!(error, @"`cniVersion` is `2.0.0`: not supported; use one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
        // As in the reference library, a version is compared letter by letter.
        assert!(SpecVersion::parse("0.4").is_err());
    }

    #[test]
    fn version_is_answered_whatever_was_asked() {
        insta::assert_snapshot!(version_report(br#"{"cniVersion":"0.4.0"}"#), @r#"{"cniVersion":"0.4.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#);
        for stdin in [&b""[..], b"[]", b"{", br#"{"cniVersion":7}"#, br#"{"cniVersion":"9.9.9"}"#] {
            assert!(version_report(stdin).starts_with(r#"{"cniVersion":"1.1.0","#));
        }
    }
}

//! The error that a plugin prints for its runtime, and the codes of the specification.

use std::fmt;

use serde_json::Value;

use crate::field::MAX_INPUT_LEN;
use crate::version::SpecVersion;

/// A code of the specification (0 to 99), or one of ours (100 and above), which a runtime only shows.
///
/// Source: CNI SPEC.md 1.1.0, section 5 "Error", section 2 "STATUS", and the reference library (8 and 999).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The configuration's `cniVersion` is not supported, or does not have the verb that was asked for.
    IncompatibleVersion,
    /// A field of the configuration asks for what this plugin does not do; the message names key and value.
    UnsupportedField,
    /// The container is not known. The runtime then need not clean up.
    UnknownContainer,
    /// A `CNI_*` variable is missing or wrong; the message names it.
    InvalidEnvironment,
    /// A read or write failed.
    Io,
    /// The input is not JSON of the expected shape.
    Decode,
    /// A field of the network configuration is missing or wrong; the message names it.
    InvalidNetworkConfig,
    /// The network namespace is gone, or not one that a container can have (the reference library's code).
    InvalidNetworkNamespace,
    /// The condition should clear up by itself: the runtime should call again later.
    TryAgainLater,
    /// STATUS: ADD cannot be served.
    NotAvailable,
    /// STATUS: ADD cannot be served, and running pods may have limited connectivity.
    NotAvailableLimitedConnectivity,
    /// Every address of a range set is taken.
    RangeExhausted,
    /// A link of the wanted name exists already.
    InterfaceExists,
    /// A requested host port belongs to another pod, or a socket of the host listens on it.
    HostPortTaken,
    /// The kernel refused a change.
    KernelRefused,
    /// This container and interface name are attached already.
    AttachmentExists,
    /// A requested address belongs to another pod.
    AddressTaken,
    /// CHECK: something that ADD made is missing or was changed.
    CheckFailed,
    /// A fault of the plugin itself (the reference library's code).
    Internal,
    /// What another plugin answered to which this one had delegated: its number is passed on.
    Foreign(u16),
}

impl ErrorCode {
    /// Every code of ours, in the order of its number.
    pub const ALL: [Self; 19] = [
        Self::IncompatibleVersion,
        Self::UnsupportedField,
        Self::UnknownContainer,
        Self::InvalidEnvironment,
        Self::Io,
        Self::Decode,
        Self::InvalidNetworkConfig,
        Self::InvalidNetworkNamespace,
        Self::TryAgainLater,
        Self::NotAvailable,
        Self::NotAvailableLimitedConnectivity,
        Self::RangeExhausted,
        Self::InterfaceExists,
        Self::HostPortTaken,
        Self::KernelRefused,
        Self::AttachmentExists,
        Self::AddressTaken,
        Self::CheckFailed,
        Self::Internal,
    ];

    /// The number that the runtime gets.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidNetworkConfig => 7,
            Self::InvalidNetworkNamespace => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::NotAvailableLimitedConnectivity => 51,
            Self::RangeExhausted => 100,
            Self::InterfaceExists => 101,
            Self::HostPortTaken => 102,
            Self::KernelRefused => 104,
            Self::AttachmentExists => 105,
            Self::AddressTaken => 106,
            Self::CheckFailed => 107,
            Self::Internal => 999,
            Self::Foreign(number) => number,
        }
    }
}

/// What a plugin prints when it fails: `msg` names the field, the value, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CniError {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// One sentence for the person who reads the pod's events.
    pub msg: String,
    /// The longer story, or nothing.
    pub details: String,
}

impl CniError {
    /// A failure without further details.
    #[must_use]
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// Adds the longer story.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error that another plugin printed; none where it is no such object.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Option<Self> {
        const MAX_TEXT: usize = 4096;
        let value: Value = serde_json::from_slice(json.get(..json.len().min(MAX_INPUT_LEN))?).ok()?;
        let number = value.get("code")?.as_u64()?;
        let known = ErrorCode::ALL.into_iter().find(|code| u64::from(code.number()) == number);
        let foreign = u16::try_from(number).map_or(ErrorCode::Internal, ErrorCode::Foreign);
        let text = |key| {
            let text = value.get(key).and_then(Value::as_str).unwrap_or_default();
            text.chars().take(MAX_TEXT).collect::<String>()
        };
        Some(Self { code: known.unwrap_or(foreign), msg: text("msg"), details: text("details") })
    }

    /// The JSON for stdout. `version` is that of the call, or [`SpecVersion::NEWEST`] while it is not known.
    #[must_use]
    pub fn to_json(&self, version: SpecVersion) -> String {
        // Not derived: the printing of an error must not have an error of its own.
        let msg = Value::from(self.msg.as_str());
        let mut json = format!(r#"{{"cniVersion":"{version}","code":{},"msg":{msg}"#, self.code.number());
        if !self.details.is_empty() {
            json.push_str(r#","details":"#);
            json.push_str(&Value::from(self.details.as_str()).to_string());
        }
        json.push('}');
        json
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_renders_as_the_specification_shows_it() {
        let error = CniError::new(ErrorCode::InvalidNetworkConfig, "line\n\"quoted\"");
        insta::assert_snapshot!(
            error.to_json(SpecVersion::V1_1_0),
            @r#"{"cniVersion":"1.1.0","code":7,"msg":"line\n\"quoted\""}"#
        );
        insta::assert_snapshot!(
            error.with_details("more").to_json(SpecVersion::V0_4_0),
            @r#"{"cniVersion":"0.4.0","code":7,"msg":"line\n\"quoted\"","details":"more"}"#
        );
    }

    #[test]
    fn another_plugins_error_is_passed_on_with_its_number() {
        let passed = |json: &str| {
            let error = CniError::from_json(json.as_bytes())?;
            Some((error.code.number(), error.to_string()))
        };
        assert_eq!(
            passed(r#"{"cniVersion":"1.0.0","code":11,"msg":"later","details":"soon"}"#),
            Some((11, "later; soon".to_owned()))
        );
        assert_eq!(passed(r#"{"code":4242,"msg":"odd"}"#), Some((4242, "odd".to_owned())));
        assert_eq!(passed(r#"{"code":70000}"#), Some((999, String::new())));
        assert_eq!((passed("{}"), passed("no plugin")), (None, None));
    }

    #[test]
    fn codes_of_our_own_stay_out_of_the_reserved_range() {
        for code in [ErrorCode::RangeExhausted, ErrorCode::CheckFailed, ErrorCode::Internal] {
            assert!(code.number() >= 100);
        }
    }
}

//! The error that a plugin prints for its runtime, and the codes of the specification.

use std::fmt;

use serde_json::Value;

use crate::version::SpecVersion;

/// A code of the specification (0 to 99), or one of ours (100 and above), which a runtime only shows.
///
/// Source: CNI SPEC.md 1.1.0, section 5 "Error", section 2 "STATUS", and the reference library (8 and 999).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The configuration's `cniVersion` is not supported, or does not have the verb that was asked for.
    IncompatibleVersion = 1,
    /// A field of the configuration asks for what this plugin does not do; the message names key and value.
    UnsupportedField = 2,
    /// The container is not known. The runtime then need not clean up.
    UnknownContainer = 3,
    /// A `CNI_*` variable is missing or wrong; the message names it.
    InvalidEnvironment = 4,
    /// A read or write failed.
    Io = 5,
    /// The input is not JSON of the expected shape.
    Decode = 6,
    /// A field of the network configuration is missing or wrong; the message names it.
    InvalidNetworkConfig = 7,
    /// The network namespace is gone, or not one that a container can have (the reference library's code).
    InvalidNetworkNamespace = 8,
    /// The condition should clear up by itself: the runtime should call again later.
    TryAgainLater = 11,
    /// STATUS: ADD cannot be served.
    NotAvailable = 50,
    /// STATUS: ADD cannot be served, and running pods may have limited connectivity.
    NotAvailableLimitedConnectivity = 51,
    /// Every address of a range set is taken.
    RangeExhausted = 100,
    /// A link of the wanted name exists already.
    InterfaceExists = 101,
    /// A requested host port belongs to another pod, or a socket of the host listens on it.
    HostPortTaken = 102,
    /// The kernel refused a change.
    KernelRefused = 104,
    /// This container and interface name are attached already.
    AttachmentExists = 105,
    /// A requested address belongs to another pod.
    AddressTaken = 106,
    /// CHECK: something that ADD made is missing or was changed.
    CheckFailed = 107,
    /// A fault of the plugin itself (the reference library's code).
    Internal = 999,
}

impl ErrorCode {
    /// Every code, in the order of its number.
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
        self as u16
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
    fn codes_of_our_own_stay_out_of_the_reserved_range() {
        for code in [ErrorCode::RangeExhausted, ErrorCode::CheckFailed, ErrorCode::Internal] {
            assert!(code.number() >= 100);
        }
    }
}

//! The `CNI_*` variables of one call, as a value.

use std::path::PathBuf;

use link_name::LinkName;

use crate::cni_args::CniArgs;
use crate::command::Command;
use crate::error::{CniError, ErrorCode};
use crate::excerpt::quoted;
use crate::identifier::{Attachment, ContainerId};

/// The kernel's bound on a path, with its NUL (`PATH_MAX`, `linux/limits.h`).
const PATH_MAX: usize = 4096;

/// A call, with just those parameters that its verb has.
///
/// Which are required follows SPEC.md 1.1.0, section 2. (The reference library also insists on `CNI_PATH` for ADD,
/// DEL, CHECK and STATUS, where the specification has it optional.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnvironment {
    /// Attach.
    Add(AttachmentCall<PathBuf>),
    /// Verify an attachment.
    Check(AttachmentCall<PathBuf>),
    /// Detach; the namespace may be gone, and then is not named.
    Del(AttachmentCall<Option<PathBuf>>),
    /// Collect garbage.
    Gc,
    /// Report readiness.
    Status,
    /// Report versions.
    Version,
}

/// The parameters of a call about one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentCall<N> {
    /// The container and the interface inside it.
    pub attachment: Attachment,
    /// `CNI_NETNS`, an absolute path.
    pub netns: N,
    /// `CNI_ARGS`.
    pub args: CniArgs,
    /// `CNI_NETNS_OVERRIDE`: accept the plugin's own namespace as the container's.
    pub netns_override: bool,
}

impl CallEnvironment {
    /// Reads a call through `look_up`, which gives the value of a variable. An empty value counts as missing.
    ///
    /// Every variable that is missing is named in one error.
    pub fn read(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let mut variables = Variables { look_up, missing: Vec::new() };
        let Some(command) = variables.optional("CNI_COMMAND") else {
            return Err(missing(&["CNI_COMMAND"]));
        };
        match Command::parse(&command)? {
            Command::Add => Ok(Self::Add(variables.attachment_with_netns()?)),
            Command::Check => Ok(Self::Check(variables.attachment_with_netns()?)),
            Command::Del => {
                let mut call = variables.attachment()?;
                call.netns = variables.netns()?;
                // Nothing that a runtime adds to the arguments later may keep a pod's addresses taken.
                call.args = variables.args().unwrap_or_default();
                Ok(Self::Del(call))
            }
            Command::Gc => match variables.required("CNI_PATH") {
                Some(_) => Ok(Self::Gc),
                None => Err(missing(&variables.missing)),
            },
            Command::Status => Ok(Self::Status),
            Command::Version => Ok(Self::Version),
        }
    }

    /// The verb.
    #[must_use]
    pub const fn command(&self) -> Command {
        match self {
            Self::Add(_) => Command::Add,
            Self::Check(_) => Command::Check,
            Self::Del(_) => Command::Del,
            Self::Gc => Command::Gc,
            Self::Status => Command::Status,
            Self::Version => Command::Version,
        }
    }

    /// The attachment that the call is about, if it is about one.
    #[must_use]
    pub const fn attachment(&self) -> Option<&Attachment> {
        match self {
            Self::Add(call) | Self::Check(call) => Some(&call.attachment),
            Self::Del(call) => Some(&call.attachment),
            Self::Gc | Self::Status | Self::Version => None,
        }
    }
}

/// Looks variables up, and remembers which required ones were missing.
struct Variables<F> {
    look_up: F,
    missing: Vec<&'static str>,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn optional(&self, variable: &str) -> Option<String> {
        (self.look_up)(variable).filter(|value| !value.is_empty())
    }

    fn required(&mut self, variable: &'static str) -> Option<String> {
        let value = self.optional(variable);
        if value.is_none() {
            self.missing.push(variable);
        }
        value
    }

    fn attachment_with_netns(&mut self) -> Result<AttachmentCall<PathBuf>, CniError> {
        // Looked up before the identity is checked, so that all that is missing is named together.
        if self.optional("CNI_NETNS").is_none() {
            self.missing.push("CNI_NETNS");
        }
        let call = self.attachment()?;
        let netns = self.netns()?.ok_or_else(|| missing(&["CNI_NETNS"]))?;
        Ok(AttachmentCall {
            attachment: call.attachment,
            netns,
            args: self.args()?,
            netns_override: call.netns_override,
        })
    }

    fn attachment(&mut self) -> Result<AttachmentCall<Option<PathBuf>>, CniError> {
        let container_id = self.required("CNI_CONTAINERID");
        let ifname = self.required("CNI_IFNAME");
        let (Some(container_id), Some(ifname)) = (container_id, ifname) else {
            return Err(missing(&self.missing));
        };
        if !self.missing.is_empty() {
            return Err(missing(&self.missing));
        }
        let container_id = ContainerId::new(container_id)
            .map_err(|reason| invalid(format!("`CNI_CONTAINERID` {reason}")))?;
        let ifname = LinkName::new(ifname).map_err(|reason| invalid(format!("`CNI_IFNAME`: {reason}")))?;
        let netns_override = self
            .optional("CNI_NETNS_OVERRIDE")
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
        Ok(AttachmentCall {
            attachment: Attachment::new(container_id, ifname),
            netns: None,
            args: CniArgs::default(),
            netns_override,
        })
    }

    fn netns(&self) -> Result<Option<PathBuf>, CniError> {
        let Some(path) = self.optional("CNI_NETNS") else {
            return Ok(None);
        };
        if path.starts_with('/') && path.len() < PATH_MAX && !path.contains('\0') {
            return Ok(Some(PathBuf::from(path)));
        }
        Err(invalid(format!(
            "`CNI_NETNS` is {}: give the absolute path of a network namespace, shorter than {PATH_MAX} bytes",
            quoted(&path)
        )))
    }

    fn args(&self) -> Result<CniArgs, CniError> {
        CniArgs::parse(&self.optional("CNI_ARGS").unwrap_or_default())
    }
}

fn missing(variables: &[&str]) -> CniError {
    let names: Vec<String> = variables.iter().map(|variable| format!("`{variable}`")).collect();
    invalid(format!("missing in the environment: {}; the runtime must set each", names.join(", ")))
}

fn invalid(msg: String) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, msg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(variables: &[(&str, &str)]) -> Result<CallEnvironment, CniError> {
        CallEnvironment::read(|wanted| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        })
    }

    const COMPLETE: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "4f1d"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_PATH", "/b"),
    ];

    fn with(
        command: &'static str,
        change: Option<(&'static str, &'static str)>,
    ) -> Result<CallEnvironment, CniError> {
        let mut variables = vec![("CNI_COMMAND", command)];
        variables.extend(change);
        variables.extend(COMPLETE);
        read(&variables)
    }

    #[test]
    fn every_verb_is_read_from_a_complete_environment() {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
            let environment = with(command, None).unwrap();
            assert_eq!(environment.command().as_str(), command);
            let about_one = matches!(command, "ADD" | "DEL" | "CHECK");
            assert_eq!(environment.attachment().is_some(), about_one);
        }
    }

    #[test]
    fn everything_missing_is_named_at_once() {
        let missing = |command| {
            let error = read(&[("CNI_COMMAND", command), ("CNI_CONTAINERID", "")]).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidEnvironment);
            error.msg
        };
        insta::assert_snapshot!(missing("ADD"), @"missing in the environment: `CNI_NETNS`, `CNI_CONTAINERID`, `CNI_IFNAME`; the runtime must set each");
        insta::assert_snapshot!(missing("CHECK"), @"missing in the environment: `CNI_NETNS`, `CNI_CONTAINERID`, `CNI_IFNAME`; the runtime must set each");
        insta::assert_snapshot!(missing("DEL"), @"missing in the environment: `CNI_CONTAINERID`, `CNI_IFNAME`; the runtime must set each");
        insta::assert_snapshot!(missing("GC"), @"missing in the environment: `CNI_PATH`; the runtime must set each");
        insta::assert_snapshot!(read(&[]).unwrap_err(), @"missing in the environment: `CNI_COMMAND`; the runtime must set each");
        assert_eq!(read(&[("CNI_COMMAND", "STATUS")]), Ok(CallEnvironment::Status));
        assert_eq!(read(&[("CNI_COMMAND", "VERSION")]), Ok(CallEnvironment::Version));
    }

    #[test]
    fn del_needs_no_namespace_and_bears_any_argument() {
        let environment = read(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "4f1d"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "nonsense"),
        ]);
        let Ok(CallEnvironment::Del(call)) = environment else { panic!("{environment:?}") };
        assert_eq!(call.netns, None);
        assert_eq!(call.attachment.to_string(), "4f1d:eth0");
    }

    #[test]
    fn each_wrong_variable_is_named() {
        for (variable, value) in [
            ("CNI_CONTAINERID", "../x"),
            ("CNI_IFNAME", "a-name-of-16-byt"),
            ("CNI_NETNS", "netns/a"),
            ("CNI_ARGS", "FOO=1"),
        ] {
            let error = with("ADD", Some((variable, value))).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidEnvironment);
            assert!(error.msg.contains(variable), "{error}");
        }
        assert!(with("NOP", None).unwrap_err().msg.contains("`NOP`"));
    }

    #[test]
    fn only_one_or_true_overrides_the_namespace_check() {
        for (value, expected) in [("1", true), ("TRUE", true), ("0", false), ("yes", false)] {
            let environment = with("ADD", Some(("CNI_NETNS_OVERRIDE", value)));
            let Ok(CallEnvironment::Add(call)) = environment else { panic!("{environment:?}") };
            assert_eq!(call.netns_override, expected);
        }
    }

    proptest! {
        #[test]
        fn no_environment_panics(values in prop::collection::vec(prop::option::of(".{0,20}"), 6), verb in 0..6usize) {
            let verb = ["ADD", "DEL", "CHECK", "GC", "STATUS", "x"][verb];
            let _ = CallEnvironment::read(|variable| match variable {
                "CNI_COMMAND" => Some(verb.to_owned()),
                other => values[other.len() % values.len()].clone(),
            });
        }
    }
}

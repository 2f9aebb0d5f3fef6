//! The container runtime, where the agent may ask it which pods it has.

use serde::{Deserialize, Serialize};

use super::{Interval, SettingsError};

/// Whom to ask, and when to act upon the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuntimeSettings {
    /// Path of its CRI socket; nobody is asked when absent.
    pub socket: Option<String>,
    /// How old an attachment must be whose sandbox the runtime does not know: it lists one only after its ADD.
    pub grace_period: Interval,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self { socket: None, grace_period: Interval::of_seconds(120) }
    }
}

impl RuntimeSettings {
    pub(super) fn faults(&self) -> Vec<SettingsError> {
        let bad = self
            .socket
            .iter()
            .filter(|path| !path.starts_with('/') || path.split('/').any(|part| part == ".."));
        bad.map(|path| SettingsError {
            field: "runtime.socket".to_owned(),
            value: path.chars().take(64).flat_map(char::escape_default).collect(),
            remedy: "give an absolute path without `unix://`, such as /run/containerd/containerd.sock"
                .to_owned(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_no_path_is_refused_with_the_remedy() {
        let settings = RuntimeSettings {
            socket: Some("unix:///run/containerd/containerd.sock".to_owned()),
            ..RuntimeSettings::default()
        };
        let faults = settings.faults();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains("without `unix://`"), "{}", faults[0]);
        assert!(RuntimeSettings::default().faults().is_empty());
    }
}

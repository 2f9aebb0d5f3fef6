//! What the scenario of DHCP found.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What servers, agents and nodes went through.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DhcpReport {
    /// One after the other.
    pub trials: Vec<Trial>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// `server-down`, ….
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What was not as it must be.
    pub error: Option<String>,
}

impl Trial {
    pub(super) fn new(name: &str, took: Duration, error: Option<String>) -> Self {
        Self { name: name.to_owned(), ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), error }
    }
}

impl DhcpReport {
    /// Whether all ended as they must.
    #[must_use]
    pub fn ok(&self) -> bool {
        !self.trials.is_empty() && self.trials.iter().all(|trial| trial.error.is_none())
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Trial { name, ms, error } in &self.trials {
            // Writing to a String cannot fail.
            let _ = match error {
                None => writeln!(text, "✓ {name}  {ms} ms"),
                Some(error) => writeln!(text, "✗ {name}  {ms} ms: {error}"),
            };
        }
        text
    }
}

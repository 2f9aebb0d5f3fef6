//! What one user asked of the API server, by the server's own audit log: nothing that anybody says of himself.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Outcome, TierError};

/// A log that holds the beginning of each of one user's requests.
#[derive(Clone, Debug)]
pub struct AuditLog {
    policy: PathBuf,
    log: PathBuf,
}

/// How many requests of each verb (`watch`, `list`, `get`, `create`, `patch`, …) there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<String, u64>);

impl AuditLog {
    /// Writes the policy by which an API server logs what `user` begins, and where to.
    pub fn prepare(state: &Path, logs: &Path, user: &str) -> Outcome<Self> {
        let policy = serde_json::json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
            // A watch is over after minutes only: it counts when it is begun.
            "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"],
            "rules": [{"level": "Metadata", "users": [user]}, {"level": "None"}],
        });
        let path = state.join("audit-policy.json");
        fs::write(&path, policy.to_string()).map_err(TierError::io(format!("write {}", path.display())))?;
        Ok(Self { policy: path, log: logs.join("audit.log") })
    }

    /// The API server's flags.
    #[must_use]
    pub fn flags(&self) -> [String; 2] {
        [
            format!("--audit-policy-file={}", self.policy.display()),
            format!("--audit-log-path={}", self.log.display()),
        ]
    }

    /// What was begun until now.
    pub fn requests(&self) -> Outcome<Requests> {
        let text = match fs::read_to_string(&self.log) {
            Ok(text) => text,
            // The API server makes it with the first line.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(TierError::io(format!("read {}", self.log.display()))(error)),
        };
        Requests::parse(&text)
    }
}

/// The part of a line that matters here.
#[derive(Deserialize)]
struct Line {
    verb: String,
}

impl Requests {
    fn parse(log: &str) -> Outcome<Self> {
        let mut requests = Self::default();
        // The last line may be half-written.
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Line { verb } = serde_json::from_str(line)
                .map_err(|error| TierError::Wrong(format!("the audit log has a line `{line}`: {error}")))?;
            *requests.0.entry(verb).or_default() += 1;
        }
        Ok(requests)
    }

    /// Those since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let new = self.0.iter().filter_map(|(verb, count)| {
            let before = earlier.0.get(verb).copied().unwrap_or_default();
            (*count > before).then(|| (verb.clone(), count - before))
        });
        Self(new.collect())
    }

    /// Those that change something.
    #[must_use]
    pub fn writes(&self) -> u64 {
        let reads = ["get", "list", "watch"];
        self.0.iter().filter(|(verb, _)| !reads.contains(&verb.as_str())).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let each: Vec<_> = self.0.iter().map(|(verb, count)| format!("{verb} {count}")).collect();
        f.write_str(&each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_verb_and_a_half_line_is_none_yet() {
        let line =
            |verb: &str| format!(r#"{{"kind":"Event","stage":"RequestReceived","verb":"{verb}"}}"#) + "\n";
        let early = Requests::parse(&(line("watch") + &line("get"))).unwrap();
        let late = line("watch") + &line("get") + &line("patch") + &line("get") + r#"{"verb":"pa"#;
        let late = Requests::parse(&late).unwrap();
        assert_eq!(late.to_string(), "get 2, patch 1, watch 1");
        let new = late.since(&early);
        assert_eq!((new.to_string().as_str(), new.writes(), early.writes()), ("get 1, patch 1", 1, 0));
        assert_eq!(late.since(&late).to_string(), "none");
        assert!(Requests::parse("nonsense\n").is_err());
    }
}

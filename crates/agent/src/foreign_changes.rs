//! What was changed that is not ours, with the value before it, so that `uninstall` can put it back
//! (docs/foreign-changes.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use node_network::plan::{ForwardRuleChange, SysctlChange};
use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, FileError};

/// A few sysctls and rules.
const MAX_BYTES: u64 = 1 << 20;

/// The record of foreign changes. Each value is saved before the first change, and never again.
#[derive(Debug)]
pub(crate) struct ForeignChanges {
    path: PathBuf,
    saved: Saved,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    schema_version: u32,
    /// Path below `/proc/sys`, and what was there before our first change.
    #[serde(default)]
    sysctls: BTreeMap<String, SavedSysctl>,
    /// Chains in which rules of ours were put; before, there were none.
    #[serde(default)]
    forward_chains: std::collections::BTreeSet<String>,
}

/// A sysctl's value before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSysctl {
    pub(crate) before: String,
    pub(crate) ours: String,
}

impl ForeignChanges {
    /// Reads the record; one that is torn (a power loss) is begun anew.
    pub(crate) fn load(path: PathBuf) -> Result<Self, FileError> {
        let bytes = atomic_file::read(&path, MAX_BYTES)?;
        let saved = bytes.and_then(|bytes| match serde_json::from_slice(&bytes) {
            Ok(saved) => Some(saved),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the record of foreign changes is damaged; begun anew");
                None
            }
        });
        let empty = Saved {
            schema_version: 1,
            sysctls: BTreeMap::new(),
            forward_chains: std::collections::BTreeSet::new(),
        };
        Ok(Self { path, saved: saved.unwrap_or(empty) })
    }

    /// To be called before a sysctl is written.
    pub(crate) fn sysctl(&mut self, change: &SysctlChange) -> Result<(), FileError> {
        let key = change.sysctl.path();
        if self.saved.sysctls.contains_key(&key) {
            return Ok(());
        }
        let saved = SavedSysctl { before: change.from.clone(), ours: change.to.to_owned() };
        self.saved.sysctls.insert(key, saved);
        self.store()
    }

    /// To be called before a rule is put into somebody's chain.
    pub(crate) fn forward_rule(&mut self, change: &ForwardRuleChange) -> Result<(), FileError> {
        let ForwardRuleChange::Insert { place, .. } = change else { return Ok(()) };
        let chain = format!("{} {} {}", place.family, place.table, place.position.chain_name());
        if self.saved.forward_chains.insert(chain) { self.store() } else { Ok(()) }
    }

    /// The sysctls that were changed, in the order in which they are put back: forwarding off before `accept_ra`.
    pub(crate) fn sysctls(&self) -> impl Iterator<Item = (&String, &SavedSysctl)> {
        let (accept_ra, others): (Vec<_>, Vec<_>) =
            self.saved.sysctls.iter().partition(|(key, _)| key.ends_with("/accept_ra"));
        others.into_iter().chain(accept_ra)
    }

    fn store(&self) -> Result<(), FileError> {
        let mut bytes = serde_json::to_vec_pretty(&self.saved)
            .map_err(|error| FileError::new("write", &self.path, error.into()))?;
        bytes.push(b'\n');
        atomic_file::replace(&self.path, &bytes, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_network::desired::Sysctl;

    fn change(from: &str) -> SysctlChange {
        SysctlChange { sysctl: Sysctl::Ipv4Forward, from: from.to_owned(), to: "1" }
    }

    #[test]
    fn the_value_before_the_first_change_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign-changes.json");
        let mut changes = ForeignChanges::load(path.clone()).unwrap();
        changes.sysctl(&change("0")).unwrap();
        changes.sysctl(&change("7")).unwrap();
        let read = ForeignChanges::load(path).unwrap();
        let saved: Vec<_> =
            read.sysctls().map(|(key, saved)| (key.as_str(), saved.before.as_str())).collect();
        assert_eq!(saved, [("net/ipv4/ip_forward", "0")]);
    }

    #[test]
    fn a_torn_record_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign-changes.json");
        std::fs::write(&path, "").unwrap();
        assert_eq!(ForeignChanges::load(path).unwrap().sysctls().count(), 0);
    }
}

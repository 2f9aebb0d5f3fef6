//! What was changed that is not ours, with the value before it, so that `uninstall` can put it back
//! (docs/foreign-changes.md).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use node_network::plan::{AllowedIpsChange, ForwardRuleChange, SysctlChange};
use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, FileError};

/// A few sysctls and rules.
const MAX_BYTES: u64 = 1 << 20;

/// The record of foreign changes. Each value is saved before the first change since the node was started, and never
/// again: after a reboot the values are the kernel's, or the administrator's choice, and what was saved is history.
#[derive(Debug)]
pub(crate) struct ForeignChanges {
    path: PathBuf,
    boot_id: String,
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
    /// CNI configurations that were written: another setting gives another file.
    #[serde(default)]
    conflists: std::collections::BTreeSet<PathBuf>,
    /// What WireGuard peers were allowed. A reboot makes their links anew.
    #[serde(default)]
    allowed_ips: std::collections::BTreeSet<SavedAllowedIp>,
}

/// An addition to the AllowedIPs of a WireGuard peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SavedAllowedIp {
    pub(crate) link: String,
    /// The peer's public key in Base64.
    pub(crate) peer: String,
    pub(crate) pod_cidr: ipnet::IpNet,
    boot_id: String,
}

/// A sysctl's value before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSysctl {
    pub(crate) before: String,
    pub(crate) ours: String,
    /// `/proc/sys/kernel/random/boot_id` at that time.
    #[serde(default)]
    boot_id: String,
}

impl ForeignChanges {
    /// Reads the record; one that is torn (a power loss) is begun anew. `boot_id` is the kernel's of now.
    pub(crate) fn load(path: PathBuf, boot_id: String) -> Result<Self, FileError> {
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
            conflists: std::collections::BTreeSet::new(),
            allowed_ips: std::collections::BTreeSet::new(),
        };
        Ok(Self { path, boot_id, saved: saved.unwrap_or(empty) })
    }

    /// To be called before a sysctl is written.
    pub(crate) fn sysctl(&mut self, change: &SysctlChange) -> Result<(), FileError> {
        let key = change.sysctl.path();
        if self.saved.sysctls.get(&key).is_some_and(|saved| saved.boot_id == self.boot_id) {
            return Ok(());
        }
        let (before, ours) = (change.from.clone(), change.to.to_owned());
        let saved = SavedSysctl { before, ours, boot_id: self.boot_id.clone() };
        self.saved.sysctls.insert(key, saved);
        self.store()
    }

    /// To be called before a rule is put into somebody's chain.
    pub(crate) fn forward_rule(&mut self, change: &ForwardRuleChange) -> Result<(), FileError> {
        let ForwardRuleChange::Insert { place, .. } = change else { return Ok(()) };
        let chain = format!("{} {} {}", place.family, place.table, place.position.chain_name());
        if self.saved.forward_chains.insert(chain) { self.store() } else { Ok(()) }
    }

    /// To be called before a WireGuard peer is allowed a node's pods.
    pub(crate) fn allowed_ip(&mut self, change: &AllowedIpsChange) -> Result<(), FileError> {
        let saved = SavedAllowedIp {
            link: change.link_name.clone(),
            peer: change.peer.to_string(),
            pod_cidr: change.pod_cidr,
            boot_id: self.boot_id.clone(),
        };
        if self.saved.allowed_ips.insert(saved) { self.store() } else { Ok(()) }
    }

    /// What WireGuard peers were allowed since the node was started.
    pub(crate) fn allowed_ips(&self) -> impl Iterator<Item = &SavedAllowedIp> {
        self.saved.allowed_ips.iter().filter(|saved| saved.boot_id == self.boot_id)
    }

    /// To be called before a CNI configuration is written.
    pub(crate) fn conflist(&mut self, path: &Path) -> Result<(), FileError> {
        if self.saved.conflists.insert(path.to_owned()) { self.store() } else { Ok(()) }
    }

    /// To be called after a CNI configuration was removed.
    pub(crate) fn forget_conflist(&mut self, path: &Path) -> Result<(), FileError> {
        if self.saved.conflists.remove(path) { self.store() } else { Ok(()) }
    }

    /// The CNI configurations that were written and not removed.
    pub(crate) fn conflists(&self) -> impl Iterator<Item = &PathBuf> {
        self.saved.conflists.iter()
    }

    /// The sysctls that were changed since the node was started, in the order in which they are put back: forwarding off before `accept_ra`.
    pub(crate) fn sysctls(&self) -> impl Iterator<Item = (&String, &SavedSysctl)> {
        let (accept_ra, others): (Vec<_>, Vec<_>) =
            self.of_this_boot().partition(|(key, _)| key.ends_with("/accept_ra"));
        others.into_iter().chain(accept_ra)
    }

    fn of_this_boot(&self) -> impl Iterator<Item = (&String, &SavedSysctl)> {
        self.saved.sysctls.iter().filter(|(_, saved)| saved.boot_id == self.boot_id)
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
        let mut changes = ForeignChanges::load(path.clone(), "boot 1".to_owned()).unwrap();
        changes.sysctl(&change("0")).unwrap();
        changes.sysctl(&change("7")).unwrap();
        let read = ForeignChanges::load(path, "boot 1".to_owned()).unwrap();
        let saved: Vec<_> =
            read.sysctls().map(|(key, saved)| (key.as_str(), saved.before.as_str())).collect();
        assert_eq!(saved, [("net/ipv4/ip_forward", "0")]);
    }

    #[test]
    fn what_was_saved_before_a_reboot_is_not_put_back_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign-changes.json");
        let boot = |n: &str| ForeignChanges::load(path.clone(), format!("boot {n}")).unwrap();
        boot("1").sysctl(&change("0")).unwrap();
        // The administrator may have chosen our value since.
        assert_eq!(boot("2").sysctls().count(), 0);
        boot("2").sysctl(&change("7")).unwrap();
        let second = boot("2");
        let saved: Vec<_> = second.sysctls().map(|(_, saved)| saved.before.as_str()).collect();
        assert_eq!(saved, ["7"]);
    }

    #[test]
    fn a_torn_record_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign-changes.json");
        std::fs::write(&path, "").unwrap();
        assert_eq!(ForeignChanges::load(path, String::new()).unwrap().sysctls().count(), 0);
    }
}

//! Where the agent's files are, each below `--root`.

use std::path::{Path, PathBuf};

/// Every path that the agent uses. `/proc` is the kernel's, not a file of this node, and is never prefixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
    sysctls: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Paths {
    /// Paths below `root`, which must be absolute. The plugin is told the same paths, because it runs on the same node.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), sysctls: PathBuf::from("/proc/sys") }
    }

    /// Network settings are written below `sysctls` instead of `/proc/sys`, which a container that is not privileged
    /// sees read-only: it has the node's mounted elsewhere.
    #[must_use]
    pub fn with_sysctls(self, sysctls: impl Into<PathBuf>) -> Self {
        Self { sysctls: sysctls.into(), ..self }
    }

    /// Where `net/…` of the node's `/proc/sys` can be written.
    #[must_use]
    pub fn sysctls(&self) -> &Path {
        &self.sysctls
    }

    /// `path`, which is absolute on the node, below the root; one that is below the root already stays.
    #[must_use]
    pub fn on_node(&self, path: &Path) -> PathBuf {
        if path.starts_with(&self.root) {
            return path.to_owned();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The operator's settings.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.on_node(Path::new("/etc/hostgw/config.yaml"))
    }

    /// What does not survive a reboot.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.on_node(Path::new("/run/hostgw"))
    }

    /// Records of the attached pods.
    #[must_use]
    pub fn ipam_dir(&self) -> PathBuf {
        self.run_dir().join("ipam")
    }

    /// The file without which the plugin's STATUS fails.
    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        self.run_dir().join("ready")
    }

    /// What the last pass found and did.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.run_dir().join("state.json")
    }

    /// What survives a reboot.
    #[must_use]
    pub fn var_dir(&self) -> PathBuf {
        self.on_node(Path::new("/var/lib/hostgw"))
    }

    /// What DHCP servers lend to this node's pods.
    #[must_use]
    pub fn lease_dir(&self) -> PathBuf {
        self.var_dir().join("leases")
    }

    /// The peers as the API last told them.
    #[must_use]
    pub fn peers_file(&self) -> PathBuf {
        self.var_dir().join("peers.json")
    }

    /// Values before our changes to what is not ours.
    #[must_use]
    pub fn foreign_changes_file(&self) -> PathBuf {
        self.var_dir().join("foreign-changes.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_below_the_root_once() {
        let paths = Paths::below("/host");
        assert_eq!(paths.state_file(), Path::new("/host/run/hostgw/state.json"));
        assert_eq!(paths.on_node(Path::new("/etc/x")), Path::new("/host/etc/x"));
        assert_eq!(paths.on_node(Path::new("/host/etc/x")), Path::new("/host/etc/x"));
        assert_eq!(Paths::default().on_node(Path::new("/etc/x")), Path::new("/etc/x"));
    }
}

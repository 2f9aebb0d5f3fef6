//! Control groups of the nodes' own, below ours: kubelet and runc make theirs inside, and all go with the tier.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Outcome, TierError};
use crate::wait::{Seen, wait_for};

/// Where hierarchies are mounted.
const MOUNTS: &str = "/sys/fs/cgroup";
/// What kubelet and runc need of version 1.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];

/// What a node must mount anew inside its namespaces, relative to [`MOUNTS`], with the mount's options.
#[must_use]
pub fn mounts_of_version_1() -> Vec<(String, String)> {
    let mut mounts: Vec<_> =
        CONTROLLERS.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect();
    mounts.push(("systemd".to_owned(), "none,name=systemd".to_owned()));
    mounts
}

/// Refuses a machine whose controllers are not each in a hierarchy of its own (version 1), the only way that this tier
/// knows so far.
pub fn check_version_1() -> Outcome {
    let missing = CONTROLLERS.iter().find(|name| !Path::new(MOUNTS).join(name).join("cgroup.procs").exists());
    missing.map_or(Ok(()), |name| {
        Err(TierError::Environment(format!(
            "{MOUNTS}/{name} is no version 1 hierarchy of control groups: start the kernel with \
             systemd.unified_cgroup_hierarchy=0, or run on a machine that has them"
        )))
    })
}

/// A node's groups.
#[derive(Clone, Debug)]
pub struct Groups {
    folders: Vec<PathBuf>,
}

impl Groups {
    /// Makes groups called `name` below `parent`, which is a name too.
    pub fn create(parent: &str, name: &str) -> Outcome<Self> {
        let failed = |folder: &Path| TierError::io(format!("make control group {}", folder.display()));
        let mut folders = Vec::new();
        for own in own_folders()? {
            let group = own.join(parent).join(name);
            fs::create_dir_all(&group).map_err(failed(&group))?;
            // A new cpuset is empty, and nothing can run in it.
            for folder in [&own.join(parent), &group] {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let (above, here) = (own.join(file), folder.join(file));
                    if above.exists() {
                        fs::read(&above).and_then(|value| fs::write(&here, value)).map_err(failed(folder))?;
                    }
                }
            }
            folders.push(group);
        }
        Ok(Self { folders })
    }

    /// Where a process is written that is to be in the node's groups before it unshares its view of them.
    #[must_use]
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }
}

/// Removes all groups of the tier with this name: their processes must have ended.
pub fn remove(parent: &str) -> Outcome {
    for own in own_folders()? {
        let folder = own.join(parent);
        wait_for(&format!("the end of control group {}", folder.display()), Duration::from_secs(60), || {
            remove_tree(&folder);
            Ok(if folder.exists() { Seen::NotYet("it has processes".to_owned()) } else { Seen::Yes(()) })
        })?;
    }
    Ok(())
}

/// Groups of tiers that were killed before they could remove them.
#[must_use]
pub fn leftovers(prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = own_folders()
        .unwrap_or_default()
        .iter()
        .filter_map(|own| fs::read_dir(own).ok())
        .flat_map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()))
        .filter(|name| name.starts_with(prefix))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A group's files cannot be removed, and vanish with it.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Our own group in each hierarchy.
fn own_folders() -> Outcome<Vec<PathBuf>> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(TierError::io("read /proc/self/cgroup"))?;
    Ok(folders_of(&own))
}

fn folders_of(own: &str) -> Vec<PathBuf> {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let name = controllers.trim_start_matches("name=");
            let folder = match name {
                "" => "unified",
                name if name == "systemd" || CONTROLLERS.contains(&name) => name,
                _ => return None,
            };
            let folder = Path::new(MOUNTS).join(folder);
            folder.exists().then(|| folder.join(path.trim_start_matches('/')))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hierarchy_that_is_not_mounted_has_no_folder() {
        assert!(folders_of("12:net_cls,net_prio:/\n13:nothing:/x\n").is_empty());
    }
}

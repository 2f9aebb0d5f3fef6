//! What an interface was like before, in a file of the reference plugin's format until DEL; ours also say whose network it
//! is, for GC.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cni_spec::{Attachment, CniError, MacAddress, NetworkName, TuningConf};
use kernel::link::{ALL_MULTICAST, Link};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::failure::io_failed;

/// The largest file that is read, in bytes: ours have some hundred.
const MAX_LEN: u64 = 64 << 10;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backup {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(default, skip_serializing_if = "is_zero")]
    mtu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(rename = "txQLen", skip_serializing_if = "Option::is_none")]
    tx_queue_len: Option<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    network: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
const fn is_zero(mtu: &u32) -> bool {
    *mtu == 0
}

impl Backup {
    /// What the configuration is about to change.
    pub(super) fn of(link: &Link, conf: &TuningConf) -> Self {
        let mac = || link.mac.and_then(|mac| MacAddress::new(mac).ok()).map(|mac| mac.to_string());
        Self {
            mac: conf.mac.and_then(|_| mac()).unwrap_or_default(),
            promisc: conf.promisc.then_some(link.promiscuity != 0),
            mtu: conf.mtu.map_or(0, |_| link.mtu),
            allmulti: conf.allmulti.map(|_| link.flags & ALL_MULTICAST != 0),
            tx_queue_len: conf.tx_queue_len.map(|_| link.tx_queue_len),
            network: conf.base.name.to_string(),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            mac: self.mac.parse().ok(),
            promisc: self.promisc,
            mtu: (self.mtu != 0).then_some(self.mtu),
            allmulti: self.allmulti,
            tx_queue_len: self.tx_queue_len,
        }
    }

    /// Keeps what is there: an ADD that is made again finds the interface as the first one left it.
    pub(super) fn write(&self, folder: &Path, attachment: &Attachment) -> Result<(), CniError> {
        let path = path(folder, attachment);
        if Self::read_file(&path).is_some() {
            return Ok(());
        }
        let failed =
            |error: &io::Error| io_failed(&format!("write `dataDir` file {}", path.display()), error);
        fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(&error.into()))?;
        // Beside first, so that no half of it is ever read.
        let beside = path.with_extension("json.new");
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| io::Write::write_all(&mut file, &json))
            .and_then(|()| fs::rename(&beside, &path));
        written.map_err(|error| {
            fs::remove_file(&beside).ok();
            failed(&error)
        })
    }

    pub(super) fn read(folder: &Path, attachment: &Attachment) -> Option<Self> {
        Self::read_file(&path(folder, attachment))
    }

    /// One that is empty or no JSON says nothing, as for the reference plugin.
    fn read_file(path: &Path) -> Option<Self> {
        let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
        if length > MAX_LEN {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

fn path(folder: &Path, attachment: &Attachment) -> PathBuf {
    folder.join(format!("{}_{}.json", attachment.container_id(), attachment.ifname()))
}

/// Removes the file; one that is gone is well.
pub(super) fn remove(folder: &Path, attachment: &Attachment) -> Result<(), CniError> {
    remove_file(&path(folder, attachment))
}

fn remove_file(path: &Path) -> Result<(), CniError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_failed(&format!("remove `dataDir` file {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Removes the files of the network's attachments that are not valid. Those of the reference plugin do not say whose they
/// are, and are left.
pub(super) fn collect(folder: &Path, network: &NetworkName, valid: &[Attachment]) -> Result<(), CniError> {
    let kept: BTreeSet<PathBuf> = valid.iter().map(|attachment| path(folder, attachment)).collect();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| !kept.contains(path)) {
        if Backup::read_file(&path).is_some_and(|backup| backup.network == network.as_str()) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_reference_plugin_are_read_and_broken_ones_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let attachment: Attachment = "c:eth0".parse().unwrap();
        let write = |text: &str| fs::write(folder.path().join("c_eth0.json"), text).unwrap();
        write("{\n \"mac\": \"c2:11:22:33:44:55\",\n \"promisc\": false,\n \"mtu\": 1500\n}");
        let settings = Backup::read(folder.path(), &attachment).unwrap().settings();
        assert_eq!((settings.promisc, settings.mtu, settings.allmulti), (Some(false), Some(1500), None));
        assert_eq!(settings.mac.unwrap().to_string(), "c2:11:22:33:44:55");
        for broken in ["", "{", "[]", "{\"mtu\":-1}"] {
            write(broken);
            assert_eq!(Backup::read(folder.path(), &attachment), None, "{broken}");
        }
    }

    #[test]
    fn the_first_backup_is_kept_and_gc_removes_only_its_networks() {
        let folder = tempfile::tempdir().unwrap();
        let attachment = |id: &str| -> Attachment { format!("{id}:eth0").parse().unwrap() };
        let backup = |mtu, network: &str| Backup { mtu, network: network.to_owned(), ..Backup::default() };
        backup(1400, "n").write(folder.path(), &attachment("a")).unwrap();
        backup(1300, "n").write(folder.path(), &attachment("a")).unwrap();
        assert_eq!(Backup::read(folder.path(), &attachment("a")).unwrap().mtu, 1400);
        backup(1, "n").write(folder.path(), &attachment("b")).unwrap();
        backup(1, "other").write(folder.path(), &attachment("c")).unwrap();
        fs::write(folder.path().join("d_eth0.json"), r#"{"mtu":1500}"#).unwrap();
        collect(folder.path(), &NetworkName::new("n").unwrap(), &[attachment("a")]).unwrap();
        let is_there = |id| Backup::read(folder.path(), &attachment(id)).is_some();
        assert_eq!(["a", "b", "c", "d"].map(is_there), [true, false, true, true]);
    }
}

//! The same for the next boot: the configuration of the program that configures the link, changed so that it makes the bridge.
//! The changes are texts, shown before they are written; files are written when the move is settled, and a leave puts back
//! what was there.

mod diff;
mod ifupdown;
mod netplan;
mod network_manager;
mod networkd;

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::configured_by::Program;
use crate::error::UplinkError;
use crate::plan::NewBridge;

pub use diff::diff;

/// Far more than any configuration needs.
const MAX_FILES: usize = 256;

/// A file as it is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its path on the node.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// A file that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// Its path on the node.
    pub path: PathBuf,
    /// What is there; none where there is no such file.
    pub before: Option<String>,
    /// What shall be there; none where there shall be no such file.
    pub after: Option<String>,
}

/// Changes below a root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Files {
    /// `/`, or where a container has the host's.
    pub root: PathBuf,
    /// Each file.
    pub changes: Vec<FileChange>,
}

/// Why there is no proposal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersistError {
    /// No program that could be changed configures the link.
    #[error(
        "--persist: {link} is configured by {program}, whose files are not known here: leave the option out, and write them yourself"
    )]
    Unknown {
        /// The link.
        link: String,
        /// Who.
        program: String,
    },
    /// The file that configures the link was not found, or is written in a way that is not understood.
    #[error("--persist: {place}: {problem}: change the file yourself, and leave the option out")]
    NotUnderstood {
        /// The file or folder.
        place: String,
        /// What is odd.
        problem: String,
    },
}

impl PersistError {
    fn odd(place: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::NotUnderstood { place: place.as_ref().display().to_string(), problem: problem.into() }
    }
}

/// What a program's configuration becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Each file.
    pub changes: Vec<FileChange>,
    /// How the program's own checker is asked, where it has one.
    pub check: Option<&'static str>,
    /// What makes the program take over, once the move is confirmed.
    pub take_over: &'static str,
}

/// Drop-ins of a `.network` file add to it (`systemd.network(5)`), and would stay with the link.
fn refuse_drop_ins(root: &Path, file: &Path) -> Result<(), UplinkError> {
    let Some(name) = file.file_name().map(|name| format!("{}.d", name.to_string_lossy())) else {
        return Ok(());
    };
    for folder in ["/etc", "/run", "/usr/local/lib", "/usr/lib"] {
        let folder = format!("{folder}/systemd/network/{name}");
        if !read_folder(root, &folder, "conf")?.is_empty() {
            return Err(
                PersistError::odd(folder, "it has drop-ins of the link's file, which are not moved").into()
            );
        }
    }
    Ok(())
}

/// Reads the files that matter, and proposes what they become.
pub fn propose(
    root: &Path,
    program: Option<&Program>,
    link: &str,
    bridge: &NewBridge,
) -> Result<Proposal, UplinkError> {
    let proposal = match program {
        Some(Program::Networkd { file: Some(file), .. }) => {
            let text = read(root, file)?;
            refuse_drop_ins(root, file)?;
            Proposal {
                changes: networkd::change(&ConfigFile { path: file.clone(), text }, link, bridge)?,
                check: None,
                take_over: "networkctl reload",
            }
        }
        Some(Program::Netplan { .. }) => Proposal {
            changes: netplan::change(&read_folder(root, "/etc/netplan", "yaml")?, link, bridge)?,
            check: Some("netplan generate"),
            take_over: "netplan apply",
        },
        Some(Program::NetworkManager { connection: Some(uuid) }) => {
            let files = read_folder(root, "/etc/NetworkManager/system-connections", "nmconnection")?;
            Proposal {
                changes: network_manager::change(&files, uuid, link, bridge)?,
                check: Some("nmcli --offline connection modify connection.autoconnect yes < FILE"),
                take_over: "nmcli connection reload",
            }
        }
        Some(Program::Ifupdown { .. }) => {
            let mut files = vec![ConfigFile {
                path: PathBuf::from("/etc/network/interfaces"),
                text: read(root, Path::new("/etc/network/interfaces"))?,
            }];
            files.extend(read_folder(root, "/etc/network/interfaces.d", "")?);
            Proposal {
                changes: ifupdown::change(&files, link, bridge)?,
                check: Some("ifquery --list --interfaces /etc/network/interfaces"),
                take_over: "the next boot (it needs the package bridge-utils)",
            }
        }
        other => {
            let program = other.map_or_else(|| "nobody".to_owned(), ToString::to_string);
            return Err(PersistError::Unknown { link: link.to_owned(), program }.into());
        }
    };
    Ok(proposal)
}

fn on_node(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn read(root: &Path, path: &Path) -> Result<String, UplinkError> {
    let path = on_node(root, path);
    fs::read_to_string(&path).map_err(|error| UplinkError::file("read", &path, error))
}

/// The files of a folder, by name; an `ending` that is empty takes names without one.
fn read_folder(root: &Path, folder: &str, ending: &str) -> Result<Vec<ConfigFile>, UplinkError> {
    let at = on_node(root, Path::new(folder));
    let entries = match fs::read_dir(&at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(UplinkError::file("read", &at, error)),
        Ok(entries) => entries,
    };
    let fits = |path: &Path| path.extension().map_or("", |found| found.to_str().unwrap_or("?")) == ending;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| fits(path)).collect();
    names.sort();
    names.truncate(MAX_FILES);
    let file = |path: PathBuf| {
        let text = fs::read_to_string(&path).map_err(|error| UplinkError::file("read", &path, error))?;
        let name = path.file_name().unwrap_or_default();
        Ok(ConfigFile { path: Path::new(folder).join(name), text })
    };
    names.into_iter().map(file).collect()
}

impl Files {
    /// Writes what shall be there. What was there is kept beside it as `….hostgw-before`. Where one file cannot be written,
    /// or somebody changed it since it was read, those before it are put back.
    pub(crate) fn write(&self) -> Result<(), UplinkError> {
        for (done, change) in self.changes.iter().enumerate() {
            if let Err(error) = write(&self.root, change) {
                let undo = reversed(&self.changes[..done]);
                // The error that is told is the first.
                undo.iter().for_each(|change| drop(write(&self.root, change)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The other way round.
    pub(crate) fn reversed(&self) -> Self {
        Self { root: self.root.clone(), changes: reversed(&self.changes) }
    }
}

fn write(root: &Path, change: &FileChange) -> Result<(), UplinkError> {
    let path = on_node(root, &change.path);
    let now = fs::read_to_string(&path).ok();
    if now == change.after {
        return Ok(());
    }
    if now != change.before {
        let reason = "it was changed since it was read: it is left as it is";
        return Err(UplinkError::file("write", &path, io::Error::other(reason)));
    }
    replace(&path, change).map_err(|error| UplinkError::file("write", &path, error))
}

fn replace(path: &Path, change: &FileChange) -> io::Result<()> {
    let beside = |ending: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        path.with_file_name(name)
    };
    // NetworkManager takes only files that nobody else can read.
    let mode = fs::metadata(path).map_or(0o600, |found| found.permissions().mode() & 0o777);
    let mode = if change.path.starts_with("/etc/systemd/network") { 0o644 } else { mode };
    if path.exists() {
        fs::copy(path, beside(".hostgw-before"))?;
    }
    let Some(after) = &change.after else { return fs::remove_file(path) };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = beside(".hostgw-new");
    let mut file = fs::File::options().create(true).write(true).truncate(true).mode(mode).open(&new)?;
    io::Write::write_all(&mut file, after.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

fn reversed(changes: &[FileChange]) -> Vec<FileChange> {
    let reverse = |change: &FileChange| FileChange {
        path: change.path.clone(),
        before: change.after.clone(),
        after: change.before.clone(),
    };
    changes.iter().rev().map(reverse).collect()
}

/// An Ethernet address as all of these programs write it.
fn mac_text(bridge: &NewBridge) -> String {
    bridge.mac.map(|byte| format!("{byte:02x}")).join(":")
}

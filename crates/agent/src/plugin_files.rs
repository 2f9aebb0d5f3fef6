//! The plugin in the container runtime's folder of programs: put there, and what it took the place of put back.
//!
//! Whole at every instant: a runtime may execute a name while it is being replaced, and a `kill -9` anywhere leaves what
//! the next install or uninstall brings to its end.

mod bin_folder;
mod manifest;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::atomic_file::{self, FileError};
use crate::paths::Paths;
use crate::pods::Records;
use bin_folder::{BinFolder, Holder};
use manifest::Digest;

/// What CNI configurations call the plugin.
const PROGRAM: &str = "hostgw";
/// Which containerd executes for each pod, besides the network's plugins. Often nothing else brings it.
const LOOPBACK: &str = "loopback";
/// No program of ours comes near.
const PROGRAM_MAX: u64 = 64 << 20;
/// Programs of the system, among which `bridge` is iproute2's. A runtime's plugins have a folder of their own.
const SYSTEM_FOLDERS: [&str; 6] =
    ["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
/// Changes with the meaning of [`PluginFiles`].
const SCHEMA_VERSION: u32 = 1;

/// Why a folder of plugins was left as it was, or is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PluginFilesError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder holds what is not understood; nothing was changed.
    #[error("refused to change {}: {why}", folder.display())]
    Refused {
        /// The runtime's folder of plugins.
        folder: PathBuf,
        /// What is wrong with it, and the remedy.
        why: String,
    },
}

/// What became of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAction {
    /// It is ours now, and was ours or nobody's before.
    Installed,
    /// It is ours now; what was there is kept.
    Replaced,
    /// It was as it should be.
    UpToDate,
    /// It is somebody else's, and stays.
    LeftAlone,
    /// What had been kept is there again.
    Restored,
    /// Ours is gone; nothing had been there before.
    Removed,
}

impl FileAction {
    const fn words(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Replaced => "replaced, and kept what was there:",
            Self::UpToDate => "up to date:",
            Self::LeftAlone => "left alone, it is not ours:",
            Self::Restored => "put back what was there before:",
            Self::Removed => "removed",
        }
    }
}

/// One name in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PluginFile {
    /// The plugin, which is the file's name.
    pub name: String,
    /// What became of it.
    pub action: FileAction,
}

/// What was done to a folder of plugins, as `hostgw cni install` and `uninstall` print it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginFiles {
    schema_version: u32,
    /// The runtime's folder of plugins.
    pub folder: PathBuf,
    /// Each name that is ours, or was to be.
    pub files: Vec<PluginFile>,
}

impl PluginFiles {
    fn new(folder: &Path) -> Self {
        Self { schema_version: SCHEMA_VERSION, folder: folder.to_owned(), files: Vec::new() }
    }

    fn note(&mut self, name: &str, action: FileAction) {
        self.files.push(PluginFile { name: name.to_owned(), action });
    }
}

impl fmt::Display for PluginFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PluginFile { name, action } in &self.files {
            writeln!(f, "{} {}", action.words(), self.folder.join(name).display())?;
        }
        Ok(())
    }
}

/// Installs the program `from` in the folder `to`: as `hostgw`; as `loopback`, where nobody else's is there; and under
/// the names of `drop_ins`, whatever is there. What is replaced is kept, and what an earlier install replaced and this
/// one does not name is put back.
pub fn install(from: &Path, to: &Path, drop_ins: &BTreeSet<String>) -> Result<PluginFiles, PluginFilesError> {
    let program = read_program(from)?;
    if is_system_folder(to) {
        let why =
            "it holds the system's programs: name the runtime's folder of plugins, such as /opt/cni/bin";
        return Err(refused(to, why));
    }
    let names: BTreeSet<&str> =
        [PROGRAM, LOOPBACK].into_iter().chain(drop_ins.iter().map(String::as_str)).collect();
    let mut folder = BinFolder::create(to)?;
    folder.must_hold_files(names.iter().copied())?;
    let digest = Digest::of(&program);
    // Written before the first change: whatever is ours from here on is known to be.
    folder.intend(&digest, &names)?;
    let mut done = PluginFiles::new(to);
    for name in folder.given_names().into_iter().filter(|name| !names.contains(name.as_str())) {
        folder.give_back(&name, &mut done)?;
    }
    put_program(&folder, &program, &digest, &mut done)?;
    let mut held = BTreeSet::from([PROGRAM]);
    for name in names.into_iter().filter(|name| *name != PROGRAM) {
        let action = put_link(&folder, name, drop_ins.contains(name))?;
        if action != FileAction::LeftAlone {
            held.insert(name);
        }
        done.note(name, action);
    }
    folder.settle(&digest, &held)?;
    Ok(done)
}

/// Takes the plugin out of `folder`, and puts back what it had replaced. A name that somebody else has taken since stays.
pub fn uninstall(folder: &Path) -> Result<PluginFiles, PluginFilesError> {
    let mut done = PluginFiles::new(folder);
    let Some(found) = BinFolder::find(folder)? else { return Ok(done) };
    // The program last: files of an install without manifest are known by being the same as it.
    let (links, program): (Vec<_>, Vec<_>) =
        found.given_names().into_iter().partition(|name| name.as_str() != PROGRAM);
    for name in links.iter().chain(&program) {
        found.give_back(name, &mut done)?;
    }
    found.forget()?;
    Ok(done)
}

/// How many pods of this node have a record: their DEL executes the plugin.
#[must_use]
pub fn recorded_pods(paths: &Paths) -> usize {
    Records::read(&paths.ipam_dir()).entries.len()
}

fn read_program(from: &Path) -> Result<Vec<u8>, FileError> {
    let missing = || FileError::new("read", from, io::ErrorKind::NotFound.into());
    let program = atomic_file::read(from, PROGRAM_MAX)?.ok_or_else(missing)?;
    if is_program(&program) {
        return Ok(program);
    }
    Err(FileError::new("install", from, io::Error::other("it is no program")))
}

fn is_program(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

fn is_system_folder(folder: &Path) -> bool {
    let resolved = folder.canonicalize();
    let folder = resolved.as_deref().unwrap_or(folder);
    SYSTEM_FOLDERS.iter().any(|system| folder == Path::new(system))
}

fn refused(folder: &Path, why: impl Into<String>) -> PluginFilesError {
    PluginFilesError::Refused { folder: folder.to_owned(), why: why.into() }
}

fn put_program(
    folder: &BinFolder,
    program: &[u8],
    digest: &Digest,
    done: &mut PluginFiles,
) -> Result<(), PluginFilesError> {
    let action = if folder.is_executable_of(PROGRAM, digest)? {
        FileAction::UpToDate
    } else {
        let replaced = folder.holder(PROGRAM)? == Holder::Foreign;
        if replaced {
            folder.keep(PROGRAM)?;
        }
        atomic_file::replace(&folder.path_of(PROGRAM), program, 0o755)?;
        if replaced { FileAction::Replaced } else { FileAction::Installed }
    };
    done.note(PROGRAM, action);
    Ok(())
}

fn put_link(folder: &BinFolder, name: &str, is_drop_in: bool) -> Result<FileAction, PluginFilesError> {
    let holder = folder.holder(name)?;
    if holder == Holder::Ours && folder.is_link_to(name, PROGRAM) {
        return Ok(FileAction::UpToDate);
    }
    if holder == Holder::Foreign {
        if !is_drop_in {
            return Ok(FileAction::LeftAlone);
        }
        folder.keep(name)?;
    }
    atomic_file::replace_by_link(&folder.path_of(PROGRAM), &folder.path_of(name))?;
    Ok(if holder == Holder::Foreign { FileAction::Replaced } else { FileAction::Installed })
}

#[cfg(test)]
mod tests;

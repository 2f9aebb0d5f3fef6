//! A container runtime's folder of plugins: who holds which name, and what is kept of others.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::manifest::{Digest, Manifest};
use super::{FileAction, PROGRAM, PROGRAM_MAX, PluginFiles, PluginFilesError, is_program, refused};
use crate::atomic_file::{self, FileError};

/// Ours in the folder of plugins. Runtimes execute by name, and no plugin's name begins with a dot.
const STATE: &str = ".hostgw";
/// Below it: what was replaced, each under its name.
const KEPT: &str = "kept";
const MANIFEST: &str = "manifest.json";

/// Who holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Ours,
    Foreign,
}

/// The folder, held for as long as this lives: two installs at once are done one after the other.
#[derive(Debug)]
pub(super) struct BinFolder {
    path: PathBuf,
    manifest: Manifest,
    _lock: File,
}

impl BinFolder {
    /// Opens the folder, which is made if need be.
    pub(super) fn create(path: &Path) -> Result<Self, PluginFilesError> {
        fs::create_dir_all(path).map_err(|source| FileError::new("create folder", path, source))?;
        Self::open(path)
    }

    /// Opens the folder if there is one.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, PluginFilesError> {
        if path.exists() { Self::open(path).map(Some) } else { Ok(None) }
    }

    fn open(path: &Path) -> Result<Self, PluginFilesError> {
        if !path.is_dir() {
            return Err(refused(path, "it is no folder"));
        }
        let lock = File::open(path).and_then(|folder| folder.lock().map(|()| folder));
        let lock = lock.map_err(|source| FileError::new("lock", path, source))?;
        let state = path.join(STATE);
        let manifest = Manifest::read(path, &state.join(MANIFEST))?;
        let mut folder = Self { path: path.to_owned(), manifest, _lock: lock };
        for name in folder.kept_names()? {
            if !our_names().any(|ours| ours == name) && !folder.manifest.names.contains(&name) {
                let why = format!(
                    "{}/{name} is nothing that hostgw keeps: move it away",
                    folder.kept_folder().display()
                );
                return Err(refused(path, why));
            }
        }
        folder.recognise_earlier_install()?;
        Ok(folder)
    }

    /// No other plugin is called as ours is: what has that name, and files that are the same, came by an install that
    /// left no manifest, or by hand.
    fn recognise_earlier_install(&mut self) -> Result<(), PluginFilesError> {
        let Some(digest) = self.digest(PROGRAM)? else { return Ok(()) };
        self.manifest.programs.insert(digest);
        for name in our_names() {
            if self.holder(name)? == Holder::Ours {
                self.manifest.names.insert(name.to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn kept_folder(&self) -> PathBuf {
        self.path.join(STATE).join(KEPT)
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.kept_folder().join(name)
    }

    fn kept_names(&self) -> Result<BTreeSet<String>, FileError> {
        let mut names = names_in(&self.kept_folder())?;
        names.retain(|name| !atomic_file::is_temporary(name.as_ref()));
        Ok(names)
    }

    /// Names that ours was given, or for which something is kept.
    pub(super) fn given_names(&self) -> BTreeSet<String> {
        self.manifest.names.union(&self.kept_names().unwrap_or_default()).cloned().collect()
    }

    /// Refuses names behind which is neither a file nor a symbolic link.
    pub(super) fn must_hold_files<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), PluginFilesError> {
        for name in names {
            let Ok(found) = fs::symlink_metadata(self.path_of(name)) else { continue };
            let kind = found.file_type();
            if kind.is_dir()
                || kind.is_fifo()
                || kind.is_socket()
                || kind.is_block_device()
                || kind.is_char_device()
            {
                return Err(refused(&self.path, format!("{name} is there and is no file: move it away")));
            }
        }
        Ok(())
    }

    /// Says in the manifest what is about to be ours, besides what is already.
    pub(super) fn intend(&mut self, digest: &Digest, names: &BTreeSet<&str>) -> Result<(), PluginFilesError> {
        self.remove_half_written()?;
        self.manifest.programs.insert(digest.clone());
        self.manifest.names.extend(names.iter().map(|&name| name.to_owned()));
        self.manifest.write(&self.path.join(STATE).join(MANIFEST))
    }

    /// Says in the manifest what is ours now.
    pub(super) fn settle(&mut self, digest: &Digest, names: &BTreeSet<&str>) -> Result<(), PluginFilesError> {
        self.manifest.programs = BTreeSet::from([digest.clone()]);
        self.manifest.names = names.iter().map(|&name| name.to_owned()).collect();
        self.manifest.write(&self.path.join(STATE).join(MANIFEST))
    }

    /// Who holds a name. A symbolic link is never ours.
    pub(super) fn holder(&self, name: &str) -> Result<Holder, FileError> {
        let path = self.path_of(name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(source) => return Err(FileError::new("read", &path, source)),
            Ok(_) => {}
        }
        let ours = self.digest(name)?.is_some_and(|digest| self.manifest.programs.contains(&digest));
        Ok(if ours { Holder::Ours } else { Holder::Foreign })
    }

    /// What the program of this name is; `None` where there is none.
    fn digest(&self, name: &str) -> Result<Option<Digest>, FileError> {
        let path = self.path_of(name);
        let is_file = fs::symlink_metadata(&path)
            .is_ok_and(|found| found.file_type().is_file() && found.len() <= PROGRAM_MAX);
        if !is_file {
            return Ok(None);
        }
        let program = atomic_file::read(&path, PROGRAM_MAX)?.filter(|bytes| is_program(bytes));
        Ok(program.map(|bytes| Digest::of(&bytes)))
    }

    /// Whether the name is an executable file of these contents.
    pub(super) fn is_executable_of(&self, name: &str, digest: &Digest) -> Result<bool, FileError> {
        let executable =
            fs::symlink_metadata(self.path_of(name)).is_ok_and(|file| file.mode() & 0o777 == 0o755);
        Ok(executable && self.digest(name)?.as_ref() == Some(digest))
    }

    /// Whether two names are one file.
    pub(super) fn is_link_to(&self, name: &str, other: &str) -> bool {
        let identity = identity(&self.path_of(name));
        identity.is_some() && identity == self::identity(&self.path_of(other))
    }

    /// Keeps what holds `name` now, which stays where it is; it takes the place of what was kept before.
    pub(super) fn keep(&self, name: &str) -> Result<(), FileError> {
        let folder = self.kept_folder();
        fs::create_dir_all(&folder).map_err(|source| FileError::new("create folder", &folder, source))?;
        atomic_file::replace_by_link(&self.path_of(name), &self.kept(name))
    }

    /// Makes `name` what it was before it was ours.
    pub(super) fn give_back(&self, name: &str, done: &mut PluginFiles) -> Result<(), PluginFilesError> {
        let (path, kept) = (self.path_of(name), self.kept(name));
        let is_kept = identity(&kept).is_some();
        match self.holder(name)? {
            // Kept, and never replaced: the install was killed in between.
            Holder::Foreign if is_kept && identity(&path) == identity(&kept) => {
                atomic_file::remove(&kept)?;
            }
            Holder::Foreign => {
                // Whoever installed it since has made what was kept obsolete.
                atomic_file::remove(&kept)?;
                done.note(name, FileAction::LeftAlone);
            }
            Holder::Nobody | Holder::Ours if is_kept => {
                atomic_file::move_over(&kept, &path)?;
                done.note(name, FileAction::Restored);
            }
            Holder::Ours => {
                atomic_file::remove(&path)?;
                done.note(name, FileAction::Removed);
            }
            Holder::Nobody => {}
        }
        Ok(())
    }

    /// Removes what tells of us.
    pub(super) fn forget(&self) -> Result<(), PluginFilesError> {
        self.remove_half_written()?;
        let state = self.path.join(STATE);
        atomic_file::remove(&state.join(MANIFEST))?;
        for folder in [self.kept_folder(), state] {
            match fs::remove_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FileError::new("remove", &folder, source).into()),
            }
        }
        Ok(())
    }

    fn remove_half_written(&self) -> Result<(), FileError> {
        for folder in [self.path.clone(), self.path.join(STATE), self.kept_folder()] {
            for name in names_in(&folder)?.iter().filter(|name| atomic_file::is_temporary(name.as_ref())) {
                atomic_file::remove(&folder.join(name))?;
            }
        }
        Ok(())
    }
}

/// Every name that ours can be given.
fn our_names() -> impl Iterator<Item = &'static str> {
    cni_plugins::DROP_IN_NAMES.into_iter().chain([PROGRAM])
}

/// Names in a folder, of which none are there if it is not.
fn names_in(folder: &Path) -> Result<BTreeSet<String>, FileError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other,
    };
    let names = entries.and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
    });
    names.map_err(|source| FileError::new("list", folder, source))
}

/// Which file it is: hard links of one file are equal.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

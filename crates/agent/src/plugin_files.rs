//! Putting the plugin where the container runtime looks for it, whole at every instant: a runtime may execute it while
//! it is being replaced.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::atomic_file::{self, FileError};

/// What CNI configurations call the plugin.
const NAME: &str = "hostgw";
/// Which containerd executes for each pod, besides the network's plugins. Often nothing else brings it.
const LOOPBACK: &str = "loopback";
/// No program of ours comes near.
const PROGRAM_MAX: u64 = 64 << 20;

/// What [`install`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Files that were written or linked.
    pub written: Vec<PathBuf>,
    /// Files that were as they should be.
    pub kept: Vec<PathBuf>,
    /// Files of somebody else that have one of our names, and were left alone.
    pub foreign: Vec<PathBuf>,
}

/// Installs the program `from` as `to/hostgw`, and as `to/loopback` where nobody else's is there.
pub fn install(from: &Path, to: &Path) -> Result<Installed, FileError> {
    let mut installed = Installed::default();
    let missing = || FileError::new("read", from, io::ErrorKind::NotFound.into());
    let program = atomic_file::read(from, PROGRAM_MAX)?.ok_or_else(missing)?;
    if !program.starts_with(b"\x7fELF") {
        return Err(FileError::new("install", from, io::Error::other("it is no program")));
    }
    let plugin = to.join(NAME);
    let loopback = to.join(LOOPBACK);
    // Asked before the replacement, after which the link of an earlier install leads to a file of its own.
    let before = (identity(&plugin), identity(&loopback));
    if is_same(&plugin, &program)? {
        installed.kept.push(plugin.clone());
    } else {
        atomic_file::replace(&plugin, &program, 0o755)?;
        installed.written.push(plugin.clone());
    }
    match before {
        (plugin_before, Some(loopback_before)) if plugin_before != Some(loopback_before) => {
            let list =
                if is_same(&loopback, &program)? { &mut installed.kept } else { &mut installed.foreign };
            list.push(loopback);
        }
        (_, Some(linked)) if identity(&plugin) == Some(linked) => installed.kept.push(loopback),
        _ => {
            atomic_file::replace_by_link(&plugin, &loopback)?;
            installed.written.push(loopback);
        }
    }
    Ok(installed)
}

/// Whether `path` is an executable file of these contents.
fn is_same(path: &Path, program: &[u8]) -> Result<bool, FileError> {
    let executable = fs::metadata(path).is_ok_and(|file| file.mode() & 0o777 == 0o755);
    Ok(executable && atomic_file::read(path, PROGRAM_MAX)?.is_some_and(|found| found == program))
}

/// Which file it is: hard links of one file are equal.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        folder: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        fn bin(&self) -> PathBuf {
            self.folder.path().join("bin")
        }

        fn install(&self, version: &str) -> Result<Installed, FileError> {
            let from = self.folder.path().join("hostgw-cni");
            fs::write(&from, format!("\x7fELF{version}")).unwrap();
            install(&from, &self.bin())
        }
    }

    #[test]
    fn an_upgrade_replaces_both_names_and_a_second_install_writes_nothing() {
        let folder = Folder::new();
        assert_eq!(folder.install("1").unwrap().written.len(), 2);
        assert_eq!(
            folder.install("1").unwrap(),
            Installed {
                kept: vec![folder.bin().join("hostgw"), folder.bin().join("loopback")],
                ..Installed::default()
            }
        );
        assert_eq!(folder.install("2").unwrap().written.len(), 2);
        assert_eq!(fs::read(folder.bin().join("loopback")).unwrap(), b"\x7fELF2");
        assert_eq!(fs::read_dir(folder.bin()).unwrap().count(), 2);
    }

    #[test]
    fn a_loopback_plugin_of_somebody_else_stays() {
        let folder = Folder::new();
        fs::create_dir(folder.bin()).unwrap();
        fs::write(folder.bin().join("loopback"), "theirs").unwrap();
        for version in ["1", "2"] {
            assert_eq!(folder.install(version).unwrap().foreign, [folder.bin().join("loopback")]);
        }
        assert_eq!(fs::read(folder.bin().join("loopback")).unwrap(), b"theirs");
    }

    #[test]
    fn a_plugin_that_can_still_be_executed_while_it_is_replaced_is_another_file() {
        let folder = Folder::new();
        folder.install("1").unwrap();
        let before = identity(&folder.bin().join("hostgw"));
        folder.install("2").unwrap();
        assert_ne!(identity(&folder.bin().join("hostgw")), before);
    }

    #[test]
    fn what_is_no_program_is_not_installed() {
        let folder = Folder::new();
        let from = folder.folder.path().join("script");
        fs::write(&from, "#!/bin/sh").unwrap();
        assert!(install(&from, &folder.bin()).unwrap_err().to_string().contains("no program"));
        assert!(install(&folder.folder.path().join("none"), &folder.bin()).is_err());
        assert!(!folder.bin().exists());
    }
}

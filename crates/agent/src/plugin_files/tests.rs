//! Install, upgrade, fewer names, others' files, and the way back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(folder.bin()).unwrap();
        folder
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    /// A plugin of somebody else.
    fn holds(&self, name: &str, content: &str) {
        let path = self.bin().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn try_install(&self, version: &str, drop_ins: &[&str]) -> Result<PluginFiles, PluginFilesError> {
        let from = self.folder.path().join("hostgw-cni");
        fs::write(&from, format!("\x7fELF{version}")).unwrap();
        install(&from, &self.bin(), &drop_ins.iter().map(|&name| name.to_owned()).collect())
    }

    fn install(&self, version: &str, drop_ins: &[&str]) -> BTreeMap<String, FileAction> {
        actions(self.try_install(version, drop_ins).unwrap())
    }

    fn uninstall(&self) -> BTreeMap<String, FileAction> {
        actions(uninstall(&self.bin()).unwrap())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.bin().join(name)).unwrap()
    }

    /// Every file of the folder, below it too.
    fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.bin()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                let content = match entry.file_type().unwrap() {
                    kind if kind.is_dir() => {
                        folders.push(path.clone());
                        "folder".to_owned()
                    }
                    kind if kind.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
                    _ => fs::read_to_string(&path).unwrap(),
                };
                files.insert(path, content);
            }
        }
        files
    }

    fn inode(&self, name: &str) -> u64 {
        fs::symlink_metadata(self.bin().join(name)).unwrap().ino()
    }
}

fn actions(done: PluginFiles) -> BTreeMap<String, FileAction> {
    done.files.into_iter().map(|file| (file.name, file.action)).collect()
}

fn expected<const N: usize>(actions: [(&str, FileAction); N]) -> BTreeMap<String, FileAction> {
    actions.into_iter().map(|(name, action)| (name.to_owned(), action)).collect()
}

#[test]
fn an_upgrade_replaces_every_name_and_a_second_install_writes_nothing() {
    use FileAction::{Installed, UpToDate};
    let folder = Folder::new();
    assert_eq!(folder.install("1", &[]), expected([("hostgw", Installed), ("loopback", Installed)]));
    assert_eq!(folder.install("1", &[]), expected([("hostgw", UpToDate), ("loopback", UpToDate)]));
    let before = folder.inode("hostgw");
    assert_eq!(folder.install("2", &[]), expected([("hostgw", Installed), ("loopback", Installed)]));
    assert_eq!(folder.read("loopback"), "\x7fELF2");
    assert_eq!(folder.inode("loopback"), folder.inode("hostgw"));
    assert_ne!(folder.inode("hostgw"), before, "the file that is being executed was written to");
}

#[test]
fn a_loopback_plugin_of_somebody_else_stays_unless_it_is_asked_for() {
    let folder = Folder::new();
    folder.holds("loopback", "theirs");
    for version in ["1", "2"] {
        assert_eq!(folder.install(version, &[])["loopback"], FileAction::LeftAlone);
    }
    assert_eq!(folder.read("loopback"), "theirs");
    assert_eq!(folder.install("2", &["loopback"])["loopback"], FileAction::Replaced);
    assert_eq!(folder.read("loopback"), "\x7fELF2");
}

#[test]
fn what_was_replaced_comes_back_after_any_number_of_upgrades() {
    let folder = Folder::new();
    folder.holds("bridge", "their bridge");
    symlink("../multi-call", folder.bin().join("portmap")).unwrap();
    folder.holds("macvlan", "their macvlan");
    let before = folder.files();
    let done = folder.install("1", &["bridge", "portmap", "ptp"]);
    assert_eq!(done["bridge"], FileAction::Replaced);
    assert_eq!(done["portmap"], FileAction::Replaced);
    assert_eq!(done["ptp"], FileAction::Installed);
    folder.install("2", &["bridge", "portmap", "ptp"]);
    assert_eq!(folder.read("bridge"), "\x7fELF2");
    let done = folder.uninstall();
    assert_eq!(done["bridge"], FileAction::Restored);
    assert_eq!(done["portmap"], FileAction::Restored);
    assert_eq!(done["ptp"], FileAction::Removed);
    assert_eq!(folder.files(), before);
    assert_eq!(folder.uninstall(), expected([]));
}

#[test]
fn a_name_that_is_no_longer_asked_for_is_given_back() {
    let folder = Folder::new();
    folder.holds("bridge", "theirs");
    folder.install("1", &["bridge", "ptp"]);
    let done = folder.install("1", &[]);
    assert_eq!(done["bridge"], FileAction::Restored);
    assert_eq!(done["ptp"], FileAction::Removed);
    assert_eq!(folder.read("bridge"), "theirs");
}

#[test]
fn plugins_that_their_package_put_over_ours_are_kept_in_their_newest_form() {
    let folder = Folder::new();
    folder.holds("bridge", "theirs 1");
    folder.install("1", &["bridge"]);
    fs::remove_file(folder.bin().join("bridge")).unwrap();
    folder.holds("bridge", "theirs 2");
    assert_eq!(folder.install("1", &["bridge"])["bridge"], FileAction::Replaced);
    assert_eq!(folder.uninstall()["bridge"], FileAction::Restored);
    assert_eq!(folder.read("bridge"), "theirs 2");
}

#[test]
fn uninstall_leaves_what_somebody_else_has_put_there_since() {
    let folder = Folder::new();
    folder.holds("bridge", "theirs 1");
    folder.install("1", &["bridge"]);
    fs::remove_file(folder.bin().join("bridge")).unwrap();
    folder.holds("bridge", "theirs 2");
    assert_eq!(folder.uninstall()["bridge"], FileAction::LeftAlone);
    assert_eq!(folder.files(), BTreeMap::from([(folder.bin().join("bridge"), "theirs 2".to_owned())]));
}

#[test]
fn an_install_without_a_manifest_is_recognised() {
    let folder = Folder::new();
    folder.holds("hostgw", "\x7fELF1");
    fs::hard_link(folder.bin().join("hostgw"), folder.bin().join("loopback")).unwrap();
    fs::hard_link(folder.bin().join("hostgw"), folder.bin().join("host-local")).unwrap();
    let done = folder.install("2", &["host-local"]);
    assert!(done.values().all(|action| *action == FileAction::Installed), "{done:?}");
    folder.uninstall();
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[test]
fn uninstall_alone_knows_an_install_without_a_manifest() {
    let folder = Folder::new();
    folder.holds("hostgw", "\x7fELF1");
    fs::hard_link(folder.bin().join("hostgw"), folder.bin().join("loopback")).unwrap();
    folder.uninstall();
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[test]
fn a_folder_that_is_not_understood_is_left_as_it_is() {
    let refused = |prepare: fn(&Path), says: &str| {
        let folder = Folder::new();
        folder.holds("bridge", "theirs");
        prepare(&folder.bin());
        let before = folder.files();
        let error = folder.try_install("1", &["bridge", "ptp"]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(folder.files(), before);
    };
    refused(|bin| fs::create_dir(bin.join("ptp")).unwrap(), "ptp is there and is no file");
    refused(
        |bin| {
            fs::create_dir(bin.join(".hostgw")).unwrap();
            fs::write(bin.join(".hostgw/manifest.json"), r#"{"schemaVersion":9,"programs":[],"names":[]}"#)
                .unwrap();
        },
        "version 9",
    );
    refused(
        |bin| {
            fs::create_dir(bin.join(".hostgw")).unwrap();
            fs::write(
                bin.join(".hostgw/manifest.json"),
                r#"{"schemaVersion":1,"programs":[],"names":["../../etc/passwd"]}"#,
            )
            .unwrap();
        },
        "../../etc/passwd",
    );
    refused(
        |bin| {
            fs::create_dir_all(bin.join(".hostgw/kept")).unwrap();
            fs::write(bin.join(".hostgw/kept/notes.txt"), "").unwrap();
        },
        "notes.txt",
    );
    let error = install(&std::env::current_exe().unwrap(), Path::new("/usr/sbin"), &BTreeSet::new());
    assert!(matches!(error, Err(PluginFilesError::Refused { .. })), "{error:?}");
}

#[test]
fn what_is_no_program_is_not_installed() {
    let folder = Folder::new();
    let from = folder.folder.path().join("script");
    fs::write(&from, "#!/bin/sh").unwrap();
    let none = BTreeSet::new();
    assert!(install(&from, &folder.bin(), &none).unwrap_err().to_string().contains("no program"));
    assert!(install(&folder.folder.path().join("none"), &folder.bin(), &none).is_err());
    assert!(folder.files().is_empty());
}

#[test]
fn the_documents_of_both_verbs() {
    let folder = Folder::new();
    folder.holds("bridge", "theirs");
    folder.holds("loopback", "theirs");
    let mut installed = folder.try_install("1", &["bridge"]).unwrap();
    installed.folder = PathBuf::from("/opt/cni/bin");
    insta::assert_snapshot!(installed, @"
    installed /opt/cni/bin/hostgw
    replaced, and kept what was there: /opt/cni/bin/bridge
    left alone, it is not ours: /opt/cni/bin/loopback
    ");
    insta::assert_snapshot!(
        serde_json::to_string(&installed).unwrap(),
        @r#"{"schemaVersion":1,"folder":"/opt/cni/bin","files":[{"name":"hostgw","action":"installed"},{"name":"bridge","action":"replaced"},{"name":"loopback","action":"left-alone"}]}"#
    );
}

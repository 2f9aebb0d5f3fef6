//! `hostgw cni install` and `uninstall` as programs, and `kill -9` before each of their system calls that can change
//! anything: the runtime finds a whole plugin under every name at every instant, and the next call brings all to its end.
//! `HOSTGW_SWEEP=full` takes each of these boundaries, otherwise some.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "traced/mod.rs"]
mod traced;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use traced::{Sweep, Traced};

/// So many kills a sweep make a sample.
const SAMPLES: usize = 40;

const OLD: &str = "\x7fELF old";
const NEW: &str = "\x7fELF new";

/// A folder of the reference's plugins, and programs of ours to install.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(node.bin()).unwrap();
        write_program(&node.bin().join("bridge"), "their bridge");
        write_program(&node.bin().join("host-local"), "their host-local");
        symlink("bridge", node.bin().join("portmap")).unwrap();
        write_program(&node.path("old"), OLD);
        write_program(&node.path("new"), NEW);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bin(&self) -> PathBuf {
        self.path("bin")
    }

    fn install(&self, program: &str) -> Command {
        let mut command = hostgw(&["cni", "install", "--drop-in", "bridge,portmap,ptp", "-o", "json"]);
        command.arg("--to").arg(self.bin()).arg("--from").arg(self.path(program));
        command
    }

    fn uninstall(&self) -> Command {
        let mut command = hostgw(&["cni", "uninstall", "-o", "json"]);
        command.arg("--from").arg(self.bin()).arg("--root").arg(self.folder.path());
        command
    }

    /// Every entry of the folder, but for its inodes.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.bin()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                let kind = entry.file_type().unwrap();
                let content = if kind.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else if kind.is_dir() {
                    folders.push(path.clone());
                    "a folder".to_owned()
                } else {
                    let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                    format!("{mode:o} {}", fs::read_to_string(&path).unwrap())
                };
                files.insert(path.strip_prefix(self.bin()).unwrap().display().to_string(), content);
            }
        }
        files
    }

    /// Puts the folder back to what another node's holds.
    fn becomes(&self, other: &Self) {
        fs::remove_dir_all(self.bin()).unwrap();
        let copied = Command::new("cp").arg("-a").arg(other.bin()).arg(self.bin()).status().unwrap();
        assert!(copied.success());
    }
}

fn hostgw(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostgw"));
    command.args(arguments).stdin(std::process::Stdio::null());
    command
}

fn write_program(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_well(mut command: Command) -> serde_json::Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Kills `step` at every boundary, each time on a node that is as `start`; then calls it once more.
fn sweep(start: &Node, step: fn(&Node) -> Command) {
    let before = start.files();
    let node = Node::new();
    node.becomes(start);
    run_well(step(&node));
    let after = node.files();
    node.becomes(start);
    let sweep = Sweep::chosen();
    let every = sweep.takes_every_call();
    let survey = Traced::start(&mut step(&node));
    let boundaries = std::iter::from_fn(|| survey.step_to(every).then_some(())).count();
    drop(survey);
    assert!(boundaries > 10, "only {boundaries} boundaries: was it traced?");
    for at in sweep.of(boundaries, SAMPLES, before.len() as u64) {
        node.becomes(start);
        let traced = Traced::start(&mut step(&node));
        if (0..=at).any(|_| !traced.step_to(every)) {
            continue;
        }
        traced.kill();
        let now = node.files();
        for name in ["bridge", "host-local", "portmap"] {
            let whole = [&before, &after].iter().any(|files| files.get(name) == now.get(name));
            assert!(whole, "killed at boundary {at} ({sweep}): {name} is {:?}", now.get(name));
        }
        run_well(step(&node));
        assert_eq!(node.files(), after, "killed at boundary {at} of {boundaries}, and called again; {sweep}");
    }
}

#[test]
fn a_killed_install_is_brought_to_its_end_by_the_next() {
    sweep(&Node::new(), |node| node.install("new"));
}

#[test]
fn a_killed_upgrade_is_brought_to_its_end_by_the_next() {
    let start = Node::new();
    run_well(start.install("old"));
    sweep(&start, |node| node.install("new"));
}

#[test]
fn a_killed_uninstall_is_brought_to_its_end_by_the_next() {
    let start = Node::new();
    run_well(start.install("new"));
    sweep(&start, Node::uninstall);
}

#[test]
fn a_killed_install_can_be_taken_back_from_wherever_it_stood() {
    let node = Node::new();
    let before = node.files();
    for at in (0..).step_by(3) {
        let traced = Traced::start(&mut node.install("new"));
        let ended = (0..=at).any(|_| !traced.step_to(false));
        if !ended {
            traced.kill();
        }
        run_well(node.uninstall());
        assert_eq!(node.files(), before, "killed at boundary {at}");
        if ended {
            break;
        }
    }
}

#[test]
fn the_folder_is_as_before_after_install_and_uninstall_and_the_documents_say_what_was_done() {
    let node = Node::new();
    let before = node.files();
    let action = |document: &serde_json::Value, name: &str| {
        let files = document["files"].as_array().unwrap();
        files.iter().find(|file| file["name"] == name).map(|file| file["action"].as_str().unwrap().to_owned())
    };
    let installed = run_well(node.install("new"));
    assert_eq!(installed["schemaVersion"], 1);
    assert_eq!(action(&installed, "hostgw").as_deref(), Some("installed"));
    assert_eq!(action(&installed, "bridge").as_deref(), Some("replaced"));
    assert_eq!(action(&installed, "host-local"), None);
    let removed = run_well(node.uninstall());
    assert_eq!(action(&removed, "bridge").as_deref(), Some("restored"));
    assert_eq!(action(&removed, "hostgw").as_deref(), Some("removed"));
    assert_eq!(node.files(), before);
}

#[test]
fn unknown_names_are_usage_and_a_refused_folder_is_1() {
    let node = Node::new();
    let mut unknown = node.install("new");
    let output = unknown.args(["--drop-in", "macvlan"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("host-local"), "the known names are told");
    fs::create_dir(node.bin().join("ptp")).unwrap();
    let output = node.install("new").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("ptp is there and is no file: move it away"), "{error}");
}

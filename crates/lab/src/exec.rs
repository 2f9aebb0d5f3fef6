//! Running a command in a place of a kept lab.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::LabError;
use crate::place::PLACES;
use crate::registry::Entry;

/// Runs `command` in `place` (`node2`, `node2/pod1`, `outside`, `lan`) and gives its exit code; a command that a
/// signal ended has 128 and the signal's number, as in a shell.
///
/// The process must not have started a thread yet (`setns(2)`), and stays in the lab's namespaces.
pub fn exec(lab: &Entry, place: &str, command: &[OsString]) -> Result<u8, LabError> {
    if !lab.places.iter().any(|known| known == place) {
        return Err(LabError::NoSuchPlace {
            lab: lab.name.to_string(),
            place: place.to_owned(),
            places: lab.places.join(", "),
        });
    }
    let Some((program, arguments)) = command.split_first() else {
        let remedy = "give the command to run behind `--`".to_owned();
        return Err(LabError::Option { option: "the command", value: "empty".to_owned(), remedy });
    };
    enter_lab(lab.pid)?;
    if place != "lan" {
        enter_place(place)?;
    }
    rustix::process::chdir("/").map_err(LabError::call("enter the root folder"))?;
    let not_started =
        |source| LabError::NotStarted { program: program.clone(), place: place.to_owned(), source };
    let status = Command::new(program).args(arguments).status().map_err(not_started)?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Enters the namespaces of the lab's first process, whose network is the LAN's.
fn enter_lab(pid: i32) -> Result<(), LabError> {
    let folder = PathBuf::from(format!("/proc/{pid}/ns"));
    let mut namespaces = Vec::new();
    for (name, kind) in [
        ("user", LinkNameSpaceType::User),
        ("pid", LinkNameSpaceType::ProcessID),
        ("ipc", LinkNameSpaceType::InterProcessCommunication),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
        ("net", LinkNameSpaceType::Network),
        ("mnt", LinkNameSpaceType::Mount),
    ] {
        let path = folder.join(name);
        // A lab of root's has no user namespace of its own, and the kernel refuses to enter one that one is in.
        let identity = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
        if name == "user" && identity(&path) == identity(Path::new("/proc/self/ns/user")) {
            continue;
        }
        namespaces.push((open(&path)?, path, kind));
    }
    namespaces.into_iter().try_for_each(|(file, path, kind)| enter(&file, &path, kind))
}

/// Enters the namespaces of a place's thread. A pod has a network of its own, and shares all else with its node.
fn enter_place(place: &str) -> Result<(), LabError> {
    let node = place.split('/').next().unwrap_or(place);
    let note = Path::new(PLACES).join(node).join("thread");
    let thread = fs::read_to_string(&note).map_err(LabError::io(format!("read {}", note.display())))?;
    let of_thread = |kind: &str| PathBuf::from(format!("/proc/1/task/{thread}/ns/{kind}"));
    let network = if place == node { of_thread("net") } else { Path::new(PLACES).join(place).join("net") };
    let paths = [
        (network, LinkNameSpaceType::Network),
        (of_thread("uts"), LinkNameSpaceType::HostNameAndNISDomainName),
        (of_thread("mnt"), LinkNameSpaceType::Mount),
    ];
    let open: Vec<_> = paths.iter().map(|(path, _)| open(path)).collect::<Result<_, _>>()?;
    paths.iter().zip(open).try_for_each(|((path, kind), file)| enter(&file, path, *kind))
}

fn open(path: &Path) -> Result<File, LabError> {
    File::open(path).map_err(LabError::io(format!("open the namespace {}", path.display())))
}

fn enter(file: &File, path: &Path, kind: LinkNameSpaceType) -> Result<(), LabError> {
    move_into_link_name_space(file.as_fd(), Some(kind))
        .map_err(LabError::call(format!("enter the namespace {}", path.display())))
}

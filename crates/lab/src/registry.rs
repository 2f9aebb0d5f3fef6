//! Kept labs, one small file each in a folder that only this user writes. A file whose process is gone, or whose
//! process number went to another process, counts for nothing.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::launcher::end_process;
use crate::options::{Families, LabName, Mode};
use crate::report::Report;
use crate::{LabError, Options};

/// The file of an entry that is being written begins so, as the name of a lab cannot.
const HALF_WRITTEN: &str = ".";

/// A kept lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: LabName,
    /// Its first process.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (`/proc/PID/stat`, field 22): tells it from a later
    /// process with the same number.
    pub started: u64,
    /// How many nodes it has.
    pub nodes: u8,
    /// How many pods each node has.
    pub pods: u8,
    /// How pods are attached.
    pub mode: Mode,
    /// Which families it has.
    pub family: Families,
    /// Where commands can be run.
    pub places: Vec<String>,
}

/// The folder of entries.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: PathBuf,
    owner: u32,
}

impl Registry {
    /// That of the user who runs this process: `$XDG_RUNTIME_DIR/hostgw-lab`, `/run/hostgw-lab` for root, or
    /// `/tmp/hostgw-lab-UID`.
    #[must_use]
    pub fn of_this_user() -> Self {
        let owner = rustix::process::geteuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        // `su` and `sudo` may leave another user's variable behind.
        let usable = runtime.filter(|folder| fs::metadata(folder).is_ok_and(|found| found.uid() == owner));
        let folder = match usable {
            Some(runtime) => runtime.join("hostgw-lab"),
            // Root of a user namespace is not root of the machine: /run is not its own.
            None if owner == 0 && fs::metadata("/run").is_ok_and(|run| run.uid() == 0) => {
                PathBuf::from("/run/hostgw-lab")
            }
            None => PathBuf::from(format!("/tmp/hostgw-lab-{owner}")),
        };
        Self { folder, owner }
    }

    /// Every lab that runs; entries of labs that ended are removed.
    pub fn list(&self) -> Result<Vec<Entry>, LabError> {
        let failed = || LabError::io(format!("list {}", self.folder.display()));
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed()(error)),
        };
        match self.refuse_foreign_folder() {
            // The last lab has ended in between.
            Err(_) if !self.folder.exists() => return Ok(Vec::new()),
            fit => fit?,
        }
        let mut entries = Vec::new();
        for file in files {
            let file = file.map_err(failed())?;
            // One that somebody is writing this very moment; see `add`.
            if file.file_name().as_encoded_bytes().starts_with(HALF_WRITTEN.as_bytes()) {
                continue;
            }
            match read(&file.path()) {
                Some(entry) if start_time(entry.pid) == Some(entry.started) => entries.push(entry),
                _ => remove(&file.path())?,
            }
        }
        entries.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Ok(entries)
    }

    /// The lab of this name.
    pub fn find(&self, name: &str) -> Result<Entry, LabError> {
        let found = self.list()?.into_iter().find(|entry| entry.name.as_str() == name);
        found.ok_or_else(|| LabError::NoSuchLab { name: name.to_owned() })
    }

    /// Ends the lab of this name.
    pub fn down(&self, name: &str) -> Result<(), LabError> {
        let entry = self.find(name)?;
        if let Some(pid) = Pid::from_raw(entry.pid) {
            end_process(pid)?;
        }
        remove(&self.path(&entry.name))?;
        // Other labs' entries keep it.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    pub(crate) fn refuse_taken(&self, name: &LabName) -> Result<(), LabError> {
        match self.find(name.as_str()) {
            Ok(entry) => Err(LabError::NameTaken { name: entry.name.to_string() }),
            Err(LabError::NoSuchLab { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn add(&self, options: &Options, pid: u32, report: &Report) -> Result<(), LabError> {
        let pid = i32::try_from(pid).unwrap_or(i32::MAX);
        let failed = || LabError::io(format!("register the lab in {}", self.folder.display()));
        let mut places = vec!["lan".to_owned(), "outside".to_owned()];
        for node in &report.nodes {
            places.push(node.name.clone());
            places.extend(node.pods.iter().map(|pod| pod.name.clone()));
        }
        let entry = Entry {
            name: options.name.clone(),
            pid,
            started: start_time(pid).ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?,
            nodes: options.nodes,
            pods: options.pods,
            mode: options.mode,
            family: options.family,
            places,
        };
        let text = serde_json::to_vec_pretty(&entry).map_err(|error| failed()(error.into()))?;
        let half_written = self.folder.join(format!("{HALF_WRITTEN}{}", entry.name));
        loop {
            match DirBuilder::new().mode(0o700).create(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed()(error)),
                _ => {}
            }
            match self
                .refuse_foreign_folder()
                .and_then(|()| fs::write(&half_written, &text).map_err(failed()))
            {
                // Whoever ended the last lab but this has taken the folder away in between.
                Err(_) if !self.folder.exists() => {}
                written => break written?,
            }
        }
        fs::rename(&half_written, self.path(&entry.name)).map_err(failed())
    }

    fn path(&self, name: &LabName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// In `/tmp` anybody could have made the folder first, to have us signal processes of their choice.
    fn refuse_foreign_folder(&self) -> Result<(), LabError> {
        let attempted = format!(
            "use {}: it must be a folder that only user {} can write",
            self.folder.display(),
            self.owner
        );
        let found = fs::symlink_metadata(&self.folder).map_err(LabError::io(attempted.clone()))?;
        // Inside the lab's user namespace our own number is 0.
        let own = found.uid() == self.owner || found.uid() == rustix::process::geteuid().as_raw();
        if found.is_dir() && own && found.mode() & 0o022 == 0 {
            Ok(())
        } else {
            Err(LabError::io(attempted)(io::ErrorKind::PermissionDenied.into()))
        }
    }
}

/// Removes an entry; somebody else may have done so already.
fn remove(path: &Path) -> Result<(), LabError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::io(format!("remove {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Option<Entry> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Field 22 of `/proc/PID/stat`. The name in field 2 may hold anything, so fields are counted from its end.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(folder: &Path) -> Registry {
        Registry { folder: folder.to_owned(), owner: rustix::process::geteuid().as_raw() }
    }

    fn entry(pid: i32, started: u64) -> Entry {
        Entry {
            name: "one".parse().unwrap(),
            pid,
            started,
            nodes: 3,
            pods: 2,
            mode: Mode::Ptp,
            family: Families::Dual,
            places: vec!["lan".to_owned()],
        }
    }

    #[test]
    fn an_entry_whose_process_number_went_to_another_process_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let started = start_time(own).unwrap();
        let file = folder.path().join("one.json");
        for (written, expected) in [(entry(own, started), 1), (entry(own, started + 1), 0)] {
            fs::write(&file, serde_json::to_vec(&written).unwrap()).unwrap();
            assert_eq!(registry(folder.path()).list().unwrap().len(), expected);
            assert_eq!(file.exists(), expected == 1);
        }
    }

    #[test]
    fn an_entry_that_somebody_is_writing_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let half_written = folder.path().join(".one");
        fs::write(&half_written, "{\"name\": \"o").unwrap();
        assert_eq!(registry(folder.path()).list().unwrap(), []);
        assert!(half_written.exists());
    }

    #[test]
    fn labs_may_be_kept_listed_and_ended_all_at_once() {
        let parent = tempfile::tempdir().unwrap();
        let registry = registry(&parent.path().join("hostgw-lab"));
        let report = crate::report::tests::example();
        let keep_and_end = |name: &str| {
            let options = Options {
                name: name.parse().unwrap(),
                ..crate::topology::tests::options(1, 1, Families::Dual)
            };
            let mut process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
            let kept = registry.add(&options, process.id(), &report);
            let outcome = kept.and_then(|()| registry.list()).and_then(|_| registry.down(name));
            process.kill().unwrap();
            process.wait().unwrap();
            outcome.unwrap();
            registry.list().unwrap();
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let keep_and_end = &keep_and_end;
                scope.spawn(move || (0..25).for_each(|round| keep_and_end(&format!("{thread}-{round}"))));
            }
        });
        assert!(!parent.path().join("hostgw-lab").exists(), "nothing is left");
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(registry(folder.path()).list().unwrap_err().exit_code(), 4);
    }

    #[test]
    fn an_unknown_name_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(registry(folder.path()).find("nobody").unwrap_err().exit_code(), 2);
    }
}

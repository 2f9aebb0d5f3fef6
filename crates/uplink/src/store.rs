//! The journal on disk: whole at every instant, below `/run`, so that a boot, which brings the old state, ends it too. Of a
//! join that was persisted a record lasts, for a boot brings the bridge again.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::netns::NetNs;
use kernel::sysctl::Sysctls;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::commands::Folders;
use crate::error::UplinkError;
use crate::journal::{Joined, Journal, Realm};

/// Holdings of thousands of routes fit many times.
const MAX_BYTES: u64 = 64 << 20;
/// How long a lock is waited for that is held for an instant only.
const PATIENCE: Duration = Duration::from_secs(5);

/// The folders of one link's moves.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    /// What a boot does not end.
    lasting: PathBuf,
}

/// Held while somebody works on a move; it ends with the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The moves of `link`.
    #[must_use]
    pub fn of(folders: &Folders, link: &str) -> Self {
        let [folder, lasting] = [&folders.run, &folders.lib].map(|below| below.join("uplink").join(link));
        Self { folder, lasting }
    }

    /// The links that have been moved, or are being moved, and their folders.
    pub fn all(folders: &Folders) -> Result<Vec<(String, Self)>, UplinkError> {
        let mut found = BTreeSet::new();
        for below in [&folders.run, &folders.lib] {
            let folder = below.join("uplink");
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(UplinkError::file("read", &folder, error)),
                Ok(entries) => entries,
            };
            found.extend(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()));
        }
        Ok(found.into_iter().map(|link| (link.clone(), Self::of(folders, &link))).collect())
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("journal.json")
    }

    fn joined(&self) -> PathBuf {
        self.folder.join("joined.json")
    }

    fn persisted(&self) -> PathBuf {
        self.lasting.join("joined.json")
    }

    /// The move that is not settled.
    pub fn read_journal(&self) -> Result<Option<Journal>, UplinkError> {
        read(&self.journal())
    }

    /// Writes the journal; it is on disk when this returns.
    pub fn write_journal(&self, journal: &Journal) -> Result<(), UplinkError> {
        write(&self.journal(), journal)
    }

    /// The move is settled, or was put back.
    pub fn remove_journal(&self) -> Result<(), UplinkError> {
        remove(&self.journal())
    }

    /// The join that holds, of this boot.
    pub fn read_joined(&self) -> Result<Option<Joined>, UplinkError> {
        read(&self.joined())
    }

    /// The join that the node's own configuration repeats at every boot.
    pub fn read_persisted(&self) -> Result<Option<Joined>, UplinkError> {
        read(&self.persisted())
    }

    /// Settles a join.
    pub fn write_joined(&self, joined: &Joined) -> Result<(), UplinkError> {
        if !joined.files.changes.is_empty() {
            fs::create_dir_all(&self.lasting)
                .map_err(|error| UplinkError::file("write", &self.lasting, error))?;
            write(&self.persisted(), joined)?;
        }
        write(&self.joined(), joined)
    }

    /// Settles a leave.
    pub fn remove_joined(&self) -> Result<(), UplinkError> {
        remove(&self.persisted())?;
        remove(&self.joined())
    }

    /// Keeps everybody else from working on this link's moves. Waits for a moment; a command that is at work longer is an
    /// error.
    pub fn lock(&self) -> Result<Lock, UplinkError> {
        self.lock_file("lock", PATIENCE)?.ok_or_else(|| UplinkError::Busy { folder: self.folder.clone() })
    }

    /// As [`Store::lock`], and gives none at once while somebody holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, UplinkError> {
        self.lock_file("lock", Duration::ZERO)
    }

    /// Held by the watchdog for as long as it lives.
    pub(crate) fn watchdog_lock(&self, patience: Duration) -> Result<Option<Lock>, UplinkError> {
        self.lock_file("watchdog.lock", patience)
    }

    /// Whether a watchdog lives.
    pub fn is_watched(&self) -> Result<bool, UplinkError> {
        Ok(self.watchdog_lock(Duration::ZERO)?.is_none())
    }

    fn lock_file(&self, name: &str, patience: Duration) -> Result<Option<Lock>, UplinkError> {
        let path = self.folder.join(name);
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open = || -> io::Result<File> {
            fs::create_dir_all(&self.folder)?;
            let mut options = File::options();
            options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags).open(&path)
        };
        let file = open().map_err(|error| UplinkError::file("open", &path, error))?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(UplinkError::file("lock", &path, error)),
            }
        }
    }
}

/// This boot and this network namespace.
pub(crate) fn realm() -> Result<Realm, UplinkError> {
    Ok(Realm { boot_id: Sysctls::default().boot_id()?, netns: NetNs::current()?.id()?.inode })
}

/// Milliseconds since the boot, suspended time among them.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let of = |part: i64| u64::try_from(part).unwrap_or_default();
    of(now.tv_sec) * 1000 + of(now.tv_nsec) / 1_000_000
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, UplinkError> {
    let failed = |error| UplinkError::file("read", path, error);
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(UplinkError::Damaged { path: path.to_owned(), message: error.to_string() }),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), UplinkError> {
    let written = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut bytes = serde_json::to_vec(value)?;
        bytes.push(b'\n');
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&written)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&written, path)?;
        sync_folder(path)
    };
    write().map_err(|error| UplinkError::file("write", path, error))
}

fn remove(path: &Path) -> Result<(), UplinkError> {
    match fs::remove_file(path).and_then(|()| sync_folder(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UplinkError::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

//! One network's folder: the few file operations that the store is made of, each relative to the open folder, each
//! naming itself and its path when it fails. No policy.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{self, AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::error::IoError;
use crate::store_lock::{PATIENCE, lock_within};
use cni_spec::NetworkName;

/// Held around every change.
const LOCK: &str = "lock";
/// The one record that is being reserved or released.
pub(crate) const PENDING: &str = "pending";
/// One record for each attachment.
pub(crate) const RECORDS: &str = "records";
/// Hard links to records.
pub(crate) const CLAIMS: &str = "claims";
/// Says that pods which live without a record here were looked for.
pub(crate) const SURVEYED: &str = "surveyed";
/// Hints.
pub(crate) const RANGES: &str = "ranges";

/// A file larger than this, in bytes, is no record of ours.
const LARGEST: usize = 1 << 20;

const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const FILE_FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);

/// One network's folder, open.
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    lock_patience: Duration,
}

/// How a rename ended that must not replace anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renamed {
    Done,
    /// The old name does not exist.
    Missing,
    /// The new name does.
    Exists,
}

/// An open file with what the kernel says of it.
pub(crate) struct File {
    pub(crate) fd: OwnedFd,
    pub(crate) inode: u64,
    /// Whether it has further names: a record has one of its own and one for each claim.
    pub(crate) shared: bool,
    /// When its content last changed, in seconds since 1970.
    pub(crate) modified: u64,
}

/// `file` below the folder at `path`, and what became of it.
pub(crate) fn error(path: &Path, attempted: &'static str, file: &str, cause: Errno) -> IoError {
    IoError { attempted, path: path.join(file), cause: io::Error::from(cause) }
}

fn some<T>(result: Result<T, Errno>, absent: Errno) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(errno) if errno == absent => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names in the folder at `path`; none where it does not exist. Bytes that are no UTF-8 are replaced: such a name is
/// not ours, and is only ever shown.
pub(crate) fn names_at(path: &Path) -> Result<Vec<String>, IoError> {
    let fail = |errno| error(path, "list", "", errno);
    match some(fs::open(path, FOLDER_FLAGS, Mode::empty()), Errno::NOENT).map_err(fail)? {
        Some(fd) => read_names(fd).map_err(fail),
        None => Ok(Vec::new()),
    }
}

fn read_names(fd: OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::new(fd)? {
        let name: CString = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

impl Folder {
    /// Opens the folder of `network`; `None` where it was never made, or not to its end.
    pub(crate) fn find(data_dir: &Path, network: &NetworkName) -> Result<Option<Self>, IoError> {
        let path = data_dir.join(network.as_str());
        let opened = some(fs::open(&path, FOLDER_FLAGS, Mode::empty()), Errno::NOENT);
        let opened = opened.map_err(|errno| error(&path, "open", "", errno))?;
        Ok(opened.map(|fd| Self { fd, path, lock_patience: PATIENCE }))
    }

    /// Opens the folder of `network`, and makes it where it does not exist.
    pub(crate) fn open(data_dir: &Path, network: &NetworkName) -> Result<Self, IoError> {
        if let Some(folder) = Self::find(data_dir, network)? {
            return Ok(folder);
        }
        // Several processes may do this at once, and each may be killed in between: every step tolerates that it is
        // done already, and the subfolders are made by whoever finds no lock file in the folder.
        let missing: Vec<&Path> = data_dir.ancestors().take_while(|folder| !folder.exists()).collect();
        let network_folder = data_dir.join(network.as_str());
        for folder in missing.into_iter().rev().chain([network_folder.as_path()]) {
            if !folder.as_os_str().is_empty() {
                let made = some(fs::mkdir(folder, Mode::RWXU), Errno::EXIST);
                made.map_err(|errno| error(folder, "create", "", errno))?;
            }
        }
        match Self::find(data_dir, network)? {
            Some(folder) => Ok(folder),
            None => Err(error(&network_folder, "open", "", Errno::NOENT)),
        }
    }

    /// From now on, wait for the lock for that long at most.
    pub(crate) fn set_lock_patience(&mut self, patience: Duration) {
        self.lock_patience = patience;
    }

    /// Where the folder is, for people.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, attempted: &'static str, file: &str, cause: Errno) -> IoError {
        error(&self.path, attempted, file, cause)
    }

    /// Waits for the store's lock, within bounds. It is the file's, and lasts until the returned descriptor is closed.
    pub(crate) fn lock(&self) -> Result<OwnedFd, IoError> {
        let open =
            |flags| fs::openat(&self.fd, LOCK, FILE_FLAGS | OFlags::RDWR | flags, Mode::RUSR | Mode::WUSR);
        let opened = match some(open(OFlags::empty()), Errno::NOENT) {
            Ok(None) => {
                // The lock file comes last: where it stands, the folder is complete.
                for folder in [RECORDS, CLAIMS, RANGES] {
                    let made = some(fs::mkdirat(&self.fd, folder, Mode::RWXU), Errno::EXIST);
                    made.map_err(|errno| self.error("create", folder, errno))?;
                }
                open(OFlags::CREATE)
            }
            Ok(Some(fd)) => Ok(fd),
            Err(errno) => Err(errno),
        };
        let fd = opened.map_err(|errno| self.error("open", LOCK, errno))?;
        let locked = lock_within(&fd, self.lock_patience);
        locked.map_err(|cause| IoError { attempted: "lock", path: self.path.join(LOCK), cause })?;
        Ok(fd)
    }

    /// Takes the lock of a record that nobody else knows yet.
    pub(crate) fn lock_record(&self, fd: &OwnedFd, name: &str) -> Result<(), IoError> {
        fs::flock(fd, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| self.error("lock", name, errno))
    }

    /// Takes the lock of a record; `false` where a living process has it.
    pub(crate) fn try_lock_record(&self, file: &File, name: &str) -> Result<bool, IoError> {
        let locked = fs::flock(&file.fd, FlockOperation::NonBlockingLockExclusive);
        some(locked, Errno::WOULDBLOCK)
            .map(|got| got.is_some())
            .map_err(|errno| self.error("lock", name, errno))
    }

    /// Gives a record's lock back, for every process that shares the descriptor.
    pub(crate) fn unlock_record(&self, fd: &OwnedFd, name: &str) -> Result<(), IoError> {
        fs::flock(fd, FlockOperation::Unlock).map_err(|errno| self.error("unlock", name, errno))
    }

    /// Makes a file, empty; `None` where the name exists.
    pub(crate) fn create(&self, name: &str) -> Result<Option<OwnedFd>, IoError> {
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let made = fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR);
        some(made, Errno::EXIST).map_err(|errno| self.error("create", name, errno))
    }

    /// Opens a file for reading and writing, and makes it where it does not exist.
    pub(crate) fn open_or_create(&self, name: &str) -> Result<OwnedFd, IoError> {
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE;
        fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.error("open", name, errno))
    }

    /// Opens a file for reading and writing; `None` where there is none.
    pub(crate) fn open_to_write(&self, name: &str) -> Result<Option<OwnedFd>, IoError> {
        let opened = fs::openat(&self.fd, name, FILE_FLAGS | OFlags::RDWR, Mode::empty());
        some(opened, Errno::NOENT).map_err(|errno| self.error("open", name, errno))
    }

    /// Opens a file for reading; `None` where there is none.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<File>, IoError> {
        // A foreign FIFO would hold the caller for ever.
        let flags = FILE_FLAGS | OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = fs::openat(&self.fd, name, flags, Mode::empty());
        match some(opened, Errno::NOENT).map_err(|errno| self.error("open", name, errno))? {
            Some(fd) => self.examine(fd, name).map(Some),
            None => Ok(None),
        }
    }

    fn stat(&self, fd: &OwnedFd, name: &str) -> Result<Stat, IoError> {
        fs::fstat(fd).map_err(|errno| self.error("examine", name, errno))
    }

    fn examine(&self, fd: OwnedFd, name: &str) -> Result<File, IoError> {
        let stat = self.stat(&fd, name)?;
        let (shared, modified) = (stat.st_nlink > 1, stat.st_mtime.try_into().unwrap_or(0));
        Ok(File { fd, inode: stat.st_ino, shared, modified })
    }

    /// Whether an open file has lost its last name.
    pub(crate) fn is_removed(&self, fd: &OwnedFd, name: &str) -> Result<bool, IoError> {
        Ok(self.stat(fd, name)?.st_nlink == 0)
    }

    /// The number of an open file.
    pub(crate) fn inode_of(&self, fd: &OwnedFd, name: &str) -> Result<u64, IoError> {
        Ok(self.stat(fd, name)?.st_ino)
    }

    /// How long an open file is, in bytes.
    pub(crate) fn length(&self, fd: &OwnedFd, name: &str) -> Result<u64, IoError> {
        Ok(self.stat(fd, name)?.st_size.try_into().unwrap_or(0))
    }

    /// What is said where a file is gone that must be there.
    pub(crate) fn missing(&self, attempted: &'static str, name: &str) -> IoError {
        self.error(attempted, name, Errno::NOENT)
    }

    /// The whole content.
    pub(crate) fn read(&self, file: &File, name: &str) -> Result<Vec<u8>, IoError> {
        let mut bytes = vec![0; 4096];
        let mut length = 0;
        loop {
            let read = self.read_at(&file.fd, &mut bytes[length..], length as u64, name)?;
            length += read;
            // A regular file gives less than was asked for at its end only.
            if length < bytes.len() || length >= LARGEST {
                bytes.truncate(length);
                return Ok(bytes);
            }
            bytes.resize(bytes.len() * 2, 0);
        }
    }

    /// Reads at `offset`; how much, which is less than asked for at the file's end.
    pub(crate) fn read_at(
        &self,
        fd: &OwnedFd,
        to: &mut [u8],
        offset: u64,
        name: &str,
    ) -> Result<usize, IoError> {
        rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut *to, offset))
            .map_err(|errno| self.error("read", name, errno))
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(
        &self,
        fd: &OwnedFd,
        bytes: &[u8],
        offset: u64,
        name: &str,
    ) -> Result<(), IoError> {
        let mut written = 0;
        while written < bytes.len() {
            let at = offset + written as u64;
            let step = rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, &bytes[written..], at));
            written += step.map_err(|errno| self.error("write", name, errno))?;
        }
        Ok(())
    }

    /// Empties a file.
    pub(crate) fn empty(&self, fd: &OwnedFd, name: &str) -> Result<(), IoError> {
        fs::ftruncate(fd, 0).map_err(|errno| self.error("empty", name, errno))
    }

    /// Gives the file `from` the further name `to`; `false` where that name exists.
    pub(crate) fn link(&self, from: &str, to: &str) -> Result<bool, IoError> {
        let linked = fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty());
        some(linked, Errno::EXIST).map(|done| done.is_some()).map_err(|errno| self.error("link", to, errno))
    }

    /// Renames, and never replaces.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<Renamed, IoError> {
        match fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Renamed::Done),
            Err(Errno::NOENT) => Ok(Renamed::Missing),
            Err(Errno::EXIST) => Ok(Renamed::Exists),
            Err(errno) => Err(self.error("rename", from, errno)),
        }
    }

    /// Removes a name; one that does not exist is removed already.
    pub(crate) fn unlink(&self, name: &str) -> Result<(), IoError> {
        let removed = some(fs::unlinkat(&self.fd, name, AtFlags::empty()), Errno::NOENT);
        removed.map(|_| ()).map_err(|errno| self.error("remove", name, errno))
    }

    fn stat_name(&self, name: &str) -> Result<Option<Stat>, IoError> {
        let found = some(fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Errno::NOENT);
        found.map_err(|errno| self.error("examine", name, errno))
    }

    /// Which file a name leads to.
    pub(crate) fn inode(&self, name: &str) -> Result<Option<u64>, IoError> {
        Ok(self.stat_name(name)?.map(|stat| stat.st_ino))
    }

    /// Whether the file that a name leads to has further names.
    pub(crate) fn is_shared(&self, name: &str) -> Result<bool, IoError> {
        Ok(self.stat_name(name)?.is_some_and(|stat| stat.st_nlink > 1))
    }

    /// The names in a subfolder; none where it does not exist.
    pub(crate) fn names(&self, subfolder: &str) -> Result<Vec<String>, IoError> {
        let opened = some(fs::openat(&self.fd, subfolder, FOLDER_FLAGS, Mode::empty()), Errno::NOENT);
        let names = opened.and_then(|fd| fd.map_or_else(|| Ok(Vec::new()), read_names));
        names.map_err(|errno| self.error("list", subfolder, errno))
    }
}

/// Whether there is a network's folder at `path`.
pub(crate) fn is_network(path: &Path) -> bool {
    fs::statat(CWD, path.join(LOCK), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

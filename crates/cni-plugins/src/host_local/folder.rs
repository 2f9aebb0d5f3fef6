//! The reference's folder of one network: its lock, a file for each address with the container and the interface that
//! hold it, and the address that each range set handed out last.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use attachment::Attachment;
use attachment::store_lock::{PATIENCE, lock_within};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::index::Index;

/// Between the container and the interface in an address's file.
const LINE_BREAK: &str = "\r\n";
/// In front of the number of a range set.
const LAST_RESERVED: &str = "last_reserved_ip.";
/// More than any container id and interface name have together; what is longer is no file of this format.
const MAX_CONTENT: usize = 1024;
/// As the reference makes them, less the umask.
const ADDRESS_MODE: Mode = Mode::from_raw_mode(0o600);
const LOCK_MODE: Mode = Mode::from_raw_mode(0o750);

/// A read or write in the folder that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted} {}: {cause}{remedy}", path.display())]
pub(super) struct FolderError {
    attempted: &'static str,
    path: PathBuf,
    cause: io::Error,
    remedy: &'static str,
}

impl FolderError {
    /// Whether somebody else kept the lock for longer than anybody should.
    pub(super) fn is_lock_held(&self) -> bool {
        self.cause.kind() == io::ErrorKind::TimedOut
    }
}

/// What an address's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nothing: its writer was killed, or the power was lost.
    Nobody,
    /// The container, and its interface unless the file is of host-local before 0.8.
    Container(String, Option<String>),
    /// No file of this format, of which this is told.
    Foreign(&'static str),
}

impl Holder {
    fn parse(content: &[u8]) -> Self {
        if content.len() > MAX_CONTENT {
            return Self::Foreign("it is too long");
        }
        let Ok(text) = std::str::from_utf8(content) else { return Self::Foreign("it is no text") };
        match text.trim() {
            "" => Self::Nobody,
            text => match text.split_once(LINE_BREAK) {
                Some((container, ifname)) => Self::Container(container.to_owned(), Some(ifname.to_owned())),
                None => Self::Container(text.to_owned(), None),
            },
        }
    }

    /// Whether it is this attachment, also where the file does not say the interface.
    pub(super) fn is(&self, attachment: &Attachment) -> bool {
        let Self::Container(container, ifname) = self else { return false };
        container == attachment.container_id()
            && ifname.as_deref().is_none_or(|ifname| ifname == attachment.ifname().as_str())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| text.chars().take(80).flat_map(char::escape_default).collect::<String>();
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Container(container, None) => write!(f, "{}", shown(container)),
            Self::Container(container, Some(ifname)) => write!(f, "{}:{}", shown(container), shown(ifname)),
            Self::Foreign(why) => write!(f, "a foreign file ({why})"),
        }
    }
}

/// An address's file, as a listing finds it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) address: IpAddr,
    pub(super) holder: Holder,
    pub(super) written: SystemTime,
}

/// The folder of a network, locked against everybody else until dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    dir: OwnedFd,
    _lock: OwnedFd,
    index: Index,
}

impl Folder {
    /// Makes the folder where it is missing, and waits for its lock.
    pub(super) fn open(data_dir: &Path, network: &str) -> Result<Self, FolderError> {
        let path = data_dir.join(network);
        match Self::find(data_dir, network)? {
            Some(found) => Ok(found),
            None => {
                std::fs::create_dir_all(&path).map_err(|cause| failed("make", &path, cause))?;
                Self::find(data_dir, network)?
                    .ok_or_else(|| failed("open", &path, io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// The folder, if there is one.
    pub(super) fn find(data_dir: &Path, network: &str) -> Result<Option<Self>, FolderError> {
        let path = data_dir.join(network);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("open", &path, errno.into())),
        };
        let at = path.join("lock");
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&dir, "lock", flags, LOCK_MODE)
            .map_err(|errno| failed("open", &at, errno.into()))?;
        lock_within(&lock, PATIENCE).map_err(|cause| failed("lock", &at, cause))?;
        let index = Index::open(&dir);
        Ok(Some(Self { path, dir, _lock: lock, index }))
    }

    /// Makes the address the attachment's; false where it is somebody's already.
    pub(super) fn claim(&self, address: IpAddr, attachment: &Attachment) -> Result<bool, FolderError> {
        let name = address.to_string();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, &name, flags, ADDRESS_MODE) {
            Ok(file) => file,
            // Its writer held the lock that is now ours, so it was killed before it wrote, or the power was lost.
            Err(Errno::EXIST) => match self.holder(address)? {
                Some(Holder::Nobody) => self.open_to_write(&name)?,
                _ => return Ok(false),
            },
            Err(errno) => return Err(self.failed("create", &name, errno)),
        };
        let content = format!("{}{LINE_BREAK}{}", attachment.container_id(), attachment.ifname());
        if let Err(errno) = write_all(&file, content.as_bytes()) {
            // An empty file says nothing to whoever comes next, but takes up a place in the listing.
            self.remove(address).ok();
            return Err(self.failed("write", &name, errno));
        }
        Ok(true)
    }

    /// Who holds the address; none where nobody has a file for it.
    pub(super) fn holder(&self, address: IpAddr) -> Result<Option<Holder>, FolderError> {
        Ok(self.held(address)?.map(|held| held.holder))
    }

    fn held(&self, address: IpAddr) -> Result<Option<Held>, FolderError> {
        let name = address.to_string();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let foreign = |why| Held { address, holder: Holder::Foreign(why), written: SystemTime::now() };
        let file = match rustix::fs::openat(&self.dir, &name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Ok(Some(foreign("it is a symbolic link"))),
            Err(errno) => return Err(self.failed("open", &name, errno)),
        };
        let mut content = [0; MAX_CONTENT + 1];
        let mut length = 0;
        loop {
            match rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut content[length..])) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(Errno::ISDIR) => return Ok(Some(foreign("it is a folder"))),
                Err(errno) => return Err(self.failed("read", &name, errno)),
            }
        }
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.failed("examine", &name, errno))?;
        let since = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
        Ok(Some(Held {
            address,
            holder: Holder::parse(&content[..length]),
            written: SystemTime::UNIX_EPOCH + since,
        }))
    }

    /// Frees the address; one that is free is well.
    pub(super) fn remove(&self, address: IpAddr) -> Result<(), FolderError> {
        let name = address.to_string();
        match rustix::fs::unlinkat(&self.dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failed("remove", &name, errno)),
        }
    }

    /// Every address that has a file, in order, without opening any.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, FolderError> {
        let list = |errno: Errno| failed("list", &self.path, errno.into());
        let mut addresses = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir).map_err(list)? {
            let entry = entry.map_err(list)?;
            let name = entry.file_name().to_str().ok();
            // One address has one name: another spelling is a foreign file.
            let address =
                name.and_then(|name| name.parse().ok().filter(|ip: &IpAddr| ip.to_string() == name));
            addresses.extend(address);
        }
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// Every address that has a file, with what that says.
    pub(super) fn all_held(&self) -> Result<Vec<Held>, FolderError> {
        let held = self.addresses()?.into_iter().map(|address| self.held(address));
        held.filter_map(Result::transpose).collect()
    }

    /// The address that this range set handed out last; none where that is not known, which costs its place in the turn.
    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, last_reserved(set), flags, Mode::empty()).ok()?;
        let mut content = [0; 64];
        let length = rustix::io::read(&file, &mut content).ok()?;
        std::str::from_utf8(content.get(..length)?).ok()?.parse().ok()
    }

    /// Notes which address this range set handed out last. The file is overwritten in place: to truncate it first, as the
    /// reference does, costs a discard on many a file system.
    pub(super) fn note_last_reserved(&self, set: usize, address: IpAddr) -> Result<(), FolderError> {
        let name = last_reserved(set);
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let text = address.to_string();
        rustix::fs::openat(&self.dir, &name, flags, ADDRESS_MODE)
            .and_then(|file| {
                write_all(&file, text.as_bytes())?;
                let length = text.len() as u64;
                match rustix::fs::fstat(&file)?.st_size.cast_unsigned() > length {
                    true => rustix::fs::ftruncate(&file, length),
                    false => Ok(()),
                }
            })
            .map_err(|errno| self.failed("write", &name, errno))
    }

    /// Whether the attachment may hold an address: false is certain, true is to be looked up.
    pub(super) fn may_hold(&self, attachment: &Attachment) -> bool {
        self.index.may_hold(attachment)
    }

    /// Notes who got an address, and who gave theirs back, for [`Self::may_hold`]. Called once, after all changes.
    /// What cannot be noted is not believed later, which costs time only.
    pub(super) fn note(&mut self, change: Change<'_>) {
        if self.index.is_complete() {
            self.index.change(change);
        } else if let Ok(held) = self.all_held() {
            self.index.rebuild(held.iter().map(|held| &held.holder));
        }
        self.index.save(&self.dir);
    }

    fn open_to_write(&self, name: &str) -> Result<OwnedFd, FolderError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, name, flags, Mode::empty())
            .map_err(|errno| self.failed("open", name, errno))
    }

    fn failed(&self, attempted: &'static str, name: &str, errno: Errno) -> FolderError {
        failed(attempted, &self.path.join(name), errno.into())
    }
}

/// What became of one attachment's addresses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    Claimed(&'a Attachment),
    Released(&'a Attachment),
    /// Several attachments' at once.
    Swept,
}

fn last_reserved(set: usize) -> String {
    format!("{LAST_RESERVED}{set}")
}

fn failed(attempted: &'static str, path: &Path, cause: io::Error) -> FolderError {
    let remedy = match cause.kind() {
        io::ErrorKind::StorageFull => ": free some space",
        io::ErrorKind::PermissionDenied => ": let root write there",
        io::ErrorKind::ReadOnlyFilesystem => ": mount it for writing, or name another `ipam.dataDir`",
        _ => "",
    };
    FolderError { attempted, path: path.to_owned(), cause, remedy }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))? {
            0 => return Err(Errno::IO),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_read_as_the_reference_reads_it() {
        let attachment: Attachment = "4f1d:eth0".parse().unwrap();
        for content in ["4f1d\r\neth0", " 4f1d\r\neth0\n", "4f1d"] {
            assert!(Holder::parse(content.as_bytes()).is(&attachment), "{content:?}");
        }
        for content in ["4f1d\r\neth1", "4f1e\r\neth0", "4f1d\neth0", "", "\r\n"] {
            assert!(!Holder::parse(content.as_bytes()).is(&attachment), "{content:?}");
        }
        assert_eq!(Holder::parse(b" \r\n"), Holder::Nobody);
        assert!(matches!(Holder::parse(b"\xff"), Holder::Foreign(_)));
        assert!(matches!(Holder::parse(&[b'x'; MAX_CONTENT + 1]), Holder::Foreign(_)));
    }
}

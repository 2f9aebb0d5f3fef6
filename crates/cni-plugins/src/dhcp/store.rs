//! The leases of one network on disk: a file for each, which outlives the node's reboot.
//!
//! Written without waiting for the disk, because a pod would wait as well: what a power loss tears belongs to a pod
//! that is gone, and the server takes the address back by itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use attachment::{Attachment, NetworkName};

use super::lease::Lease;
use crate::fnv::fnv1a;

const SUFFIX: &str = ".json";
/// Leases that pods of the same name get again.
const REMEMBERED: &str = "remembered";
const LOCK: &str = "lock";
/// Far more than any lease needs.
const MAX_LEN: u64 = 64 << 10;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted} {}: {source}", path.display())]
pub struct StoreError {
    attempted: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StoreError {
    fn new(attempted: &'static str, path: &Path, source: io::Error) -> Self {
        Self { attempted, path: path.to_owned(), source }
    }
}

/// The leases of one network.
#[derive(Clone, Debug)]
pub struct LeaseStore {
    folder: PathBuf,
}

/// A lease as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLease {
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub lease: Lease,
}

impl LeaseStore {
    /// The leases of `network` below `lease_dir`; nothing is touched yet.
    #[must_use]
    pub fn new(lease_dir: &Path, network: &NetworkName) -> Self {
        Self { folder: lease_dir.join(network.as_str()) }
    }

    /// The stores below `lease_dir`.
    pub fn all(lease_dir: &Path) -> Result<Vec<Self>, StoreError> {
        let folders = entries(lease_dir)?;
        Ok(folders.into_iter().filter(|path| path.is_dir()).map(|folder| Self { folder }).collect())
    }

    /// The files of the leases that pods have.
    pub fn files(&self) -> Result<Vec<PathBuf>, StoreError> {
        lease_files(&self.folder)
    }

    /// The files of the leases that are remembered.
    pub fn remembered_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        lease_files(&self.folder.join(REMEMBERED))
    }

    fn path_of(&self, attachment: &Attachment) -> PathBuf {
        self.folder.join(format!("{attachment}{SUFFIX}"))
    }

    fn remembered_path(&self, client_id: &[u8]) -> PathBuf {
        // A lossy text is as good a name: a file that is another's is recognized by its content.
        let hash = fnv1a(&[&String::from_utf8_lossy(client_id)]);
        self.folder.join(REMEMBERED).join(format!("{hash:016x}{SUFFIX}"))
    }

    /// The lease of an attachment, if it has one that can be read.
    pub fn find(&self, attachment: &Attachment) -> Result<Option<Lease>, StoreError> {
        let found = Self::read(&self.path_of(attachment))?;
        Ok(found.filter(|lease| lease.attachment == *attachment))
    }

    /// Reads a file; none where there is none, or nothing in it that could be a lease.
    pub fn read(path: &Path) -> Result<Option<Lease>, StoreError> {
        let mut bytes = Vec::new();
        match open_regular(path).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Lease::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::new("read lease", path, source)),
        }
    }

    /// Writes the lease of an attachment.
    pub fn put(&self, lease: &Lease) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder)
            .map_err(|source| StoreError::new("make folder", &self.folder, source))?;
        let _lock = self.lock()?;
        write(&self.path_of(&lease.attachment), lease)
    }

    /// Writes the lease of an attachment that still has one; whether it has. Its DEL may have been quicker.
    pub fn update(&self, lease: &Lease) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        let path = self.path_of(&lease.attachment);
        if !path.exists() {
            return Ok(false);
        }
        write(&path, lease)?;
        Ok(true)
    }

    /// Forgets the lease of an attachment; one that is to be remembered moves to those. Gone is well.
    pub fn remove(&self, lease: &Lease) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        if lease.remember && lease.confirmed {
            let path = self.remembered_path(&lease.client_id);
            let folder = self.folder.join(REMEMBERED);
            fs::create_dir_all(&folder).map_err(|source| StoreError::new("make folder", &folder, source))?;
            write(&path, lease)?;
        }
        remove_file(&self.path_of(&lease.attachment))
    }

    /// What a client of this id had last.
    pub fn remembered(&self, client_id: &[u8]) -> Result<Option<Lease>, StoreError> {
        let found = Self::read(&self.remembered_path(client_id))?;
        Ok(found.filter(|lease| lease.client_id == client_id))
    }

    /// Removes a file of a lease.
    pub fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        remove_file(path)
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.folder.join(LOCK);
        let open = || {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
                .mode(0o600)
                .open(&path)?;
            // Held for two system calls, by whoever holds it.
            file.lock()?;
            Ok(file)
        };
        open().map_err(|source| StoreError::new("lock", &path, source))
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    match fs::read_dir(folder) {
        Ok(found) => Ok(found.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(StoreError::new("read folder", folder, source)),
    }
}

fn lease_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let is_lease = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(SUFFIX) && !name.starts_with('.')
    };
    Ok(entries(folder)?.into_iter().filter(is_lease).collect())
}

/// Whoever reads sees the old lease or the new one.
fn write(path: &Path, lease: &Lease) -> Result<(), StoreError> {
    let failed = |source| StoreError::new("write lease", path, source);
    let bytes = lease.encode().map_err(|error| failed(error.into()))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Under the lock there is one writer, whose leftover the next one overwrites.
    let new = path.with_file_name(".new");
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
    written.map_err(|source| {
        fs::remove_file(&new).ok();
        StoreError::new("write lease", &path.with_file_name(name), source)
    })
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::new("remove lease", path, error))
        }
        _ => Ok(()),
    }
}

/// Never waits, as opening a FIFO would.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attachment::MacAddress;
    use dhcp_client::{Identity, Terms};

    fn lease(container: &str, remember: bool) -> Lease {
        let mac = MacAddress::new([2, 0, 0, 0, 0, 1]).unwrap();
        let identity = Identity {
            mac: mac.octets(),
            client_id: b"\0pods/web-0".to_vec(),
            provided: vec![(12, b"web-0".to_vec())],
            requested: vec![1, 3],
            subnet: None,
        };
        let terms = Terms {
            address: "192.0.2.5/24".parse().unwrap(),
            server: "192.0.2.1".parse().unwrap(),
            router: None,
            routes: Vec::new(),
            classless: false,
            name_servers: Vec::new(),
            domain: None,
            mtu: None,
            lease_seconds: 600,
            renew_seconds: 300,
            rebind_seconds: 525,
        };
        let attachment = format!("{container}:eth0").parse().unwrap();
        let network = NetworkName::new("lan").unwrap();
        let lease = Lease::new((&network, &attachment), &identity, mac, terms.clone());
        Lease { remember, ..lease.renewed(terms, std::time::Duration::from_secs(7), [2; 6]) }
    }

    fn store() -> (tempfile::TempDir, LeaseStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = LeaseStore::new(folder.path(), &NetworkName::new("lan").unwrap());
        (folder, store)
    }

    #[test]
    fn a_lease_is_found_by_its_attachment_until_it_is_removed() {
        let (folder, store) = store();
        let lease = lease("a", false);
        assert_eq!(store.find(&lease.attachment).unwrap(), None);
        store.put(&lease).unwrap();
        assert_eq!(store.find(&lease.attachment).unwrap().as_ref(), Some(&lease));
        assert_eq!(LeaseStore::all(folder.path()).unwrap()[0].files().unwrap().len(), 1);
        store.remove(&lease).unwrap();
        store.remove(&lease).unwrap();
        assert_eq!(store.find(&lease.attachment).unwrap(), None);
        assert_eq!(store.remembered(&lease.client_id).unwrap(), None);
    }

    #[test]
    fn what_was_removed_is_not_brought_back_by_a_late_update() {
        let (_folder, store) = store();
        let lease = lease("a", false);
        store.put(&lease).unwrap();
        assert!(store.update(&lease).unwrap());
        store.remove(&lease).unwrap();
        assert!(!store.update(&lease).unwrap());
        assert_eq!(store.find(&lease.attachment).unwrap(), None);
    }

    #[test]
    fn what_a_pod_is_to_have_again_is_remembered_by_its_client_id() {
        let (_folder, store) = store();
        let lease = lease("a", true);
        store.put(&lease).unwrap();
        store.remove(&lease).unwrap();
        assert_eq!(store.remembered(&lease.client_id).unwrap(), Some(lease));
        assert_eq!(store.remembered(b"\0pods/web-1").unwrap(), None);
        assert_eq!(store.files().unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn damaged_and_foreign_files_are_no_leases() {
        let (_folder, store) = store();
        let lease = lease("a", false);
        store.put(&lease).unwrap();
        let path = store.path_of(&lease.attachment);
        let whole = fs::read(&path).unwrap();
        for bytes in [&b""[..], b"{}", b"\0\0\0", &whole[..whole.len() / 2]] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(store.find(&lease.attachment).unwrap(), None);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(store.find(&lease.attachment).is_err());
    }
}

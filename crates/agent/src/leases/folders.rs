//! Hears that files of leases come, change or go: a node without leases never looks for any.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// The folder of all leases with its folders, one a network. None of them needs to exist.
#[derive(Debug)]
pub(super) struct LeaseFolders {
    root: PathBuf,
    inotify: OwnedFd,
}

impl LeaseFolders {
    /// Nothing where the kernel has no inotify instance left to give.
    pub(super) fn new(root: &Path) -> Option<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        Some(Self { root: root.to_owned(), inotify })
    }

    /// Watches what there is, and forgets what was heard; to be called before looking. Whether nothing can go unheard
    /// from now on.
    pub(super) fn renew(&self) -> bool {
        self.hear();
        // Above a folder that is not there, its coming is all that matters.
        let above = self.root.ancestors().skip(1).find(|folder| folder.is_dir());
        let made = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let gone = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        if !self.watch(&self.root, made | gone) {
            return !self.root.exists() && above.is_some_and(|folder| self.watch(folder, made | gone));
        }
        // Listed after the root is watched, so that none is missed.
        let Ok(networks) = fs::read_dir(&self.root) else { return false };
        let any = made | gone | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::CLOSE_WRITE;
        let folders = networks.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        // Each is tried, also behind one that cannot be.
        let mut all = true;
        for folder in folders {
            all &= self.watch(&folder, any | WatchFlags::ATTRIB);
        }
        all
    }

    /// Whether something happened since this, or [`Self::renew`], was last called.
    pub(super) fn hear(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut heard = false;
        while events.next().is_ok() {
            heard = true;
        }
        heard
    }

    fn watch(&self, folder: &Path, events: WatchFlags) -> bool {
        inotify::add_watch(&self.inotify, folder, events | WatchFlags::ONLYDIR).is_ok()
    }
}

impl AsFd for LeaseFolders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_comes_later_is_heard_of_and_so_are_the_files_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("hostgw/leases");
        let folders = LeaseFolders::new(&root).unwrap();
        assert!(folders.renew());
        assert!(!folders.hear());
        for path in ["hostgw", "hostgw/leases", "hostgw/leases/lan"] {
            fs::create_dir(folder.path().join(path)).unwrap();
            assert!(folders.hear(), "{path}");
            assert!(folders.renew());
        }
        fs::write(root.join("lan/pod.lease"), "").unwrap();
        assert!(folders.hear());
        fs::rename(root.join("lan/pod.lease"), root.join("pod.lease")).unwrap();
        assert!(folders.hear());
    }

    #[test]
    fn a_folder_that_goes_and_comes_again_is_heard_of() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("leases");
        fs::create_dir(&root).unwrap();
        let folders = LeaseFolders::new(&root).unwrap();
        assert!(folders.renew());
        fs::remove_dir(&root).unwrap();
        assert!(folders.hear());
        assert!(folders.renew());
        fs::create_dir(&root).unwrap();
        assert!(folders.hear());
    }

    #[test]
    fn what_happens_elsewhere_is_not_heard() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("leases");
        fs::create_dir_all(root.join("lan")).unwrap();
        let folders = LeaseFolders::new(&root).unwrap();
        assert!(folders.renew());
        fs::write(folder.path().join("state.json"), "{}").unwrap();
        assert!(!folders.hear());
    }
}

//! A disk that is full or cannot be written: a clear error, nothing half done, nothing lost.

use std::os::unix::fs::MetadataExt;

use attachment::ReserveError;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};

use crate::child::{finish, start, take_turn};
use crate::fixture::{Ask, Node, attachment, large_sets, small_sets};

/// Runs `operation` in a process with a tmpfs of its own as the node's data folder.
fn on_a_tmpfs(options: &std::ffi::CStr, operation: impl FnOnce(&Node)) {
    let _turn = take_turn();
    let node = Node::new();
    let data_dir = node.data_dir();
    std::fs::create_dir_all(&data_dir).unwrap();
    let before = std::fs::metadata(&data_dir).unwrap().dev();
    finish(start(|| {
        // A user namespace besides where mounting needs one.
        let flags =
            if rustix::process::geteuid().is_root() { 0 } else { libc::CLONE_NEWUSER } | libc::CLONE_NEWNS;
        // SAFETY: changes the namespaces of this short-lived child, which has one thread.
        #[allow(unsafe_code)]
        let unshared = unsafe { libc::unshare(flags) };
        assert_eq!(unshared, 0, "unshare: {}", std::io::Error::last_os_error());
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        mount("tmpfs", &data_dir, "tmpfs", MountFlags::empty(), options).unwrap();
        operation(&node);
    }));
    assert_eq!(std::fs::metadata(&data_dir).unwrap().dev(), before, "the mount stayed in the child");
}

fn fill_until_refused(node: &Node) -> (usize, ReserveError) {
    let store = node.store();
    for pod in 0.. {
        if let Err(error) = Ask::of(large_sets()).attach(&store, &format!("p{pod}")) {
            return (pod, error);
        }
    }
    unreachable!("the disk is never full")
}

#[test]
fn a_full_disk_refuses_the_next_pod_and_keeps_and_releases_the_others() {
    for options in [c"size=256k,mode=700", c"nr_inodes=100,mode=700"] {
        on_a_tmpfs(options, |node| {
            let (pods, error) = fill_until_refused(node);
            assert!(pods > 10, "{error}");
            assert!(matches!(&error, ReserveError::Io(io) if io.errno() == Some(libc::ENOSPC)), "{error}");
            assert!(error.to_string().contains("free space or inodes"), "{error}");
            node.assert_consistent();
            let store = node.store();
            assert_eq!(store.records().unwrap().filter(Result::is_ok).count(), pods);
            store.release(&attachment("p3")).unwrap();
            Ask::of(large_sets()).attach(&store, "again").unwrap();
            node.assert_consistent();
        });
    }
}

#[test]
fn an_add_that_reserved_on_a_full_disk_can_still_say_that_it_succeeded() {
    on_a_tmpfs(c"size=256k,mode=700", |node| {
        let store = node.store();
        let reservation = Ask::of(small_sets()).reserve(&store, "a").unwrap();
        let filler = node.data_dir().join("filler");
        while std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&filler)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &[1; 512]))
            .is_ok()
        {}
        reservation.mark_attached().unwrap();
        assert_eq!(store.lookup(&attachment("a")).unwrap().unwrap().state, attachment::State::Attached);
        store.release(&attachment("a")).unwrap();
        node.assert_consistent();
    });
}

#[test]
fn a_disk_that_cannot_be_written_still_answers_and_says_why_it_refuses() {
    on_a_tmpfs(c"size=256k,mode=700", |node| {
        let store = node.store();
        Ask::of(small_sets()).attach(&store, "a").unwrap();
        drop(store);
        mount_remount(node.data_dir(), MountFlags::RDONLY, "").unwrap();
        let store = node.store();
        assert!(store.lookup(&attachment("a")).unwrap().is_some());
        assert_eq!(store.records().unwrap().count(), 1);
        let error = Ask::of(small_sets()).attach(&store, "b").unwrap_err().to_string();
        assert!(error.contains("set `ipam.dataDir` to a folder that can be written"), "{error}");
        assert!(store.release(&attachment("a")).is_err());
        assert!(
            rustix::fs::accessat(
                CWD,
                node.path("lock"),
                rustix::fs::Access::EXISTS,
                rustix::fs::AtFlags::empty()
            )
            .is_ok()
        );
    });
}

//! Leaving the machine's namespaces: the one place that calls `unshare`, and the one that maps users.
#![allow(unsafe_code, reason = "unshare and mount_setattr have no safe wrapper")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::LabError;

/// Moves the calling thread into fresh namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the danger of `unshare` is a file table that threads no longer share; no caller asks for that.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Makes this process's future children live in a process namespace of their own, as its root user: directly where
/// the process may, otherwise through a user namespace. The caller must not have started a thread yet.
pub(crate) fn leave_process_namespace() -> Result<(), LabError> {
    let as_root = rustix::process::geteuid().is_root();
    if as_root && unshare(UnshareFlags::NEWPID).is_ok() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID)
        .and_then(|()| {
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
        })
        .map_err(|source| LabError::NamespacesRefused { remedy: remedy(as_root), source })
}

/// Which setting stands in the way, as far as it can be read.
pub(crate) fn remedy(as_root: bool) -> String {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "user namespaces are off: run as root, or `sysctl kernel.unprivileged_userns_clone=1`"
            .to_owned();
    }
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return "user namespaces are off: run as root, or `sysctl user.max_user_namespaces=15000`".to_owned();
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "AppArmor holds user namespaces down: run as root, or `sysctl \
                kernel.apparmor_restrict_unprivileged_userns=0`"
            .to_owned();
    }
    if as_root {
        "this root lacks CAP_SYS_ADMIN, as in a container: run with --privileged, or on the host".to_owned()
    } else {
        "run as root, or where unprivileged user namespaces are allowed (containers often forbid them)"
            .to_owned()
    }
}

/// Makes a mount and all below it read-only.
pub(crate) fn make_read_only(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: path and attributes live through the call, and the size given is that of the structure.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            std::ptr::from_mut(&mut attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

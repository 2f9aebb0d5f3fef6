//! Root folders: the lab's own, on memory that vanishes with it, and one for each node, in which the agent and the
//! plugin find every default path as on a real machine. The machine's own files are seen read-only below `/host`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind_recursive, mount_change, move_mount, open_tree, unmount,
};

use crate::LabError;
use crate::namespaces::make_read_only;

/// Where the machine's own root is seen.
const HOST: &str = "/host";
/// Folders of the root that are ours; all others lead to the machine's.
const OWN: [&str; 10] = ["etc", "host", "lab", "opt", "proc", "run", "sys", "tmp", "var", "lost+found"];

/// Puts the calling process into a root folder on memory, with a fresh `/proc`. It must have left the machine's
/// mount namespace before.
pub(crate) fn enter_lab_root() -> Result<(), LabError> {
    let attempt = |what: &str| LabError::call(format!("{what} for the lab's root folder"));
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(attempt("make mounts private"))?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let host = open_tree(CWD, "/", flags).map_err(attempt("copy the machine's mounts"))?;
    // Any folder would do as the place; this one is on every machine.
    let root = Path::new("/tmp");
    mount("hostgw-lab", root, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755"))
        .map_err(attempt("mount a tmpfs"))?;
    let folder = root.join("host");
    create(&folder)?;
    move_mount(host, "", CWD, &folder, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(attempt("attach the machine's mounts"))?;
    make_read_only(&folder).map_err(LabError::io("make the machine's files read-only"))?;
    furnish(root, &folder)?;
    mount_proc(root)?;
    pivot(root)
}

/// Builds a node's root folder at `root`, a plain folder whose content outlives the node's namespaces.
pub(crate) fn furnish_node(root: &Path) -> Result<(), LabError> {
    furnish(root, Path::new(HOST))?;
    ["etc/hostgw", "etc/cni/net.d", "opt/cni/bin", "opt/hostgw", "var/lib/hostgw"]
        .iter()
        .try_for_each(|folder| create(&root.join(folder)))
}

/// Gives a node a disk of its own for what must survive a reboot, small enough to be filled.
pub(crate) fn mount_state(root: &Path) -> Result<(), LabError> {
    let at = root.join("var/lib/hostgw");
    mount("state", &at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0755,size=4m"))
        .map_err(LabError::call(format!("mount {}", at.display())))
}

/// Puts the calling thread into the node's root folder. It must have a mount namespace and a network namespace of
/// its own already. `/run` is empty, as after a boot.
pub(crate) fn enter_node_root(root: &Path) -> Result<(), LabError> {
    let attempt = |what: &str| LabError::call(format!("{what} for {}", root.display()));
    mount_bind_recursive(root, root).map_err(attempt("make a mount"))?;
    mount_bind_recursive(HOST, root.join("host")).map_err(attempt("attach the machine's files"))?;
    mount(
        "run",
        root.join("run"),
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=0755,size=16m"),
    )
    .map_err(attempt("mount /run"))?;
    mount_proc(root)?;
    let sys = root.join("sys");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("sysfs", &sys, "sysfs", flags, None).is_err() {
        // Where a container covers parts of /sys, the kernel gives no fresh one; nothing of ours reads it.
        mount_bind_recursive(format!("{HOST}/sys"), &sys).map_err(attempt("attach /sys"))?;
    }
    pivot(root)
}

/// Folders of our own, and links to the machine's for all else.
fn furnish(root: &Path, host: &Path) -> Result<(), LabError> {
    for own in OWN {
        create(&root.join(own))?;
    }
    link_to_host(root, host, "", &OWN)?;
    for (folder, own) in [
        ("etc", &["cni", "hostgw", "hostname", "mtab"][..]),
        ("opt", &["cni", "hostgw"]),
        ("var", &["lib", "lock", "log", "run", "tmp"]),
        ("var/lib", &["cni", "hostgw"]),
    ] {
        create(&root.join(folder))?;
        link_to_host(root, host, folder, own)?;
    }
    create(&root.join("var/log"))?;
    create(&root.join("var/tmp"))?;
    link(Path::new("/run"), &root.join("var/run"))
}

/// Links every entry of the machine's `folder`, but not `own`. What cannot be read is as if it were not there.
fn link_to_host(root: &Path, host: &Path, folder: &str, own: &[&str]) -> Result<(), LabError> {
    let Ok(entries) = fs::read_dir(host.join(folder)) else { return Ok(()) };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        if own.iter().all(|own| name.to_str() != Some(own)) {
            link(&Path::new(HOST).join(folder).join(&name), &root.join(folder).join(&name))?;
        }
    }
    Ok(())
}

fn create(folder: &Path) -> Result<(), LabError> {
    fs::create_dir_all(folder).map_err(LabError::io(format!("create {}", folder.display())))
}

fn link(target: &Path, at: &Path) -> Result<(), LabError> {
    symlink(target, at).map_err(LabError::io(format!("link {} to {}", at.display(), target.display())))
}

fn mount_proc(root: &Path) -> Result<(), LabError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", root.join("proc"), "proc", flags, None).map_err(|errno| LabError::NamespacesRefused {
        remedy:
            "the kernel gives a fresh /proc only where the present one is whole: a container must not mask \
                 parts of it (`--security-opt systempaths=unconfined`, or --privileged)"
                .to_owned(),
        source: errno.into(),
    })
}

/// Makes `root` the root folder of the calling thread's mount namespace, and lets the old one go.
fn pivot(root: &Path) -> Result<(), LabError> {
    let attempt = |what: &str| LabError::call(format!("{what} {}", root.display()));
    rustix::process::chdir(root).map_err(attempt("enter"))?;
    rustix::process::pivot_root(".", ".").map_err(attempt("change the root folder to"))?;
    // The old root now lies on top of the new one.
    unmount(".", UnmountFlags::DETACH).map_err(attempt("let the old root go from"))?;
    rustix::process::chdir("/").map_err(attempt("enter"))
}

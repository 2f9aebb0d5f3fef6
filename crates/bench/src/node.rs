//! A node to measure on: a network and a mount namespace of its own, in which `/run` and `/var/lib` are on memory. The
//! one thread of this program walks from node to node, so that all sides are measured in turn by the same driver.
#![allow(unsafe_code, reason = "unshare has no safe wrapper")]

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::error::{Attempting, BenchError};

/// Where `floor.c` of the measurements expects the pods' namespaces; so all sides have them there.
const PODS: &str = "/run/cnibench-ns";
/// The node's own addresses, on a link that leads nowhere.
const UPLINK: &str = "\
link add uplink type veth peer name lan
addr add 192.0.250.1/16 dev uplink
addr add 2001:db8::fa01/64 dev uplink nodad
link set lo up
link set lan up
link set uplink up
route add default via 192.0.250.254
route add default via 2001:db8::fafe
";

/// The namespaces that the calling thread was in when it opened this.
#[derive(Debug)]
struct Place {
    net: OwnedFd,
    mount: OwnedFd,
}

impl Place {
    fn here() -> Result<Self, BenchError> {
        let open = |kind: &str| {
            let path = format!("/proc/thread-self/ns/{kind}");
            File::open(&path).map(OwnedFd::from).attempting(format!("open {path}"))
        };
        Ok(Self { net: open("net")?, mount: open("mnt")? })
    }

    fn enter(&self) -> Result<(), BenchError> {
        enter_net(&self.net)?;
        move_into_link_name_space(self.mount.as_fd(), Some(LinkNameSpaceType::Mount))
            .attempting("enter a node's mount namespace")
    }
}

fn enter_net(net: &OwnedFd) -> Result<(), BenchError> {
    move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
        .attempting("enter a network namespace")
}

fn unshare(flags: UnshareFlags) -> Result<(), BenchError> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the danger of `unshare` is a file table that threads no longer share; no caller asks for that.
    unsafe { unshare_unsafe(flags) }
        .attempting("make namespaces (run as root, or under `unshare --user --map-root-user`)")
}

/// Where this program was started. Nodes are made from there, so that none keeps another's mounts alive.
#[derive(Debug)]
pub(crate) struct Home(Place);

impl Home {
    /// Where the calling thread is.
    pub(crate) fn here() -> Result<Self, BenchError> {
        // A thread that shares its root folder with others may not change its mounts.
        unshare(UnshareFlags::FS)?;
        Place::here().map(Self)
    }

    /// Makes a node with an uplink, and leaves the thread in it.
    pub(crate) fn node(&self) -> Result<Node, BenchError> {
        self.0.enter()?;
        Node::new()
    }
}

/// One side's node. It ends with this program.
#[derive(Debug)]
pub(crate) struct Node {
    place: Place,
}

impl Node {
    fn new() -> Result<Self, BenchError> {
        unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .attempting("make mounts private")?;
        for folder in ["/run", "/var/lib"] {
            mount("node", folder, "tmpfs", MountFlags::empty(), None)
                .attempting(format!("mount memory on {folder}"))?;
        }
        for folder in [PODS, "/run/netns", "/var/lib/cni"] {
            fs::create_dir_all(folder).attempting(format!("create {folder}"))?;
        }
        let node = Self { place: Place::here()? };
        ip_batch(UPLINK, false)?;
        Ok(node)
    }

    /// Moves the thread to this node.
    pub(crate) fn enter(&self) -> Result<(), BenchError> {
        self.place.enter()
    }

    /// Makes a pod's namespace on this node, in which the thread is.
    pub(crate) fn pod(&self, index: usize) -> Result<Pod, BenchError> {
        let id = format!("pod{index:05}");
        let path = Path::new(PODS).join(&id);
        File::create(&path).attempting(format!("create {}", path.display()))?;
        unshare(UnshareFlags::NEWNET)?;
        let bound = mount_bind("/proc/thread-self/ns/net", &path);
        let net = File::open("/proc/thread-self/ns/net").map(OwnedFd::from);
        enter_net(&self.place.net)?;
        bound.attempting(format!("mount {}", path.display()))?;
        Ok(Pod { index, id, path, net: net.attempting("open a pod's namespace")?, result: None })
    }

    /// Runs `work` with the thread in the pod's network.
    pub(crate) fn inside<T>(&self, pod: &Pod, work: impl FnOnce() -> T) -> Result<T, BenchError> {
        enter_net(&pod.net)?;
        let done = work();
        enter_net(&self.place.net)?;
        Ok(done)
    }
}

/// A pod that can be attached.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Distinguishes it among its node's pods, and says which addresses and host port it gets.
    pub(crate) index: usize,
    /// `CNI_CONTAINERID`.
    pub(crate) id: String,
    /// `CNI_NETNS`.
    pub(crate) path: PathBuf,
    net: OwnedFd,
    /// What the last plugin answered to ADD.
    pub(crate) result: Option<serde_json::Value>,
}

impl Pod {
    /// Removes the namespace.
    pub(crate) fn remove(self) -> Result<(), BenchError> {
        unmount(&self.path, UnmountFlags::DETACH).attempting(format!("unmount {}", self.path.display()))?;
        fs::remove_file(&self.path).attempting(format!("remove {}", self.path.display()))
    }
}

/// Hands commands to `ip -batch`. `force` goes on after those that fail.
pub(crate) fn ip_batch(commands: &str, force: bool) -> Result<(), BenchError> {
    let file = Path::new("/run/ip-batch");
    fs::write(file, commands).attempting("write the commands of ip -batch")?;
    ip_batch_file(file, force)
}

/// As [`ip_batch`], of a file that is there already.
pub(crate) fn ip_batch_file(file: &Path, force: bool) -> Result<(), BenchError> {
    let mut command = Command::new("ip");
    if force {
        command.arg("-force");
    }
    command.arg("-batch").arg(file).stdin(Stdio::null());
    let done = command.output().attempting("execute `ip` (install iproute2)")?;
    if done.status.success() || force {
        return Ok(());
    }
    Err(BenchError::new("carry out ip -batch", String::from_utf8_lossy(&done.stderr).trim()))
}

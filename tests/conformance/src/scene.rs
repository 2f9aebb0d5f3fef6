//! A node of one's own for each run: network and mount namespaces, pods, an outside world. Nothing of it outlives the
//! thread that entered it.
#![allow(unsafe_code, reason = "unshare has no safe wrapper")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kernel::netns::NetNs;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::error::{SuiteError, failed};

/// Where programs of the node are looked for.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The node's uplink, with its addresses, towards a neighbour that knows the way to the pods.
const UPLINK: &str = "
    ip link add up0 type veth peer name lan0 netns /run/netns/outside
    ip addr add 192.0.2.11/24 dev up0
    ip addr add 2001:db8:1::11/64 dev up0 nodad
    ip link set up0 addrgenmode none up
    ip -n outside addr add 192.0.2.1/24 dev lan0
    ip -n outside addr add 2001:db8:1::1/64 dev lan0 nodad
    ip -n outside link set lan0 addrgenmode none up
    ip route add default via 192.0.2.1
    ip -6 route add default via 2001:db8:1::1
    for try in $(seq 200); do ip link show up0 | grep -q 'state UP' && break; sleep 0.05; done
    ip -n outside route add 10.0.0.0/8 via 192.0.2.11
    ip -n outside -6 route add fd00::/8 via 2001:db8:1::11
";

/// The namespaces of a run.
pub(crate) struct Scene {
    node: NetNs,
    others: BTreeMap<String, NetNs>,
}

impl Scene {
    /// Moves the calling thread, for good, into namespaces of its own, and makes pods of these names.
    pub(crate) fn enter(pods: &[&str]) -> Result<Self, SuiteError> {
        let initial = NetNs::open(Path::new("/proc/1/ns/net")).and_then(|ns| ns.id()).ok();
        let before = NetNs::current()?.id()?;
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::FS)?;
        let node = NetNs::current()?;
        let now = node.id()?;
        if now == before || Some(now) == initial {
            return Err(SuiteError::NotAlone);
        }
        own_folders()?;
        let mut scene = Self { node, others: BTreeMap::new() };
        for name in pods.iter().chain(&["outside"]) {
            let other = scene.new_namespace(name)?;
            scene.others.insert((*name).to_owned(), other);
        }
        scene.run("node", "ip link set lo up")?;
        scene.run("outside", "ip link set lo up")?;
        scene.run("node", UPLINK)?;
        Ok(scene)
    }

    /// The path that `CNI_NETNS` says.
    pub(crate) fn netns_path(pod: &str) -> PathBuf {
        Path::new("/run/netns").join(pod)
    }

    /// Runs `work` inside the namespace of this name.
    pub(crate) fn inside<T>(&self, name: &str, work: impl FnOnce() -> T) -> Result<T, SuiteError> {
        Ok(self.namespace(name)?.run(work)?)
    }

    /// Runs a shell's lines there; each must succeed.
    pub(crate) fn run(&self, name: &str, lines: &str) -> Result<String, SuiteError> {
        self.inside(name, || output(Command::new("/bin/sh").args(["-e", "-c", lines]), lines))?
    }

    fn namespace(&self, name: &str) -> Result<&NetNs, SuiteError> {
        if name == "node" {
            return Ok(&self.node);
        }
        self.others
            .get(name)
            .ok_or_else(|| SuiteError::Unknown { what: "a namespace", name: name.to_owned() })
    }

    /// A new network namespace with a name, as runtimes pin them.
    fn new_namespace(&self, name: &str) -> Result<NetNs, SuiteError> {
        let pinned = Self::netns_path(name);
        std::fs::write(&pinned, "").map_err(failed("make", &pinned))?;
        unshare(UnshareFlags::NEWNET)?;
        let made = NetNs::current()?;
        let pin = mount_bind("/proc/thread-self/ns/net", &pinned);
        self.node.enter()?;
        pin.map_err(|errno| failed("pin a namespace at", &pinned)(errno.into()))?;
        Ok(made)
    }
}

/// The output of a program that must succeed.
pub(crate) fn output(command: &mut Command, line: &str) -> Result<String, SuiteError> {
    let ended = command
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| SuiteError::Io { attempted: format!("execute `{line}`"), source })?;
    if !ended.status.success() {
        let stderr = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        return Err(SuiteError::Command { line: line.trim().to_owned(), stderr });
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Everything that plugins write lies in folders that only this thread, and what it starts, can see.
fn own_folders() -> Result<(), SuiteError> {
    let refused = |what: &str| {
        let attempted = format!("mount {what} for the case alone");
        move |errno: rustix::io::Errno| SuiteError::Io { attempted, source: errno.into() }
    };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(refused("/"))?;
    for folder in ["/run", "/var/lib"] {
        mount("tmpfs", folder, "tmpfs", MountFlags::empty(), None).map_err(refused(folder))?;
    }
    for folder in ["/run/netns", "/run/etc", "/run/etc.work", "/var/lib/cni"] {
        std::fs::create_dir_all(folder).map_err(failed("make", Path::new(folder)))?;
    }
    // /etc stays as it is, but for what a case writes there.
    let layers = c"lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work";
    mount("overlay", "/etc", "overlay", MountFlags::empty(), layers).map_err(refused("/etc"))?;
    Ok(())
}

fn unshare(flags: UnshareFlags) -> Result<(), SuiteError> {
    // SAFETY: the danger of `unshare` is a file table that threads no longer share; nobody asks for that here.
    unsafe { unshare_unsafe(flags) }.map_err(|errno| SuiteError::Io {
        attempted: "enter new namespaces (root, or `unshare --map-root-user`, is needed)".to_owned(),
        source: errno.into(),
    })
}

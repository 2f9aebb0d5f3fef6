//! Process 1 of a node: it sees to the node's own mounts, says so, and then only reaps orphans.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::cgroups::mounts_of_version_1;
use crate::error::{Outcome, TierError};
use crate::process::run;

/// What a node is told about itself.
#[derive(Args, Clone, Debug)]
pub struct NodeInit {
    /// Its name.
    #[arg(long)]
    pub name: String,
    /// Folder of what survives a reboot.
    #[arg(long)]
    pub disk: PathBuf,
    /// Which boot this is: another value of `/proc/sys/kernel/random/boot_id` each time.
    #[arg(long)]
    pub boot_id: String,
}

/// Folders of the machine that the node sees as they are, and changes for itself alone.
const OVERLAID: [&str; 3] = ["etc", "opt", "var"];
/// Folders that containers live in: an overlay cannot lie on an overlay.
const PLAIN: [&str; 3] = ["var/lib/kubelet", "var/lib/containerd", "var/log/pods"];
/// What the kubelet wants to read. These belong to the machine, so they are shown to it, and not changed.
const SHOWN_SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Said on standard output when the node can be used.
pub const READY: &str = "ready";

/// Runs for ever. Called in fresh mount, process, network, control group, host name and IPC namespaces.
pub fn node_init(node: &NodeInit) -> Outcome {
    rustix::system::sethostname(node.name.as_bytes()).map_err(TierError::io("set the host name"))?;
    mount_everything(node)?;
    writeln!(std::io::stdout(), "{READY}").map_err(TierError::io("say that the node is ready"))?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) => {}
            // No child at all: until a container's shim is orphaned there is nothing to do.
            Err(Errno::CHILD) => std::thread::sleep(std::time::Duration::from_millis(100)),
            Err(errno) => return Err(TierError::io("reap a process")(errno)),
        }
    }
}

fn mount_everything(node: &NodeInit) -> Outcome {
    // Old mounts below a new /sys would stay in mountinfo, where runc finds them.
    mount(&["umount", "-R", "-l", "/sys"])?;
    mount(&["mount", "-t", "sysfs", "sysfs", "/sys"])?;
    mount(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup"])?;
    for (folder, options) in mounts_of_version_1() {
        let at = format!("/sys/fs/cgroup/{folder}");
        create(Path::new(&at))?;
        mount(&["mount", "-t", "cgroup", "-o", &options, "cgroup", &at])?;
    }
    for folder in OVERLAID {
        let (upper, work) = (node.disk.join(folder), node.disk.join(format!("{folder}.work")));
        create(&upper)?;
        create(&work)?;
        let (upper, work) = (upper.display(), work.display());
        let options = format!("lowerdir=/{folder},upperdir={upper},workdir={work}");
        mount(&["mount", "-t", "overlay", "-o", &options, "overlay", &format!("/{folder}")])?;
    }
    for folder in PLAIN {
        let (on_disk, at) = (node.disk.join("plain").join(folder), Path::new("/").join(folder));
        create(&on_disk)?;
        create(&at)?;
        mount(&["mount", "--bind", &on_disk.display().to_string(), &at.display().to_string()])?;
    }
    mount(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"])?;
    for folder in ["/run/netns", "/run/lock", "/run/shown", "/etc/cni/net.d", "/opt/cni/bin"] {
        create(Path::new(folder))?;
    }
    write(Path::new("/run/resolv.conf"), "")?;
    for (key, value) in SHOWN_SYSCTLS {
        show(key, value)?;
    }
    show("kernel/random/boot_id", &node.boot_id)?;
    // Last: what is mounted into containers must reach them, also later.
    mount(&["mount", "--make-rshared", "/"])
}

fn show(key: &str, value: &str) -> Outcome {
    let file = format!("/run/shown/{}", key.replace('/', "_"));
    write(Path::new(&file), &format!("{value}\n"))?;
    mount(&["mount", "--bind", &file, &format!("/proc/sys/{key}")])
}

fn mount(command: &[&str]) -> Outcome {
    run(Command::new(command[0]).args(&command[1..])).map(|_| ())
}

fn create(folder: &Path) -> Outcome {
    fs::create_dir_all(folder).map_err(TierError::io(format!("create {}", folder.display())))
}

fn write(file: &Path, text: &str) -> Outcome {
    fs::write(file, text).map_err(TierError::io(format!("write {}", file.display())))
}

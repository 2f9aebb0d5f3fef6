//! Starting the tier from outside: a first process in namespaces of its own, with which everything ends, and the control
//! groups, which would not end by themselves.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::cgroups;
use crate::error::{Outcome, TierError};
use crate::options::Task;
use crate::process::first_child;
use crate::wait::{Seen, wait_for};

/// Names of the tier's control groups begin so; the launcher's process number follows.
const GROUP: &str = "hostgw-cluster-";
/// Where the number of the tier's first process is noted, below the folder of logs.
pub const FIRST_PROCESS: &str = "first-process";
/// The exit code of whoever was interrupted.
const INTERRUPTED: u8 = 130;

/// What the first process is told on its standard input, whose end tells it that we are gone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The command line.
    pub task: Task,
    /// The tier's control group.
    pub group: String,
    /// The machine's own network namespace, in which nothing may be done.
    pub machine: String,
}

/// Runs the tier and gives its exit code.
pub fn launch(task: &Task) -> Outcome<u8> {
    if !rustix::process::geteuid().is_root() {
        return Err(TierError::Environment(
            "kubelets and container runtimes need root: run as root".to_owned(),
        ));
    }
    cgroups::check_version_1()?;
    for name in ["unshare", "nsenter", "openssl", "nft", "iptables"] {
        find_program(name)?;
    }
    remove_leftovers()?;
    empty(task.logs())?;
    let group = format!("{GROUP}{}", std::process::id());
    let signals = kernel::signals::catch_ends().map_err(|error| TierError::Wrong(error.to_string()))?;
    let mut first = spawn(task, &group)?;
    let code = watch(&mut first, &signals);
    // Ends it where it has not ended. Its own first child, process 1 of the namespace, dies with it.
    let _ = first.kill();
    let _ = first.wait();
    cgroups::remove(&group)?;
    code
}

fn find_program(name: &str) -> Outcome {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let missing = || TierError::Environment(format!("the program `{name}` is missing: install its package"));
    found.then_some(()).ok_or_else(missing)
}

/// Control groups of a tier whose launcher was killed.
fn remove_leftovers() -> Outcome {
    for name in cgroups::leftovers(GROUP) {
        let launcher = name.trim_start_matches(GROUP);
        if !Path::new("/proc").join(launcher).exists() {
            cgroups::remove(&name)?;
        }
    }
    Ok(())
}

fn empty(folder: &Path) -> Outcome {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(folder),
    }
    .map_err(TierError::io(format!("empty the folder of logs {}", folder.display())))
}

fn spawn(task: &Task, group: &str) -> Outcome<Child> {
    let own = std::env::current_exe().map_err(TierError::io("find this program"))?;
    let machine = fs::read_link("/proc/self/ns/net").map_err(TierError::io("read /proc/self/ns/net"))?;
    let mut child = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "--"])
        .arg(own)
        .arg("inside")
        .stdin(Stdio::piped())
        .spawn()
        .map_err(TierError::io("start unshare"))?;
    let orders = Orders {
        task: task.clone(),
        group: group.to_owned(),
        machine: machine.to_string_lossy().into_owned(),
    };
    let mut line = serde_json::to_vec(&orders).map_err(|error| TierError::Wrong(error.to_string()))?;
    line.push(b'\n');
    let lifeline = child.stdin.as_mut().ok_or_else(|| TierError::Wrong("no pipe to the tier".to_owned()))?;
    lifeline.write_all(&line).map_err(TierError::io("tell the tier what to do"))?;
    let parent = child.id();
    let first = wait_for("the tier's first process", Duration::from_secs(60), || {
        Ok(first_child(parent).map_or_else(|| Seen::NotYet("not there".to_owned()), Seen::Yes))
    })?;
    fs::write(task.logs().join(FIRST_PROCESS), first.as_raw_nonzero().to_string())
        .map_err(TierError::io("note the tier's first process"))?;
    Ok(child)
}

/// Waits for its end, or for a signal to us.
fn watch(first: &mut Child, signals: &OwnedFd) -> Outcome<u8> {
    let process =
        pidfd_open(Pid::from_child(first), PidfdFlags::empty()).map_err(TierError::io("watch the tier"))?;
    loop {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(TierError::io("wait for the tier")(errno)),
        }
        if !fds[0].revents().is_empty() {
            return Ok(INTERRUPTED);
        }
        if let Some(status) = first.try_wait().map_err(TierError::io("wait for the tier"))? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
    }
}

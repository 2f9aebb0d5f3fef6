//! A node: its root folder, its place on the LAN, and the agent that runs there.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid};

use rustix::thread::UnshareFlags;

use crate::conflist::Conflist;
use crate::place::Place;
use crate::topology::NodePlan;
use crate::{LabError, binaries, root_folder};

/// The agent's log, in the node's root folder.
const LOG: &str = "var/log/hostgw-agent.log";
/// What the agent writes last, in the node's root folder.
const CONFLIST: &str = "etc/cni/net.d/10-hostgw.conflist";
/// The program that is the agent, and the command line.
const AGENT: &str = "/opt/hostgw/hostgw";
/// How much of a log is shown.
const LOG_LINES: usize = 30;

/// A node that was built.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is to be.
    pub(crate) plan: NodePlan,
    /// Where it is.
    pub(crate) place: Place,
    root: PathBuf,
    agent: Option<Child>,
    started: Instant,
}

/// Where a place's root folder is, seen from the lab's.
pub(crate) fn root_of(name: &str) -> PathBuf {
    Path::new("/lab/roots").join(name)
}

impl Node {
    /// Builds the node, not yet plugged in, its agent not yet running.
    pub(crate) fn create(plan: &NodePlan) -> Result<Self, LabError> {
        let root = root_of(&plan.name);
        root_folder::furnish_node(&root)?;
        write(&root.join("etc/hostname"), &format!("{}\n", plan.name))?;
        binaries::install(&root)?;
        root_folder::mount_state(&root)?;
        let place = Place::create(&plan.name, root.clone())?;
        Ok(Self { plan: plan.clone(), place, root, agent: None, started: Instant::now() })
    }

    /// Writes the agent's configuration.
    pub(crate) fn configure(&self, config: &str) -> Result<(), LabError> {
        write(&self.root.join("etc/hostgw/config.yaml"), config)
    }

    /// Replaces the list of nodes, at once and whole, as a careful administrator does.
    pub(crate) fn set_nodes(&self, nodes: &str) -> Result<(), LabError> {
        // As from `cp -p`: an agent that starts this very second need not wonder whether there is more to come.
        self.set_nodes_of(nodes, SystemTime::UNIX_EPOCH)
    }

    /// The same, with the time at which the list was written.
    pub(crate) fn set_nodes_of(&self, nodes: &str, modified: SystemTime) -> Result<(), LabError> {
        let half_written = self.root.join("etc/hostgw/.nodes.yaml");
        let path = self.root.join("etc/hostgw/nodes.yaml");
        write(&half_written, nodes)?;
        File::options()
            .write(true)
            .open(&half_written)
            .and_then(|file| file.set_modified(modified))
            .map_err(LabError::io(format!("date {}", half_written.display())))?;
        fs::rename(&half_written, &path).map_err(LabError::io(format!("replace {}", path.display())))
    }

    /// Boots the node anew: its namespaces, its processes and `/run` are gone, its disk is kept. The boot has an id of
    /// its own.
    pub(crate) fn reboot(&mut self, boot_id: &str) -> Result<(), LabError> {
        self.kill_agent()?;
        self.place = Place::create(&self.plan.name, self.root.clone())?;
        write(&self.root.join("etc/boot_id"), &format!("{boot_id}\n"))?;
        self.place.run(|| {
            let id = "/proc/sys/kernel/random/boot_id";
            rustix::mount::mount_bind("/etc/boot_id", id).map_err(LabError::call(format!("replace {id}")))
        })
    }

    /// Lets whatever starts on the node from now on have clocks that are `seconds` ahead (`time_namespaces(7)`): those
    /// that count since the boot. The date has no namespace.
    pub(crate) fn jump_clocks(&self, seconds: u64) -> Result<(), LabError> {
        self.place.run(move || {
            crate::namespaces::unshare(UnshareFlags::NEWTIME)
                .map_err(LabError::io("make a time namespace"))?;
            let thread = rustix::thread::gettid().as_raw_nonzero();
            let path = format!("/proc/{thread}/timens_offsets");
            fs::write(&path, format!("monotonic {seconds} 0\nboottime {seconds} 0\n"))
                .map_err(LabError::io(format!("set the clocks ahead in {path}")))
        })
    }

    /// The CNI configuration as it is now.
    pub(crate) fn conflist(&self) -> Result<Conflist, LabError> {
        read_conflist(&self.root)
    }

    /// Starts the agent as in production: every path is the default one.
    pub(crate) fn start_agent(&mut self) -> Result<(), LabError> {
        let name = self.plan.name.clone();
        let start = move || {
            let log = Path::new("/").join(LOG);
            let log = File::options()
                .create(true)
                .append(true)
                .open(&log)
                .map_err(LabError::io(format!("open {}", log.display())))?;
            Command::new(AGENT)
                .args(["agent", "--source", "file:/etc/hostgw/nodes.yaml", "--node-name", &name])
                .args(["--config", "/etc/hostgw/config.yaml"])
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .map_err(LabError::io(format!("start the agent on {name}")))
        };
        self.started = Instant::now();
        self.agent = Some(self.place.run(start)?);
        Ok(())
    }

    /// Waits until the agent announced the node by its CNI configuration, as a runtime does; gives that, and how long
    /// it took since the agent's start.
    pub(crate) fn wait_until_ready(&mut self, deadline: Instant) -> Result<(Conflist, Duration), LabError> {
        let path = self.root.join(CONFLIST);
        let folder = path.parent().unwrap_or(&path);
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .and_then(|watch| {
                use inotify::WatchFlags as Watch;
                inotify::add_watch(&watch, folder, Watch::CLOSE_WRITE | Watch::MOVED_TO | Watch::CREATE)?;
                Ok(watch)
            })
            .map_err(LabError::call(format!("watch {}", folder.display())))?;
        let agent = self.agent_pid().ok_or_else(|| self.ended("no process"))?;
        let agent = pidfd_open(agent, PidfdFlags::empty()).map_err(LabError::call("watch the agent"))?;
        loop {
            if path.exists() {
                let took = self.started.elapsed();
                return Ok((self.conflist()?, took));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LabError::Deadline {
                    place: self.plan.name.clone(),
                    waited_for: format!("/{CONFLIST}"),
                    after: self.started.elapsed(),
                    log: self.log_end(),
                });
            }
            let mut fds = [PollFd::new(&watch, PollFlags::IN), PollFd::new(&agent, PollFlags::IN)];
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(LabError::call(format!("wait for {}", path.display()))(errno)),
            }
            if !fds[1].revents().is_empty() && !path.exists() {
                let status = self.agent.as_mut().and_then(|agent| agent.wait().ok());
                return Err(self.ended(&status.map_or_else(|| "no status".to_owned(), describe)));
            }
            let mut drained = [0; 4096];
            while rustix::io::read(&watch, &mut drained).is_ok() {}
        }
    }

    fn ended(&self, status: &str) -> LabError {
        LabError::AgentEnded {
            node: self.plan.name.clone(),
            status: status.to_owned(),
            waited_for: Path::new("/").join(CONFLIST),
            log: self.log_end(),
        }
    }

    /// Holds the agent, as a debugger would: it neither repairs nor ends. It stands still when this returns.
    pub(crate) fn hold_agent(&self) -> Result<(), LabError> {
        let Some(pid) = self.agent_pid() else { return Ok(()) };
        hold(pid).map_err(LabError::call(format!("hold the agent on {}", self.plan.name)))
    }

    /// Lets a held agent go on.
    pub(crate) fn resume_agent(&self) -> Result<(), LabError> {
        self.signal(Signal::CONT)
    }

    /// Kills the agent at once, and waits until it is gone.
    pub(crate) fn kill_agent(&mut self) -> Result<(), LabError> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        agent
            .kill()
            .and_then(|()| agent.wait().map(drop))
            .map_err(LabError::io(format!("kill the agent on {}", self.plan.name)))
    }

    /// What `hostgw` says on the node when it is given `arguments`: its exit code and its standard output.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<(Option<i32>, String), LabError> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let name = self.plan.name.clone();
        self.place.run(move || {
            let output = Command::new(AGENT)
                .args(&arguments)
                .env_clear()
                .stdin(Stdio::null())
                .output()
                .map_err(LabError::io(format!("run hostgw {} on {name}", arguments.join(" "))))?;
            Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        })
    }

    fn agent_pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.agent.as_ref()?.id()).ok()?)
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let Some(pid) = self.agent_pid() else { return Ok(()) };
        kill_process(pid, signal).map_err(LabError::call(format!("signal the agent on {}", self.plan.name)))
    }

    /// Whether the agent still runs; if not, how it ended.
    pub(crate) fn agent_status(&mut self) -> Result<(), String> {
        match self.agent.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(status))) => Err(format!("the agent ended with {}", describe(status))),
            Some(Err(error)) => Err(format!("the agent cannot be watched: {error}")),
            None => Err("no agent was started".to_owned()),
        }
    }

    /// The last lines of the agent's log.
    pub(crate) fn log_end(&self) -> String {
        let log = fs::read(self.root.join(LOG)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// Stops a child, and waits until it stands still. The signal alone says nothing of that: until the thread that takes it has
/// had its turn, the others run on, and on a busy machine they do for as long as a repair takes.
fn hold(child: Pid) -> rustix::io::Result<()> {
    kill_process(child, Signal::STOP)?;
    // One that has ended stands still, too; whoever waits for it later still finds it.
    let until = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::io::retry_on_intr(|| waitid(WaitId::Pid(child), until)).map(drop)
}

fn describe(status: std::process::ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(LabError::io(format!("write {}", path.display())))
}

/// Reads the CNI configuration below a node's root folder.
pub(crate) fn read_conflist(root: &Path) -> Result<Conflist, LabError> {
    let path = root.join(CONFLIST);
    let bytes = fs::read(&path).map_err(LabError::io(format!("read {}", path.display())))?;
    let file = Path::new("/").join(CONFLIST);
    Conflist::parse(&bytes).map_err(|reason| LabError::Conflist { file, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_held_stands_still_at_once_and_goes_on_and_ends_as_if_nothing_had_been() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
            stat.rsplit_once(')').unwrap().1.trim_start().chars().next().unwrap()
        };
        for _ in 0..2 {
            hold(pid).unwrap();
            assert_eq!(state(), 'T');
            hold(pid).unwrap();
            kill_process(pid, Signal::CONT).unwrap();
            assert_ne!(state(), 'T');
        }
        child.kill().unwrap();
        hold(pid).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}

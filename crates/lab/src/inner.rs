//! The lab's first process: process 1 of its namespace, with which everything ends. It leaves the machine's namespaces,
//! runs the scenario, reports once, and either ends or stays until it is ended.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Resource, Rlimit, Signal, WaitOptions, getrlimit, set_parent_process_death_signal, setrlimit, setsid,
    wait,
};
use rustix::thread::UnshareFlags;

use crate::cluster::Cluster;
use crate::launcher::{KEEP, Message};
use crate::namespaces::{remedy, unshare};
use crate::report::Report;
use crate::{LabError, Options, binaries, root_folder, scenario};

/// Runs as the process that [`crate::launch`] started. Gives its exit code.
#[must_use]
pub fn inner() -> u8 {
    let outcome = build();
    let (message, cluster) = match outcome {
        Ok((report, cluster)) => (Message::Finished(Box::new(report)), Some(cluster)),
        Err(error) => (Message::Failed { message: error.to_string(), exit: error.exit_code() }, None),
    };
    let keep = matches!(&message, Message::Finished(report) if report.kept);
    // From now on the launcher's end is not ours, but only if it says so; see `stay`.
    let cleared = !keep || set_parent_process_death_signal(None).is_ok();
    if say(&message).is_err() || !cleared {
        return 1;
    }
    match cluster {
        Some(cluster) if keep => stay(&cluster),
        _ => 0,
    }
}

fn build() -> Result<(Report, Cluster), LabError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(LabError::call("tie the lab to its launcher"))?;
    // The terminal's Ctrl-C is for the launcher alone.
    setsid().map_err(LabError::call("leave the terminal"))?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(LabError::io("read the lab's options"))?;
    let options: Options =
        serde_json::from_str(&line).map_err(|error| LabError::io("read the lab's options")(error.into()))?;
    options.check()?;
    refuse_orphanhood()?;
    allow_many_files();
    let programs = binaries::open(&options.bin_dir)?;
    let own = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC;
    unshare(own).map_err(|source| {
        let as_root = rustix::process::geteuid().is_root();
        LabError::NamespacesRefused { remedy: remedy(as_root), source }
    })?;
    rustix::system::sethostname(b"lan").map_err(LabError::call("set the host name lan"))?;
    root_folder::enter_lab_root()?;
    scenario::run(&options, programs)
}

/// The launcher may have ended before its end was made ours; then the pipe to it is closed.
fn refuse_orphanhood() -> Result<(), LabError> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::HUP)];
    poll(&mut fds, Some(&Timespec::default())).map_err(LabError::call("look after the launcher"))?;
    if fds[0].revents().is_empty() { Ok(()) } else { Err(LabError::Interrupted) }
}

/// Each pod takes seven descriptors: what the kernel allows at most, not what a login shell starts with.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, a lab that is too large says so when descriptors run out.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn say(message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Lives on, once the launcher has registered the lab; if it ended before, nobody could find the lab.
fn stay(cluster: &Cluster) -> u8 {
    let mut word = [0; KEEP.len()];
    if io::stdin().lock().read_exact(&mut word).is_err() || word != *KEEP {
        return 1;
    }
    let silent = || {
        let null = File::options().read(true).write(true).open("/host/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok::<_, io::Error>(())
    };
    if silent().is_err() {
        return 1;
    }
    debug_assert!(!cluster.nodes.is_empty());
    loop {
        // Process 1 inherits every orphan. The agents are children too, so there is always one to wait for, until all
        // have ended.
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => std::thread::park(),
        }
    }
}

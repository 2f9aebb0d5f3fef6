//! Starting a lab from outside: a first process in namespaces of its own, with which everything ends, watched until it
//! reports. Nothing but that process and, for a kept lab, one registry entry exists on the machine.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::namespaces::leave_process_namespace;
use crate::registry::Registry;
use crate::report::Report;
use crate::{INNER_COMMAND, LabError, Options};

/// Seconds by which the launcher waits longer than the lab itself, for the last waits and the report.
const GRACE_S: u64 = 30;
/// A process that was killed, and all of its namespace, has ended by now.
const END: Duration = Duration::from_secs(60);

/// What the first process says, once, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The lab was built and probed.
    Finished(Box<Report>),
    /// It could not be.
    Failed {
        /// The error's text.
        message: String,
        /// Its exit code.
        exit: u8,
    },
}

/// Builds the lab, probes it, and takes it down unless it is to be kept.
///
/// The process must not have started a thread yet (`unshare(2)`, `CLONE_NEWUSER`).
pub fn launch(options: &Options) -> Result<Report, LabError> {
    options.check()?;
    // Before the user namespace: inside, everybody is root.
    let registry = Registry::of_this_user();
    if options.keep {
        registry.refuse_taken(&options.name)?;
    }
    let signals = kernel::signals::catch_ends().map_err(LabError::kernel("the machine"))?;
    leave_process_namespace()?;
    let mut first = spawn_first(options)?;
    let outcome = watch(&mut first, &signals, options);
    let stays = match &outcome {
        Ok(report) if report.kept => {
            registry.add(options, first.child.id(), report).and_then(|()| first.let_stay())
        }
        _ => {
            first.end();
            return outcome;
        }
    };
    if stays.is_err() {
        first.end();
    }
    stays.and(outcome)
}

/// The first process, and the pipe whose end tells it that we are gone.
struct First {
    child: Child,
    /// Carries the options, and for a kept lab [`KEEP`].
    lifeline: std::process::ChildStdin,
    says: BufReader<std::process::ChildStdout>,
}

/// Tells the first process that it was registered and may outlive us.
pub(crate) const KEEP: &[u8; 4] = b"keep";

impl First {
    fn let_stay(&mut self) -> Result<(), LabError> {
        self.lifeline.write_all(KEEP).map_err(LabError::io("let the lab stay"))
    }

    /// Ends it, and with it every process of its namespace.
    fn end(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_first(options: &Options) -> Result<First, LabError> {
    let failed = || LabError::io("start the lab's first process");
    let mut child = Command::new("/proc/self/exe")
        .arg0("hostgw-lab")
        .args(["lab", INNER_COMMAND])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    let (Some(mut lifeline), Some(says)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed()(io::ErrorKind::BrokenPipe.into()));
    };
    let mut line = serde_json::to_vec(options).map_err(|error| failed()(error.into()))?;
    line.push(b'\n');
    lifeline.write_all(&line).map_err(failed())?;
    Ok(First { child, lifeline, says: BufReader::new(says) })
}

/// Waits for the report, a signal, or the deadline.
fn watch(first: &mut First, signals: &OwnedFd, options: &Options) -> Result<Report, LabError> {
    // The lab's own waits end a little earlier, and say more.
    let limit = Duration::from_secs(options.limit_s() + GRACE_S);
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let (place, waited_for) = ("the lab".to_owned(), "the report".to_owned());
            return Err(LabError::Deadline { place, waited_for, after: limit, log: String::new() });
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(first.says.get_ref(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(LabError::call("wait for the lab")(errno)),
        }
        if !fds[0].revents().is_empty() {
            return Err(LabError::Interrupted);
        }
        if !fds[1].revents().is_empty() {
            return read_report(first);
        }
    }
}

fn read_report(first: &mut First) -> Result<Report, LabError> {
    let mut line = String::new();
    first.says.read_line(&mut line).map_err(LabError::io("read the lab's report"))?;
    match serde_json::from_str(&line) {
        Ok(Message::Finished(report)) => Ok(*report),
        Ok(Message::Failed { message, exit }) => Err(LabError::Inner { message, exit }),
        Err(_) => {
            let status = first.child.wait().map_err(LabError::io("wait for the lab's first process"))?;
            Err(LabError::InnerEnded { status: status.to_string() })
        }
    }
}

/// Ends the process `pid` and waits until it, and with it its namespace, is gone.
pub(crate) fn end_process(pid: Pid) -> Result<(), LabError> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(LabError::call(format!("open process {}", pid.as_raw_nonzero()))(errno)),
    };
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(LabError::call(format!("end process {}", pid.as_raw_nonzero()))(errno)),
    }
    let limit = Timespec { tv_sec: i64::try_from(END.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) {
        Ok(0) => Err(LabError::Deadline {
            place: "the machine".to_owned(),
            waited_for: format!("the end of process {}", pid.as_raw_nonzero()),
            after: END,
            log: String::new(),
        }),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(LabError::call("wait for the lab's end")(errno)),
    }
}

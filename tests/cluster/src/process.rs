//! Programs that the tier runs: ones that end, and daemons with a log each.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Outcome, TierError};
use crate::wait::{Seen, wait_for};

/// How much of a program's last words is worth showing.
const TAIL: usize = 3000;

/// Runs a program to its end and gives what it printed.
pub fn run(command: &mut Command) -> Outcome<String> {
    let line = command_line(command);
    let output = command.stdin(Stdio::null()).output().map_err(TierError::io(format!("run {line}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = text + &String::from_utf8_lossy(&output.stderr);
    Err(TierError::Program {
        command: line,
        status: output.status.to_string(),
        output: tail(&said).to_owned(),
    })
}

fn command_line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

/// The last part of a text, in whole lines.
#[must_use]
pub fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(TAIL);
    let from = text.bytes().skip(from).position(|byte| byte == b'\n').map_or(from, |line| from + line + 1);
    text.get(if text.len() <= TAIL { 0 } else { from }..).unwrap_or_default()
}

/// A daemon that runs until it is stopped.
#[derive(Debug)]
pub struct Daemon {
    /// Its name in messages.
    pub name: String,
    log: PathBuf,
    child: Child,
    /// The daemon's own process, which may be a descendant of the child.
    pid: Pid,
}

impl Daemon {
    /// Starts a program whose words go to `log`.
    pub fn start(name: &str, log: &Path, command: &mut Command) -> Outcome<Self> {
        let failed = || TierError::io(format!("start {name}, with its log at {}", log.display()));
        let file = File::options().create(true).append(true).open(log).map_err(failed())?;
        let errors = file.try_clone().map_err(failed())?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().map_err(failed())?;
        let pid = Pid::from_child(&child);
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child, pid })
    }

    /// As [`Daemon::start`], where the child only enters a process namespace and waits for the daemon, its only child.
    pub fn start_inside(name: &str, log: &Path, command: &mut Command) -> Outcome<Self> {
        let mut daemon = Self::start(name, log, command)?;
        let parent = daemon.child.id();
        daemon.pid = wait_for(&format!("a process of {name}"), Duration::from_secs(60), || {
            Ok(first_child(parent).map_or_else(|| Seen::NotYet("no child yet".to_owned()), Seen::Yes))
        })?;
        Ok(daemon)
    }

    /// The number of the daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends it a signal and waits for its end.
    pub fn end(&mut self, signal: Signal) -> Outcome {
        // It may have ended just now.
        let _ = kill_process(self.pid, signal);
        let limit = Duration::from_secs(30);
        wait_for(&format!("the end of {}", self.name), limit, || {
            let ended = self.child.try_wait().map_err(TierError::io(format!("wait for {}", self.name)))?;
            Ok(ended.map_or_else(|| Seen::NotYet("it runs".to_owned()), |_| Seen::Yes(())))
        })
        .or_else(|_| {
            // What does not end by itself is ended: its state is on disk.
            let _ = kill_process(self.pid, Signal::KILL);
            self.child.wait().map(|_| ()).map_err(TierError::io(format!("wait for {}", self.name)))
        })
    }

    /// An error with its last words, if it has ended though nobody told it to.
    pub fn check_alive(&mut self) -> Outcome {
        let ended = self.child.try_wait().map_err(TierError::io(format!("look at {}", self.name)))?;
        match ended {
            None => Ok(()),
            Some(status) => Err(TierError::Ended {
                name: self.name.clone(),
                status: status
                    .signal()
                    .map_or_else(|| status.to_string(), |signal| format!("signal {signal}")),
                log: tail(&fs::read_to_string(&self.log).unwrap_or_default()).to_owned(),
            }),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child of a process, by `/proc`.
#[must_use]
pub fn first_child(parent: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_line() {
        let text = "first line\n".repeat(1000);
        assert!(tail(&text).starts_with("first"));
        assert!(tail(&text).len() <= TAIL);
        assert_eq!(tail("short"), "short");
    }

    #[test]
    fn a_program_that_fails_tells_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }
}

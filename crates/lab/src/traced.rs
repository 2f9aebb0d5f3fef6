//! A program killed between two of its system calls (`ptrace(2)`): at which, the caller says, not the machine's load.
#![allow(unsafe_code, reason = "ptrace has no safe wrapper")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use libc::pid_t;

/// A program that has been loaded and has done nothing yet. It must be let on by the thread that started it, and dies with
/// that; what it forks runs free.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) child: Child,
    pid: pid_t,
}

impl Traced {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        // SAFETY: between fork and exec, only a system call is made.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let child = command.spawn()?;
        let pid = pid_t::try_from(child.id()).map_err(io::Error::other)?;
        let traced = Self { child, pid };
        traced.wait()?;
        let options = i64::from(libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD);
        traced.ask(libc::PTRACE_SETOPTIONS, options)?;
        Ok(traced)
    }

    /// Lets it on until it is about to make, or has just made, its system call number `boundary` (each counts twice), and
    /// kills it there. Gives how many boundaries there were where it ended before.
    pub(crate) fn kill_at(&mut self, boundary: usize) -> io::Result<Option<usize>> {
        for passed in 0..boundary {
            if !self.step()? {
                return Ok(Some(passed));
            }
        }
        self.child.kill()?;
        while libc::WIFSTOPPED(self.wait()?) {}
        Ok(None)
    }

    /// Goes on to the next boundary; whether there was one before the end.
    fn step(&self) -> io::Result<bool> {
        let mut signal = 0;
        loop {
            self.ask(libc::PTRACE_SYSCALL, signal)?;
            let status = self.wait()?;
            if !libc::WIFSTOPPED(status) {
                return Ok(false);
            }
            match libc::WSTOPSIG(status) {
                stop if stop == libc::SIGTRAP | 0x80 => return Ok(true),
                // Such as that of a child of its own that ended.
                other => signal = i64::from(other),
            }
        }
    }

    fn ask(&self, request: libc::c_uint, data: i64) -> io::Result<()> {
        // SAFETY: neither of the requests used here makes the kernel read or write this process's memory.
        match unsafe { libc::ptrace(request, self.pid, 0, data) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the kernel to write to.
        match unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) } {
            pid if pid == self.pid => Ok(status),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_killed_at_the_boundary_that_is_asked_for_or_ends_and_says_how_many_there_were() {
        let run =
            |boundary| Traced::start(&mut Command::new("/bin/true")).unwrap().kill_at(boundary).unwrap();
        assert_eq!(run(0), None);
        let all = run(usize::MAX).unwrap();
        assert!(all > 2, "{all} boundaries");
        assert_eq!(run(all), None);
        assert_eq!(run(all + 1), Some(all));
    }
}

//! A process stopped before and after each of its system calls (`ptrace(2)`), to be looked at, killed there, or refused
//! one: at which, the caller says, not the machine's load.
#![allow(unsafe_code, reason = "ptrace has no safe wrapper")]

use std::io;
use std::marker::PhantomData;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use libc::pid_t;

/// What becomes of a process that a traced one forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// It runs free.
    RunsFree,
    /// It is traced as well, from its first instruction on ([`Stop::Forked`]).
    IsTraced,
}

/// A traced process, which stands still. It must be let on by the thread that traces it, and is killed where that ends.
#[derive(Debug)]
pub struct Tracee {
    pid: pid_t,
    /// `ptrace` is refused to every other thread.
    of_this_thread: PhantomData<*const ()>,
}

/// Where a process came to stand when it was let on.
#[derive(Debug)]
pub enum Stop {
    /// Before or after a system call ([`Tracee::call`] tells).
    Boundary,
    /// Within a fork: the new process, which has done nothing yet.
    Forked(Tracee),
    /// It is no more.
    Ended(ExitStatus),
}

/// A system call that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Its number (`asm/unistd.h`).
    pub number: i64,
    /// What it is given.
    pub arguments: [u64; 6],
}

/// How a run ended that was to be cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was killed at the boundary that was asked for.
    Killed,
    /// By itself, before.
    Done {
        /// So many boundaries there were.
        boundaries: usize,
        /// How.
        status: ExitStatus,
    },
}

/// Starts a program under trace: it has been loaded, and has done nothing yet.
///
/// # Errors
/// Where it cannot be started or traced.
pub fn start(command: &mut Command, forked: Forked) -> io::Result<(Child, Tracee)> {
    // SAFETY: between fork and exec, only a system call is made.
    unsafe { command.pre_exec(be_traced) };
    let child = command.spawn()?;
    let tracee = Tracee::of_stopped(pid_t::try_from(child.id()).map_err(io::Error::other)?, forked)?;
    Ok((child, tracee))
}

/// Has the calling process traced by the thread that forked it; it must then stop itself, by `exec` or a signal.
///
/// # Errors
/// Where somebody traces it already.
pub fn be_traced() -> io::Result<()> {
    ptrace(libc::PTRACE_TRACEME, 0, 0, 0)
}

impl Tracee {
    /// A process that this thread forked, as soon as it has stopped after [`be_traced`].
    ///
    /// # Errors
    /// Where it has not stopped, or is not traced.
    pub fn of_stopped(pid: pid_t, forked: Forked) -> io::Result<Self> {
        let tracee = Self::of(pid);
        if !libc::WIFSTOPPED(tracee.wait()?) {
            return Err(io::Error::other("the process to trace ended before it stopped"));
        }
        let always = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC;
        let of_forked = match forked {
            Forked::RunsFree => 0,
            Forked::IsTraced => {
                libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK | libc::PTRACE_O_TRACECLONE
            }
        };
        tracee.ask(libc::PTRACE_SETOPTIONS, 0, i64::from(always | of_forked))?;
        Ok(tracee)
    }

    const fn of(pid: pid_t) -> Self {
        Self { pid, of_this_thread: PhantomData }
    }

    /// The process's number.
    #[must_use]
    pub const fn pid(&self) -> pid_t {
        self.pid
    }

    /// Lets it on to its next stop. Signals reach it as if nobody traced it.
    ///
    /// # Errors
    /// Where it does not stand still.
    pub fn go_on(&self) -> io::Result<Stop> {
        let mut signal = 0;
        loop {
            match self.ask(libc::PTRACE_SYSCALL, 0, signal) {
                // Somebody else has killed it where it stood: it is only to be waited for.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                other => other?,
            }
            let status = self.wait()?;
            if !libc::WIFSTOPPED(status) {
                return Ok(Stop::Ended(ExitStatus::from_raw(status)));
            }
            match (libc::WSTOPSIG(status), status >> 16) {
                // Another program in the same process; untold, it would be a SIGTRAP for it to die of.
                (libc::SIGTRAP, libc::PTRACE_EVENT_EXEC) => signal = 0,
                (libc::SIGTRAP, event) if event != 0 => return Ok(Stop::Forked(self.forked()?)),
                (stop, _) if stop == libc::SIGTRAP | 0x80 => return Ok(Stop::Boundary),
                // Such as that of a child of its own that ended.
                (other, _) => signal = i64::from(other),
            }
        }
    }

    /// What it has just forked, as soon as that has stopped.
    fn forked(&self) -> io::Result<Self> {
        let mut pid: libc::c_ulong = 0;
        // SAFETY: the kernel writes the number of the new process to `pid`.
        succeeded(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, self.pid, 0, &raw mut pid) })?;
        let forked = Self::of(pid_t::try_from(pid).map_err(io::Error::other)?);
        forked.wait()?;
        Ok(forked)
    }

    /// The system call that it stands before; none where it stands after one.
    ///
    /// # Errors
    /// Where it does not stand at a boundary.
    pub fn call(&self) -> io::Result<Option<SystemCall>> {
        /// `struct ptrace_syscall_info` (`linux/ptrace.h`): what it is about in the first byte, of an entry the number in the
        /// fourth word, and the arguments behind it.
        const WORDS: usize = 11;
        const ENTRY: u8 = 1;
        let mut info = [0_u64; WORDS];
        let size = size_of_val(&info);
        // SAFETY: the kernel writes at most `size` bytes to `info`.
        let told = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, info.as_mut_ptr()) };
        if told <= 0 {
            return Err(io::Error::last_os_error());
        }
        let [about, _, _, number, arguments @ .., _] = info;
        let [a, b, c, d, e, f] = arguments;
        let is_entry = about.to_ne_bytes()[0] == ENTRY;
        Ok(is_entry.then(|| SystemCall { number: number.cast_signed(), arguments: [a, b, c, d, e, f] }))
    }

    /// Has the system call that it stands before fail with `errno`, without being made; it stands behind it then.
    ///
    /// # Errors
    /// Where it does not stand before one, or ended there.
    #[cfg(target_arch = "x86_64")]
    pub fn fail_call(&self, errno: i32) -> io::Result<()> {
        /// Offsets in `struct user` (`sys/user.h`), in bytes.
        const ORIG_RAX: usize = 15 * 8;
        const RAX: usize = 10 * 8;
        // No call has this number, so the kernel makes none.
        self.ask(libc::PTRACE_POKEUSER, ORIG_RAX, -1)?;
        match self.go_on()? {
            Stop::Boundary => self.ask(libc::PTRACE_POKEUSER, RAX, -i64::from(errno)),
            other => Err(io::Error::other(format!("in a system call that was not made: {other:?}"))),
        }
    }

    /// Lets it on to its boundary number `boundary`, and kills it there. Number 0 is its start; each call has two more.
    ///
    /// # Errors
    /// Where it cannot be traced (any more).
    pub fn kill_at(self, boundary: usize) -> io::Result<End> {
        for boundaries in 0..boundary {
            if let Stop::Ended(status) = self.go_on()? {
                return Ok(End::Done { boundaries, status });
            }
        }
        self.kill()?;
        Ok(End::Killed)
    }

    /// `kill -9` where it stands; when this returns, it is no more.
    ///
    /// # Errors
    /// Where it had ended before.
    pub fn kill(self) -> io::Result<()> {
        // SAFETY: a traced process keeps its number until it is waited for, which nobody else does.
        if unsafe { libc::kill(self.pid, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        while libc::WIFSTOPPED(self.wait()?) {}
        Ok(())
    }

    /// Lets it run on, untraced.
    ///
    /// # Errors
    /// Where it does not stand still.
    pub fn let_go(self) -> io::Result<()> {
        self.ask(libc::PTRACE_DETACH, 0, 0)
    }

    fn ask(&self, request: libc::c_uint, address: usize, data: i64) -> io::Result<()> {
        ptrace(request, self.pid, address, data)
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

fn ptrace(request: libc::c_uint, pid: pid_t, address: usize, data: i64) -> io::Result<()> {
    // SAFETY: none of the requests that come here makes the kernel read or write this process's memory.
    succeeded(unsafe { libc::ptrace(request, pid, address, data) })
}

fn succeeded(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(program: &str) -> Tracee {
        start(&mut Command::new(program), Forked::RunsFree).unwrap().1
    }

    #[test]
    fn a_program_is_killed_at_the_boundary_that_is_asked_for_or_ends_and_says_how_many_there_were() {
        let run = |boundary| started("/bin/true").kill_at(boundary).unwrap();
        assert_eq!(run(0), End::Killed);
        let End::Done { boundaries, status } = run(usize::MAX) else { panic!("killed at no boundary") };
        assert!(boundaries > 2 && status.success(), "{boundaries} boundaries, {status}");
        assert_eq!(run(boundaries), End::Killed);
        assert_eq!(run(boundaries + 1), End::Done { boundaries, status });
    }

    #[test]
    fn each_call_is_told_before_it_is_made_and_none_after() {
        let tracee = started("/bin/true");
        let mut calls = Vec::new();
        while let Stop::Boundary = tracee.go_on().unwrap() {
            calls.push(tracee.call().unwrap());
        }
        let (before, after): (Vec<_>, Vec<_>) = calls.iter().enumerate().partition(|(at, _)| at % 2 == 0);
        assert!(
            before.iter().all(|(_, call)| call.is_some()) && after.iter().all(|(_, call)| call.is_none())
        );
        let last = calls.last().unwrap().unwrap();
        assert_eq!((last.number, last.arguments[0]), (libc::SYS_exit_group, 0));
    }

    #[test]
    fn what_is_forked_is_traced_where_that_is_wanted() {
        let mut shell = Command::new("/bin/sh");
        let (_, tracee) = start(shell.args(["-c", "/bin/true; exit 7"]), Forked::IsTraced).unwrap();
        let mut forked = 0;
        let status = loop {
            match tracee.go_on().unwrap() {
                Stop::Boundary => {}
                Stop::Forked(child) => {
                    forked += 1;
                    assert_eq!(child.kill_at(5).unwrap(), End::Killed);
                }
                Stop::Ended(status) => break status,
            }
        };
        assert_eq!((forked, status.code()), (1, Some(7)));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_call_that_is_refused_fails_as_the_caller_says() {
        let mut cat = Command::new("/bin/cat");
        let (child, tracee) =
            start(cat.arg("/dev/null").stderr(std::process::Stdio::piped()), Forked::RunsFree).unwrap();
        let opens = |call: SystemCall| call.number == libc::SYS_openat;
        let mut refused = false;
        while let Stop::Boundary = tracee.go_on().unwrap() {
            if let Some(call) = tracee.call().unwrap().filter(|call| opens(*call))
                && names_dev_null(&tracee, call)
            {
                tracee.fail_call(libc::EMFILE).unwrap();
                refused = true;
            }
        }
        let mut said = String::new();
        io::Read::read_to_string(&mut child.stderr.unwrap(), &mut said).unwrap();
        assert!(refused && said.contains("Too many open files"), "{said}");
    }

    #[cfg(target_arch = "x86_64")]
    fn names_dev_null(tracee: &Tracee, call: SystemCall) -> bool {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open(format!("/proc/{}/mem", tracee.pid())).unwrap();
        let mut name = [0; 9];
        memory.read_exact_at(&mut name, call.arguments[1]).is_ok() && name == *b"/dev/null"
    }

    #[test]
    fn a_program_that_is_let_go_ends_by_itself() {
        let (mut child, tracee) = start(&mut Command::new("/bin/true"), Forked::RunsFree).unwrap();
        assert!(matches!(tracee.go_on().unwrap(), Stop::Boundary));
        tracee.let_go().unwrap();
        assert!(child.wait().unwrap().success());
    }
}

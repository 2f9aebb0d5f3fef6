//! The wait for a store's lock: bounded, because whoever holds it may hang, and told with the holder's process id.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;

/// For how long the lock is waited for. It is held for microseconds; even hundreds of calls at once are through long
/// before, and a runtime that gets no answer gives up only minutes later.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause between two looks, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

/// What the wait ended with: [`io::ErrorKind::TimedOut`].
#[derive(Debug)]
struct StillHeld {
    waited: Duration,
    /// By which process, where the kernel tells.
    holder: Option<u32>,
}

impl fmt::Display for StillHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder {
            Some(pid) => write!(f, "process {pid} has held it")?,
            None => f.write_str("another process has held it")?,
        }
        write!(f, " for {:?}: try again, and end that process where it hangs", self.waited)
    }
}

impl std::error::Error for StillHeld {}

/// Locks an open file for as long as it is open, or gives up after `patience`.
pub fn lock_within(fd: &OwnedFd, patience: Duration) -> io::Result<()> {
    let began = Instant::now();
    let (mut pause, longest) = PAUSES;
    loop {
        match fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if began.elapsed() < patience => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(longest);
            }
            Err(Errno::WOULDBLOCK) => {
                let still_held = StillHeld { waited: patience, holder: holder_of(fd) };
                return Err(io::Error::new(io::ErrorKind::TimedOut, still_held));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn holder_of(fd: &OwnedFd) -> Option<u32> {
    let stat = fs::fstat(fd).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, fs::major(stat.st_dev), fs::minor(stat.st_dev), stat.st_ino)
}

/// Who holds the `flock` of a file, by `/proc/locks` (proc_locks(5)). A line that begins with an arrow is one that waits.
fn holder_in(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, _, _) = (words.next()?, words.next()?, words.next()?);
        let pid = words.next()?;
        (kind == "FLOCK" && words.next()? == file).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_the_kernels_list_and_those_who_wait_are_not_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:2d:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:2d:78 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 4711 00:2d:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 13 00:2d:77 0 EOF\n";
        assert_eq!(holder_in(locks, 0, 0x2d, 77), Some(4711));
        assert_eq!(holder_in(locks, 8, 0x2d, 77), None);
        assert_eq!(holder_in("", 0, 0x2d, 77), None);
        assert_eq!(holder_in("nonsense\n3:\n", 0, 0x2d, 77), None);
    }
}

//! Which process holds the route socket of a netlink port, as `/proc` tells. A process in a namespace that `/proc` here does
//! not show has none.

use std::fs;

/// A command line may be as long as it likes; so much of it is told.
const TOLD: usize = 100;

/// A process, told apart from another that got its number later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// In clock ticks since the boot (`proc_pid_stat(5)`).
    started: u64,
    /// What it is called, and its command line.
    pub(super) name: String,
}

/// Where the holder of a socket is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// At this process, and at the one whose number is the port, as that of most programs' first socket is
    /// (`netlink(7)`).
    Near,
    /// At every process, which takes milliseconds where there are thousands.
    Everywhere,
}

impl Process {
    /// Whoever holds the route socket of `port` in this thread's network namespace.
    pub(super) fn holding(port: u32, look: Look) -> Option<Self> {
        let table = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
        let wanted = format!("socket:[{}]", inode_of(&table, port)?);
        let near = [std::process::id(), port];
        let pid = match look {
            Look::Near => near.into_iter().find(|pid| holds(*pid, &wanted)),
            Look::Everywhere => {
                let processes = fs::read_dir("/proc").ok()?.flatten();
                let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
                pids.find(|pid| holds(*pid, &wanted))
            }
        }?;
        let text = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        Some(Self { pid, started: started(pid)?, name: name_of(&text("comm"), &text("cmdline")) })
    }

    /// Whether it is this one.
    pub(super) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Whether it has not ended yet.
    pub(super) fn lives(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn holds(pid: u32, socket: &str) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket))
}

/// The inode of the route socket (`Eth` 0) of a port.
fn inode_of(table: &str, port: u32) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is = words.get(1)? == &"0" && words.get(2)?.parse() == Ok(port);
        is.then(|| words.get(9)?.parse().ok()).flatten()
    })
}

/// When a process was started; none where it is gone, or has ended and was only not waited for yet.
fn started(pid: u32) -> Option<u64> {
    started_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22; the second is the name in parentheses, which may hold anything, the third the state.
fn started_in(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    if ended { None } else { fields.nth(18)?.parse().ok() }
}

/// `ip: ip route flush proto 104`, or the name alone where there is no command line.
fn name_of(comm: &[u8], cmdline: &[u8]) -> String {
    let readable = |bytes: &[u8]| {
        let text: String = String::from_utf8_lossy(bytes)
            .chars()
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        text.trim().to_owned()
    };
    let (name, mut line) = (readable(comm), readable(cmdline));
    if line.is_empty() {
        return name;
    }
    if line.chars().count() > TOLD {
        line = line.chars().take(TOLD).chain(['…']).collect();
    }
    format!("{name}: {line}")
}

#[cfg(test)]
pub(super) fn named(pid: u32, name: &str) -> Process {
    Process { pid, started: 0, name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4294963200 00000440 0        0        0     2        0        4242
0000000000000000 12  77         00000000 0        0        0     2        0        11
0000000000000000 0   77         00000000 0        0        0     2        0        99
";

    #[test]
    fn a_port_belongs_to_the_route_socket_of_that_number() {
        assert_eq!(inode_of(TABLE, 77), Some(99));
        assert_eq!(inode_of(TABLE, 4_294_963_200), Some(4242));
        assert_eq!(inode_of(TABLE, 78), None);
        assert_eq!(inode_of("no table", 77), None);
    }

    #[test]
    fn the_start_is_found_behind_any_name_and_who_has_ended_has_none() {
        let stat = |name: &str, state: &str| {
            format!("7 ({name}) {state} 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 {} 9 9", 4711)
        };
        assert_eq!(started_in(&stat("a b) R (c", "S")), Some(4711));
        assert_eq!(started_in(&stat("x", "Z")), None);
        assert_eq!(started_in("nonsense"), None);
        assert!(started(std::process::id()).is_some());
    }

    #[test]
    fn a_name_is_one_short_line() {
        assert_eq!(name_of(b"ip\n", b"ip\0route\0flush\0"), "ip: ip route flush");
        assert_eq!(name_of(b"kworker\n", b""), "kworker");
        assert_eq!(name_of(b"x\x1b[2J\n", b"").find('\x1b'), None);
        assert_eq!(name_of(b"x\n", "ä".repeat(1000).as_bytes()).chars().count(), 3 + TOLD + 1);
    }
}

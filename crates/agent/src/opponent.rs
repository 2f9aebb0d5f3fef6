//! Who deletes our routes again and again: as far as the kernel tells, by the port of the socket through which it was
//! asked to.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use kernel::route::{Route, RouteKind};
use node_network::NODE_ROUTE_PROTOCOL;

/// `RTM_DELROUTE`.
const DELETED: u16 = 25;
/// A program that opens a socket for each deletion must not fill the memory.
const MOST_PORTS: usize = 1024;
/// Fewer deletions are no fight.
const A_FEW: u64 = 10;
/// A fight is over after so long without another deletion.
const OVER: Duration = Duration::from_secs(60);

/// Deletions of routes to peers, by the port that asked for them.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    by_port: BTreeMap<u32, (u64, Instant)>,
}

impl Deletions {
    /// Takes note of a message of the kernel's.
    pub(crate) fn note(&mut self, port: u32, kind: u16, payload: &[u8]) {
        let ours = || {
            let route = Route::parse(payload)?;
            (route.protocol == NODE_ROUTE_PROTOCOL && route.kind == RouteKind::Unicast).then_some(())
        };
        // Port 0 is the kernel, which removes what a link loses.
        let known = self.by_port.len() < MOST_PORTS || self.by_port.contains_key(&port);
        if kind == DELETED && port != 0 && known && ours().is_some() {
            let noted = self.by_port.entry(port).or_insert((0, Instant::now()));
            *noted = (noted.0 + 1, Instant::now());
        }
    }

    /// Who deletes our routes again and again, if somebody does. Our own deletions are none of that.
    pub(crate) fn opponent(&mut self) -> Option<String> {
        self.by_port.retain(|_, (_, last)| last.elapsed() < OVER);
        let (port, count) = self
            .by_port
            .iter()
            .map(|(port, (count, _))| (*port, *count))
            .filter(|(_, count)| *count >= A_FEW)
            .max_by_key(|(_, count)| *count)?;
        let who = match process_of(port) {
            Some((pid, _)) if pid == std::process::id() => {
                self.by_port.remove(&port);
                return None;
            }
            Some((pid, name)) => format!("process {pid} ({name})"),
            // Most programs' first socket has their process id as its port (netlink(7)).
            None => format!("a process that cannot be seen any more, or from here (netlink port {port})"),
        };
        Some(format!(
            "{who} has deleted {count} routes of protocol {NODE_ROUTE_PROTOCOL} lately: tell it to leave them alone; they are \
             put back ever more slowly"
        ))
    }
}

/// The process that holds the route socket of this port, and its name (`/proc/net/netlink`, `/proc/PID/fd`).
fn process_of(port: u32) -> Option<(u32, String)> {
    let table = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
    let inode = inode_of(&table, port)?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
    };
    let pid = pids.find(holds)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().chars().filter(|c| !c.is_control()).collect()))
}

/// The inode of the route socket (`Eth` 0) of a port.
fn inode_of(table: &str, port: u32) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is = words.get(1)? == &"0" && words.get(2)?.parse() == Ok(port);
        is.then(|| words.get(9)?.parse().ok()).flatten()
    })
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
}

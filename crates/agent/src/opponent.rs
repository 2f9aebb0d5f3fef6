//! Who deletes our routes again and again: as far as the kernel tells, by the port of the socket through which it was
//! asked to. Whose that is, is asked as soon as it is heard of: a program may end before anybody wants to know.

mod process;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kernel::route::{Route, RouteKind};
use node_network::NODE_ROUTE_PROTOCOL;

use process::{Look, Process};

/// `RTM_DELROUTE`.
const DELETED: u16 = 25;
/// A program that opens a socket for each deletion must not fill the memory.
const MOST_PORTS: usize = 1024;
/// Fewer deletions are no fight.
const A_FEW: u64 = 10;
/// A fight is over after so long without another deletion.
const OVER: Duration = Duration::from_secs(60);
/// From one look at every process to the next.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Deletions of routes to peers, by the port that asked for them.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    by_port: BTreeMap<u32, Deleter>,
    looked_everywhere: Option<Instant>,
}

/// What is known of a port.
#[derive(Debug)]
struct Deleter {
    count: u64,
    last: Instant,
    process: Option<Process>,
}

/// Programs that are told of in one sentence.
#[derive(Debug, Default, PartialEq, Eq)]
struct Group {
    count: u64,
    processes: Vec<(u32, String)>,
    ports: Vec<u32>,
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
            self.count(port, Process::holding);
        }
    }

    fn count(&mut self, port: u32, holding: impl Fn(u32, Look) -> Option<Process>) {
        let now = Instant::now();
        let deleter = self.by_port.entry(port).or_insert(Deleter { count: 0, last: now, process: None });
        deleter.count += 1;
        deleter.last = now;
        if deleter.process.is_some() {
            return;
        }
        let looked = self.looked_everywhere.is_some_and(|then| then.elapsed() < BETWEEN_LOOKS);
        if deleter.count == 1 {
            deleter.process = holding(port, Look::Near);
        }
        if deleter.process.is_none() && !looked {
            self.looked_everywhere = Some(now);
            deleter.process = holding(port, Look::Everywhere);
        }
    }

    /// Who deletes our routes again and again, if somebody does. Our own deletions are none of that.
    pub(crate) fn opponent(&mut self) -> Option<String> {
        self.by_port.retain(|_, deleter| deleter.last.elapsed() < OVER);
        self.told(Process::is_own, Process::lives)
    }

    /// Whoever lives comes first: that one can be told to stop.
    fn told(&self, is_own: impl Fn(&Process) -> bool, lives: impl Fn(&Process) -> bool) -> Option<String> {
        let mut living: BTreeMap<u32, Group> = BTreeMap::new();
        let (mut ended, mut unseen) = (Group::default(), Group::default());
        for (port, deleter) in &self.by_port {
            match &deleter.process {
                Some(process) if is_own(process) => {}
                Some(process) if lives(process) => living.entry(process.pid).or_default().add(*port, deleter),
                Some(_) => ended.add(*port, deleter),
                None => unseen.add(*port, deleter),
            }
        }
        let fights = |group: &Group| group.count >= A_FEW;
        let worst = living.into_values().filter(fights).max_by_key(|group| group.count);
        let (who, group) = match worst {
            Some(group) => (group.processes_told(), group),
            None if fights(&ended) => (format!("{}, ended by now,", ended.processes_told()), ended),
            None if fights(&unseen) => {
                let ports: Vec<String> = unseen.ports.iter().rev().take(3).map(u32::to_string).collect();
                let who = "somebody who had ended before a look, or is in a process namespace that cannot be seen from \
                           here (netlink port, which is most often the process id:";
                (format!("{who} {})", ports.join(", ")), unseen)
            }
            None => return None,
        };
        Some(format!(
            "{who} has deleted {} routes of protocol {NODE_ROUTE_PROTOCOL} lately: tell it to leave them alone; they are put \
             back ever more slowly",
            group.count
        ))
    }
}

impl Group {
    fn add(&mut self, port: u32, deleter: &Deleter) {
        self.count += deleter.count;
        self.ports.push(port);
        if let Some(Process { pid, name, .. }) = &deleter.process
            && self.processes.iter().all(|(known, _)| known != pid)
        {
            self.processes.push((*pid, name.clone()));
        }
    }

    fn processes_told(&self) -> String {
        let told: Vec<_> =
            self.processes.iter().rev().take(3).map(|(pid, name)| format!("{pid} ({name})")).collect();
        let more = match self.processes.len() - told.len() {
            0 => String::new(),
            more => format!(" or one of {more} others"),
        };
        format!("process {}{more}", told.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use process::named;

    /// A port, how often it deleted, and whose it is.
    type Deleted = (u32, u64, Option<(u32, &'static str)>);

    /// What is told of these, of which processes named `gone` have ended.
    fn told(deletions: &[Deleted]) -> Option<String> {
        let mut noted = Deletions::default();
        for &(port, count, process) in deletions {
            for _ in 0..count {
                noted.count(port, |_, _| process.map(|(pid, name)| named(pid, name)));
            }
        }
        noted.told(|process| process.pid == 1, |process| process.name != "gone")
    }

    #[test]
    fn a_few_deletions_and_our_own_are_no_fight() {
        assert_eq!(told(&[(7, A_FEW - 1, Some((7, "ip")))]), None);
        assert_eq!(told(&[(1, 1000, Some((1, "hostgw")))]), None);
    }

    #[test]
    fn whoever_lives_is_named_before_one_that_did_worse_and_has_ended() {
        let said = told(&[(7, 1000, Some((7, "gone"))), (4_294_963_200, 10, Some((8, "birdd: birdd -f")))]);
        assert!(
            said.unwrap()
                .starts_with("process 8 (birdd: birdd -f) has deleted 10 routes of protocol 104 lately")
        );
        let said = told(&[(7, 1000, Some((7, "gone")))]);
        assert!(said.unwrap().starts_with("process 7 (gone), ended by now, has deleted 1000 routes"));
    }

    #[test]
    fn sockets_of_one_process_count_together() {
        let said = told(&[(7, 6, Some((7, "ip"))), (9, 6, Some((7, "ip")))]);
        assert!(said.unwrap().starts_with("process 7 (ip) has deleted 12 routes"));
    }

    #[test]
    fn many_that_ended_at_once_are_told_together_with_the_last_ones_numbers() {
        let one_shot: Vec<_> = (100..120).map(|port| (port, 1, None)).collect();
        let said = told(&one_shot).unwrap();
        assert!(said.contains("119, 118, 117) has deleted 20 routes"), "{said}");
        let seen: Vec<_> = (100..120).map(|port| (port, 1, Some((port, "gone")))).collect();
        let said = told(&seen).unwrap();
        assert!(
            said.starts_with("process 119 (gone) or 118 (gone) or 117 (gone) or one of 17 others, ended"),
            "{said}"
        );
    }

    #[test]
    fn whose_a_port_is_is_asked_when_it_is_first_heard_of_and_everywhere_once_a_second() {
        let asked = std::cell::RefCell::new(Vec::new());
        let mut noted = Deletions::default();
        for port in [7, 7, 7, 8] {
            noted.count(port, |port, look| {
                asked.borrow_mut().push((port, look));
                None
            });
        }
        assert_eq!(*asked.borrow(), [(7, Look::Near), (7, Look::Everywhere), (8, Look::Near)]);
    }
}

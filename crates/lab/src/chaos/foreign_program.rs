//! Programs of somebody else's, each a process of its own: one that changes thousands of routes a second, and one that
//! deletes ours as soon as they come.

use std::ffi::CStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kernel::KernelError;
use kernel::events::{Events, Group, Heard};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::route::{self, Route, RouteKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::foreign::OUR_PROTOCOLS;
use crate::node::Node;
use crate::{FOREIGN_PROGRAM_COMMAND, LabError};

/// A table that nobody else uses, and `RTPROT_BIRD`.
const TABLE: u32 = 201;
const BIRD: u8 = 12;
/// Routes in one batch; they are added and deleted again, which makes twice as many changes.
const BATCH: u16 = 50;
/// From one batch to the next, for 10,000 changes a second.
const PERIOD: Duration = Duration::from_millis(10);
/// A fight that hears of no route looks for one all the same.
const LOOK: Duration = Duration::from_millis(50);

/// What such a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trade {
    /// Changes 10,000 routes a second, none of them ours.
    Storm,
    /// Deletes the agent's routes as soon as it hears of them.
    Fight,
}

impl Trade {
    const ALL: [Self; 2] = [Self::Storm, Self::Fight];

    /// As the process is called (`comm`, 15 bytes).
    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            Self::Storm => c"route-storm",
            Self::Fight => c"route-fight",
        }
    }

    fn word(self) -> &'static str {
        self.name().to_str().unwrap_or_default()
    }
}

impl fmt::Display for Trade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A process at work until it is stopped.
#[derive(Debug)]
pub(crate) struct ForeignProgram {
    trade: Trade,
    child: Child,
    began: Instant,
}

impl ForeignProgram {
    /// Starts one on a node.
    pub(crate) fn start(trade: Trade, node: &Node) -> Result<Self, LabError> {
        let start = move || {
            Command::new("/proc/self/exe")
                .arg0(trade.word())
                .args(["lab", FOREIGN_PROGRAM_COMMAND, trade.word()])
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(LabError::io(format!("start the program {trade}")))
        };
        Ok(Self { trade, child: node.place.run(start)?, began: Instant::now() })
    }

    /// Its number in the lab, as the agent sees it too.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// For how long it has been at work.
    pub(crate) fn runs_for(&self) -> Duration {
        self.began.elapsed()
    }

    /// Stops it; gives how many changes it made.
    pub(crate) fn stop(mut self) -> Result<u64, LabError> {
        let failed = || LabError::io(format!("stop the program {}", self.trade));
        drop(self.child.stdin.take());
        let mut said = String::new();
        if let Some(out) = &mut self.child.stdout {
            out.read_to_string(&mut said).map_err(failed())?;
        }
        self.child.wait().map_err(failed())?;
        said.trim().parse().map_err(|_| LabError::Inner {
            message: format!("the program {} ended early: {}", self.trade, said.trim()),
            exit: 1,
        })
    }
}

impl Drop for ForeignProgram {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as the process that [`ForeignProgram::start`] started, until its standard input is closed; tells how many changes it
/// made, or why it made no more. Gives its exit code.
#[must_use]
pub fn foreign_program(trade: &str) -> u8 {
    let Some(trade) = Trade::ALL.into_iter().find(|known| known.word() == trade) else { return 2 };
    let began = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| rustix::thread::set_name(trade.name()))
        .map_err(|errno| KernelError::new("begin", errno));
    let done = began.and_then(|()| match trade {
        Trade::Storm => storm(),
        Trade::Fight => fight(),
    });
    let (said, code) = match done {
        Ok(changes) => (changes.to_string(), 0),
        Err(error) => (error.to_string(), 1),
    };
    // Whoever stopped listening has ended.
    let _ = writeln!(io::stdout(), "{said}");
    code
}

/// Whether nobody wants it to go on, within `patience`.
fn is_stopped(patience: Duration) -> bool {
    let stdin = io::stdin();
    let timeout = Timespec::try_from(patience).unwrap_or_default();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok() && !fds[0].revents().is_empty()
}

fn storm() -> Result<u64, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut changes = 0;
    let mut next = Instant::now();
    while !is_stopped(next.saturating_duration_since(Instant::now())) {
        add_and_delete(&mut socket, BATCH)?;
        changes += 2 * u64::from(BATCH);
        next += PERIOD;
    }
    Ok(changes)
}

fn fight() -> Result<u64, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut events = Events::subscribe(Protocol::Route, &[Group::Ipv4Routes, Group::Ipv6Routes], None)?;
    let mut changes = 0;
    while !is_stopped(Duration::ZERO) {
        let mut batch = Batch::new();
        for family in [route::Family::V4, route::Family::V6] {
            let filter = route::Filter { protocol: Some(OUR_PROTOCOLS[0]), ..route::Filter::default() };
            let ours = route::dump(&mut socket, family, filter)?;
            let unicast = ours.iter().filter(|route| route.kind == RouteKind::Unicast);
            unicast.for_each(|route| route::delete(&mut batch, route));
        }
        // What is gone already by itself need not be deleted.
        let failed = socket.execute(&mut batch)?.len();
        changes += batch.len().saturating_sub(failed) as u64;
        events.wait(LOOK)?;
        while events.read(|_, _| {})? != Heard::Nothing {}
    }
    Ok(changes)
}

/// Adds routes to discard what goes to networks that nobody has, and deletes them again.
pub(crate) fn add_and_delete(socket: &mut Socket, count: u16) -> Result<(), KernelError> {
    let routes: Vec<Route> = (0..count)
        .map(|number| {
            // RFC 6890: 240.0.0.0/4 is nobody's.
            let [high, low] = number.to_be_bytes();
            let to = IpNet::from(IpAddr::from(Ipv4Addr::new(240, 0, high, low)));
            Route { table: TABLE, protocol: BIRD, kind: RouteKind::Blackhole, ..Route::to(to) }
        })
        .collect();
    let mut batch = Batch::new();
    routes.iter().for_each(|route| route::add(&mut batch, route));
    socket.execute_all(&mut batch)?;
    batch.clear();
    routes.iter().for_each(|route| route::delete(&mut batch, route));
    socket.execute_all(&mut batch)
}

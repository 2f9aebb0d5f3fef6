//! Programs of somebody else's: one that changes thousands of routes a second, and one that deletes ours as soon as
//! they come.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kernel::KernelError;
use kernel::events::{Events, Group, Heard};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{self, Route, RouteKind};

use crate::LabError;
use crate::foreign::OUR_PROTOCOLS;

/// A table that nobody else uses, and `RTPROT_BIRD`.
const TABLE: u32 = 201;
const BIRD: u8 = 12;
/// Routes in one batch; they are added and deleted again, which makes twice as many changes.
const BATCH: u16 = 50;
/// From one batch to the next, for 10,000 changes a second.
const PERIOD: Duration = Duration::from_millis(10);

/// A thread at work until it is stopped.
#[derive(Debug)]
pub(crate) struct ForeignProgram {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    began: Instant,
    thread: Option<JoinHandle<Result<(), KernelError>>>,
}

impl ForeignProgram {
    /// Changes 10,000 routes a second, none of them ours.
    pub(crate) fn storm(netns: Arc<NetNs>) -> Result<Self, LabError> {
        Self::start(netns, |stop, changes| {
            let mut socket = Socket::open(Protocol::Route)?;
            let mut next = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                add_and_delete(&mut socket, BATCH)?;
                changes.fetch_add(2 * u64::from(BATCH), Ordering::Relaxed);
                next += PERIOD;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        })
    }

    /// Deletes the agent's routes as soon as it hears of them.
    pub(crate) fn fight(netns: Arc<NetNs>) -> Result<Self, LabError> {
        Self::start(netns, |stop, changes| {
            let mut socket = Socket::open(Protocol::Route)?;
            let groups = [Group::Ipv4Routes, Group::Ipv6Routes];
            let mut events = Events::subscribe(Protocol::Route, &groups, None)?;
            while !stop.load(Ordering::Relaxed) {
                let mut batch = Batch::new();
                for family in [route::Family::V4, route::Family::V6] {
                    let filter =
                        route::Filter { protocol: Some(OUR_PROTOCOLS[0]), ..route::Filter::default() };
                    let ours = route::dump(&mut socket, family, filter)?;
                    let unicast = ours.iter().filter(|route| route.kind == RouteKind::Unicast);
                    unicast.for_each(|route| route::delete(&mut batch, route));
                }
                // What is gone already by itself need not be deleted.
                let failed = socket.execute(&mut batch)?.len();
                changes.fetch_add((batch.len().saturating_sub(failed)) as u64, Ordering::Relaxed);
                events.wait(Duration::from_millis(50))?;
                while events.read(|_, _| {})? != Heard::Nothing {}
            }
            Ok(())
        })
    }

    fn start(
        netns: Arc<NetNs>,
        work: impl FnOnce(&AtomicBool, &AtomicU64) -> Result<(), KernelError> + Send + 'static,
    ) -> Result<Self, LabError> {
        let (stop, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let shared = (Arc::clone(&stop), Arc::clone(&changes));
        let thread = thread::Builder::new()
            .name("foreign-program".to_owned())
            .spawn(move || netns.run(|| work(&shared.0, &shared.1)).and_then(|done| done))
            .map_err(LabError::io("start a foreign program"))?;
        Ok(Self { stop, changes, began: Instant::now(), thread: Some(thread) })
    }

    /// Changes made so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// For how long it has been at work.
    pub(crate) fn runs_for(&self) -> Duration {
        self.began.elapsed()
    }

    /// Stops it, and says why it ended before, if it did.
    pub(crate) fn stop(mut self) -> Result<(), LabError> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(LabError::kernel("the foreign program")(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for ForeignProgram {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
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

//! The agent as a process on the node of the calling thread, and what it tells of itself.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::clock::wait_for;
use crate::cluster_file::agent_command;
use crate::error::{Attempting, BenchError};
use crate::peak_memory::status_field;

/// Where it serves its metrics; the node's loopback is its own.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9104);
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent; it is killed when this goes, and waited for.
#[derive(Debug)]
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts it, and waits until it has routed so many pod CIDRs and rests.
    pub(crate) fn start(program: &Path, routed: usize) -> Result<Self, BenchError> {
        let mut command = agent_command(program);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Self(command.spawn().attempting("start the agent")?);
        wait_for("the agent's routes", PATIENCE, || {
            // Nobody listens before the first pass.
            let there = metric("peer_cidrs_routed").ok();
            Ok(there.filter(|count| *count >= routed as f64))
        })?;
        agent.rest()?;
        Ok(agent)
    }

    /// Waits until no pass was made for longer than the agent pauses between two on a busy machine.
    pub(crate) fn rest(&self) -> Result<(), BenchError> {
        let mut seen = -1.0;
        wait_for("the agent to rest", PATIENCE, || {
            let passes = metric("passes_total")?;
            let rests = passes == seen;
            seen = passes;
            if !rests {
                std::thread::sleep(Duration::from_millis(2_500));
            }
            Ok(rests.then_some(()))
        })
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> Result<f64, BenchError> {
        status_field(self.0.id(), "VmRSS").map(|kib| kib / 1024.0)
    }

    /// How often its threads have been on a processor so far.
    pub(crate) fn wake_ups(&self) -> Result<f64, BenchError> {
        let tasks = format!("/proc/{}/task", self.0.id());
        let mut sum = 0.0;
        for task in std::fs::read_dir(&tasks).attempting(format!("read {tasks}"))? {
            let task = task.attempting(format!("read {tasks}"))?.file_name();
            let id = task.to_string_lossy().parse().attempting(format!("read {tasks}"))?;
            for kind in ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"] {
                sum += status_field(id, kind)?;
            }
        }
        Ok(sum)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be gone already; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the agent's metrics, by its name without the prefix.
pub(crate) fn metric(name: &str) -> Result<f64, BenchError> {
    let attempted = || format!("read the agent's metric {name}");
    let mut stream = TcpStream::connect(METRICS).attempting(attempted())?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .attempting(attempted())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).attempting(attempted())?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("hostgw_")?.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| BenchError::new(attempted(), "it is not among those that are served"))
}

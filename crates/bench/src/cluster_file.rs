//! A cluster of any size as the agent's file source reads it, and the agent on the node of the calling thread.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::error::{Attempting, BenchError};
use crate::side::Mode;

/// Before every path of the agent.
pub(crate) const ROOT: &str = "/run/node";

/// This node, and so many others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    /// Other nodes; each has a pod CIDR in both families.
    pub(crate) peers: usize,
    pub(crate) mode: Mode,
    /// The last peer's address is another.
    pub(crate) last_peer_moved: bool,
    /// Grows with each heartbeat, which changes nothing that matters.
    pub(crate) heartbeat: usize,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { peers: 0, mode: Mode::Ptp, last_peer_moved: false, heartbeat: 0 }
    }
}

impl Cluster {
    /// Writes nodes and settings, each by a rename.
    pub(crate) fn write(self) -> Result<(), BenchError> {
        let mode = match self.mode {
            Mode::Ptp => "mode: ptp\n",
            Mode::Bridge => "mode: bridge\nbridge: cni0\n",
        };
        // Far away, so that what is measured is never a resync by chance.
        replace("/etc/hostgw/config.yaml", &format!("{mode}resyncInterval: 10m\n"))?;
        replace("/etc/hostgw/nodes.yaml", &self.nodes())
    }

    fn nodes(self) -> String {
        let mut yaml = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
        self.write_node(&mut yaml, 0, ("10.88.0.0/16", "fd00:88::/64"), ("192.0.250.1", "2001:db8::fa01"));
        for peer in 1..=self.peers {
            let moved = usize::from(self.last_peer_moved && peer == self.peers);
            let addresses = addresses(peer + moved * 30_000);
            let cidrs = (pod_cidr4(peer), pod_cidr6(peer));
            self.write_node(&mut yaml, peer, (&cidrs.0, &cidrs.1), (&addresses.0, &addresses.1));
        }
        yaml
    }

    fn write_node(self, yaml: &mut String, number: usize, cidrs: (&str, &str), addresses: (&str, &str)) {
        let (cidr4, cidr6) = cidrs;
        let (ip4, ip6) = addresses;
        let beat = self.heartbeat;
        // Writing to a String cannot fail.
        let _ = write!(
            yaml,
            "- apiVersion: v1\n  kind: Node\n  metadata:\n    name: node{number}\n    \
             uid: 00000000-0000-4000-8000-{number:012}\n    creationTimestamp: \"2024-01-01T00:00:00Z\"\n    \
             resourceVersion: \"{beat}\"\n  spec:\n    podCIDR: \"{cidr4}\"\n    podCIDRs: [\"{cidr4}\", \"{cidr6}\"]\n  \
             status:\n    addresses:\n    - {{type: InternalIP, address: \"{ip4}\"}}\n    \
             - {{type: InternalIP, address: \"{ip6}\"}}\n    conditions:\n    \
             - {{type: Ready, status: \"True\", lastHeartbeatTime: \"2024-01-01T{:02}:{:02}:{:02}Z\"}}\n",
            beat / 3600 % 24,
            beat / 60 % 60,
            beat % 60,
        );
    }
}

/// A peer's own addresses.
pub(crate) fn addresses(peer: usize) -> (String, String) {
    let host = peer + 256;
    (format!("192.0.{}.{}", host >> 8, host & 255), format!("2001:db8::{host:x}"))
}

/// A peer's IPv4 pods.
pub(crate) fn pod_cidr4(peer: usize) -> String {
    format!("10.{}.{}.0/24", 100 + (peer >> 8), peer & 255)
}

/// A peer's IPv6 pods.
pub(crate) fn pod_cidr6(peer: usize) -> String {
    format!("fd00:99:{peer:x}::/64")
}

/// `RTPROT_…` of the agent's routes to other nodes.
pub(crate) const NODE_ROUTE_PROTOCOL: u8 = 104;

/// The agent on this node, as it runs by [`Cluster::write`].
pub(crate) fn agent_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["agent", "--source", "file:/etc/hostgw/nodes.yaml", "--node-name", "node0", "--root", ROOT])
        .stdin(Stdio::null());
    command
}

/// Longer than the agent waits for the rest of a file that nobody was heard to close: it would take all nodes but the last
/// at first, and make the routes in two passes.
const LEFT_ALONE: Duration = Duration::from_secs(10);

fn replace(path: &str, text: &str) -> Result<(), BenchError> {
    let path = Path::new(ROOT).join(path.trim_start_matches('/'));
    let new = path.with_extension("new");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).attempting(format!("create {}", folder.display()))?;
    }
    let attempted = || format!("write {}", new.display());
    fs::write(&new, text).attempting(attempted())?;
    let written = File::options().write(true).open(&new).attempting(attempted())?;
    written.set_modified(SystemTime::now() - LEFT_ALONE).attempting(attempted())?;
    fs::rename(&new, &path).attempting(format!("rename to {}", path.display()))
}

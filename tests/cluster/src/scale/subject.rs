//! The agent that is measured: alone in a network namespace on the nodes' LAN, with a Node of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{self, Family, Filter};
use serde_json::json;

use crate::error::{Outcome, TierError};
use crate::inside::Cluster;
use crate::lan::{UPLINK, addresses, plug_in};
use crate::process::{Daemon, run};
use crate::wait::{Seen, wait_for};

use super::Scale;
use super::fleet::Fleet;

/// Its node's name, and its user's.
pub(crate) const NAME: &str = "subject";
/// What an agent tells of its node in, as it is installed.
const DEFINITION: &str = include_str!("../../../../deploy/chart/templates/nodenetworks.yaml");
/// Its number on the LAN.
const HOST: u8 = 11;
/// Of the agent's routes to peers.
const NODE_ROUTES: u8 = 104;
const LIMIT: Duration = Duration::from_secs(60);
/// Between two changes. The agent may hold back for half a second after a pass.
const QUIET: Duration = Duration::from_millis(1500);

/// The namespace, and the agent in it.
pub(super) struct Subject {
    netns: NetNs,
    agent: Option<Daemon>,
    /// Keeps the namespace.
    holder: Daemon,
    root: PathBuf,
}

impl Subject {
    /// Makes the namespace and the Node.
    pub(super) fn prepare(cluster: &Cluster, scale: &Scale) -> Outcome<Self> {
        let log = scale.logs.join("holder.log");
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--propagation", "private", "--", "sleep", "infinity"]);
        let holder = Daemon::start("the agent's namespace", &log, &mut command)?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.pid()));
        let own = kernel::netns::id_of("/proc/self/ns/net".as_ref());
        // Until unshare has left, that is our own namespace.
        let netns = wait_for("a network namespace", LIMIT, || {
            let left = kernel::netns::id_of(&path) != own;
            let opened = NetNs::open(&path).map_err(|error| TierError::Wrong(error.to_string()))?;
            Ok(if left { Seen::Yes(opened) } else { Seen::NotYet("still ours".to_owned()) })
        })?;
        plug_in(NAME, &netns, HOST)?;
        let subject = Self { netns, agent: None, holder, root: cluster.site.state.join(NAME) };
        for (family, address) in [("-4", "172.29.255.254/16"), ("-6", "fd00:29::ffff/64")] {
            subject.run(
                &["ip", family, "address", "add", address, "dev", UPLINK, "nodad"]
                    [..if family == "-4" { 7 } else { 8 }],
            )?;
        }
        cluster.site.pki.administrator(NAME)?;
        let definition = cluster.site.state.join("nodenetworks.yaml");
        fs::write(&definition, DEFINITION).map_err(TierError::io("write what NodeNetworks are"))?;
        let definition = definition.to_string_lossy();
        cluster.kubectl.run(&["apply", "--filename", &definition])?;
        cluster.kubectl.run(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "--filename",
            &definition,
        ])?;
        let addresses: Vec<_> =
            addresses(HOST).iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        cluster.api.create(
            "/api/v1/nodes",
            &json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME},
                "spec": {"unschedulable": true}, "status": {"addresses": addresses},
            }),
        )?;
        wait_for("the agent's own pod CIDRs", LIMIT, || {
            let node = cluster.api.get(&format!("/api/v1/nodes/{NAME}"))?;
            let cidrs = &node["spec"]["podCIDRs"];
            let both = cidrs.as_array().is_some_and(|cidrs| cidrs.len() == 2);
            Ok(if both { Seen::Yes(()) } else { Seen::NotYet(cidrs.to_string()) })
        })?;
        Ok(subject)
    }

    /// Starts the agent, the one that users run, below a root folder of its own.
    pub(super) fn start(&mut self, cluster: &Cluster, scale: &Scale) -> Outcome {
        fs::create_dir_all(&self.root).map_err(TierError::io("create the agent's root folder"))?;
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.holder.pid().to_string(), "-n", "-m", "--"])
            .arg(scale.hostgw.join("hostgw"))
            .args(["agent", "--source", "kubernetes", "--node-name", NAME, "--kubeconfig"])
            .arg(cluster.site.pki.file(&format!("{NAME}.kubeconfig")))
            .arg("--root")
            .arg(&self.root);
        self.agent = Some(Daemon::start("hostgw agent", &scale.logs.join("agent.log"), &mut command)?);
        Ok(())
    }

    pub(super) fn check_alive(&mut self) -> Outcome {
        self.agent.iter_mut().chain([&mut self.holder]).try_for_each(Daemon::check_alive)
    }

    /// Routes to peers, of both families. The unreachable routes of its own pod CIDRs are none.
    pub(super) fn routes(&self) -> Outcome<usize> {
        let filter = Filter { protocol: Some(NODE_ROUTES), ..Filter::default() };
        let count = || {
            let mut socket = Socket::open(Protocol::Route)?;
            let mut routes = route::dump(&mut socket, Family::V4, filter)?;
            routes.extend(route::dump(&mut socket, Family::V6, filter)?);
            Ok(routes.iter().filter(|route| route.hops.iter().any(|hop| hop.gateway.is_some())).count())
        };
        self.netns.run(count).and_then(|counted| counted).map_err(|error| TierError::Wrong(error.to_string()))
    }

    /// Moves a Node to another address, and gives the time from the API server's answer to the route. Changes come one
    /// by one, as they do where a node is moved: a burst is coalesced.
    pub(super) fn time_a_change(&self, fleet: &Fleet, turn: u32) -> Outcome<Duration> {
        let quiet_until = Instant::now() + QUIET;
        wait_for("a while to pass", QUIET * 4, || {
            let over = Instant::now() >= quiet_until;
            Ok(if over { Seen::Yes(()) } else { Seen::NotYet("not yet".to_owned()) })
        })?;
        let number = turn * (fleet.nodes / 32).max(1) % fleet.nodes;
        let to = Ipv4Addr::new(172, 29, 250, u8::try_from(turn + 1).unwrap_or(u8::MAX));
        let (pods, answered) = fleet.move_node(number, to)?;
        let wait = || {
            let mut socket = Socket::open(Protocol::Route)?;
            let deadline = Instant::now() + LIMIT;
            loop {
                let found = route::look_up(&mut socket, pods, None)?;
                if found.hops.iter().any(|hop| hop.gateway == Some(to.into())) {
                    return Ok(Some(answered.elapsed()));
                }
                if Instant::now() > deadline {
                    return Ok(None);
                }
                // The agent needs the processor as much as we do; what is measured is read to this.
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        self.netns
            .run(wait)
            .and_then(|waited| waited)
            .map_err(|error: kernel::KernelError| TierError::Wrong(error.to_string()))?
            .ok_or_else(|| TierError::Wrong(format!("{pods} has no route over {to}")))
    }

    /// Bytes that its uplink has received.
    pub(super) fn bytes(&self) -> Outcome<u64> {
        let path = format!("/proc/{}/net/dev", self.holder.pid());
        let text = fs::read_to_string(&path).map_err(TierError::io(format!("read {path}")))?;
        text.lines()
            .find_map(|line| {
                line.trim().strip_prefix(UPLINK)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
            })
            .ok_or_else(|| TierError::Wrong(format!("no {UPLINK} in {path}")))
    }

    /// The agent's memory now and at its highest, in KiB.
    pub(super) fn memory(&self) -> Outcome<(u64, u64)> {
        let agent = self.agent.as_ref().ok_or_else(|| TierError::Wrong("no agent".to_owned()))?;
        let path = format!("/proc/{}/status", agent.pid());
        let text = fs::read_to_string(&path).map_err(TierError::io(format!("read {path}")))?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        };
        match (field("VmRSS:"), field("VmHWM:")) {
            (Some(now), Some(peak)) => Ok((now, peak)),
            _ => Err(TierError::Wrong(format!("{path} does not tell its memory"))),
        }
    }

    fn run(&self, words: &[&str]) -> Outcome<String> {
        let holder = self.holder.pid().to_string();
        run(Command::new("nsenter").args(["-t", &holder, "-n", "-m", "--"]).args(words))
    }
}

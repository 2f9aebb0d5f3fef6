//! What faults act upon: the cluster, all that goes on in it meanwhile, and what must be true of it now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use kernel::link::Mac;

use crate::aftermath;
use crate::chaos::churn::Churn;
use crate::chaos::flows::Connections;
use crate::chaos::foreign_program::ForeignProgram;
use crate::chaos::pulse::{self, Pulses};
use crate::chaos::setback::Setback;
use crate::chaos::survey::{self, Expected};
use crate::chaos::uplink_faults::mac_of;
use crate::cluster::Cluster;
use crate::nodes_file::nodes_yaml;
use crate::options::Mode;
use crate::probe;
use crate::report::ProbeKind;
use crate::ruleset::count_our_rules;
use crate::runtime::{self, Pod};
use crate::seeded::Seeded;
use crate::topology::UPLINK;
use crate::{LabError, foreign};

/// From one look to the next while something is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// Agents that nobody disturbs have nothing more to do by now.
const CONTENT: Duration = Duration::from_secs(30);

/// Something in a node's files that a fault left there.
#[derive(Clone, Debug)]
pub(crate) enum Leftover {
    /// What the plugin keeps of an attachment with this container id.
    Attachment(String),
    /// A disk without room.
    FullDisk(&'static str),
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Field<'cluster> {
    pub(crate) cluster: &'cluster mut Cluster,
    /// What is not ours, node by node, as it must be at the end.
    pub(crate) foreign: &'cluster mut [BTreeSet<String>],
    pub(crate) pulses: Pulses,
    pub(crate) flows: Connections,
    pub(crate) churn: Churn,
    pub(crate) seeded: Seeded,
    /// Which nodes are on the list.
    pub(crate) listed: Vec<bool>,
    /// Each node's uplink.
    pub(crate) uplinks: Vec<&'static str>,
    /// The node that others cannot be expected to reach.
    pub(crate) estranged: Option<usize>,
    /// A kind of probe that is not sent now.
    pub(crate) unsent: Option<ProbeKind>,
    /// What must vanish before a repair is one.
    pub(crate) leftover: Option<(usize, Leftover)>,
    /// A program of somebody else's that is at work.
    pub(crate) program: Option<ForeignProgram>,
    /// Each uplink's Ethernet address.
    pub(crate) macs: Vec<Option<Mac>>,
    /// A pod whose ADD was killed.
    pub(crate) killed: Option<Pod>,
    /// How many passes the agent had made before the present fault.
    pub(crate) passes_before: u64,
    /// What was wrong right after the damage.
    pub(crate) seen: Option<(Instant, String)>,
    /// What is worth telling of the present fault.
    pub(crate) notes: Vec<String>,
    /// Grows, for names that are used once.
    pub(crate) number: u64,
    rules: Vec<BTreeMap<String, usize>>,
}

impl<'cluster> Field<'cluster> {
    /// Looks at the cluster once its agents have nothing to do, which is taken for whole, and lets pods come and go.
    pub(crate) fn open(
        cluster: &'cluster mut Cluster,
        foreign: &'cluster mut [BTreeSet<String>],
        seed: u64,
    ) -> Result<Self, LabError> {
        let macs = cluster.on_each_node(|node| {
            let name = node.plan.name.clone();
            node.place.run(move || mac_of(&name))
        })?;
        let nodes = cluster.nodes.len();
        let mut field = Self {
            cluster,
            foreign,
            pulses: Pulses::new(),
            flows: Connections::default(),
            churn: Churn::default(),
            seeded: Seeded::new(seed),
            listed: vec![true; nodes],
            uplinks: vec![UPLINK; nodes],
            estranged: None,
            unsent: None,
            leftover: None,
            program: None,
            macs,
            killed: None,
            passes_before: 0,
            seen: None,
            notes: Vec::new(),
            number: 0,
            rules: Vec::new(),
        };
        // What an agent has still to do is none of what must be there.
        field.await_empty_plans(CONTENT).map_err(|setback| {
            let (code, message) = setback.into_parts();
            LabError::Inner { message: format!("before the first fault: {code}: {message}"), exit: 1 }
        })?;
        field.rules = field.cluster.on_each_node(|node| {
            let counted = node.place.netns().run(count_our_rules);
            counted.and_then(|rules| rules).map_err(LabError::kernel(&*node.plan.name))
        })?;
        field.flows.open(&field.cluster.pods, None)?;
        field.send_pulses()?;
        field.churn.start(field.cluster)?;
        Ok(field)
    }

    /// A node's name.
    pub(crate) fn name(&self, at: usize) -> String {
        self.cluster.topology.nodes.get(at).map(|node| node.name.clone()).unwrap_or_default()
    }

    /// Sends probes to and from everybody who can be expected to answer.
    pub(crate) fn send_pulses(&self) -> Result<(), LabError> {
        let estranged = self.estranged.map(|at| self.name(at));
        let concerns = |place: &str| {
            estranged.as_deref().is_some_and(|node| place.split(['/', ':']).next() == Some(node))
        };
        let probes = probe::matrix(&self.cluster.topology, &self.cluster.inhabitants());
        let chosen = pulse::choose(probes).into_iter();
        let chosen = chosen.filter(|probe| !concerns(&probe.from) && !concerns(&probe.responder));
        let chosen = chosen.filter(|probe| self.unsent != Some(probe.kind));
        let sent = chosen.filter_map(|probe| {
            let netns = self.cluster.netns_of(&probe.from)?;
            Some((probe, netns))
        });
        self.pulses.send(sent.collect())
    }

    /// Gives every node the list of nodes as it is now.
    pub(crate) fn tell_nodes(&self, modified: SystemTime) -> Result<(), LabError> {
        let nodes = &self.cluster.topology.nodes;
        let listed: Vec<_> = nodes
            .iter()
            .zip(&self.listed)
            .filter(|(_, listed)| **listed)
            .map(|(node, _)| node.clone())
            .collect();
        let list = nodes_yaml(&listed);
        self.cluster.nodes.iter().try_for_each(|node| node.set_nodes_of(&list, modified))
    }

    /// Runs work in a node's network namespace, on this thread.
    pub(crate) fn in_netns<T>(
        &self,
        at: usize,
        work: impl FnOnce() -> Result<T, kernel::KernelError>,
    ) -> Result<T, LabError> {
        let node = self.cluster.node(at)?;
        let done = node.place.netns().run(work);
        done.and_then(|done| done).map_err(LabError::kernel(&*node.plan.name))
    }

    /// The same, and looks at once what is wrong there: the agent is about to repair it.
    pub(crate) fn damage_kernel(
        &mut self,
        at: usize,
        work: impl FnOnce() -> Result<(), kernel::KernelError>,
    ) -> Result<(), LabError> {
        let expected = self.expected(at);
        let wrong = self.in_netns(at, || work().map(|()| survey::wrong(&expected)))?;
        self.seen = wrong.into_iter().next().map(|wrong| (Instant::now(), wrong));
        Ok(())
    }

    /// Looks what is wrong before the agents are told: they may have put it right before the next look.
    pub(crate) fn see_what_is_wrong(&mut self) {
        self.seen = self.wrong().into_iter().next().map(|wrong| (Instant::now(), wrong));
    }

    fn expected(&self, at: usize) -> Expected {
        let nodes = &self.cluster.topology.nodes;
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != at && self.listed[*other]);
        let peers = others.flat_map(|(_, node)| {
            node.pod_cidrs.iter().copied().zip(node.internal.iter().map(ipnet::IpNet::addr))
        });
        let pods: Vec<IpAddr> = match self.cluster.topology.mode {
            Mode::Ptp | Mode::L2Routed => {
                self.cluster.pods[at].iter().flat_map(|pod| pod.ips.clone()).collect()
            }
            Mode::Bridge | Mode::L2 => Vec::new(),
        };
        Expected {
            node: self.name(at),
            uplink: self.uplinks[at].to_owned(),
            peers: self.listed[at].then(|| peers.collect()),
            pods,
            rules: self.rules.get(at).cloned().unwrap_or_default(),
        }
    }

    /// What is wrong on any node.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (at, node) in self.cluster.nodes.iter().enumerate() {
            let expected = self.expected(at);
            match node.place.netns().run(|| survey::wrong(&expected)) {
                Ok(found) => wrong.extend(found),
                Err(error) => wrong.push(format!("{} cannot be entered: {error}", node.plan.name)),
            }
        }
        wrong.extend(self.leftover.as_ref().and_then(|(at, leftover)| self.still_there(*at, leftover)));
        wrong
    }

    fn still_there(&self, at: usize, leftover: &Leftover) -> Option<String> {
        let node = self.cluster.nodes.get(at)?;
        let name = node.plan.name.clone();
        match leftover.clone() {
            Leftover::Attachment(id) => {
                let files = node.place.run(|| Ok(aftermath::reserved())).unwrap_or_default();
                let file = files.into_iter().find(|file| file.display().to_string().contains(&id))?;
                Some(format!("{name} keeps {} of an ADD that was killed", file.display()))
            }
            Leftover::FullDisk(folder) => {
                let free = free_blocks(node, folder);
                (free == Some(0)).then(|| format!("{folder} on {name} is full"))
            }
        }
    }

    /// Waits until nothing is wrong on any node; what is, if it stays so.
    pub(crate) fn await_whole(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let wrong = self.wrong();
            if wrong.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(wrong.join("; "));
            }
            thread::sleep(LOOK);
        }
    }

    /// Looks every now and then until `done` gives something.
    pub(crate) fn poll<T>(patience: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        loop {
            match done() {
                Some(found) => return Some(found),
                None if Instant::now() >= deadline => return None,
                None => thread::sleep(LOOK),
            }
        }
    }

    /// Waits until `hostgw plan` wants to change nothing on any node that is on the list: where it is not, there is no
    /// plan.
    pub(crate) fn await_empty_plans(&self, patience: Duration) -> Result<(), Setback> {
        let deadline = Instant::now() + patience;
        for (node, _) in self.cluster.nodes.iter().zip(&self.listed).filter(|(_, listed)| **listed) {
            let name = node.plan.name.as_str();
            let source = ["--source", "file:/etc/hostgw/nodes.yaml", "--node-name", name];
            let asked = ["plan"].into_iter().chain(source).chain(["--config", "/etc/hostgw/config.yaml"]);
            let asked: Vec<&str> = asked.collect();
            loop {
                let (code, said) = node.ask(&asked)?;
                if code == Some(0) {
                    break;
                }
                if Instant::now() >= deadline {
                    let said = said.lines().take(5).collect::<Vec<_>>().join("; ");
                    let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
                    let message = format!("`hostgw plan` on {name} ends with {code}: {said}");
                    return Err(Setback::found("plan_not_empty", message));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Takes what is not ours on a node, as far as it begins like this, for what must be there at the end: its owner
    /// has just made it anew.
    pub(crate) fn renew_foreign(&mut self, at: usize, kind: &str) -> Result<(), LabError> {
        let node = self.cluster.node(at)?;
        let name = node.plan.name.clone();
        let now = node.place.run(move || foreign::snapshot(&name))?;
        if let Some(before) = self.foreign.get_mut(at) {
            before.retain(|line| !line.starts_with(kind));
            before.extend(now.into_iter().filter(|line| line.starts_with(kind)));
        }
        Ok(())
    }

    /// Attaches a pod that nobody will ever delete, as a planted fault.
    pub(crate) fn leave_pod(&mut self) -> Result<(), LabError> {
        let name = self.fresh_pod(0, "left");
        let node = self.cluster.node(0)?;
        let list = node.conflist()?;
        node.place.run(move || runtime::add(&list, &name, None).map(drop))
    }

    /// A name that was not used before.
    pub(crate) fn fresh_pod(&mut self, at: usize, what: &str) -> String {
        self.number += 1;
        format!("{}/{what}{}", self.name(at), self.number)
    }
}

fn free_blocks(node: &crate::node::Node, folder: &'static str) -> Option<u64> {
    let free = node.place.run(move || {
        let stat = rustix::fs::statvfs(Path::new(folder));
        stat.map(|stat| stat.f_bavail).map_err(LabError::call(format!("ask how full {folder} is")))
    });
    free.ok()
}

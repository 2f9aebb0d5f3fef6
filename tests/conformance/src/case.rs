//! What a case is: networks, and steps that a runtime, an administrator or a peer takes. Values, no I/O.

use cni_spec::Command as Verb;
use serde_json::Value;

/// One verb over all plugins of a network, about one interface of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    /// Which of the case's networks.
    pub(crate) network: usize,
    /// The pod's name; nothing for GC, STATUS and VERSION.
    pub(crate) pod: &'static str,
    pub(crate) ifname: &'static str,
    pub(crate) args: &'static str,
    /// What the runtime was asked for: each plugin gets the keys that its `capabilities` name.
    pub(crate) runtime: Value,
    /// Whether `CNI_NETNS` is told.
    pub(crate) netns: bool,
    /// Whether the cached result is told.
    pub(crate) prev_result: bool,
    /// The pods whose `eth0` GC keeps.
    pub(crate) valid: Vec<&'static str>,
    /// Whether a node that is switched half-way makes this ADD after the switch.
    pub(crate) after_switch: bool,
}

impl Call {
    pub(crate) fn new(verb: Verb, pod: &'static str) -> Self {
        Self {
            verb,
            network: 0,
            pod,
            ifname: "eth0",
            args: "",
            runtime: Value::Null,
            netns: true,
            prev_result: true,
            valid: Vec::new(),
            after_switch: verb != Verb::Add,
        }
    }
}

/// Which way a packet goes, and to what: outcomes are who saw it, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// `node`, `outside`, or a pod's name.
    pub(crate) from: &'static str,
    /// The source address, where it matters.
    pub(crate) source: Option<&'static str>,
    /// The address and port that is called.
    pub(crate) to: &'static str,
    /// Who listens.
    pub(crate) at: &'static str,
    /// On which port.
    pub(crate) port: u16,
    pub(crate) protocol: Transport,
}

/// How a probe travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// One step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Call(Call),
    /// A shell's line, on the node or in a pod.
    Shell {
        at: &'static str,
        line: String,
    },
    Probe(Probe),
}

impl Step {
    fn call(self, change: impl FnOnce(&mut Call)) -> Self {
        match self {
            Self::Call(mut call) => {
                change(&mut call);
                Self::Call(call)
            }
            other => other,
        }
    }

    /// The same call about another of the case's networks.
    pub(crate) fn on(self, network: usize) -> Self {
        self.call(|call| call.network = network)
    }

    /// The same call about another interface.
    pub(crate) fn ifname(self, ifname: &'static str) -> Self {
        self.call(|call| call.ifname = ifname)
    }

    /// The same call with `CNI_ARGS`.
    pub(crate) fn args(self, args: &'static str) -> Self {
        self.call(|call| call.args = args)
    }

    /// The same call with what the runtime was asked for.
    pub(crate) fn runtime(self, runtime: Value) -> Self {
        self.call(|call| call.runtime = runtime)
    }

    /// The same call without `CNI_NETNS`.
    pub(crate) fn without_netns(self) -> Self {
        self.call(|call| call.netns = false)
    }

    /// The same call by a runtime that has lost its cached result.
    pub(crate) fn without_prev_result(self) -> Self {
        self.call(|call| call.prev_result = false)
    }

    /// The same ADD, made after the switch on a node that is switched half-way.
    pub(crate) fn after_switch(self) -> Self {
        self.call(|call| call.after_switch = true)
    }
}

pub(crate) fn add(pod: &'static str) -> Step {
    Step::Call(Call::new(Verb::Add, pod))
}

pub(crate) fn del(pod: &'static str) -> Step {
    Step::Call(Call::new(Verb::Del, pod))
}

pub(crate) fn check(pod: &'static str) -> Step {
    Step::Call(Call::new(Verb::Check, pod))
}

/// GC that keeps `eth0` of these pods.
pub(crate) fn gc(valid: &[&'static str]) -> Step {
    Step::Call(Call { valid: valid.to_vec(), ..Call::new(Verb::Gc, "") })
}

pub(crate) fn status() -> Step {
    Step::Call(Call::new(Verb::Status, ""))
}

pub(crate) fn version() -> Step {
    Step::Call(Call::new(Verb::Version, ""))
}

pub(crate) fn shell(at: &'static str, line: impl Into<String>) -> Step {
    Step::Shell { at, line: line.into() }
}

/// A TCP connection from one to another's address; the outcome is the source that the latter saw.
pub(crate) fn tcp(from: &'static str, to: &'static str, at: &'static str, port: u16) -> Step {
    Step::Probe(Probe { from, source: None, to, at, port, protocol: Transport::Tcp })
}

/// A datagram and its answer.
pub(crate) fn udp(from: &'static str, to: &'static str, at: &'static str, port: u16) -> Step {
    Step::Probe(Probe { from, source: None, to, at, port, protocol: Transport::Udp })
}

/// Networks and steps, with a name that says what they are about.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) networks: Vec<Value>,
    pub(crate) steps: Vec<Step>,
    /// Whether the node is also switched half-way, in both directions.
    pub(crate) switched: bool,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, network: Value, steps: Vec<Step>) -> Self {
        Self { name: name.into(), networks: vec![network], steps, switched: true }
    }

    /// One more network.
    pub(crate) fn and(mut self, network: Value) -> Self {
        self.networks.push(network);
        self
    }

    /// By ours and by the pinned release alone, where a switch and an older release have nothing to show.
    pub(crate) fn whole(mut self) -> Self {
        self.switched = false;
        self
    }

    /// The same case for plugins that do not know version 1.1.0, and so neither GC nor STATUS.
    pub(crate) fn in_version_1_0_0(&self) -> Self {
        let mut case = self.clone();
        for network in &mut case.networks {
            if network["cniVersion"] == "1.1.0" {
                network["cniVersion"] = Value::from("1.0.0");
            }
        }
        case.steps.retain(|step| !matches!(step, Step::Call(Call { verb: Verb::Gc | Verb::Status, .. })));
        case
    }

    /// The pods of its steps, each once.
    pub(crate) fn pods(&self) -> Vec<&'static str> {
        let mut pods: Vec<&'static str> = Vec::new();
        for step in &self.steps {
            let named = match step {
                Step::Call(call) => vec![call.pod],
                Step::Shell { at, .. } => vec![*at],
                Step::Probe(probe) => vec![probe.from, probe.at],
            };
            for name in named {
                if !["", "node", "outside"].contains(&name) && !pods.contains(&name) {
                    pods.push(name);
                }
            }
        }
        pods
    }

    /// Everything that it says, for those who ask whether a word is the case's or the plugin's.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for network in &self.networks {
            text.push_str(&network.to_string());
        }
        for step in &self.steps {
            match step {
                Step::Call(call) => {
                    text.push_str(call.args);
                    text.push_str(&call.runtime.to_string());
                }
                Step::Shell { line, .. } => text.push_str(line),
                Step::Probe(_) => {}
            }
        }
        text.to_lowercase()
    }
}

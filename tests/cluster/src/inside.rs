//! Process 1 of the tier: builds the cluster, runs the scenarios, tells.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::audit::AuditLog;
use crate::control_plane::{ControlPlane, Fleet};
use crate::error::{Outcome, TierError};
use crate::install::Chart;
use crate::launch::Orders;
use crate::node::{Node, ProxyMode, Site};
use crate::options::{Options, Task};
use crate::pki::Pki;
use crate::process::run;
use crate::report::Report;
use crate::scale::{SUBJECT, scale};
use crate::scenarios;
use crate::workload::Kubectl;
use crate::{api::Api, lan};

/// Where state is, on memory that ends with the tier's mounts. Any folder that every machine has would do.
const STATE: &str = "/mnt";
/// Which node's first process is which, below [`STATE`].
const PLACES: &str = "places.json";
/// Number of the first node on the LAN.
const FIRST_HOST: u8 = 11;

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its control plane.
    pub plane: ControlPlane,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// What is known of the requests of the agent that is measured.
    pub audit: Option<AuditLog>,
    /// The API server.
    pub api: Api,
    /// kubectl, for what the API server does not do alone.
    pub kubectl: Kubectl,
    /// helm and the chart.
    pub chart: Chart,
    /// What nodes share.
    pub site: Site,
}

impl Cluster {
    fn start(orders: &Orders) -> Outcome<Self> {
        let (programs, logs) = (orders.task.programs(), orders.task.logs());
        let state = PathBuf::from(STATE);
        let (chart, images, fleet, audit) = match &orders.task {
            Task::Prove(options) => (options.chart.clone(), options.images.clone(), Fleet::Real, None),
            Task::Measure(_) => {
                let audit = AuditLog::prepare(&state, logs, SUBJECT)?;
                (PathBuf::new(), PathBuf::new(), Fleet::Objects, Some(audit))
            }
        };
        let pki = Pki::create(&state.join("pki"))?;
        lan::create()?;
        let plane = ControlPlane::start(programs, &pki, &state, logs, fleet, audit.clone())?;
        let kubeconfig = pki.file("admin.kubeconfig");
        Ok(Self {
            api: plane.api(),
            plane,
            audit,
            nodes: Vec::new(),
            kubectl: Kubectl { program: programs.join("kubectl"), kubeconfig: kubeconfig.clone() },
            chart: Chart { helm: programs.join("helm"), folder: chart, kubeconfig, home: state.join("helm") },
            site: Site {
                programs: programs.to_owned(),
                images,
                pki,
                state,
                logs: logs.to_owned(),
                group: orders.group.clone(),
            },
        })
    }

    /// Boots one more node and gives its place in [`Cluster::nodes`].
    pub fn add_node(&mut self, proxy_mode: ProxyMode) -> Outcome<usize> {
        let index = u8::try_from(self.nodes.len())
            .map_err(|_| TierError::Wrong("this LAN has no room for so many nodes".to_owned()))?;
        let node = Node::start(&self.site, &format!("kn{}", index + 1), FIRST_HOST + index, proxy_mode)?;
        self.nodes.push(node);
        self.note_places()?;
        Ok(usize::from(index))
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Outcome<&Node> {
        let missing = || TierError::Wrong(format!("there is no node {name}"));
        self.nodes.iter().find(|node| node.name == name).ok_or_else(missing)
    }

    /// The same, to change it.
    pub fn node_mut(&mut self, name: &str) -> Outcome<&mut Node> {
        let missing = || TierError::Wrong(format!("there is no node {name}"));
        self.nodes.iter_mut().find(|node| node.name == name).ok_or_else(missing)
    }

    /// Leaves a note of the nodes' first processes, for [`enter`].
    pub fn note_places(&self) -> Outcome {
        let places: BTreeMap<&str, u32> = self
            .nodes
            .iter()
            .filter_map(|node| Some((node.name.as_str(), node.first_process().ok()?)))
            .collect();
        let text = serde_json::json!({
            "nodes": places, "programs": self.site.programs, "kubeconfig": self.kubectl.kubeconfig
        });
        fs::write(self.site.state.join(PLACES), text.to_string())
            .map_err(TierError::io("note where the nodes are"))
    }

    /// An error if a daemon of the cluster has ended by itself.
    pub fn check_alive(&mut self) -> Outcome {
        self.plane.check_alive()?;
        self.nodes.iter_mut().try_for_each(Node::check_alive)
    }
}

/// Does what standard input says, and gives the exit code.
pub fn inside() -> Outcome<u8> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(TierError::io("read what to do"))?;
    let orders: Orders = serde_json::from_str(&line)
        .map_err(|error| TierError::Wrong(format!("this command is `run`'s own: {error}")))?;
    let own = fs::read_link("/proc/self/ns/net").map_err(TierError::io("read /proc/self/ns/net"))?;
    if own == Path::new(&orders.machine) {
        return Err(TierError::Environment("this is the machine's own network: refused".to_owned()));
    }
    thread::spawn(|| {
        // Whoever started us is gone: so are we, and as process 1 with us everybody.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(130);
    });
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "hostgw-cluster", STATE]))?;
    match &orders.task {
        Task::Prove(options) => prove(&orders, options),
        Task::Measure(wanted) => {
            let mut cluster = Cluster::start(&orders)?;
            let report = Report::new(&wanted.logs);
            scale(&mut cluster, wanted, |line| report.say(line)).map(|()| 0)
        }
    }
}

fn prove(orders: &Orders, options: &Options) -> Outcome<u8> {
    let mut report = Report::new(&options.logs);
    let began = Instant::now();
    let cluster = Cluster::start(orders).and_then(|mut cluster| {
        cluster.add_node(ProxyMode::Nftables)?;
        cluster.add_node(ProxyMode::Nftables)?;
        Ok(cluster)
    });
    let mut cluster = report.step("a control plane and two nodes", began, cluster)?;
    scenarios::run_all(&mut cluster, options, &mut report)?;
    let code = report.end()?;
    if options.keep {
        report.say(&how_to_look_around(options));
        loop {
            thread::park();
        }
    }
    Ok(code)
}

fn how_to_look_around(options: &Options) -> String {
    format!(
        "\nThe cluster runs until Ctrl-C. In another shell:\n  \
         tests/cluster/run exec control-plane -- kubectl get pods -A -o wide\n  \
         tests/cluster/run exec kn1 -- ip route\nLogs are in {}.\n",
        options.logs.display()
    )
}

/// Becomes a command that runs on a node or, as `control-plane`, beside the API server. Called in the tier's namespaces.
pub fn enter(place: &str, words: &[String]) -> Outcome {
    use std::os::unix::process::CommandExt;
    let file = Path::new(STATE).join(PLACES);
    let text = fs::read(&file).map_err(TierError::io(format!("read {}", file.display())))?;
    let noted: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| TierError::Wrong(error.to_string()))?;
    let (Some(first), Some(programs)) = (words.first(), noted["programs"].as_str()) else {
        return Err(TierError::Wrong("name a command".to_owned()));
    };
    let mut command = match noted["nodes"][place].as_u64() {
        _ if place == "control-plane" => {
            let mut command = Command::new(first);
            command.env("KUBECONFIG", noted["kubeconfig"].as_str().unwrap_or_default());
            command
        }
        Some(process) => {
            let mut command = Command::new("nsenter");
            command.args(["-t", &process.to_string(), "-m", "-p", "-n", "-u", "-i", "-C", "--", first]);
            command
        }
        None => {
            return Err(TierError::Wrong(format!(
                "there is no `{place}`: name control-plane or one of {}",
                noted["nodes"]
            )));
        }
    };
    command.env("PATH", format!("{programs}:/usr/sbin:/usr/bin:/sbin:/bin")).args(&words[1..]);
    Err(TierError::io(format!("run {first}"))(command.exec()))
}

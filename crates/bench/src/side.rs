//! The sides of a comparison: each has a node of its own, set up once, on which pods are attached and detached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::chains::Chain;
use crate::cluster_file::{Cluster, agent_command};
use crate::conflist::Conflist;
use crate::error::{Attempting, BenchError};
use crate::exec::{Exec, Verb};
use crate::node::{Home, Node, Pod, ip_batch};
use crate::programs::Programs;

/// How pods are connected to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Ptp,
    Bridge,
}

/// The bridge of the floors.
const BRIDGE: &str = "\
link add cni0 type bridge
addr add 10.88.0.1/16 dev cni0
addr add fd00:88::1/64 dev cni0 nodad
link set cni0 addrgenmode none
link set cni0 up
";

/// A node and what attaches pods on it.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) node: Node,
    /// Whether its pods have IPv6 addresses, too.
    pub(crate) is_dual_stack: bool,
    attacher: Attacher,
}

#[derive(Debug)]
enum Attacher {
    Conflist(Conflist),
    /// The project's own floor.
    Floor {
        program: PathBuf,
        mode: Mode,
        /// No more than the drop-in `bridge` with `host-local` does, IPv4.
        is_plain: bool,
    },
    /// `floor.c` of the measurements, which attaches routed pods without host ports. It has no `loopback` of its own:
    /// the floor's is executed, as on all sides.
    GivenFloor {
        program: PathBuf,
        loopback: PathBuf,
    },
}

impl Side {
    /// hostgw: the agent has made one pass on the node, and the plugin runs by the configuration that it wrote.
    pub(crate) fn ours(home: &Home, programs: &Programs, mode: Mode) -> Result<Self, BenchError> {
        let node = home.node()?;
        Cluster { peers: 2, mode, ..Cluster::default() }.write()?;
        let done = agent_command(&programs.agent).arg("--once").output().attempting("execute the agent")?;
        let conflist = Path::new(crate::cluster_file::ROOT).join("etc/cni/net.d/10-hostgw.conflist");
        let text = fs::read_to_string(&conflist).map_err(|error| {
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            BenchError::new(
                format!("read {}", conflist.display()),
                format!("{error}; the agent said: {said}"),
            )
        })?;
        let conflist = Conflist::parse(&text, &programs.plugins)?;
        Ok(Self { node, is_dual_stack: true, attacher: Attacher::Conflist(conflist) })
    }

    /// A chain of the plugins in `bin_dir`, be they the reference's or ours under their names.
    pub(crate) fn chain(home: &Home, chain: Chain, bin_dir: &Path) -> Result<Self, BenchError> {
        let node = home.node()?;
        let attacher = Attacher::Conflist(Conflist::parse(chain.conflist, bin_dir)?);
        Ok(Self { node, is_dual_stack: chain.is_dual_stack, attacher })
    }

    /// The project's own floor.
    pub(crate) fn floor(home: &Home, programs: &Programs, mode: Mode) -> Result<Self, BenchError> {
        let node = home.node()?;
        if mode == Mode::Bridge {
            ip_batch(BRIDGE, false)?;
        }
        forward()?;
        nft(include_str!("../conf/floor.nft"))?;
        let attacher = Attacher::Floor { program: programs.floor.clone(), mode, is_plain: false };
        Ok(Self { node, is_dual_stack: true, attacher })
    }

    /// The same without all that the drop-in `bridge` with `host-local` is not asked for ([`crate::chains::BRIDGE_V4`]).
    pub(crate) fn plain_floor(home: &Home, programs: &Programs) -> Result<Self, BenchError> {
        let node = home.node()?;
        ip_batch(BRIDGE, false)?;
        forward()?;
        let program = programs.floor.clone();
        let attacher = Attacher::Floor { program, mode: Mode::Bridge, is_plain: true };
        Ok(Self { node, is_dual_stack: false, attacher })
    }

    /// `floor.c` of the measurements; none where it does not stand beside the checkout.
    pub(crate) fn given_floor(home: &Home, programs: &Programs) -> Result<Option<Self>, BenchError> {
        let Some(program) = programs.given_floor.clone() else { return Ok(None) };
        let node = home.node()?;
        // It looks for a bridge also where it uses none.
        ip_batch("link add cni0 type bridge\n", false)?;
        forward()?;
        let attacher = Attacher::GivenFloor { program, loopback: programs.floor.clone() };
        Ok(Some(Self { node, is_dual_stack: true, attacher }))
    }

    /// For errors.
    pub(crate) fn name(&self) -> &str {
        match &self.attacher {
            Attacher::Conflist(conflist) => conflist.name(),
            Attacher::Floor { .. } => "the floor",
            Attacher::GivenFloor { .. } => "the given floor",
        }
    }

    /// Attaches a pod. The thread is in the node.
    pub(crate) fn add(&self, pod: &mut Pod) -> Result<(), BenchError> {
        match &self.attacher {
            Attacher::Conflist(conflist) => conflist.add(pod),
            _ => self.floor_calls(Verb::Add, pod),
        }
    }

    /// Detaches it.
    pub(crate) fn del(&self, pod: &Pod) -> Result<(), BenchError> {
        match &self.attacher {
            Attacher::Conflist(conflist) => conflist.del(pod),
            _ => self.floor_calls(Verb::Del, pod),
        }
    }

    /// The exec of the plugin that makes the pod's link, for measuring its process.
    pub(crate) fn with_main_exec<T>(
        &self,
        verb: Verb,
        pod: &Pod,
        work: impl FnOnce(&Exec<'_>) -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        match &self.attacher {
            Attacher::Conflist(conflist) => conflist.with_first(verb, pod, work),
            Attacher::Floor { program, mode, is_plain } => {
                with_floor(program, (*mode, *is_plain), "pod", verb, pod, work)
            }
            Attacher::GivenFloor { program, .. } => {
                let arguments = given_arguments(verb, pod);
                work(&bare(program, &arguments, verb, &[]))
            }
        }
    }

    fn floor_calls(&self, verb: Verb, pod: &Pod) -> Result<(), BenchError> {
        let (lo, mode) = match &self.attacher {
            Attacher::Floor { program, mode, .. } => (program, *mode),
            Attacher::GivenFloor { loopback, .. } => (loopback, Mode::Ptp),
            Attacher::Conflist(_) => return Ok(()),
        };
        let loopback =
            || with_floor(lo, (mode, false), "loopback", verb, pod, |exec| exec.run(pod).map(|_| ()));
        let main = || self.with_main_exec(verb, pod, |exec| exec.run(pod).map(|_| ()));
        match verb {
            Verb::Add => loopback().and_then(|()| main()),
            Verb::Del => main().and_then(|()| loopback()),
        }
    }
}

fn with_floor<T>(
    program: &Path,
    (mode, is_plain): (Mode, bool),
    part: &str,
    verb: Verb,
    pod: &Pod,
    work: impl FnOnce(&Exec<'_>) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let mut environment = vec![("FLOOR_INDEX".to_owned(), pod.index.to_string())];
    if mode == Mode::Bridge {
        environment.push(("FLOOR_BRIDGE".to_owned(), "cni0".to_owned()));
    }
    if is_plain {
        environment.push(("FLOOR_PLAIN".to_owned(), "1".to_owned()));
    }
    let arguments = [part.to_owned(), verb.name().to_owned()];
    work(&bare(program, &arguments, verb, &environment))
}

/// A floor reads a configuration as long as ours, and does nothing with it.
fn bare<'a>(
    program: &'a Path,
    arguments: &'a [String],
    verb: Verb,
    more_environment: &'a [(String, String)],
) -> Exec<'a> {
    const CONF: &[u8] = include_bytes!("../conf/reference.conflist");
    let cni_path = Path::new("/nowhere");
    Exec { program, arguments, verb, ifname: "eth0", cni_path, more_environment, stdin: CONF }
}

/// Its fastest way to a dual-stack routed pod whose first packet gets through.
fn given_arguments(verb: Verb, pod: &Pod) -> Vec<String> {
    let index = pod.index.to_string();
    let mut arguments: Vec<String> =
        ["one", "0", &pod.id, &index, "v6", "ptp", "q1", "sync", "waitv6", "forkdel"]
            .map(ToOwned::to_owned)
            .into();
    if verb == Verb::Del {
        arguments.push("del".to_owned());
    }
    arguments
}

/// What makes a node a router, as the agent and the reference plugins do it.
fn forward() -> Result<(), BenchError> {
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        fs::write(path, "1").attempting(format!("write {path}"))?;
    }
    Ok(())
}

fn nft(ruleset: &str) -> Result<(), BenchError> {
    let file = "/run/floor.nft";
    fs::write(file, ruleset).attempting(format!("write {file}"))?;
    let done = Command::new("nft")
        .args(["-f", file])
        .stdin(Stdio::null())
        .output()
        .attempting("execute `nft` (install nftables)")?;
    match done.status.success() {
        true => Ok(()),
        false => Err(BenchError::new("load the floor's rules", String::from_utf8_lossy(&done.stderr))),
    }
}

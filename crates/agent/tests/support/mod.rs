//! A node of a test: a network namespace of its own on a small LAN, files below a folder of its own, and the real
//! agent. Every test refuses to run in the machine's own namespace.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub(crate) mod api_server;
pub(crate) mod pod;
pub(crate) mod runtime;
pub(crate) mod tls_server;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::source::SourceAddress;
use agent::{Ended, Options, Paths, StateDocument};
use kernel::link::{Veth, VethEnd};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::route::{Family, Filter, Hop, Route};
use kernel::{address, link, route};
use link_name::LinkName;
use node_network::{NodeName, Settings};
use rustix::thread::UnshareFlags;
use std::os::fd::AsFd;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// `RTPROT_KERNEL`.
const KERNEL: u8 = 2;
/// Whatever is waited for comes within milliseconds; a loaded machine takes longer, and what was refused for long is tried again
/// only after half a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks, so that who waits does not keep others from working.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Moves the calling thread into a new, empty network namespace with its loopback link up.
pub(crate) fn enter_new_namespace() -> NetNs {
    let before = NetNs::current().unwrap().id().unwrap();
    let initial = NetNs::open(Path::new("/proc/1/ns/net")).ok().map(|ns| ns.id().unwrap());
    // SAFETY: unsharing the network namespace of this thread breaks no memory; other threads keep theirs.
    #[allow(unsafe_code, reason = "rustix marks unshare unsafe for flags that are not used here")]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET).expect(
            "tests need CAP_SYS_ADMIN for a network namespace: run them as root, or in `unshare -rn`",
        );
    }
    let fresh = NetNs::current().unwrap();
    assert_ne!(fresh.id().unwrap(), before);
    assert_ne!(Some(fresh.id().unwrap()), initial, "refusing to run in the machine's own network namespace");
    change(|batch, _| link::set_up(batch, 1));
    fresh
}

/// One batch of changes in the calling thread's namespace.
pub(crate) fn change(write: impl FnOnce(&mut Batch, &mut Socket)) {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    write(&mut batch, &mut socket);
    socket.execute_all(&mut batch).unwrap();
}

pub(crate) fn index_of(name: &str) -> u32 {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    link::by_name(&mut socket, name).unwrap().unwrap_or_else(|| panic!("no link {name}")).index
}

/// Waits until `holds`, and fails the test if it never does.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What a test program prints; the test fails where it is absent or fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    run_with_input(program, arguments, "")
}

pub(crate) fn run_with_input(program: &str, arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut child = std::process::Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs `{program}`: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A Node object in a line of YAML.
pub(crate) fn node(name: &str, cidrs: &[&str], addresses: &[&str]) -> String {
    let cidrs: Vec<_> = cidrs.iter().map(|cidr| format!("{cidr:?}")).collect();
    let addresses: Vec<_> =
        addresses.iter().map(|address| format!("{{type: InternalIP, address: {address:?}}}")).collect();
    format!(
        "{{kind: Node, metadata: {{name: {name}}}, spec: {{podCIDRs: [{}]}}, status: {{addresses: [{}]}}}}",
        cidrs.join(", "),
        addresses.join(", ")
    )
}

/// Dual-stack node number `n` as all tests know it.
pub(crate) fn dual(n: u8) -> String {
    node(
        &format!("node{n}"),
        &[&format!("10.244.{n}.0/24"), &format!("fd00:10:244:{n}::/64")],
        &[&format!("192.0.2.1{n}"), &format!("2001:db8::1{n}")],
    )
}

/// The namespace that the calling thread is in, as `node1`: `eth0` with 192.0.2.11/24 and 2001:db8::11/64 on a LAN
/// whose other end is `lan`.
pub(crate) struct Node {
    pub(crate) ns: NetNs,
    pub(crate) lan: NetNs,
    folder: TempDir,
    pub(crate) settings: Settings,
}

impl Node {
    pub(crate) fn new() -> Self {
        let lan = enter_new_namespace();
        let ns = enter_new_namespace();
        let node = Self { ns, lan, folder: tempfile::tempdir().unwrap(), settings: Settings::default() };
        node.plug_in();
        node
    }

    /// Makes `eth0`, and the LAN's end of it.
    pub(crate) fn plug_in(&self) {
        let (eth0, lan0) = (LinkName::new("eth0").unwrap(), LinkName::new("lan0").unwrap());
        change(|batch, _| {
            let veth = Veth {
                host: VethEnd { name: &eth0, mac: None, netns: None },
                peer: VethEnd { name: &lan0, mac: None, netns: Some(self.lan.as_fd()) },
                mtu: 1500,
                master: None,
                up: true,
            };
            link::create_veth(batch, &veth);
        });
        let lan = || {
            change(|batch, _| {
                let lan0 = index_of("lan0");
                link::set_up(batch, lan0);
                address::add(batch, lan0, "192.0.2.1/24".parse().unwrap(), 0);
            });
        };
        self.lan.run(lan).unwrap();
        self.add_address("192.0.2.11/24");
        self.add_address("2001:db8::11/64");
    }

    pub(crate) fn add_address(&self, ip: &str) {
        let flags = if ip.contains(':') { address::NODAD } else { 0 };
        change(|batch, _| address::add(batch, index_of("eth0"), ip.parse().unwrap(), flags));
        // An address is usable for routes once its link is.
        wait_until("the address is local", || {
            let mut socket = Socket::open(Protocol::Route).unwrap();
            address::dump(&mut socket)
                .unwrap()
                .iter()
                .any(|held| held.ip == ip.parse().unwrap() && held.is_stable())
        });
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes the nodes file as a careful program would: under another name, then renamed.
    pub(crate) fn write_nodes(&self, nodes: &[String]) {
        let mut text = "kind: List\nitems:\n".to_owned();
        for node in nodes {
            writeln!(text, "- {node}").unwrap();
        }
        std::fs::write(self.path("nodes.new"), text).unwrap();
        // Left alone since, so that a single pass need not wait for the rest of it.
        let earlier = std::time::SystemTime::now() - Duration::from_secs(60);
        let file = std::fs::File::options().write(true).open(self.path("nodes.new")).unwrap();
        file.set_modified(earlier).unwrap();
        std::fs::rename(self.path("nodes.new"), self.path("nodes.yaml")).unwrap();
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            source: SourceAddress::File("/nodes.yaml".into()),
            node_name: NodeName::new("node1").unwrap(),
            settings: self.settings.clone(),
            paths: Paths::below(self.folder.path()),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9104)),
        }
    }

    /// The agent's options for a cluster's API.
    pub(crate) fn options_for(&self, server: &api_server::ApiServer) -> Options {
        let path = self.path("kubeconfig");
        std::fs::write(&path, server.kubeconfig()).unwrap();
        let location = agent::Location::Kubeconfig { path, context: None };
        Options { source: SourceAddress::Kubernetes(location), ..self.options() }
    }

    pub(crate) fn paths(&self) -> Paths {
        Paths::below(self.folder.path())
    }

    /// One pass of the agent.
    pub(crate) fn pass(&self) -> StateDocument {
        agent::run_once(&self.options()).unwrap()
    }

    /// What the agent would change now.
    pub(crate) fn plan(&self) -> String {
        agent::plan(&self.options()).unwrap().to_string()
    }

    pub(crate) fn assert_nothing_to_change(&self) {
        let plan = self.plan();
        assert!(plan.starts_with("node node1: nothing to change"), "{plan}");
    }

    /// The agent, running until it is dropped.
    pub(crate) fn start(&self) -> Running {
        self.start_with(self.options())
    }

    /// The agent with other options.
    #[allow(clippy::unused_self, reason = "it runs on this node")]
    pub(crate) fn start_with(&self, options: Options) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let stop = async move {
                stopped.await.ok();
                Ok(Ended::Terminated)
            };
            agent::run_until(&options, stop).unwrap();
        });
        Running { stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn state(&self) -> Option<StateDocument> {
        agent::read_state(&self.paths().state_file()).ok()
    }

    pub(crate) fn wait_until_converged(&self) {
        wait_until("the agent has converged", || self.state().is_some_and(|state| state.converged));
    }

    pub(crate) fn conflist(&self) -> serde_json::Value {
        let text = std::fs::read(self.path("etc/cni/net.d/10-hostgw.conflist")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// The agent in a thread of its own, in the namespace of the thread that started it.
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()).ok());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Our routes, or those of others, as text in order. The kernel's own come and go with addresses and forwarding.
pub(crate) fn routes(ours: bool) -> Vec<String> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut found = Vec::new();
    for family in [Family::V4, Family::V6] {
        let routes = route::dump(&mut socket, family, Filter::default()).unwrap();
        let wanted = routes
            .into_iter()
            .filter(|route| matches!(route.protocol, 104 | 105) == ours && route.protocol != KERNEL);
        found.extend(wanted.map(|route| {
            let source = route.source.map(|source| format!(" src {source}")).unwrap_or_default();
            format!("{route} table {} metric {} proto {}{source}", route.table, route.metric, route.protocol)
        }));
    }
    found.sort();
    found
}

/// Whether a route of ours leads to `destination` via `gateway`.
pub(crate) fn routed(destination: &str, gateway: &str) -> bool {
    routes(true).iter().any(|route| route.starts_with(&format!("{destination} via {gateway} ")))
}

/// A unicast route via `gateway` over `eth0`.
pub(crate) fn foreign_route(destination: &str, gateway: &str, metric: u32, protocol: u8) -> Route {
    let gateway: IpAddr = gateway.parse().unwrap();
    let hop = Hop { gateway: Some(gateway), index: Some(index_of("eth0")), ..Hop::default() };
    Route { metric, protocol, hops: vec![hop], ..Route::to(destination.parse().unwrap()) }
}

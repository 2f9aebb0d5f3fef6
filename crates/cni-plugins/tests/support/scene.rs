//! A node on which calls are cut short, over and over: what it holds by name, how it is made new, and the ways in which
//! what a cut call left is cleared away.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::nftables::{self, TableName, Transaction};
use kernel::route::{Family, Filter};
use kernel::sysctl::Sysctls;
use kernel::{address, link, neighbour, route};
use serde_json::{Value, json};

use super::node::{
    GATEWAYS, NODE_ADDRESSES, Node, Pod, add, addresses_of, change, check, del, index_of, ip, uplink,
};
use super::plugin::{Call, program};
use super::{PATIENCE, assert_first_packets};

/// `NUD_PERMANENT` (`linux/neighbour.h`).
const PERMANENT: u16 = 0x80;
pub(crate) const BRIDGE: &str = "cni0";
const TABLE: &str = "hostgw_hostport";
const TRY_AGAIN_LATER: u64 = 11;

/// What clears away what a call left that was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The same ADD again.
    Retry,
    Del,
    Gc,
    /// The pod goes without a DEL, and the agent looks.
    Agent,
}

/// A node with an uplink, one pod that lives all the time or none, and one whose calls are cut short.
pub(crate) struct Scene {
    pub(crate) node: Node,
    pub(crate) pod: Pod,
    pub(crate) conf: Value,
    neighbour: Option<(Pod, Value, Value)>,
    /// By which addresses pods reach the node.
    gateways: [&'static str; 2],
    /// The bridge is the LAN's: it was there before any pod.
    on_lan_bridge: bool,
    _router: NetNs,
}

impl Scene {
    /// Moves the calling thread to a new node. The pod whose calls are cut short has a host port for TCP and limits of its
    /// rate; and one for UDP or not, because the kernel looks through the machine's every flow for each.
    pub(crate) fn enter(mode: &str, with_neighbour: bool, with_udp: bool) -> Self {
        let node = Node::enter();
        let router = uplink(1500);
        let mut ports = vec![json!({"hostPort": 8080, "containerPort": 80})];
        if with_udp {
            ports.push(json!({"hostPort": 53, "containerPort": 53, "protocol": "udp"}));
        }
        let (rate, burst) = (80_000_000, 8_000_000);
        let on_lan_bridge = mode == "l2";
        if on_lan_bridge {
            make_lan_bridge();
        }
        let conf_of = |runtime: Value| {
            let mut conf = node.conf_with(json!({"mode": mode, "runtimeConfig": runtime}));
            if on_lan_bridge {
                let subnets = ["10.244.1.0/24", "fd00:10:244:1::/64"].into_iter().zip(GATEWAYS);
                let range = |(subnet, gateway)| json!([{"subnet": subnet, "gateway": gateway}]);
                conf["ipam"]["ranges"] = subnets.map(range).collect();
            }
            conf
        };
        let conf = conf_of(json!({
            "portMappings": ports,
            "bandwidth": {
                "ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst,
            },
        }));
        let [v4, v6] = NODE_ADDRESSES;
        let nodes = format!(
            "{{kind: Node, metadata: {{name: node1}}, spec: {{podCIDRs: [10.244.1.0/24, \"fd00:10:244:1::/64\"]}}, \
             status: {{addresses: [{{type: InternalIP, address: {v4}}}, {{type: InternalIP, address: \"{v6}\"}}]}}}}\n"
        );
        std::fs::write(node.folder().join("nodes.yaml"), nodes).unwrap();
        let neighbour = with_neighbour.then(|| {
            let conf = conf_of(json!({"portMappings": [{"hostPort": 8081, "containerPort": 80}]}));
            let pod = Pod::new("neighbour");
            let result = add(&pod, &conf);
            (pod, conf, result)
        });
        // On the LAN, pods send to the node's own addresses.
        let gateways = if mode == "l2-routed" { NODE_ADDRESSES } else { GATEWAYS };
        Self { node, pod: Pod::new("victim"), conf, neighbour, gateways, on_lan_bridge, _router: router }
    }

    /// The call of this verb about the pod that is cut short.
    pub(crate) fn call(&self, verb: &str) -> Call {
        match verb {
            "GC" => Call::gc(&self.conf, &self.valid()),
            verb => Call::about(verb, &self.pod, &self.conf),
        }
    }

    fn valid(&self) -> Vec<&str> {
        self.neighbour.iter().map(|(pod, ..)| pod.id.as_str()).collect()
    }

    /// All that is on the node, and in the pod, that a plugin could have put there.
    pub(crate) fn dump(&self) -> Vec<String> {
        let mut dump = dump_links();
        dump.extend(dump_table());
        dump.extend(dump_files(&self.node.data_dir(), ""));
        // Its loopback link stays up.
        let inside = self.pod.ns.run(dump_links).unwrap();
        dump.extend(
            inside.into_iter().filter(|line| !line.contains(" lo")).map(|line| format!("pod: {line}")),
        );
        dump.sort();
        dump
    }

    /// Takes away the bridge, the table and the store, as if no pod had ever been here.
    pub(crate) fn forget_everything(&self) {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        if link::by_name(&mut socket, BRIDGE).unwrap().is_some() {
            change(|batch, _| link::delete(batch, index_of(BRIDGE)));
        }
        if self.on_lan_bridge {
            make_lan_bridge();
        }
        let mut transaction = Transaction::new();
        transaction.destroy_table(&TableName::new(nftables::Family::Inet, TABLE));
        transaction.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
        if self.node.data_dir().exists() {
            std::fs::remove_dir_all(self.node.data_dir()).unwrap();
        }
    }

    /// Clears away what a cut call left. Whatever the way, the pod is no more attached afterwards.
    pub(crate) fn clear(&mut self, way: Way) {
        match way {
            Way::Retry => {
                let deadline = Instant::now() + PATIENCE;
                let mut again = self.call("ADD").run();
                // What the killed call forked may still be at it: "try again later" (CNI spec, "Error").
                while !again.is_ok() && again.error().0 == TRY_AGAIN_LATER && Instant::now() < deadline {
                    again = self.call("ADD").run();
                }
                if again.is_ok() {
                    self.prove(&again.result());
                } else {
                    // The call was cut short when it had succeeded: that is for the runtime to know, by its answer.
                    assert_eq!(again.error().0, 105, "{:?}", again.error());
                }
                del(&self.pod, &self.conf);
            }
            Way::Del => del(&self.pod, &self.conf),
            Way::Gc => self.call("GC").run().silent(),
            Way::Agent => {
                self.lose_pod();
                age_records(&self.node.stored("records"));
                self.agent_pass();
            }
        }
    }

    /// An ADD works, to the first packet, and a DEL after it.
    pub(crate) fn try_out(&self) {
        let result = add(&self.pod, &self.conf);
        self.prove(&result);
        del(&self.pod, &self.conf);
    }

    fn prove(&self, result: &Value) {
        assert_first_packets(&self.node.ns, &self.gateways.map(ip), &[(&self.pod.ns, addresses_of(result))]);
        check(&self.pod, &self.conf, result).silent();
    }

    /// The pod that lives all the time is as it was.
    pub(crate) fn prove_neighbour(&self) {
        if let Some((pod, conf, result)) = &self.neighbour {
            check(pod, conf, result).silent();
            assert_first_packets(&self.node.ns, &self.gateways.map(ip), &[(&pod.ns, addresses_of(result))]);
        }
    }

    /// The pod goes, without a DEL, and another is born under its name.
    pub(crate) fn lose_pod(&mut self) {
        self.pod = Pod::new(self.pod.id.clone());
        let living = usize::from(self.neighbour.is_some());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pairs = link::dump_kind(&mut Socket::open(Protocol::Route).unwrap(), "veth").unwrap();
            if pairs.iter().filter(|link| link.name != "up0").count() <= living {
                return;
            }
            assert!(Instant::now() < deadline, "the kernel does not take a pod's namespace down");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Settings of the agent, beside its mode. (JSON is YAML.)
    pub(crate) fn configure(&self, mode: &str, mut settings: Value) {
        settings["mode"] = mode.into();
        let folder = self.node.folder().join("etc/hostgw");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.yaml"), settings.to_string()).unwrap();
    }

    /// One pass of the real agent.
    pub(crate) fn agent_pass(&self) {
        let root = self.node.folder();
        let nodes = root.join("nodes.yaml");
        let output = Command::new(program("hostgw"))
            .args(["agent", "--once", "--node-name", "node1", "--root"])
            .arg(root)
            .arg("--source")
            .arg(format!("file:{}", nodes.display()))
            .env_clear()
            .output()
            .unwrap();
        let said = [output.stderr, output.stdout].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

/// A bridge as an administrator has made it, whose own addresses come and go with nobody's pods.
fn make_lan_bridge() {
    change(|batch, _| {
        link::create_bridge(batch, &super::node::name(BRIDGE), [2, 0, 0, 0, 0, 7], 1500, false);
    });
    Sysctls::default().write(&format!("net/ipv6/conf/{BRIDGE}/addr_gen_mode"), "1").unwrap();
    let index = index_of(BRIDGE);
    change(|batch, _| {
        link::set_up(batch, index);
        address::add(batch, index, "fe80::7/64".parse().unwrap(), address::NODAD);
    });
}

/// Makes every record older than the agent's grace, in place, so that it stays the file that its claims are.
fn age_records(records: &Path) {
    const CREATED: &[u8] = b"\"created\":";
    for entry in std::fs::read_dir(records).into_iter().flatten() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(CREATED.len()).position(|window| window == CREATED).unwrap() + CREATED.len();
        // The first digit of ten.
        assert!(bytes[at] == b'1' && bytes[at + 9].is_ascii_digit(), "{}", String::from_utf8_lossy(&bytes));
        bytes[at + 1] = b'0';
        std::fs::File::options().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    }
}

/// Links of the calling thread's namespace and what hangs on them, by the links' names.
fn dump_links() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let links = link::dump(&mut socket).unwrap();
    let names: BTreeMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
    let named = |index: &u32| names.get(index).copied().unwrap_or("?");
    let mut lines = Vec::new();
    for link in &links {
        let up = if link.is_up() { "up" } else { "down" };
        let master = link.master.as_ref().map(named);
        lines.push(format!("link {} {:?} {up} of {master:?} mtu {}", link.name, link.kind, link.mtu));
        if link.name == BRIDGE {
            for key in ["accept_ra", "addr_gen_mode", "disable_ipv6"] {
                let value = Sysctls::default().read(&format!("net/ipv6/conf/{BRIDGE}/{key}")).unwrap();
                lines.push(format!("setting {BRIDGE} {key} {value:?}"));
            }
        }
    }
    for held in address::dump(&mut socket).unwrap() {
        lines.push(format!("address {} flags {:#x} on {}", held.ip, held.flags, named(&held.index)));
    }
    for family in [Family::V4, Family::V6] {
        for found in route::dump(&mut socket, family, Filter::default()).unwrap() {
            let links: Vec<_> = found.hops.iter().filter_map(|hop| hop.index.as_ref().map(named)).collect();
            let (to, protocol, table) = (found.destination, found.protocol, found.table);
            lines.push(format!(
                "route {to} table {table} protocol {protocol} metric {} {links:?}",
                found.metric
            ));
        }
    }
    let neighbours = neighbour::dump(&mut socket, false).unwrap();
    for known in neighbours.iter().filter(|known| known.state & PERMANENT != 0) {
        lines.push(format!("neighbour {} at {:?} on {}", known.ip, known.mac, named(&known.index)));
    }
    for proxied in neighbour::dump(&mut socket, true).unwrap() {
        lines.push(format!("proxy {} of {} on {}", proxied.ip, proxied.protocol, named(&proxied.index)));
    }
    // What the kernel makes by itself, and takes back in its own time; but for the bridge, whose we make.
    lines.retain(|line| line.contains(BRIDGE) || !line.contains(" fe80:"));
    lines.retain(|line| !line.contains(" ff00:") && !line.contains(" ff02:"));
    lines
}

/// The plugin's table: chains, with how many rules, and elements.
fn dump_table() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let name = TableName::new(nftables::Family::Inet, TABLE);
    let Some(table) = nftables::observe(&mut socket, &name).unwrap() else { return Vec::new() };
    let mut lines = vec![format!("table {TABLE}")];
    for chain in &table.chains {
        lines.push(format!("chain {} with {} rules", chain.name, chain.rules.len()));
    }
    for set in &table.sets {
        lines.push(format!("set {}", set.set.name));
        for element in &set.set.elements {
            lines.push(format!("element of {} {:?} {:?}", set.set.name, element.key, element.data));
        }
    }
    lines
}

/// Every file below a folder, by its path.
pub(crate) fn dump_files(folder: &Path, prefix: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            lines.extend(dump_files(&entry.path(), &format!("{path}/")));
        }
        lines.push(format!("file {path}"));
    }
    lines
}

/// What is no more, and what is new.
pub(crate) fn difference(before: &[String], after: &[String]) -> (Vec<String>, Vec<String>) {
    let only = |one: &[String], other: &[String]| {
        one.iter().filter(|line| !other.contains(line)).cloned().collect::<Vec<_>>()
    };
    (only(before, after), only(after, before))
}

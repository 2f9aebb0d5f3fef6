//! A node of a test: a namespace of its own, a data folder, pods, and all that a plugin could leave behind.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use kernel::link::{Veth, VethEnd};
use kernel::netlink::{Batch, Protocol, Socket};
use kernel::netns::NetNs;
use kernel::nftables::{self, Element, Set, TableName};
use kernel::route::{Family, Filter, Hop, Route};
use kernel::{address, link, route};
use link_name::LinkName;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::plugin::{Call, Outcome};
use super::{enter_new_node, new_pod};

/// The network that [`Node::conf`] configures.
pub(crate) const NETWORK: &str = "pods";

/// The gateway and the first pod address of [`Node::conf`], by family.
pub(crate) const GATEWAYS: [&str; 2] = ["10.244.1.1", "fd00:10:244:1::1"];
pub(crate) const FIRST: [&str; 2] = ["10.244.1.2", "fd00:10:244:1::2"];
pub(crate) const SECOND: [&str; 2] = ["10.244.1.3", "fd00:10:244:1::3"];

/// The namespace that the calling thread is in, as a node, with an empty data folder.
pub(crate) struct Node {
    pub(crate) ns: NetNs,
    folder: TempDir,
}

/// A pod's namespace, and the id of its sandbox.
pub(crate) struct Pod {
    pub(crate) ns: NetNs,
    pub(crate) id: String,
}

impl Pod {
    pub(crate) fn new(id: impl Into<String>) -> Self {
        Self { ns: new_pod(), id: id.into() }
    }

    /// A path to the namespace that other processes can open while this one lives.
    pub(crate) fn netns(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.ns.as_fd().as_raw_fd())
    }

    /// Changes something inside.
    pub(crate) fn change(&self, write: impl FnOnce(&mut Batch, &mut Socket)) {
        self.ns.run(|| change(write)).unwrap();
    }
}

/// One batch of changes in the calling thread's namespace.
pub(crate) fn change(write: impl FnOnce(&mut Batch, &mut Socket)) {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut batch = Batch::new();
    write(&mut batch, &mut socket);
    socket.execute_all(&mut batch).unwrap();
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> LinkName {
    LinkName::new(text).unwrap()
}

/// The index of a link in the calling thread's namespace.
pub(crate) fn index_of(name: &str) -> u32 {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    link::by_name(&mut socket, name).unwrap().unwrap_or_else(|| panic!("no link {name}")).index
}

/// Somebody else's link in the calling thread's namespace: a veth pair with both ends in it.
pub(crate) fn foreign_veth(one: &str, other: &str) {
    let end = |name| VethEnd { name, mac: None, netns: None };
    let (one, other) = (name(one), name(other));
    let veth = Veth { host: end(&one), peer: end(&other), mtu: 1500, master: None, up: true };
    change(|batch, _| link::create_veth(batch, &veth));
}

/// The node's addresses on its [`uplink`], and those of the router there.
pub(crate) const NODE_ADDRESSES: [&str; 2] = ["192.0.2.11", "2001:db8:1::11"];
pub(crate) const ROUTER_ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8:1::1"];

/// An uplink of this MTU with the node's addresses and default routes; the router's namespace.
pub(crate) fn uplink(mtu: u32) -> NetNs {
    let router = new_pod();
    let (up, peer) = (name("up0"), name("lan0"));
    let veth = Veth {
        host: VethEnd { name: &up, mac: None, netns: None },
        peer: VethEnd { name: &peer, mac: None, netns: Some(router.as_fd()) },
        mtu,
        master: None,
        up: true,
    };
    change(|batch, _| link::create_veth(batch, &veth));
    let hold = |index, addresses: [&str; 2]| {
        change(|batch, _| {
            for (address, (length, flags)) in addresses.into_iter().zip([(24, 0), (64, address::NODAD)]) {
                address::add(batch, index, format!("{address}/{length}").parse().unwrap(), flags);
            }
            link::set_up(batch, index);
            link::request(batch, index);
        });
    };
    router.run(|| hold(index_of("lan0"), ROUTER_ADDRESSES)).unwrap();
    let index = index_of("up0");
    hold(index, NODE_ADDRESSES);
    change(|batch, _| {
        for (any, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(ROUTER_ADDRESSES) {
            let hop = Hop { gateway: Some(ip(gateway)), index: Some(index), ..Hop::default() };
            route::add(batch, &Route { hops: vec![hop], ..Route::to(any.parse().unwrap()) });
        }
    });
    router
}

/// What the plugin has in its table, each element as one line; nothing where there is no table.
pub(crate) fn open_host_ports() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Netfilter).unwrap();
    let table = TableName::new(nftables::Family::Inet, "hostgw_hostport");
    let sets = nftables::observe(&mut socket, &table).unwrap().map(|table| table.sets).unwrap_or_default();
    let line =
        |set: &Set, element: &Element| format!("host port {} {:?} {:?}", set.name, element.key, element.data);
    let lines = |set: &Set| set.elements.iter().map(|element| line(set, element)).collect::<Vec<_>>();
    sets.iter().flat_map(|observed| lines(&observed.set)).collect()
}

impl Node {
    /// Moves the calling thread to a new node.
    pub(crate) fn enter() -> Self {
        Self { ns: enter_new_node(), folder: TempDir::new().unwrap() }
    }

    /// A dual-stack configuration, changed as a JSON merge patch (RFC 7396) says.
    pub(crate) fn conf_with(&self, patch: Value) -> Value {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": NETWORK, "type": "hostgw",
            "ipam": {
                "dataDir": self.data_dir(),
                "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
            },
        });
        merge(&mut conf, patch);
        conf
    }

    /// The same, for one mode.
    pub(crate) fn conf(&self, mode: &str) -> Value {
        self.conf_with(json!({"mode": mode}))
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Not made yet, so that the first ADD makes it.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("run/hostgw/ipam")
    }

    /// A file of the network's store.
    pub(crate) fn stored(&self, name: &str) -> PathBuf {
        self.data_dir().join(NETWORK).join(name)
    }

    /// What the store holds for attachments: records, claims and what is half done.
    pub(crate) fn kept(&self) -> Vec<String> {
        let mut kept: Vec<String> = ["records", "claims"]
            .iter()
            .flat_map(|folder| std::fs::read_dir(self.stored(folder)).into_iter().flatten())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.extend(self.stored("pending").exists().then(|| "pending".to_owned()));
        kept.sort();
        kept
    }

    /// Everything that a plugin could leave on this node or has to leave alone.
    pub(crate) fn state(&self) -> Vec<String> {
        let mut state = observe();
        state.extend(open_host_ports());
        state.extend(self.kept().into_iter().map(|file| format!("file {file}")));
        state
    }
}

/// Applies an RFC 7396 patch: `null` removes.
fn merge(value: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *value = patch;
        return;
    };
    for (key, patch) in patch {
        match patch {
            Value::Null => {
                value.as_object_mut().unwrap().remove(&key);
            }
            patch if value[&key].is_object() && patch.is_object() => merge(&mut value[&key], patch),
            patch => value[key] = patch,
        }
    }
}

/// Links, addresses and routes of the calling thread's namespace, each as one line, sorted. Not link-local ones, which
/// the kernel gives links, and takes from them, in its own time.
pub(crate) fn observe() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let mut state = Vec::new();
    for link in link::dump(&mut socket).unwrap() {
        let up = if link.is_up() { "up" } else { "down" };
        state.push(format!("link {} {:?} {up} {:?} mtu {}", link.index, link.kind, link.master, link.mtu));
    }
    for held in address::dump(&mut socket).unwrap() {
        state.push(format!("address {} on {}", held.ip, held.index));
    }
    for family in [Family::V4, Family::V6] {
        for found in route::dump(&mut socket, family, Filter::default()).unwrap() {
            state.push(shown(&found));
        }
    }
    state.retain(|line| !line.contains(" fe80:") && !line.contains(" ff00:"));
    state.sort();
    state
}

fn shown(route: &Route) -> String {
    let Route { destination, table, protocol, metric, source, .. } = route;
    let hops: Vec<_> = route.hops.iter().map(|hop| (hop.gateway, hop.index)).collect();
    format!("route {destination} table {table} protocol {protocol} metric {metric} {source:?} {hops:?}")
}

/// Routes of the calling thread's namespace that are for pods on it.
pub(crate) fn pod_routes() -> Vec<Route> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let filter = Filter { protocol: Some(105), ..Filter::default() };
    [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| route::dump(&mut socket, family, filter).unwrap())
        .collect()
}

/// ADD that must succeed; its result.
pub(crate) fn add(pod: &Pod, conf: &Value) -> Value {
    Call::about("ADD", pod, conf).run().result()
}

/// DEL that must succeed.
pub(crate) fn del(pod: &Pod, conf: &Value) {
    Call::about("DEL", pod, conf).run().silent();
}

/// CHECK after an ADD that answered `result`.
pub(crate) fn check(pod: &Pod, conf: &Value, result: &Value) -> Outcome {
    let mut conf = conf.clone();
    conf["prevResult"] = result.clone();
    Call::about("CHECK", pod, &conf).run()
}

/// The addresses of a result, without prefixes.
pub(crate) fn addresses_of(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()).collect()
}

/// The name of the node's end of the pod's link in a result.
pub(crate) fn host_link(result: &Value) -> &str {
    let interfaces = result["interfaces"].as_array().unwrap();
    let host = interfaces.iter().rfind(|interface| interface["sandbox"].is_null()).unwrap();
    host["name"].as_str().unwrap()
}

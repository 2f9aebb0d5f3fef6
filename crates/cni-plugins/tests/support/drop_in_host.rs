//! A node that is driven by the drop-in plugins: a CNI bin folder, the networks of `host-local`, and what they hold.

use std::path::{Path, PathBuf};

use kernel::link;
use kernel::netlink::{Protocol, Socket};
use serde_json::{Value, json};

use super::node::{Node, Pod};
use super::plugin::{Call, Outcome, program};

/// A node with a CNI bin folder in which the program lies by its several names.
pub(crate) struct Host {
    pub(crate) node: Node,
}

impl Host {
    pub(crate) fn enter() -> Self {
        let node = Node::enter();
        let bin = node.folder().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["bridge", "ptp", "host-local", "static", "dhcp"] {
            std::os::unix::fs::symlink(program("hostgw-cni"), bin.join(name)).unwrap();
        }
        Self { node }
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.node.folder().join("bin")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.node.folder()
    }

    pub(crate) fn networks(&self) -> PathBuf {
        self.node.folder().join("networks")
    }

    pub(crate) fn conf(&self, kind: &str, patch: &Value) -> Value {
        let mut conf = json!({
            "cniVersion": "1.1.0", "name": "net", "type": kind,
            "ipam": {
                "type": "host-local", "dataDir": self.networks(),
                "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1:2::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        });
        if kind == "bridge" {
            conf["isGateway"] = json!(true);
        }
        for (key, value) in patch.as_object().unwrap() {
            conf[key] = value.clone();
        }
        conf
    }

    pub(crate) fn call(&self, verb: &str, pod: &Pod, conf: &Value) -> Call {
        let name = if conf["type"] == "ptp" { "ptp" } else { "bridge" };
        Call::about(verb, pod, conf).by_name(name).with("CNI_PATH", self.bin())
    }

    pub(crate) fn add(&self, pod: &Pod, conf: &Value) -> Value {
        self.call("ADD", pod, conf).run().result()
    }

    pub(crate) fn del(&self, pod: &Pod, conf: &Value) {
        self.call("DEL", pod, conf).run().silent();
    }

    pub(crate) fn check(&self, pod: &Pod, conf: &Value, result: &Value) -> Outcome {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        self.call("CHECK", pod, &conf).run()
    }

    /// The addresses that host-local has handed out. An empty file is free for whoever comes next.
    pub(crate) fn held(&self) -> Vec<String> {
        let entries =
            std::fs::read_dir(self.networks().join("net")).into_iter().flatten().map(Result::unwrap);
        let written = entries.filter(|entry| entry.metadata().is_ok_and(|file| file.len() > 0));
        let names = written.map(|entry| entry.file_name().into_string().unwrap());
        let mut held: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
        held.sort();
        held
    }
}

/// The names of the links of the calling thread's namespace.
pub(crate) fn link_names() -> Vec<String> {
    let links = link::dump(&mut Socket::open(Protocol::Route).unwrap()).unwrap();
    links.into_iter().map(|link| link.name).collect()
}

//! The plugin with real servers: dnsmasq and Kea, unpacked below `$HOSTGW_DHCP_SERVERS` by `tests/dhcp-servers`, which
//! runs these tests. They are never started in the machine's own network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use kernel::netns::NetNs;
use serde_json::{Value, json};
use support::dhcp_server::{BRIDGE, segment};
use support::node::{Node, Pod, addresses_of, ip};
use support::plugin::{Call, Outcome};
use tempfile::TempDir;

const SERVERS: [&str; 2] = ["dnsmasq", "kea-dhcp4"];

/// A server that runs in the LAN's namespace until it is dropped.
struct Server {
    child: Child,
    _folder: TempDir,
}

impl Server {
    /// Lends addresses from `first` to `last` of 198.51.100.0/24.
    fn start(lan: &NetNs, program: &str, [first, last]: [&str; 2]) -> Self {
        let folder = TempDir::new().unwrap();
        let root = PathBuf::from(
            std::env::var_os("HOSTGW_DHCP_SERVERS").expect("run these tests by tests/dhcp-servers"),
        );
        let mut command = Command::new(root.join("usr/sbin").join(program));
        let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"].map(|path| root.join(path));
        command
            .env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap())
            .env("KEA_LOCKFILE_DIR", "none")
            .env("KEA_PIDFILE_DIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match program {
            "dnsmasq" => command.args(dnsmasq(folder.path(), first, last)),
            _ => {
                let path = folder.path().join("kea.json");
                std::fs::write(&path, kea(folder.path(), first, last).to_string()).unwrap();
                command.arg("-c").arg(path)
            }
        };
        let child =
            lan.run(|| command.spawn()).unwrap().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let listens =
            || lan.run(|| std::fs::read_to_string("/proc/thread-self/net/udp").unwrap().contains(":0043 "));
        let deadline = Instant::now() + support::PATIENCE;
        while !listens().unwrap() {
            assert!(Instant::now() < deadline, "{program} does not listen");
            std::thread::yield_now();
        }
        Self { child, _folder: folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn dnsmasq(folder: &Path, first: &str, last: &str) -> Vec<String> {
    let leases = folder.join("leases");
    vec![
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--port=0".to_owned(),
        "--user=root".to_owned(),
        "--interface=lan0".to_owned(),
        "--bind-interfaces".to_owned(),
        "--no-ping".to_owned(),
        "--dhcp-authoritative".to_owned(),
        format!("--pid-file={}", folder.join("pid").display()),
        format!("--dhcp-leasefile={}", leases.display()),
        format!("--dhcp-range={first},{last},255.255.255.0,2m"),
        "--dhcp-option=option:router,198.51.100.1".to_owned(),
        "--dhcp-option=option:classless-static-route,203.0.113.0/24,198.51.100.7,0.0.0.0/0,198.51.100.1"
            .to_owned(),
    ]
}

fn kea(folder: &Path, first: &str, last: &str) -> Value {
    json!({"Dhcp4": {
        "interfaces-config": {"interfaces": ["lan0"]},
        "lease-database": {"type": "memfile", "lfc-interval": 0, "persist": true, "name": folder.join("leases.csv")},
        "valid-lifetime": 120, "authoritative": true,
        "option-def": [{"name": "routes", "code": 121, "type": "binary", "space": "dhcp4"}],
        "subnet4": [{
            "id": 1, "subnet": "198.51.100.0/24", "pools": [{"pool": format!("{first} - {last}")}],
            "option-data": [
                {"name": "routers", "data": "198.51.100.1"},
                {"code": 121, "csv-format": false, "data": "18CB0071C633640700C6336401"},
            ],
        }],
        "loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": folder.join("log")}]}],
    }})
}

struct Site {
    node: Node,
    lan: NetNs,
}

impl Site {
    fn new() -> Self {
        let node = Node::enter();
        Self { node, lan: segment() }
    }

    fn call(&self, verb: &str, pod: &Pod, timeout: u64) -> Call {
        let conf = self.node.conf_with(json!({
            "mode": "bridge", "bridge": BRIDGE, "ipam": {
                "type": "dhcp", "ranges": null, "clientID": "pod", "timeout": timeout,
                "leaseDir": self.node.folder().join("leases"),
            },
        }));
        let name = pod.id.split('.').next().unwrap();
        Call::about(verb, pod, &conf).with("CNI_ARGS", format!("K8S_POD_NAMESPACE=prod;K8S_POD_NAME={name}"))
    }

    fn add(&self, pod: &Pod) -> Outcome {
        self.call("ADD", pod, 20).run()
    }
}

fn address(outcome: &Outcome) -> IpAddr {
    addresses_of(&outcome.result())[0]
}

#[test]
#[ignore = "needs real servers: run tests/dhcp-servers"]
fn each_server_lends_again_what_it_lent_and_another_address_once_its_range_is_another() {
    for program in SERVERS {
        let site = Site::new();
        let server = Server::start(&site.lan, program, ["198.51.100.100", "198.51.100.149"]);
        let first = Pod::new("db-0.1");
        let outcome = site.add(&first);
        let lent = address(&outcome);
        assert!(lent >= ip("198.51.100.100") && lent <= ip("198.51.100.149"), "{program}: {lent}");
        let routes = outcome.result()["routes"].clone();
        let expected = json!([
            {"dst": "203.0.113.0/24", "gw": "198.51.100.7"}, {"dst": "0.0.0.0/0", "gw": "198.51.100.1"}
        ]);
        assert_eq!(routes, expected, "{program}");
        site.call("DEL", &first, 20).run().silent();
        let second = Pod::new("db-0.2");
        assert_eq!(address(&site.add(&second)), lent, "{program}");
        site.call("DEL", &second, 20).run().silent();
        drop(server);
        let _server = Server::start(&site.lan, program, ["198.51.100.200", "198.51.100.249"]);
        let moved = address(&site.add(&Pod::new("db-0.3")));
        assert!(moved >= ip("198.51.100.200"), "{program}: {moved}");
    }
}

#[test]
#[ignore = "needs real servers: run tests/dhcp-servers"]
fn a_server_without_addresses_or_that_is_down_fails_an_add_in_time_and_leaves_nothing() {
    for program in SERVERS {
        let site = Site::new();
        let pods = ["a", "b", "c"].map(Pod::new);
        let server = Server::start(&site.lan, program, ["198.51.100.100", "198.51.100.100"]);
        assert_eq!(address(&site.add(&pods[0])), ip("198.51.100.100"));
        assert_eq!(site.call("ADD", &pods[1], 3).run().error().0, 11, "{program}");
        drop(server);
        assert_eq!(site.call("ADD", &pods[2], 2).run().error().0, 11, "{program}");
        assert_eq!(site.node.kept().len(), 2, "one record, one claim");
    }
}

#[test]
#[ignore = "needs real servers: run tests/dhcp-servers"]
fn a_hundred_pods_at_once_each_get_an_address_of_each_server() {
    for program in SERVERS {
        let site = Site::new();
        let _server = Server::start(&site.lan, program, ["198.51.100.50", "198.51.100.249"]);
        let pods: Vec<Pod> = (0..100).map(|number| Pod::new(format!("pod-{number}"))).collect();
        let calls: Vec<_> = pods.iter().map(|pod| site.call("ADD", pod, 60).start()).collect();
        let mut given: Vec<IpAddr> = calls.into_iter().map(|call| address(&call.finish())).collect();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 100, "{program}");
    }
}

#[test]
#[ignore = "needs real servers: run tests/dhcp-servers"]
fn of_two_servers_at_once_one_is_taken() {
    let site = Site::new();
    let _dnsmasq = Server::start(&site.lan, "dnsmasq", ["198.51.100.100", "198.51.100.149"]);
    // In a namespace of its own, on the same LAN: both listen on one port.
    let second = support::dhcp_server::join("port1", "198.51.100.3/24");
    let _kea = Server::start(&second, "kea-dhcp4", ["198.51.100.200", "198.51.100.249"]);
    for number in 0..10 {
        let lent = address(&site.add(&Pod::new(format!("pod-{number}"))));
        assert!(lent >= ip("198.51.100.100"), "{lent}");
    }
}

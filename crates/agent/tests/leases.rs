//! Leases of a DHCP server: prolonged by the agent, reported when lost, given back when their pod is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni_plugins::dhcp::{Lease, LeaseStore};
use dhcp_client::{Kind, Message, Options, code};
use kernel::link::{Veth, VethEnd};
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::{address, link, neighbour};
use link_name::LinkName;
use serde_json::{Value, json};
use support::{Node, change, dual, enter_new_namespace, index_of, wait_until};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);

/// A pod on the LAN itself, with an address of the LAN's server, which hears and answers in a thread of its own.
struct Lan {
    node: Node,
    pod: NetNs,
    heard: Receiver<Message>,
    _stop: Sender<()>,
}

/// How a question is answered.
type Answers = fn(&Message) -> Option<Kind>;

fn acknowledge(question: &Message) -> Option<Kind> {
    match question.kind {
        Kind::Discover => Some(Kind::Offer),
        Kind::Request => Some(Kind::Ack),
        _ => None,
    }
}

impl Lan {
    fn new() -> Self {
        let node = Node::new();
        node.write_nodes(&[dual(1), dual(2)]);
        let back = NetNs::current().unwrap();
        let pod = enter_new_namespace();
        back.enter().unwrap();
        let [eth0, bridge, port] = ["eth0", "br0", "pod0"].map(|name| LinkName::new(name).unwrap());
        node.lan
            .run(|| {
                change(|batch, _| link::create_bridge(batch, &bridge, [2, 0, 0, 0, 0, 7], 1500, true));
                let (master, lan0) = (index_of("br0"), index_of("lan0"));
                let veth = Veth {
                    host: VethEnd { name: &port, mac: None, netns: None },
                    peer: VethEnd { name: &eth0, mac: None, netns: Some(pod.as_fd()) },
                    mtu: 1500,
                    master: Some(master),
                    up: true,
                };
                change(|batch, _| {
                    link::create_veth(batch, &veth);
                    link::set_master(batch, lan0, master);
                    address::delete(batch, lan0, "192.0.2.1/24".parse().unwrap());
                    address::add(batch, master, "192.0.2.1/24".parse().unwrap(), 0);
                });
            })
            .unwrap();
        pod.run(|| {
            change(|batch, _| {
                let index = index_of("eth0");
                address::add(batch, index, format!("{ADDRESS}/24").parse().unwrap(), 0);
                link::set_up(batch, index);
                link::request(batch, index);
            });
        })
        .unwrap();
        let (_stop, _) = channel();
        let (_, heard) = channel();
        Self { node, pod, heard, _stop }
    }

    fn serve(&mut self, answers: Answers) {
        let (stop, stopped) = channel::<()>();
        let (tell, heard) = channel();
        // The server before this one ends first: it has the port.
        self._stop = stop;
        self.heard = heard;
        let mut socket = None;
        wait_until("the port is free", || {
            socket = self.node.lan.run(|| UdpSocket::bind("0.0.0.0:67")).unwrap().ok();
            socket.is_some()
        });
        let socket = socket.unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 2000];
            while !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                let question = Message::decode(&buffer[..length]).unwrap();
                if let Some(kind) = answers(&question) {
                    let broadcast = Ipv4Addr::new(192, 0, 2, 255);
                    let known = !question.client_address.is_unspecified();
                    let to = if known { question.client_address } else { broadcast };
                    socket.send_to(&answer(&question, kind).encode(), SocketAddr::from((to, 68))).ok();
                }
                tell.send(question).ok();
            }
        });
    }

    fn hears(&self, kind: Kind) -> Message {
        loop {
            let message = self.heard.recv_timeout(support::PATIENCE).unwrap();
            if message.kind == kind {
                return message;
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.node.path("var/lib/hostgw/leases/lan/pod1:eth0.json")
    }

    fn lease(&self) -> Option<Lease> {
        LeaseStore::read(&self.file()).unwrap()
    }

    /// A lease of `seconds`, confirmed so long ago.
    fn lend(&self, seconds: u32, ago: u64, change: impl FnOnce(&mut Value)) {
        let id = self.pod.id().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.pod.as_fd().as_raw_fd());
        let mut lease = json!({
            "schemaVersion": 1, "network": "lan", "attachment": {"containerID": "pod1", "ifname": "eth0"},
            "pod": {"namespace": "prod", "name": "db-0"}, "mac": "0a:00:00:00:00:50",
            "clientId": [0, 1], "requested": [1, 3], "confirmed": true,
            "podLink": {"netns": {"path": path, "dev": id.device, "inode": id.inode}, "link": "eth0"},
            "boundAt": SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - ago,
            "terms": {
                "address": format!("{ADDRESS}/24"), "server": SERVER, "leaseSeconds": seconds,
                "renewSeconds": seconds / 2, "rebindSeconds": seconds - seconds / 8,
            },
        });
        change(&mut lease);
        std::fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        std::fs::write(self.file(), lease.to_string()).unwrap();
        assert!(self.lease().is_some());
    }

    fn lost(&self) -> Option<String> {
        let conditions = self.node.state()?.conditions;
        conditions.into_iter().find(|condition| condition.code == "lease-lost").map(|found| found.message)
    }
}

fn link_of(name: &str) -> link::Link {
    link::by_name(&mut Socket::open(Protocol::Route).unwrap(), name).unwrap().unwrap()
}

fn answer(question: &Message, kind: Kind) -> Message {
    let mut options = Options::default();
    options.set(code::SERVER, SERVER.octets());
    options.set(code::SUBNET_MASK, [255, 255, 255, 0]);
    options.set(code::LEASE_TIME, 7200_u32.to_be_bytes());
    Message { is_reply: true, kind, your_address: ADDRESS, options, ..question.clone() }
}

#[test]
fn a_lease_is_renewed_with_its_server_and_kept() {
    let mut lan = Lan::new();
    lan.serve(acknowledge);
    lan.lend(600, 400, |_| ());
    let _agent = lan.node.start();
    let request = lan.hears(Kind::Request);
    assert_eq!((request.client_address, request.broadcast), (ADDRESS, false));
    wait_until("the lease is longer", || lan.lease().is_some_and(|lease| lease.terms.lease_seconds == 7200));
    assert_eq!(lan.lost(), None);
}

#[test]
fn the_lease_of_a_routed_pod_is_renewed_over_the_nodes_link() {
    let mut lan = Lan::new();
    lan.serve(acknowledge);
    // As the node does for a pod that has a link: it answers for the address with its own Ethernet address.
    let own = link_of("eth0").mac.unwrap();
    lan.pod.run(|| change(|batch, _| link::delete(batch, index_of("eth0")))).unwrap();
    lan.node
        .lan
        .run(|| {
            change(|batch, _| {
                neighbour::set_permanent(batch, index_of("br0"), ADDRESS.into(), own);
            });
        })
        .unwrap();
    lan.lend(600, 400, |lease| {
        lease["podLink"] = json!(null);
        lease["nodeLink"] = json!("eth0");
    });
    let _agent = lan.node.start();
    assert_eq!(lan.hears(Kind::Request).client_address, ADDRESS);
    wait_until("the lease is longer", || lan.lease().is_some_and(|lease| lease.terms.lease_seconds == 7200));
    assert_eq!(lan.lost(), None);
}

#[test]
fn a_lease_that_nobody_renewed_is_asked_for_of_all_servers() {
    let mut lan = Lan::new();
    // Not by unicast: the server that lent it is another's by now.
    lan.serve(acknowledge);
    lan.lend(800, 710, |lease| lease["terms"]["server"] = json!("192.0.2.9"));
    let _agent = lan.node.start();
    lan.hears(Kind::Request);
    wait_until("the lease is that of the server", || {
        lan.lease().is_some_and(|lease| lease.terms.server == SERVER)
    });
}

#[test]
fn a_lost_lease_is_reported_by_its_pod_and_regained_by_another_agent() {
    let mut lan = Lan::new();
    lan.serve(|question| (question.kind == Kind::Request).then_some(Kind::Nak));
    lan.lend(600, 400, |_| ());
    let agent = lan.node.start();
    wait_until("the loss is reported", || lan.lost().is_some());
    let lost = lan.lost().unwrap();
    assert!(
        lost.contains("prod/db-0") && lost.contains("192.0.2.50") && lost.contains("192.0.2.1 refused"),
        "{lost}"
    );
    let held = lan.pod.run(|| support::run("ip", &["-4", "address", "show", "dev", "eth0"])).unwrap();
    assert!(held.contains("192.0.2.50/24"), "{held}");
    drop(agent);
    lan.serve(acknowledge);
    let _agent = lan.node.start();
    assert_eq!(lan.hears(Kind::Discover).address(code::REQUESTED_ADDRESS), Some(ADDRESS));
    wait_until("the lease is there again", || {
        lan.lease().is_some_and(|lease| lease.terms.lease_seconds == 7200)
    });
    wait_until("the loss is no more reported", || lan.lost().is_none());
}

#[test]
fn the_lease_of_a_pod_that_is_gone_is_released_and_forgotten() {
    let mut lan = Lan::new();
    lan.serve(acknowledge);
    lan.lend(7200, 400, |lease| {
        lease["podLink"]["netns"]["inode"] = json!(1);
        lease["nodeLink"] = json!("eth0");
    });
    let file = std::fs::File::options().write(true).open(lan.file()).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(400)).unwrap();
    let _agent = lan.node.start();
    assert_eq!(lan.hears(Kind::Release).client_address, ADDRESS);
    wait_until("the lease is forgotten", || !lan.file().exists());
}

//! Figures of docs/dhcp.md: what DHCP adds to ADD, and what prolonging a thousand leases takes of an agent. They are
//! printed, not asserted, and need both programs, best a release's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dhcp_client::{Kind, Message, Options, code};
use serde_json::{Value, json};
use support::dhcp_server::{BRIDGE, SERVER, lan, right, segment};
use support::node::{Node, Pod};
use support::plugin::{Call, program};

const ROUNDS: usize = 100;
const LEASES: u16 = 1000;

/// The first decile, which a machine that does much else disturbs least, and the median.
fn typical(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort();
    [times[times.len() / 10], times[times.len() / 2]]
}

/// One ADD, timed, and its DEL.
fn round(pod: &Pod, conf: &Value) -> Duration {
    let began = Instant::now();
    let outcome = Call::about("ADD", pod, conf).run();
    let took = began.elapsed();
    assert!(outcome.is_ok(), "{}", outcome.answer());
    Call::about("DEL", pod, conf).run().silent();
    took
}

#[test]
#[ignore = "figures: HOSTGW_BIN_DIR=target/release cargo test -p cni-plugins --test dhcp_figures -- --ignored --nocapture"]
fn what_dhcp_adds_to_an_add() {
    let node = Node::enter();
    let lan = lan(right);
    let conf = |ipam: Value| {
        node.conf_with(json!({
            "mode": "l2-routed", "uplink": BRIDGE, "nodeAddresses": ["198.51.100.2"], "ipam": ipam,
        }))
    };
    let ranges = conf(json!({"ranges": [[{"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.200"}]]}));
    let leased = conf(json!({"type": "dhcp", "ranges": null, "leaseDir": node.folder().join("leases")}));
    let pod = Pod::new("pod");
    let (mut by_range, mut by_lease) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        by_range.push(round(&pod, &ranges));
        by_lease.push(round(&pod, &leased));
    }
    let (by_range, by_lease) = (typical(by_range), typical(by_lease));
    for (what, (by_range, by_lease)) in
        ["first decile", "median"].into_iter().zip(by_range.into_iter().zip(by_lease))
    {
        let more = by_lease.saturating_sub(by_range);
        println!("ADD, {what}: {by_range:?} by range, {by_lease:?} by DHCP, {more:?} more");
    }
    assert!(!lan.heard().is_empty());
}

/// Acknowledges everything, with a lease of two hours; how many it did.
fn acknowledge_all(socket: &UdpSocket, wanted: usize) -> usize {
    let mut buffer = [0; 2000];
    let mut clients = std::collections::BTreeSet::new();
    while clients.len() < wanted {
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { return clients.len() };
        let question = Message::decode(&buffer[..length]).unwrap();
        let mut options = Options::default();
        options.set(code::SERVER, SERVER.octets());
        options.set(code::SUBNET_MASK, [255, 255, 0, 0]);
        options.set(code::LEASE_TIME, 7200_u32.to_be_bytes());
        clients.insert(question.client_address);
        let reply = Message {
            is_reply: true,
            kind: Kind::Ack,
            your_address: question.client_address,
            options,
            ..question
        };
        socket.send_to(&reply.encode(), SocketAddr::from((Ipv4Addr::new(198, 51, 100, 255), 68))).unwrap();
    }
    clients.len()
}

#[test]
#[ignore = "figures: HOSTGW_BIN_DIR=target/release cargo test -p cni-plugins --test dhcp_figures -- --ignored --nocapture"]
fn what_a_thousand_leases_take_of_an_agent() {
    let node = Node::enter();
    let lan = segment();
    let socket = lan.run(|| UdpSocket::bind("0.0.0.0:67").unwrap()).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let leases = node.folder().join("var/lib/hostgw/leases/lan");
    std::fs::create_dir_all(&leases).unwrap();
    let bound_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 4000;
    for number in 0..LEASES {
        let [high, low] = number.to_be_bytes();
        let lease = json!({
            "schemaVersion": 1, "network": "lan",
            "attachment": {"containerID": format!("pod{number}"), "ifname": "eth0"},
            "mac": format!("0a:00:00:00:{high:02x}:{low:02x}"), "clientId": [0, high, low], "requested": [1, 3],
            "confirmed": true, "nodeLink": BRIDGE, "boundAt": bound_at,
            "terms": {
                "address": format!("10.77.{high}.{low}/16"), "server": SERVER, "leaseSeconds": 7200,
                "renewSeconds": 3600, "rebindSeconds": 6300,
            },
        });
        std::fs::write(leases.join(format!("pod{number}:eth0.json")), lease.to_string()).unwrap();
    }
    let nodes = node.folder().join("nodes.yaml");
    std::fs::write(
        &nodes,
        "{kind: Node, metadata: {name: node1}, spec: {podCIDRs: [10.244.1.0/24]}, \
         status: {addresses: [{type: InternalIP, address: 198.51.100.2}]}}",
    )
    .unwrap();
    let mut agent = Command::new(program("hostgw"))
        .args(["agent", "--node-name", "node1", "--listen", "127.0.0.1:0", "--source"])
        .arg(format!("file:{}", nodes.display()))
        .arg("--root")
        .arg(node.folder())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let renewed = acknowledge_all(&socket, LEASES.into());
    let took = began.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("none").trim();
    println!(
        "{renewed} leases renewed in {took:?}; agent: peak {}, now {}",
        field("VmHWM:"),
        field("VmRSS:")
    );
    assert_eq!(renewed, usize::from(LEASES));
}

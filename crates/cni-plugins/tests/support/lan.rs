//! What tests of pods on the node's own LAN share: the LAN, a host there, and services as kube-proxy declares them.

use std::net::IpAddr;

use kernel::link::Mac;
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::{Protocol, Socket};
use kernel::netns::NetNs;
use kernel::nftables::{
    BaseChain, Chain, ChainKind, Family, Hook, NatFlags, NatKind, NatTarget, Policy, Rule, Selector,
    Statement, Table, Transaction, Transport, Value as Nft, priority,
};
use kernel::route::{Filter, Hop, Route};
use kernel::sysctl::Sysctls;
use kernel::{address, link, route};
use serde_json::{Value, json};

use super::assert_first_packets;
use super::node::{
    NODE_ADDRESSES, Node, Pod, ROUTER_ADDRESSES, addresses_of, change, index_of, ip, name, uplink,
};

/// The first addresses of the node's slices of the LAN.
pub(crate) const FIRST: [&str; 2] = ["192.0.2.128", "2001:db8:1::1:0"];

/// A node, a LAN, and a host there.
pub(crate) struct Lan {
    pub(crate) node: Node,
    pub(crate) host: NetNs,
}

impl Lan {
    /// As the agent leaves the node: it answers for others at once.
    pub(crate) fn enter() -> Self {
        let node = Node::enter();
        let host = uplink(1500);
        speak_at_once("up0");
        host.run(|| speak_at_once("lan0")).unwrap();
        let sysctls = Sysctls::default();
        for (key, value) in [
            ("net/ipv4/neigh/up0/proxy_delay", "0"),
            ("net/ipv6/neigh/up0/proxy_delay", "0"),
            ("net/ipv6/conf/up0/proxy_ndp", "1"),
        ] {
            sysctls.write(key, value).unwrap();
        }
        Self { node, host }
    }

    /// The same with the node's addresses on a bridge that has the uplink as a port.
    pub(crate) fn enter_bridged() -> Self {
        let lan = Self::enter();
        change(|batch, socket| {
            let up = index_of("up0");
            for family in [route::Family::V4, route::Family::V6] {
                for found in route::dump(socket, family, Filter::default()).unwrap() {
                    if found.destination.prefix_len() == 0
                        && found.hops.iter().any(|hop| hop.index == Some(up))
                    {
                        route::delete(batch, &found);
                    }
                }
            }
            for held in address::dump(socket).unwrap().iter().filter(|held| held.index == up) {
                address::delete(batch, up, held.ip);
            }
            link::create_bridge(batch, &name("br0"), [2, 0, 0, 0, 0, 7], 1500, true);
        });
        let (up, bridge) = (index_of("up0"), index_of("br0"));
        change(|batch, _| {
            link::set_master(batch, up, bridge);
            for (held, length) in NODE_ADDRESSES.into_iter().zip([24, 64]) {
                address::add(batch, bridge, format!("{held}/{length}").parse().unwrap(), address::NODAD);
            }
            link::request(batch, bridge);
        });
        speak_at_once("br0");
        change(|batch, _| {
            for (any, gateway) in ["0.0.0.0/0", "::/0"].into_iter().zip(ROUTER_ADDRESSES) {
                let hop = Hop { gateway: Some(ip(gateway)), index: Some(bridge), ..Hop::default() };
                route::add(batch, &Route { hops: vec![hop], ..Route::to(any.parse().unwrap()) });
            }
        });
        lan
    }

    /// What is on the node, but for the kernel's own routes to it, which come in the kernel's own time.
    pub(crate) fn state(&self) -> Vec<String> {
        let mut state = self.node.state();
        state.retain(|line| !line.contains(" table 255 "));
        state
    }

    /// One slice of the LAN a family.
    pub(crate) fn conf(&self, patch: &Value) -> Value {
        let mut conf = self.node.conf_with(json!({"mode": "l2-routed", "ipam": {"ranges": [
            [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.128", "rangeEnd": "192.0.2.143"}],
            [{"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::1:0", "rangeEnd": "2001:db8:1::1:ff"}],
        ]}}));
        for (key, value) in patch.as_object().unwrap() {
            conf[key] = value.clone();
        }
        conf
    }

    /// The first packet each way between the LAN's host and a pod.
    pub(crate) fn prove(&self, pod: &Pod, result: &Value) {
        let own = addresses_of(result);
        assert_first_packets(&self.host, &[], &[(&pod.ns, own.clone())]);
        assert_first_packets(&self.host, &ROUTER_ADDRESSES.map(ip), &[(&pod.ns, own)]);
    }

    pub(crate) fn remembered(&self, address: IpAddr) -> Option<Neighbour> {
        let known = self.host.run(|| neighbour::dump(&mut socket(), false).unwrap()).unwrap();
        known.into_iter().find(|known| known.ip == address)
    }
}

/// A link without a link-local address asks nobody where an address is, and that of a new link is tentative for a
/// second: here it is made anew without the wait.
fn speak_at_once(name: &str) {
    let index = index_of(name);
    change(|batch, socket| {
        let of_link =
            |held: &&address::Address| held.index == index && held.ip.to_string().starts_with("fe80");
        for held in address::dump(socket).unwrap().iter().filter(of_link) {
            address::delete(batch, index, held.ip);
        }
        address::add(batch, index, format!("fe80::{index}:1/64").parse().unwrap(), address::NODAD);
    });
}

pub(crate) fn socket() -> Socket {
    Socket::open(Protocol::Route).unwrap()
}

pub(crate) fn mac_of(name: &str) -> Mac {
    link::by_name(&mut socket(), name).unwrap().unwrap().mac.unwrap()
}

/// As kube-proxy does: one rule a port of a service.
pub(crate) fn declare_services(backends: &[(u16, IpAddr)]) {
    let rules = backends.iter().map(|(port, backend)| {
        Rule::new([
            Statement::is(Selector::Daddr(route::Family::V4), Nft::Ip(ip("10.96.0.10"))),
            Statement::is(Selector::Dport(Transport::Udp), Nft::Port(*port)),
            Statement::Nat {
                kind: NatKind::Destination,
                target: NatTarget::Address(*backend),
                flags: NatFlags::default(),
            },
        ])
    });
    let base = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Prerouting,
        priority: priority::DSTNAT,
        policy: Policy::Accept,
    };
    let table = Table {
        chains: vec![Chain::base("services", base, rules.collect())],
        ..Table::new(Family::Ip, "services")
    };
    let mut transaction = Transaction::new();
    transaction.declare(&table);
    transaction.commit(&mut Socket::open(Protocol::Netfilter).unwrap()).unwrap();
}

//! Host ports of a drop-in: the table of type `hostgw`'s host ports under another name, whose elements say whose they are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use attachment::HostPort;
use cni_spec::{Attachment, CniError, ErrorCode, NetworkName, RuleBackend};
use kernel::KernelError;
use kernel::netlink::{self, Socket};
use kernel::nftables::{
    DataType, Element, Existing, MapData, NatFlags, NatKind, NatTarget, Rule, Selector, Set, Statement,
    Table, Transaction, Value, ct_status,
};
use kernel::{link, route};
use link_name::LinkName;

use super::Ports;
use super::near::Near;
use crate::chained::Valid;
use crate::failure::kernel_refused;
use crate::host_ports::elements::{WayBack, elements_at, number};
use crate::host_ports::table::{frame as host_port_frame, no_loopback_from};
use crate::host_ports::{forget_flows_from, forget_flows_to, wanted};
use crate::netfilter;
use crate::owned_table::{DROP_IN_TABLES, Owned, OwnedTable, PutError, values_of};
use crate::owner_tag;

const TABLE: OwnedTable = OwnedTable {
    name: DROP_IN_TABLES[0],
    sets: &[
        "any4",
        "exact4",
        "hairpin4",
        "bridged4",
        "excluded4",
        "everybody4",
        "any6",
        "exact6",
        "hairpin6",
        "bridged6",
        "excluded6",
        "everybody6",
        "guarded",
    ],
    uses: &[("hostports", 10), ("prerouting", 1), ("output", 1), ("postrouting", 6), ("guard", 1)],
    frame,
};

/// Beside what type `hostgw` has: `masqAll`, and links that are guarded by name, since they bear any.
fn frame() -> Table {
    let guarded = Statement::is_in([Selector::IifName], "guarded");
    let mut table = host_port_frame(TABLE.name, no_loopback_from(guarded));
    table.sets.push(Set::new("guarded", [DataType::IfName]));
    for version in [route::Family::V4, route::Family::V6] {
        let address = DataType::address(version);
        let key = [DataType::InetProto, DataType::InetService, address, DataType::InetService];
        table.sets.push(Set::map(everybody(version), key, MapData::Values(vec![address])));
        let selectors = vec![
            Selector::L4Proto,
            Selector::CtOriginalDport,
            Selector::Daddr(version),
            Selector::Dport(kernel::nftables::Transport::Any),
        ];
        let target = NatTarget::Map { version, selectors, map: everybody(version).to_owned(), port: false };
        let rule = Rule::new([
            Statement::is(Selector::NfProto, Value::Version(version)),
            Statement::ct_status(ct_status::DNAT),
            Statement::Nat { kind: NatKind::Source, target, flags: NatFlags::default() },
        ]);
        if let Some(postrouting) = table.chains.iter_mut().find(|chain| chain.name == "postrouting") {
            postrouting.rules.push(rule);
        }
    }
    table
}

const fn everybody(version: route::Family) -> &'static str {
    match version {
        route::Family::V4 => "everybody4",
        route::Family::V6 => "everybody6",
    }
}

fn version(ip: IpAddr) -> route::Family {
    if ip.is_ipv4() { route::Family::V4 } else { route::Family::V6 }
}

/// Everything of one attachment.
fn owned(ports: &Ports<'_>) -> Vec<Owned> {
    let tag = owner_tag::of_attachment(&ports.conf.base.name, ports.attachment);
    let pair = ports.pods.iter().find_map(|pod| pod.pair.as_ref());
    let pair = pair.map(|pair| format!("{PAIR}{pair}, ")).unwrap_or_default();
    let comment = format!("{tag} {pair}{} of {}", ports.attachment, ports.conf.base.name);
    let mut owned: Vec<Owned> = Vec::new();
    let mut push = |set: &str, element: Element| {
        let Some(set) = TABLE.sets.iter().find(|known| **known == set) else { return };
        let element = Owned { set, element: element.comment(comment.as_str()) };
        // One port on two addresses of the node has one way back.
        if !owned.contains(&element) {
            owned.push(element);
        }
    };
    for pod in &ports.pods {
        let address = pod.pod.addr();
        for port in host_ports(ports, pod) {
            let bridge = pod.link.as_ref().filter(|link| link.is_bridge).map(|link| &link.name);
            let way = pod.node.filter(|_| ports.conf.snat).map(|node| WayBack { node, bridge });
            for placed in elements_at(&port, address, way) {
                push(placed.set, placed.element);
            }
            let is_of_family = port.host_ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4());
            if let Some(node) = pod.node.filter(|_| ports.conf.masq_all && ports.conf.snat && is_of_family) {
                let key = [
                    Value::Proto(number(port.protocol)),
                    Value::Port(port.host_port.get()),
                    Value::Ip(address),
                    Value::Port(port.container_port.get()),
                ];
                push(everybody(version(address)), Element::mapping(key, [Value::Ip(node)]));
            }
        }
        if let Some(link) = guarded(ports, pod).filter(|link| Some(*link) == pod.pair.as_ref()) {
            push("guarded", Element::of([Value::IfName(link.clone())]));
        }
    }
    owned
}

/// In a comment, before the name of the link that lives as long as the pod.
const PAIR: &str = "link ";

fn host_ports(ports: &Ports<'_>, pod: &Near) -> Vec<HostPort> {
    wanted(&ports.conf.port_mappings, ports.conf.snat && pod.pod.addr().is_ipv4())
}

/// The link that is told to route 127/8, and must not let a pod make use of it.
fn guarded<'p>(ports: &Ports<'_>, pod: &'p Near) -> Option<&'p LinkName> {
    let link = pod.link.as_ref().filter(|_| ports.conf.snat && pod.pod.addr().is_ipv4())?;
    Some(&link.name)
}

pub(super) fn open(ports: &Ports<'_>) -> Result<(), CniError> {
    if ports.conf.backend == Some(RuleBackend::Nftables) || ports.conf.backend.is_none() {
        refuse_conditions(ports)?;
    }
    let mut socket = netfilter::socket().map_err(kernel_refused)?;
    let excluded = addresses_of_dummies().map_err(kernel_refused)?;
    let bridges: BTreeSet<&LinkName> = ports
        .pods
        .iter()
        .filter(|pod| pod.link.as_ref().is_some_and(|link| link.is_bridge))
        .filter_map(|pod| guarded(ports, pod))
        .collect();
    let sets = frame().sets;
    let shared = |transaction: &mut Transaction| {
        let mut keep = |name: &str, elements: Vec<Element>| {
            if let Some(set) = sets.iter().find(|set| set.name == name).filter(|_| !elements.is_empty()) {
                transaction.add_elements(&TABLE.full_name(), set, &elements, Existing::Keep);
            }
        };
        // A bridge has many pods, and stays guarded when the last is gone.
        keep("guarded", bridges.iter().map(|name| Element::of([Value::IfName((*name).clone())])).collect());
        for (name, is_v4) in [("excluded4", true), ("excluded6", false)] {
            let of_family = excluded.iter().filter(|ip| ip.is_ipv4() == is_v4);
            keep(name, of_family.map(|ip| Element::of([Value::Ip(*ip)])).collect());
        }
    };
    match TABLE.put(&mut socket, &owned(ports), shared, |held| !is_living(held)) {
        Ok(()) => {}
        Err(PutError::Kernel(error)) => {
            let attachment = ports.attachment;
            return Err(kernel_refused(
                error.attempting(format!("open the host ports of attachment {attachment}")),
            ));
        }
        Err(PutError::Taken(held)) => return Err(taken(&held)),
    }
    for pod in &ports.pods {
        for port in host_ports(ports, pod) {
            forget_flows_to(&port, pod.pod.addr(), &mut socket).map_err(kernel_refused)?;
        }
        if ports.conf.snat {
            pod.route_localnet().map_err(kernel_refused)?;
        }
    }
    Ok(())
}

/// nft's own language is nft's to read.
fn refuse_conditions(ports: &Ports<'_>) -> Result<(), CniError> {
    let conditions =
        [("conditionsV4", &ports.conf.conditions_v4), ("conditionsV6", &ports.conf.conditions_v6)];
    match conditions.iter().find(|(_, words)| !words.is_empty()) {
        None => Ok(()),
        Some((key, words)) => Err(CniError::new(
            ErrorCode::UnsupportedField,
            format!(
                "`{key}` is `{}`: conditions in the words of nftables are not supported; write them in those of \
                 iptables, or give the mapping a `hostIP`",
                words.join(" ")
            ),
        )),
    }
}

/// Whether the pod whose element stands in the way is known to live. One whose link nobody knows is taken for gone: a
/// lost DEL is what leaves such elements, and the scheduler gives no port twice.
fn is_living(held: &Owned) -> bool {
    let pair = held.comment().split_once(PAIR).and_then(|(_, rest)| rest.split(',').next());
    let Some(pair) = pair else { return false };
    Socket::open(netlink::Protocol::Route)
        .and_then(|mut socket| link::by_name(&mut socket, pair))
        .is_ok_and(|link| link.is_some())
}

fn taken(held: &Owned) -> CniError {
    let port = held.element.key.iter().find_map(|value| match value {
        Value::Port(port) => Some(port.to_string()),
        _ => None,
    });
    let owner = held.comment().split_once(' ').map_or("somebody", |(_, owner)| owner);
    CniError::new(
        ErrorCode::HostPortTaken,
        format!(
            "host port {} is taken by the pod behind {owner}: use another port, or delete that pod",
            port.unwrap_or_default()
        ),
    )
}

pub(super) fn differences(ports: &Ports<'_>) -> Result<Vec<String>, CniError> {
    let mut socket = netfilter::socket().map_err(kernel_refused)?;
    let (differences, _) = TABLE.differences(&mut socket, &owned(ports)).map_err(kernel_refused)?;
    Ok(differences)
}

pub(super) fn close(network: &NetworkName, attachment: &Attachment) -> Result<(), KernelError> {
    let tag = owner_tag::of_attachment(network, attachment);
    forget(|element| element.is_of(&tag))
}

pub(super) fn collect(valid: &Valid) -> Result<(), KernelError> {
    forget(|element| element.is_of(&valid.network_tag) && !valid.tags.iter().any(|tag| element.is_of(tag)))
}

/// Removes elements, and then flows that would lead to whoever gets the pod's address next.
fn forget(doomed: impl Fn(&Owned) -> bool) -> Result<(), KernelError> {
    let mut socket = netfilter::socket()?;
    let removed = TABLE.remove(&mut socket, doomed)?;
    for element in
        removed.iter().filter(|removed| removed.set.starts_with("any") || removed.set.starts_with("exact"))
    {
        let protocol = element.element.key.iter().find_map(|value| match value {
            Value::Proto(protocol) if *protocol != TCP => Some(*protocol),
            _ => None,
        });
        if let (Some(protocol), [Value::Ip(pod), Value::Port(port)]) = (protocol, values_of(&element.element))
        {
            forget_flows_from(*pod, protocol, *port, &mut socket)?;
        }
    }
    if !removed.is_empty() {
        netfilter::removed();
    }
    Ok(())
}

/// `IPPROTO_TCP`: its flows end by themselves.
const TCP: u8 = 6;

/// Addresses that are the node's, and yet no place for host ports: kube-proxy's and node-local DNS's.
fn addresses_of_dummies() -> Result<Vec<IpAddr>, KernelError> {
    let mut socket = Socket::open(netlink::Protocol::Route)?;
    let dummies = link::dump_kind(&mut socket, "dummy")?;
    if dummies.is_empty() {
        return Ok(Vec::new());
    }
    let held = kernel::address::dump(&mut socket)?;
    let of_dummy =
        |address: &&kernel::address::Address| dummies.iter().any(|dummy| dummy.index == address.index);
    Ok(held.iter().filter(of_dummy).map(|address| address.ip.addr()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_spec::PortmapConf;
    use kernel::nftables::Data;

    #[test]
    fn the_uses_that_are_looked_for_are_those_of_the_frame() {
        let frame = frame();
        let statements: Vec<&Statement> =
            frame.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements).collect();
        let jumps =
            |name: &str| statements.iter().filter(|statement| ***statement == Statement::jump(name)).count();
        let uses: Vec<(&str, usize)> = frame
            .chains
            .iter()
            .map(|chain| (chain.name.as_str(), chain.rules.len() + jumps(&chain.name)))
            .collect();
        assert_eq!(uses, TABLE.uses.iter().map(|(chain, uses)| (*chain, *uses as usize)).collect::<Vec<_>>());
        let mut names: Vec<&str> = frame.sets.iter().map(|set| set.name.as_str()).collect();
        names.sort_unstable();
        let mut known = TABLE.sets.to_vec();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn without_snat_nothing_leads_back_and_nothing_is_guarded() {
        let conf = |rest: &str| {
            let stdin = format!(
                r#"{{"cniVersion":"1.0.0","name":"n","type":"portmap"{rest},"runtimeConfig":{{"portMappings":
                [{{"hostPort":80,"containerPort":8080}}]}}}}"#
            );
            PortmapConf::parse(stdin.as_bytes()).unwrap()
        };
        let link =
            super::super::near::NearLink { index: 3, name: LinkName::new("cni0").unwrap(), is_bridge: true };
        let pod = Near {
            pod: "10.0.0.2/24".parse().unwrap(),
            node: Some("10.0.0.1".parse().unwrap()),
            link: Some(link),
            pair: None,
        };
        let attachment: Attachment = "c:eth0".parse().unwrap();
        let sets = |conf: &PortmapConf| -> Vec<&str> {
            let ports = Ports { conf, attachment: &attachment, pods: vec![pod.clone()] };
            let owned = owned(&ports);
            assert!(
                owned
                    .iter()
                    .all(|owned| owned.is_of(&owner_tag::of_attachment(&conf.base.name, &attachment)))
            );
            owned.iter().map(|owned| owned.set).collect()
        };
        assert_eq!(sets(&conf(r#","snat":false,"masqAll":true"#)), ["any4"]);
        let lead_back = ["any4", "hairpin4", "bridged4", "exact4", "hairpin4"];
        assert_eq!(sets(&conf("")), lead_back);
        assert!(sets(&conf(r#","masqAll":true"#)).contains(&"everybody4"));
    }

    #[test]
    fn what_a_clash_is_told_of_is_the_port() {
        let held = Owned {
            set: "any4",
            element: Element {
                key: vec![Value::Proto(6), Value::Port(80)],
                data: Some(Data::Values(vec![])),
                comment: Some("aa-bb link veth1, c:eth0 of n".into()),
            },
        };
        assert_eq!(
            taken(&held).msg,
            "host port 80 is taken by the pod behind link veth1, c:eth0 of n: use another port, or delete that pod"
        );
    }
}

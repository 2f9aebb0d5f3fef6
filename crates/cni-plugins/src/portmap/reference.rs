//! What the reference plugin's nftables backend keeps for a container: rules in `ip` and `ip6 cni_hostport`, with the
//! container's id as their comment.

use std::net::IpAddr;

use attachment::{HostPort, Protocol};
use kernel::KernelError;
use kernel::nftables::{
    Comment, Family, NatFlags, NatKind, NatTarget, ObservedRule, Rule, Selector, Statement, TableName,
    Transport, Value,
};
use kernel::route;

use super::Ports;
use super::near::Near;
use crate::host_ports::wanted;
use crate::reference_rules::{self, comment, kept, leads, names};

const TABLE: &str = "cni_hostport";
/// Where ports lead to pods; the second is that of releases before 1.7, and for ports of one address alone.
const PORTS: [&str; 2] = ["hostports", "hostip_hostports"];
const MASQUERADING: &str = "masquerading";
const CHAINS: [&str; 3] = [PORTS[0], PORTS[1], MASQUERADING];

fn table(is_ipv4: bool) -> TableName {
    TableName::new(if is_ipv4 { Family::Ip } else { Family::Ip6 }, TABLE)
}

/// What of it is missing for CHECK.
pub(super) fn differences(ports: &Ports<'_>) -> Result<Vec<String>, KernelError> {
    let container = ports.attachment.container_id();
    let mut differences = Vec::new();
    for pod in &ports.pods {
        let table = table(pod.pod.addr().is_ipv4());
        let rules = kept(&table)?;
        for port in wanted(&ports.conf.port_mappings, false) {
            let Some(rule) = translation(&port, pod, container) else { continue };
            let is_in =
                |chain: &str| rules.iter().any(|found| found.chain == chain && found.is(&rule, table.family));
            let is_open = PORTS.iter().any(|chain| {
                is_in(chain) && ["prerouting", "output"].iter().all(|entry| leads(&rules, entry, chain))
            });
            if !is_open {
                differences.push(format!("host port {} leads nowhere (table `{TABLE}`)", port.host_port));
            }
        }
        if ports.conf.snat && !rules.iter().any(|rule| masquerades(rule, pod, container)) {
            differences.push(format!("`{MASQUERADING}` has no rule of {} (table `{TABLE}`)", pod.pod.addr()));
        }
    }
    Ok(differences)
}

/// The rule of one port; none where it is of the other version of IP.
fn translation(port: &HostPort, pod: &Near, container: &str) -> Option<Rule> {
    let address = pod.pod.addr();
    if port.host_ip.is_some_and(|ip| ip.is_ipv4() != address.is_ipv4()) {
        return None;
    }
    let version = if address.is_ipv4() { route::Family::V4 } else { route::Family::V6 };
    let transport = match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    let at = port.host_ip.filter(|ip| !ip.is_unspecified());
    let target = NatTarget::AddressPort(address, port.container_port.get());
    let statements: Vec<Statement> = at
        .map(|ip| Statement::is(Selector::Daddr(version), ip))
        .into_iter()
        .chain([
            Statement::is(Selector::Dport(transport), Value::Port(port.host_port.get())),
            Statement::Nat { kind: NatKind::Destination, target, flags: NatFlags::default() },
        ])
        .collect();
    Some(Rule::new(statements).comment(Comment::from(container)))
}

/// That the node and the pod itself are masqueraded, nft may write in several ways.
fn masquerades(rule: &ObservedRule, pod: &Near, container: &str) -> bool {
    rule.chain == MASQUERADING
        && is_of(rule, container)
        && names(rule, pod.pod.addr())
        && rule.expression_names().last().is_some_and(|last| last == "masq")
}

fn is_of(rule: &ObservedRule, container: &str) -> bool {
    comment(rule) == Comment::from(container).as_str()
}

/// Removes it. The reference does not tell networks apart here.
pub(super) fn close(container: &str) -> Result<(), KernelError> {
    for is_ipv4 in [true, false] {
        reference_rules::remove(&table(is_ipv4), &CHAINS, |rule| is_of(rule, container))?;
    }
    Ok(())
}

/// Removes what of it is about one address.
pub(crate) fn close_at(container: &str, address: IpAddr) -> Result<(), KernelError> {
    let is_doomed = |rule: &ObservedRule| is_of(rule, container) && names(rule, address);
    reference_rules::remove(&table(address.is_ipv4()), &CHAINS, is_doomed)
}

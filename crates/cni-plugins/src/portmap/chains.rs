//! Host ports by iptables, in the reference plugin's chains: `CNI-HOSTPORT-DNAT` sends the ports of each container to a
//! chain of its own, and what must be masqueraded is marked there and masqueraded by the mark.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni_spec::{Attachment, CniError, NetworkName, PortMapping, PortmapConf, TransportProtocol};
use kernel::nftables::xtables::quoted;
use kernel::route::Family;

use super::Ports;
use super::near::Near;
use crate::failure::kernel_refused;
use crate::host_ports::{forget_flows_to, wanted};
use crate::masquerade::chains::remove_chains;
use crate::netfilter;
use crate::owner_tag::chain_name;
use crate::xtables::{BOTH, Change, Script, Snapshot, Xtables, comment_words, everywhere, restore};

const TABLE: &str = "nat";
const DNAT: &str = "CNI-HOSTPORT-DNAT";
const SET_MARK: &str = "CNI-HOSTPORT-SETMARK";
const MASQUERADE: &str = "CNI-HOSTPORT-MASQ";
/// How many ports one match of `multiport` takes.
const PORTS_A_RULE: usize = 15;
/// What a comment may hold, in bytes, and how the reference cuts it.
const COMMENT_MAX: usize = 255;
const COMMENT_CUT: usize = 253;
/// How often a change is tried again that met somebody else's.
const ATTEMPTS: usize = 4;

fn own_chain(network: &NetworkName, container: &str) -> String {
    chain_name("CNI-DN-", network, container)
}

fn comment(network: &NetworkName, container: &str) -> String {
    let whole = format!("dnat name: \"{network}\" id: \"{container}\"");
    match whole.len() > COMMENT_MAX {
        true => format!("{}...", whole.chars().take(COMMENT_CUT).collect::<String>()),
        false => whole,
    }
}

pub(super) fn open(ports: &Ports<'_>) -> Result<(), CniError> {
    let places = ports
        .pods
        .iter()
        .map(|pod| Ok((Xtables::named(version(pod.pod.addr()))?, pod)))
        .collect::<Result<Vec<_>, CniError>>()?;
    let mut attempts = 1..ATTEMPTS;
    loop {
        let scripts = places
            .iter()
            .map(|(place, pod)| Ok((place, script(ports, pod, place)?)))
            .collect::<Result<Vec<_>, CniError>>()?;
        match (restore(&scripts), attempts.next()) {
            (Ok(()), _) => break,
            // Another ADD made the shared chains meanwhile, perhaps.
            (Err(_), Some(_)) => {}
            (Err(error), None) => return Err(error.into()),
        }
    }
    let mut conntrack = netfilter::socket().map_err(kernel_refused)?;
    for pod in &ports.pods {
        for port in wanted(&ports.conf.port_mappings, false) {
            forget_flows_to(&port, pod.pod.addr(), &mut conntrack).map_err(kernel_refused)?;
        }
        if ports.conf.snat {
            pod.route_localnet().map_err(kernel_refused)?;
        }
    }
    Ok(())
}

/// What is missing of one version of IP.
fn script(ports: &Ports<'_>, pod: &Near, place: &Xtables) -> Result<Script, CniError> {
    let conf = ports.conf;
    let container = ports.attachment.container_id();
    let chain = own_chain(&conf.base.name, container);
    let snapshot =
        Snapshot::take(place, TABLE, &["PREROUTING", "OUTPUT", "POSTROUTING", DNAT, SET_MARK, MASQUERADE])?;
    // The container's chain is made anew; what leads to it must not be there twice.
    let mut change = Change::new(place, TABLE);
    for jump in snapshot.jumps(DNAT, &chain) {
        change.remove(jump);
    }
    change.commit()?;
    let mut script = Script::new(TABLE);
    script.empty_chain(&chain);
    if conf.snat && conf.external_set_mark_chain.is_none() {
        let mark = 1u32 << conf.mark_bit;
        // Networks may have marks of their own in the same chains.
        let lacks = |chain| !snapshot.rules_of(chain).any(|rule| rule.names_mark(mark));
        for chain in [SET_MARK, MASQUERADE] {
            if !snapshot.has(chain) {
                script.new_chain(chain);
            }
        }
        if lacks(SET_MARK) {
            let words = comment_words("CNI portfwd masquerade mark");
            script.append(SET_MARK, &format!("{words} -j MARK --set-xmark {mark:#x}/{mark:#x}"));
        }
        if lacks(MASQUERADE) {
            script.append(MASQUERADE, &format!("-m mark --mark {mark:#x}/{mark:#x} -j MASQUERADE"));
        }
        if snapshot.jumps("POSTROUTING", MASQUERADE).next().is_none() {
            let words = comment_words("CNI portfwd requiring masquerade");
            script.insert("POSTROUTING", &format!("{words} -j {MASQUERADE}"));
        }
    }
    if !snapshot.has(DNAT) {
        script.new_chain(DNAT);
    }
    for entry in ["PREROUTING", "OUTPUT"] {
        if snapshot.jumps(entry, DNAT).next().is_none() {
            script.append(entry, &format!("-m addrtype --dst-type LOCAL -j {DNAT}"));
        }
    }
    for rule in entry_rules(conf, container, version(pod.pod.addr())) {
        script.append(DNAT, &format!("{rule} -j {chain}"));
    }
    for rule in own_rules(conf, pod) {
        script.append(&chain, &rule);
    }
    Ok(script)
}

/// Which packets go to the container's chain.
fn entry_rules(conf: &PortmapConf, container: &str, version: Family) -> Vec<String> {
    let conditions: String = match version {
        Family::V4 => &conf.conditions_v4,
        Family::V6 => &conf.conditions_v6,
    }
    .iter()
    .map(|word| format!(" {}", if word.chars().all(is_plain) { word.clone() } else { quoted(word) }))
    .collect();
    let words = comment_words(&comment(&conf.base.name, container));
    let mut by_protocol: BTreeMap<TransportProtocol, Vec<String>> = BTreeMap::new();
    for mapping in &conf.port_mappings {
        by_protocol.entry(mapping.protocol).or_default().push(mapping.host_port.to_string());
    }
    let mut rules = Vec::new();
    let mut protocols: Vec<_> = by_protocol.into_iter().collect();
    protocols.sort_by_key(|(protocol, _)| protocol.as_str());
    for (protocol, ports) in protocols {
        for ports in ports.chunks(PORTS_A_RULE) {
            let ports = ports.join(",");
            rules.push(format!("{words} -p {protocol} -m multiport --destination-ports {ports}{conditions}"));
        }
    }
    rules
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-!./:,_+%=".contains(c)
}

/// What happens to them there: first they are marked, if need be, then translated.
fn own_rules(conf: &PortmapConf, pod: &Near) -> Vec<String> {
    let address = pod.pod.addr();
    let set_mark = conf.external_set_mark_chain.as_deref().unwrap_or(SET_MARK);
    let mut rules = Vec::new();
    for mapping in conf.port_mappings.iter().filter(|mapping| is_of_family(mapping, address)) {
        let base = format!("-p {} --dport {}{}", mapping.protocol, mapping.host_port, destination(mapping));
        if conf.snat {
            let from = match (conf.masq_all, address) {
                (true, IpAddr::V4(_)) => "0.0.0.0/0".to_owned(),
                (true, IpAddr::V6(_)) => "::/0".to_owned(),
                (false, _) => pod.pod.trunc().to_string(),
            };
            rules.push(format!("{base} -s {from} -j {set_mark}"));
            if address.is_ipv4() && !conf.masq_all {
                rules.push(format!("{base} -s 127.0.0.1 -j {set_mark}"));
            }
        }
        let target = std::net::SocketAddr::new(address, mapping.container_port);
        rules.push(format!("{base} -j DNAT --to-destination {target}"));
    }
    rules
}

fn is_of_family(mapping: &PortMapping, pod: IpAddr) -> bool {
    mapping.host_ip.is_none_or(|ip| ip.is_ipv4() == pod.is_ipv4())
}

/// All addresses of a family can be no destination.
fn destination(mapping: &PortMapping) -> String {
    let host_ip = mapping.host_ip.filter(|ip| !ip.is_unspecified());
    host_ip.map(|ip| format!(" -d {ip}")).unwrap_or_default()
}

fn version(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn differences(ports: &Ports<'_>) -> Result<Vec<String>, CniError> {
    let conf = ports.conf;
    let container = ports.attachment.container_id();
    let chain = own_chain(&conf.base.name, container);
    let mut differences = Vec::new();
    for pod in &ports.pods {
        let version = version(pod.pod.addr());
        let place = Xtables::named(version)?;
        let chains = ["PREROUTING", "OUTPUT", "POSTROUTING", DNAT, SET_MARK, MASQUERADE, &chain];
        let snapshot = Snapshot::take(&place, TABLE, &chains)?;
        let mut expect = |fine: bool, what: &str| {
            if !fine {
                differences.push(format!("{what} (table `nat` of IP version {})", version_number(version)));
            }
        };
        let jumps = |from: &str, to: &str| snapshot.jumps(from, to).next().is_some();
        expect(
            snapshot.rules_of(&chain).count() == own_rules(conf, pod).len(),
            &format!("chain `{chain}` is missing or its rules were changed"),
        );
        expect(
            snapshot.jumps(DNAT, &chain).count() == entry_rules(conf, container, version).len(),
            &format!("`{DNAT}` does not send the ports to `{chain}`"),
        );
        for entry in ["PREROUTING", "OUTPUT"] {
            expect(jumps(entry, DNAT), &format!("`{entry}` does not jump to `{DNAT}`"));
        }
        if conf.snat && conf.external_set_mark_chain.is_none() {
            expect(
                jumps("POSTROUTING", MASQUERADE),
                &format!("`POSTROUTING` does not jump to `{MASQUERADE}`"),
            );
            for shared in [SET_MARK, MASQUERADE] {
                expect(snapshot.rules_of(shared).next().is_some(), &format!("chain `{shared}` is empty"));
            }
        }
    }
    Ok(differences)
}

const fn version_number(version: Family) -> u8 {
    match version {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// Both what is today and what the reference's releases before 0.8 made.
pub(super) fn close(network: &NetworkName, container: &str) -> Result<(), CniError> {
    let doomed = [own_chain(network, container), chain_name("CNI-SN-", network, container)];
    Ok(remove_chains(&doomed, &[DNAT, "CNI-HOSTPORT-SNAT"])?)
}

/// The jumps name their network and container in their comments.
pub(super) fn collect(network: &NetworkName, valid: &[Attachment]) -> Result<(), CniError> {
    let kept: BTreeSet<String> =
        valid.iter().map(|attachment| comment(network, attachment.container_id())).collect();
    let of_network = format!("dnat name: \"{network}\" id: ");
    let mut doomed = BTreeSet::new();
    for place in BOTH.into_iter().flat_map(|version| everywhere(version, TABLE)) {
        let snapshot = Snapshot::take(&place, TABLE, &[DNAT])?;
        for jump in snapshot.rules_of(DNAT) {
            let (Some(comment), Some(to)) = (&jump.comment, &jump.jumps_to) else { continue };
            if comment.starts_with(&of_network) && to.starts_with("CNI-DN-") && !kept.contains(comment) {
                doomed.insert(to.clone());
            }
        }
    }
    Ok(remove_chains(&doomed.into_iter().collect::<Vec<_>>(), &[DNAT])?)
}

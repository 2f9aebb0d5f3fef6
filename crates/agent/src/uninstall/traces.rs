//! What of ours is on a node, found without asking the settings: they may have changed since it was made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cni_plugins::DROP_IN_TABLES;
use cni_plugins::host_ports::table::TABLE as HOST_PORT_TABLE;
use cni_plugins::lan_guard;
use cni_plugins::wiring::{HOST_LINK_PREFIX, SHAPING_LINK_PREFIX, is_our_bridge_mac};
use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::Socket;
use kernel::nftables::xtables::{comment_of, filter_table};
use kernel::nftables::{Family, ObservedRule, TableName, observe, rules, tables};
use kernel::route::{self, Filter, Route};
use node_network::desired::{GENERATED_BY, GENERATOR, TABLE_NAME};
use node_network::{NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL};

use crate::atomic_file;
use crate::observe::FORWARD_RULE_COMMENT;
/// A CNI configuration is a few kilobytes.
const CONFLIST_MAX: u64 = 1 << 20;
/// The plugin's name in a CNI configuration.
const PLUGIN_TYPE: &str = "hostgw";

fn is_of_a_pod(link: &Link, prefix: &str, kind: &str) -> bool {
    link.name.len() == link_name::MAX_LEN
        && link.name.starts_with(prefix)
        && link.name.bytes().skip(prefix.len()).all(|b| b.is_ascii_hexdigit())
        && link.kind.as_deref() == Some(kind)
}

/// The node's ends of the pods' links: one a living pod.
pub(super) fn pod_links(links: &[Link]) -> Vec<Link> {
    links.iter().filter(|link| is_of_a_pod(link, HOST_LINK_PREFIX, "veth")).cloned().collect()
}

/// Links that shape what pods send. They outlive nobody and prove nobody's life.
pub(super) fn shaping_links(links: &[Link]) -> Vec<Link> {
    links.iter().filter(|link| is_of_a_pod(link, SHAPING_LINK_PREFIX, "ifb")).cloned().collect()
}

/// A bridge that the plugin made, and the links that somebody has put into it.
#[derive(Debug)]
pub(super) struct PodBridge {
    pub(super) bridge: Link,
    pub(super) ports: Vec<String>,
}

/// Bridges that the plugin made, whatever they are called.
pub(super) fn pod_bridges(links: &[Link]) -> Vec<PodBridge> {
    let ours =
        |link: &&Link| link.kind.as_deref() == Some("bridge") && link.mac.is_some_and(is_our_bridge_mac);
    let ports = |bridge: &Link| {
        let ports = links.iter().filter(|port| port.master == Some(bridge.index));
        ports.map(|port| port.name.clone()).collect()
    };
    let bridges = links.iter().filter(ours).cloned();
    bridges.map(|bridge| PodBridge { ports: ports(&bridge), bridge }).collect()
}

/// Every link of this node.
pub(super) fn links(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    link::dump(socket)
}

/// Routes of our protocols, in every table.
pub(super) fn our_routes(socket: &mut Socket) -> Result<Vec<Route>, KernelError> {
    let mut routes = Vec::new();
    for family in [route::Family::V4, route::Family::V6] {
        for protocol in [NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL] {
            let filter = Filter { protocol: Some(protocol), ..Filter::default() };
            routes.extend(route::dump(socket, family, filter)?);
        }
    }
    Ok(routes)
}

/// What the node answers for on its LAN for pods.
pub(super) fn our_proxies(socket: &mut Socket) -> Result<Vec<Neighbour>, KernelError> {
    let mut proxies = neighbour::dump(socket, true)?;
    proxies.retain(|proxied| proxied.protocol == POD_ROUTE_PROTOCOL);
    Ok(proxies)
}

/// A table of ours, and how many entries in it are those of pods that live without a link of ours.
#[derive(Debug)]
pub(super) struct OurTable {
    pub(super) table: TableName,
    pub(super) entries: usize,
}

/// The agent's table, the plugin's, and those of the drop-in plugins.
pub(super) fn our_tables(socket: &mut Socket) -> Result<Vec<OurTable>, KernelError> {
    let mut found = Vec::new();
    let guards = tables(socket, Some(Family::Netdev))?.into_iter().map(|listed| listed.name);
    let guards = guards.filter(|table| *table == lan_guard::table());
    found.extend(guards.map(|table| OurTable { table, entries: 0 }));
    for TableName { name, family } in
        tables(socket, Some(Family::Inet))?.into_iter().map(|listed| listed.name)
    {
        let is_native = name == TABLE_NAME || name == HOST_PORT_TABLE;
        if !is_native && !DROP_IN_TABLES.contains(&name.as_str()) {
            continue;
        }
        let table = TableName { name, family };
        let entries = if is_native { 0 } else { entries_of_pods(socket, &table)? };
        found.push(OurTable { table, entries });
    }
    Ok(found)
}

/// Those that say whose they are.
fn entries_of_pods(socket: &mut Socket, table: &TableName) -> Result<usize, KernelError> {
    let sets = observe(socket, table)?.map(|table| table.sets).unwrap_or_default();
    let elements = sets.iter().flat_map(|set| &set.set.elements);
    Ok(elements.filter(|element| element.comment.is_some()).count())
}

/// A rule of ours in a chain of iptables.
#[derive(Debug)]
pub(super) struct OurRule {
    pub(super) rule: ObservedRule,
    pub(super) comment: String,
}

/// Rules with our comment in whichever chain of iptables' filter tables, also one that nothing jumps to any more.
pub(super) fn our_rules(socket: &mut Socket) -> Result<Vec<OurRule>, KernelError> {
    let mut found = Vec::new();
    for version in [route::Family::V4, route::Family::V6] {
        let in_table = match rules(socket, &filter_table(version), None) {
            Err(error) if error.is_absent() => continue,
            other => other?,
        };
        found.extend(in_table.into_iter().filter_map(|rule| {
            let comment = comment_of(&rule).filter(|comment| comment.starts_with(FORWARD_RULE_COMMENT))?;
            Some(OurRule { rule, comment })
        }));
    }
    Ok(found)
}

/// Files in these folders that are CNI configurations of our plugin, or half-written ones of ours.
pub(super) fn our_files<'a>(folders: impl IntoIterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
    let entries = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| is_half_written(path) || runs_our_plugin(path)).collect()
}

pub(super) fn is_half_written(path: &Path) -> bool {
    path.file_name().is_some_and(atomic_file::is_temporary)
}

/// Whether the file is a CNI configuration whose plugins are ours, or that we wrote.
pub(crate) fn runs_our_plugin(path: &Path) -> bool {
    if !path.extension().is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|&e| extension == e))
    {
        return false;
    }
    let Ok(Some(bytes)) = atomic_file::read(path, CONFLIST_MAX) else { return false };
    let Ok(conf) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return false };
    let plugins = conf.get("plugins").and_then(serde_json::Value::as_array);
    let generated = conf.get(GENERATED_BY).and_then(serde_json::Value::as_str) == Some(GENERATOR);
    generated
        || plugins
            .into_iter()
            .flatten()
            .chain([&conf])
            .any(|plugin| plugin.get("type").and_then(serde_json::Value::as_str) == Some(PLUGIN_TYPE))
}

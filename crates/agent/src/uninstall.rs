//! Taking everything of ours off a node, and proving that nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cni_plugins::host_ports::table::TABLE as HOST_PORT_TABLE;
use cni_plugins::wiring::HOST_LINK_PREFIX;
use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::netlink::{Batch, Socket};
use kernel::nftables::{Family, TableName, Transaction, tables};
use kernel::route::{self, Filter, Route};
use node_network::desired::TABLE_NAME;
use node_network::plan::{ForwardRuleChange, ForwardRulePlace};
use node_network::{NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL, Settings};

use crate::apply::remove_forward_rule;
use crate::atomic_file::{self, FileError};
use crate::foreign_changes::ForeignChanges;
use crate::observe::{Kernel, forward_chains};
use crate::paths::Paths;
use crate::run::{AgentError, AgentLock};

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// Pods would lose their network.
    #[error("{pods} pods of this node live on its links ({}…): drain the node first, or give --force to cut them off", examples.join(", "))]
    LivePods {
        /// How many.
        pods: usize,
        /// Some of their links.
        examples: Vec<String>,
    },
    /// The agent would put everything back.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The kernel refused to be asked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The record of foreign changes cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl UninstallError {
    /// The contract's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Kernel(error) if error.is_permission() => 4,
            Self::Agent(error) => error.exit_code(),
            _ => 1,
        }
    }
}

/// What was done, and what is left.
#[derive(Debug, Default)]
pub struct UninstallReport {
    /// Each thing that was removed or put back.
    pub done: Vec<String>,
    /// What failed.
    pub failed: Vec<String>,
    /// What is still there after all, found by looking again.
    pub left: Vec<String>,
}

impl UninstallReport {
    /// Nothing of ours is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.left.is_empty()
    }

    fn note(&mut self, what: impl Into<String>, result: Result<bool, impl std::fmt::Display>) {
        match result {
            Ok(true) => self.done.push(what.into()),
            Ok(false) => {}
            Err(error) => self.failed.push(error.to_string()),
        }
    }
}

/// Removes everything of ours from the node of the calling thread's network namespace. Each step is tried, whatever
/// happens to the others.
pub fn uninstall(settings: &Settings, paths: &Paths, force: bool) -> Result<UninstallReport, UninstallError> {
    let lock = AgentLock::take(paths)?;
    let mut kernel = Kernel::open()?;
    let pod_links = pod_links(&mut kernel.route)?;
    if !pod_links.is_empty() && !force {
        let examples = pod_links.iter().take(3).map(|link| link.name.clone()).collect();
        return Err(UninstallError::LivePods { pods: pod_links.len(), examples });
    }
    let foreign = ForeignChanges::load(paths.foreign_changes_file())?;
    let mut report = UninstallReport::default();
    // First: no pod is started from here on.
    let conflist = paths.on_node(Path::new(&settings.cni.conf_file));
    report.note(format!("removed {}", conflist.display()), atomic_file::remove(&conflist));
    report.note("withdrew readiness", atomic_file::remove(&paths.ready_file()));
    remove_forward_rules(&mut kernel.netfilter, &mut report);
    for link in pod_links {
        report.note(format!("deleted link {}", link.name), delete_link(&mut kernel.route, &link));
    }
    remove_bridge(&mut kernel.route, settings, &mut report);
    remove_routes(&mut kernel.route, &mut report);
    for table in our_tables() {
        let what = format!("deleted table {} {}", table.family.as_str(), table.name);
        report.note(what, delete_table(&mut kernel.netfilter, &table));
    }
    put_back_sysctls(&kernel, &foreign, &mut report);
    remove_files(paths, &mut report);
    report.left = leftovers(&mut kernel, settings, paths)?;
    drop(lock);
    Ok(report)
}

fn our_tables() -> [TableName; 2] {
    [TABLE_NAME, HOST_PORT_TABLE].map(|name| TableName::new(Family::Inet, name))
}

/// Links that are pods' by their names, and were made as pods' links are.
fn pod_links(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    let ours = |link: &Link| {
        let named = |prefix: &str, kind: &str| {
            link.name.len() == link_name::MAX_LEN
                && link.name.starts_with(prefix)
                && link.name.bytes().skip(prefix.len()).all(|b| b.is_ascii_hexdigit())
                && link.kind.as_deref() == Some(kind)
        };
        named(HOST_LINK_PREFIX, "veth") || named("hgi", "ifb")
    };
    Ok(link::dump(socket)?.into_iter().filter(ours).collect())
}

fn delete_link(socket: &mut Socket, link: &Link) -> Result<bool, KernelError> {
    let mut batch = Batch::new();
    link::delete(&mut batch, link.index);
    match socket.execute_all(&mut batch) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error.attempting(format!("delete link {}", link.name))),
    }
}

/// The first bytes of the address that the plugin gives the bridges it makes.
const BRIDGE_MAC: [u8; 2] = [0x0e, 0x58];

/// The pods' bridge goes if the plugin made it and nobody has a port in it.
fn remove_bridge(socket: &mut Socket, settings: &Settings, report: &mut UninstallReport) {
    let Some(name) = settings.pod_bridge() else { return };
    let mut remove = || -> Result<bool, KernelError> {
        let Some(bridge) = link::by_name(socket, name)? else { return Ok(false) };
        let ports = link::dump(socket)?.into_iter().filter(|port| port.master == Some(bridge.index)).count();
        let is_ours = bridge.mac.is_some_and(|mac| mac.starts_with(&BRIDGE_MAC));
        if bridge.kind.as_deref() != Some("bridge") || ports > 0 || !is_ours {
            return Ok(false);
        }
        delete_link(socket, &bridge)
    };
    let result = remove();
    report.note(format!("deleted bridge {name}"), result);
}

fn our_routes(socket: &mut Socket) -> Result<Vec<Route>, KernelError> {
    let mut routes = Vec::new();
    for family in [route::Family::V4, route::Family::V6] {
        for protocol in [NODE_ROUTE_PROTOCOL, POD_ROUTE_PROTOCOL] {
            routes.extend(route::dump(
                socket,
                family,
                Filter { protocol: Some(protocol), ..Filter::default() },
            )?);
        }
    }
    Ok(routes)
}

fn remove_routes(socket: &mut Socket, report: &mut UninstallReport) {
    let routes = match our_routes(socket) {
        Ok(routes) => routes,
        Err(error) => return report.failed.push(error.to_string()),
    };
    if routes.is_empty() {
        return;
    }
    let mut batch = Batch::new();
    for found in &routes {
        // An unreachable IPv6 route is shown over `lo`, and is not deleted by that.
        let hops = if found.kind == route::RouteKind::Unicast { found.hops.clone() } else { Vec::new() };
        route::delete(&mut batch, &Route { hops, ..found.clone() });
    }
    match socket.execute(&mut batch) {
        Ok(failures) => {
            let failed: Vec<_> = failures.into_iter().filter(|failure| !failure.error.is_absent()).collect();
            report.done.push(format!("deleted {} routes", routes.len() - failed.len()));
            report.failed.extend(
                failed.into_iter().map(|failure| format!("{}: {}", routes[failure.index], failure.error)),
            );
        }
        Err(error) => report.failed.push(error.to_string()),
    }
}

fn delete_table(socket: &mut Socket, table: &TableName) -> Result<bool, KernelError> {
    let mut transaction = Transaction::new();
    transaction.delete_table(table);
    match transaction.commit(socket) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_forward_rules(socket: &mut Socket, report: &mut UninstallReport) {
    let chains = match forward_chains(socket) {
        Ok(chains) => chains,
        Err(error) => return report.failed.push(error.to_string()),
    };
    for chain in chains {
        for seen in &chain.accepts {
            let place = ForwardRulePlace {
                family: chain.family,
                table: chain.table.clone(),
                position: seen.position,
            };
            let change = ForwardRuleChange::Remove { place, accept: seen.accept, handle: seen.handle };
            let what =
                format!("removed `{}` from {} {}", seen.accept, chain.table, seen.position.chain_name());
            report.note(what, remove_forward_rule(&change, socket).map(|()| true));
        }
    }
}

/// A sysctl that has another value than ours by now is somebody else's decision.
fn put_back_sysctls(kernel: &Kernel, foreign: &ForeignChanges, report: &mut UninstallReport) {
    for (key, saved) in foreign.sysctls() {
        let put_back = || -> Result<bool, KernelError> {
            match kernel.sysctls.read(key)? {
                Some(now) if now == saved.ours && now != saved.before => {
                    kernel.sysctls.write(key, &saved.before).map(|()| true)
                }
                _ => Ok(false),
            }
        };
        report.note(format!("put back {key} = {}", saved.before), put_back());
    }
}

/// The operator's own files in /etc/hostgw stay.
fn remove_files(paths: &Paths, report: &mut UninstallReport) {
    report.note("removed the record of foreign changes", atomic_file::remove(&paths.foreign_changes_file()));
    for folder in [paths.run_dir(), paths.var_dir()] {
        let removed = match fs::remove_dir_all(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            // What is mounted there is not ours to unmount.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(false),
            Err(source) => Err(FileError::new("remove", &folder, source)),
        };
        report.note(format!("removed {}", folder.display()), removed);
    }
}

/// What a second look finds.
fn leftovers(kernel: &mut Kernel, settings: &Settings, paths: &Paths) -> Result<Vec<String>, KernelError> {
    let mut left: Vec<String> =
        our_routes(&mut kernel.route)?.iter().map(|route| format!("route {route}")).collect();
    left.extend(pod_links(&mut kernel.route)?.into_iter().map(|link| format!("link {}", link.name)));
    let names: BTreeSet<TableName> = our_tables().into();
    let found = tables(&mut kernel.netfilter, Some(Family::Inet))?.into_iter();
    left.extend(
        found
            .filter(|table| names.contains(&table.name))
            .map(|table| format!("table inet {}", table.name.name)),
    );
    let rules = forward_chains(&mut kernel.netfilter)?;
    left.extend(
        rules.iter().flat_map(|chain| chain.accepts.iter().map(|seen| format!("rule `{}`", seen.accept))),
    );
    let files = [
        paths.on_node(Path::new(&settings.cni.conf_file)),
        paths.ready_file(),
        paths.ipam_dir(),
        paths.foreign_changes_file(),
    ];
    left.extend(files.into_iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
    Ok(left)
}

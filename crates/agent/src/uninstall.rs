//! Taking everything of ours off a node, and proving that nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kernel::KernelError;
use kernel::link::{self, Link};
use kernel::neighbour;
use kernel::netlink::{Batch, Socket};
use kernel::nftables::{TableName, Transaction};
use kernel::route::{self, Route};
use kernel::sysctl::Sysctls;
use node_network::Settings;

use crate::atomic_file::{self, FileError};
use crate::foreign_changes::ForeignChanges;
use crate::observe::Kernel;
use crate::paths::Paths;
use crate::run::{AgentError, AgentLock};
use crate::uplink;

mod allowed_ips;
pub(crate) mod traces;

use traces::{OurRule, OurTable, PodBridge};

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
    let mut kernel = Kernel::open(paths)?;
    let links = traces::links(&mut kernel.route)?;
    let pod_links = traces::pod_links(&links);
    if !pod_links.is_empty() && !force {
        let examples = pod_links.iter().take(3).map(|link| link.name.clone()).collect();
        return Err(UninstallError::LivePods { pods: pod_links.len(), examples });
    }
    let foreign = ForeignChanges::load(paths.foreign_changes_file(), Sysctls::default().boot_id()?)?;
    let conflists = Conflists::new(settings, paths, &foreign);
    let mut report = UninstallReport::default();
    // First: no pod is started from here on.
    conflists.remove(&mut report);
    report.note("withdrew readiness", atomic_file::remove(&paths.ready_file()));
    remove_forward_rules(&mut kernel.netfilter, &mut report);
    for link in pod_links.iter().chain(&traces::shaping_links(&links)) {
        report.note(format!("deleted link {}", link.name), delete_link(&mut kernel.route, link));
    }
    remove_bridges(&mut kernel.route, &mut report);
    let uplinks_left = leave_uplinks(paths, &mut report);
    remove_routes(&mut kernel.route, &mut report);
    remove_proxies(&mut kernel.route, &mut report);
    remove_tables(&mut kernel.netfilter, force, &mut report);
    allowed_ips::take_back(&mut kernel.route, &foreign, &mut report);
    put_back_sysctls(&kernel, &foreign, &mut report);
    remove_files(paths, uplinks_left, &mut report);
    report.left = leftovers(&mut kernel, &conflists, paths)?;
    drop(lock);
    Ok(report)
}

/// The CNI configurations that the agent wrote, and the folders that they are in.
#[derive(Debug)]
struct Conflists {
    written: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Conflists {
    fn new(settings: &Settings, paths: &Paths, foreign: &ForeignChanges) -> Self {
        let default = Settings::default();
        let named = [&settings.cni.conf_file, &default.cni.conf_file];
        let mut written: BTreeSet<_> = named.iter().map(|file| paths.on_node(Path::new(file))).collect();
        written.extend(foreign.conflists().cloned());
        let folders = written.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        // A name that the settings no longer give may be somebody else's by now.
        let current = paths.on_node(Path::new(&settings.cni.conf_file));
        written.retain(|path| *path == current || traces::runs_our_plugin(path));
        Self { written, folders }
    }

    /// Configurations of our plugin that the agent did not write are their author's to remove; they are told as left.
    fn remove(&self, report: &mut UninstallReport) {
        let half_written = self.found().into_iter().filter(|path| traces::is_half_written(path));
        for path in self.written.iter().cloned().chain(half_written) {
            report.note(format!("removed {}", path.display()), atomic_file::remove(&path));
        }
    }

    fn found(&self) -> BTreeSet<PathBuf> {
        traces::our_files(self.folders.iter().map(PathBuf::as_path))
    }
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

/// The pods' bridges go, but for one in which somebody else has a port: to delete it would cut that link off.
fn remove_bridges(socket: &mut Socket, report: &mut UninstallReport) {
    let links = match traces::links(socket) {
        Ok(links) => links,
        Err(error) => return report.failed.push(error.to_string()),
    };
    for found in traces::pod_bridges(&links).into_iter().filter(|found| found.ports.is_empty()) {
        report.note(format!("deleted bridge {}", found.bridge.name), delete_link(socket, &found.bridge));
    }
}

fn remove_routes(socket: &mut Socket, report: &mut UninstallReport) {
    let routes = match traces::our_routes(socket) {
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

/// The node answers for no pod any more.
fn remove_proxies(socket: &mut Socket, report: &mut UninstallReport) {
    let proxies = match traces::our_proxies(socket) {
        Ok(proxies) => proxies,
        Err(error) => return report.failed.push(error.to_string()),
    };
    for proxied in proxies {
        let mut batch = Batch::new();
        neighbour::delete_proxy(&mut batch, proxied.index, proxied.ip);
        let gone = match socket.execute_all(&mut batch) {
            Err(error) if error.is_absent() => Ok(false),
            other => other.map(|()| true),
        };
        report.note(format!("answers no more for {}", proxied.ip), gone);
    }
}

/// The pods of drop-in plugins carry no name of ours, and live on: what serves them goes by force alone.
fn remove_tables(socket: &mut Socket, force: bool, report: &mut UninstallReport) {
    let tables = match traces::our_tables(socket) {
        Ok(tables) => tables,
        Err(error) => return report.failed.push(error.to_string()),
    };
    for found in tables.into_iter().filter(|found| force || found.entries == 0) {
        let what = format!("deleted table {} {}", found.table.family.as_str(), found.table.name);
        report.note(what, delete_table(socket, &found.table));
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
    let found = match traces::our_rules(socket) {
        Ok(found) => found,
        Err(error) => return report.failed.push(error.to_string()),
    };
    for OurRule { rule, comment } in found {
        let mut transaction = Transaction::new();
        transaction.delete_rule(&rule.table, &rule.chain, rule.handle);
        let result = match transaction.commit(socket) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        };
        report.note(format!("removed rule `{comment}` from {} {}", rule.table.name, rule.chain), result);
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

/// Takes uplinks out of their bridges; whether all are, so that their records are of no more use.
fn leave_uplinks(paths: &Paths, report: &mut UninstallReport) -> bool {
    match uplink::leave_all(paths) {
        Ok(links) => links.into_iter().fold(true, |all, left| {
            let done = left.outcome.is_ok();
            report.note(format!("took {}", left.what), left.outcome.map(|()| true));
            all && done
        }),
        Err(error) => {
            report.failed.push(error.to_string());
            false
        }
    }
}

/// The operator's own files in /etc/hostgw stay; and where an uplink could not leave its bridge, what says how.
fn remove_files(paths: &Paths, uplinks_left: bool, report: &mut UninstallReport) {
    report.note("removed the record of foreign changes", atomic_file::remove(&paths.foreign_changes_file()));
    let folders = if uplinks_left { vec![paths.run_dir(), paths.var_dir()] } else { Vec::new() };
    for folder in folders {
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

/// What a second look finds, whatever the settings say.
fn leftovers(kernel: &mut Kernel, conflists: &Conflists, paths: &Paths) -> Result<Vec<String>, KernelError> {
    let routes = traces::our_routes(&mut kernel.route)?;
    let mut left: Vec<String> = routes.iter().map(|route| format!("route {route}")).collect();
    let proxies = traces::our_proxies(&mut kernel.route)?;
    left.extend(proxies.iter().map(|proxied| format!("proxy neighbour {}", proxied.ip)));
    let links = traces::links(&mut kernel.route)?;
    let of_pods = [traces::pod_links(&links), traces::shaping_links(&links)].concat();
    left.extend(of_pods.iter().map(|link| format!("link {}", link.name)));
    left
        .extend(traces::pod_bridges(&links).into_iter().map(|PodBridge { bridge, ports }| match &ports[..] {
        [] => format!("bridge {}", bridge.name),
        _ => format!(
            "bridge {name}, in which are links that are not pods' ({}): move them, then `ip link del {name}`",
            ports.join(", "),
            name = bridge.name
        ),
    }));
    let tables = traces::our_tables(&mut kernel.netfilter)?;
    left.extend(tables.into_iter().map(|OurTable { table, entries }| match entries {
        0 => format!("table inet {}", table.name),
        _ => format!(
            "table inet {}, in which are {entries} entries of pods that drop-in plugins attached: delete those pods, or \
             give --force",
            table.name
        ),
    }));
    let rules = traces::our_rules(&mut kernel.netfilter)?;
    left.extend(rules.iter().map(|OurRule { rule, comment }| {
        format!("rule `{comment}` in {} {} {}", rule.table.family.as_str(), rule.table.name, rule.chain)
    }));
    let files = [paths.ready_file(), paths.ipam_dir(), paths.foreign_changes_file()];
    let files = files.into_iter().chain(conflists.written.iter().cloned()).filter(|path| path.exists());
    let files: BTreeSet<PathBuf> = files.chain(conflists.found()).collect();
    left.extend(files.iter().map(|path| path.display().to_string()));
    Ok(left)
}

//! Carrying out a plan: each change on its own, what fails is told, and the rest goes on.

mod forward_rules;
mod nft;
mod routes;

use std::path::Path;

use kernel::KernelError;
use kernel::link;
use kernel::wireguard::Wireguard;
use node_network::plan::{ChangeLine, RouteChange, SysctlChange};
use node_network::{Change, Plan, Settings};

use crate::atomic_file::{self, FileError};
use crate::foreign_changes::ForeignChanges;
use crate::observe::Kernel;
use crate::paths::Paths;

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Each change in order, and what became of it.
    pub outcomes: Vec<Outcome>,
}

/// What became of one change.
#[derive(Debug)]
pub struct Outcome {
    /// The change.
    pub line: ChangeLine,
    /// Why it failed, if it did.
    pub error: Option<ApplyError>,
}

/// Why a change failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A link's name cannot be put into a rule.
    #[error("failed to write a rule about a link: {0}")]
    LinkName(#[from] link_name::LinkNameError),
    /// It would do harm without an earlier change: [`Change::waits_for`].
    #[error("not done, because `{0}` failed")]
    Waits(String),
}

impl Applied {
    /// The changes that were made.
    #[must_use]
    pub fn made(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.error.is_none()).count()
    }

    /// The changes that failed.
    pub fn failures(&self) -> impl Iterator<Item = (&ChangeLine, &ApplyError)> {
        self.outcomes.iter().filter_map(|outcome| Some((&outcome.line, outcome.error.as_ref()?)))
    }
}

/// Carries out `plan` in its own order.
pub(crate) fn apply(
    plan: &Plan,
    kernel: &mut Kernel,
    foreign: &mut ForeignChanges,
    settings: &Settings,
    paths: &Paths,
) -> Applied {
    let mut applied = Applied::default();
    // The routes stand together in the plan's order, and go out in few batches.
    let routes: Vec<&RouteChange> = plan
        .changes()
        .filter_map(|change| match change {
            Change::Route(route) => Some(route),
            _ => None,
        })
        .collect();
    let mut routes_done = false;
    let mut failed: Vec<(Change<'_>, String)> = Vec::new();
    for change in plan.changes() {
        if matches!(change, Change::Route(_)) && routes_done {
            continue;
        }
        let waits_for = failed.iter().find(|(earlier, _)| change.waits_for(earlier)).map(|(_, what)| what);
        let result = match (waits_for, change) {
            (Some(failed), _) => Err(ApplyError::Waits(failed.clone())),
            (_, Change::Route(_)) => {
                applied.outcomes.extend(routes::apply(&routes, &mut kernel.route));
                routes_done = true;
                continue;
            }
            (_, Change::Sysctl(change)) => foreign
                .sysctl(change)
                .map_err(ApplyError::from)
                .and_then(|()| Ok(write_sysctl(change, kernel)?)),
            (_, Change::Nft(change)) => nft::apply(change, &mut kernel.netfilter),
            (_, Change::ForwardRule(change)) => foreign
                .forward_rule(change)
                .map_err(ApplyError::from)
                .and_then(|()| forward_rules::apply(change, &mut kernel.netfilter)),
            (_, Change::AllowedIps(change)) => {
                foreign.allowed_ip(change).map_err(ApplyError::from).and_then(|()| {
                    let mut wireguard = Wireguard::open()?;
                    Ok(wireguard.allow(change.link, &change.peer.0, &[change.pod_cidr])?)
                })
            }
            (_, Change::ReadyFile) => {
                atomic_file::replace(&paths.ready_file(), b"", 0o644).map_err(ApplyError::from)
            }
            (_, Change::Conflist(conflist)) => {
                let path = paths.on_node(Path::new(&settings.cni.conf_file));
                atomic_file::replace(&path, conflist.render().as_bytes(), 0o644).map_err(ApplyError::from)
            }
        };
        let line = change.line();
        if result.is_err() {
            failed.push((change, format!("{} {}", line.kind, line.what)));
        }
        applied.outcomes.push(Outcome { line, error: result.err() });
    }
    applied
}

/// The settings of a link that went since it was observed are gone with it: nothing is left to be set.
fn write_sysctl(change: &SysctlChange, kernel: &mut Kernel) -> Result<(), KernelError> {
    let written = kernel.sysctls.write(&change.sysctl.path(), change.to);
    match (written, change.sysctl.link()) {
        (Err(error), Some(name)) if error.is_absent() => {
            match link::by_name(&mut kernel.route, name.as_str()) {
                Ok(None) => Ok(()),
                _ => Err(error),
            }
        }
        (written, _) => written,
    }
}

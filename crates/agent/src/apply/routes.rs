//! Routes, in two batches: what is new or changed first, then what has become superfluous by it.

use kernel::KernelError;
use kernel::netlink::{Batch, Socket};
use kernel::route::{self, Hop, ONLINK, Route, RouteKind};
use node_network::observed::RouteKind as ObservedKind;
use node_network::plan::{InstalledRoute, RouteChange, WantedRoute};
use node_network::{Change, NODE_ROUTE_PROTOCOL};

use super::Outcome;

/// Carries out all changes of routes. One that fails keeps the routes that it would have superseded.
pub(super) fn apply(changes: &[&RouteChange], socket: &mut Socket) -> Vec<Outcome> {
    let mut errors: Vec<Option<KernelError>> = vec![None; changes.len()];
    let mut puts = Batch::new();
    let mut put_by = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        match change {
            RouteChange::Add { route, .. } => route::add(&mut puts, &kernel_route(route)),
            RouteChange::Replace { route, .. } => route::replace(&mut puts, &kernel_route(route)),
            RouteChange::Delete { .. } => continue,
        }
        put_by.push(index);
    }
    execute(socket, &mut puts, &put_by, &mut errors);
    let mut deletes = Batch::new();
    let mut deleted_by = Vec::new();
    for (index, change) in
        changes.iter().enumerate().filter(|(index, _)| errors[*index].is_none()).collect::<Vec<_>>()
    {
        let gone = match change {
            RouteChange::Add { superseded, .. } | RouteChange::Replace { superseded, .. } => superseded,
            RouteChange::Delete { routes, .. } => routes,
        };
        for old in gone {
            route::delete(&mut deletes, &installed_route(old));
            deleted_by.push(index);
        }
    }
    execute(socket, &mut deletes, &deleted_by, &mut errors);
    let outcomes = changes.iter().zip(errors).map(|(change, error)| {
        let line = Change::Route(change).line();
        let error = error.map(|error| {
            let attempted = format!("{} {}", error.attempted, line.what);
            error.attempting(attempted).into()
        });
        Outcome { line, error }
    });
    outcomes.collect()
}

/// Sends a batch; message `n` belongs to change `owners[n]`. The first error of each change is kept.
fn execute(socket: &mut Socket, batch: &mut Batch, owners: &[usize], errors: &mut [Option<KernelError>]) {
    if batch.is_empty() {
        return;
    }
    match socket.execute(batch) {
        Ok(failures) => {
            for failure in failures {
                // What was to be deleted is gone already: as well.
                let is_delete = failure.error.attempted.starts_with("delete");
                if is_delete && failure.error.is_absent() {
                    continue;
                }
                if let Some(slot) = owners.get(failure.index).and_then(|owner| errors.get_mut(*owner)) {
                    slot.get_or_insert(failure.error);
                }
            }
        }
        // The talk broke off: what was done is not known, and the next pass will see.
        Err(error) => {
            for owner in owners {
                if let Some(slot) = errors.get_mut(*owner) {
                    slot.get_or_insert(error.clone());
                }
            }
        }
    }
}

fn kernel_route(wanted: &WantedRoute) -> Route {
    let leg = wanted.leg.as_ref();
    Route {
        table: wanted.key.table,
        metric: wanted.key.metric,
        tos: wanted.key.tos,
        protocol: NODE_ROUTE_PROTOCOL,
        kind: if leg.is_some() { RouteKind::Unicast } else { RouteKind::Unreachable },
        source: leg.and_then(|leg| leg.prefsrc),
        hops: leg
            .map(|leg| Hop {
                gateway: Some(leg.via),
                index: Some(leg.link),
                flags: if leg.on_link { ONLINK } else { 0 },
                weight: 0,
            })
            .into_iter()
            .collect(),
        ..Route::to(wanted.key.dst)
    }
}

/// All that a delete must name: table, metric, protocol, kind, next hop and link.
fn installed_route(old: &InstalledRoute) -> Route {
    let kind = match old.kind {
        ObservedKind::Unicast => RouteKind::Unicast,
        ObservedKind::Local => RouteKind::Local,
        ObservedKind::Unreachable => RouteKind::Unreachable,
        ObservedKind::Other(number) => RouteKind::Other(number),
    };
    // An unreachable IPv6 route is shown over `lo`, and is not deleted by that.
    let leg = old.leg.filter(|_| kind == RouteKind::Unicast);
    Route {
        table: old.key.table,
        metric: old.key.metric,
        tos: old.key.tos,
        protocol: NODE_ROUTE_PROTOCOL,
        kind,
        hops: leg
            .map(|leg| Hop {
                gateway: leg.via,
                index: (leg.link != 0).then_some(leg.link),
                flags: 0,
                weight: 0,
            })
            .into_iter()
            .collect(),
        ..Route::to(old.key.dst)
    }
}

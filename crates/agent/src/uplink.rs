//! The uplink's place, before anything else: a move that was broken off is put back, and the one that is configured is made,
//! once.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use node_network::settings::UplinkSettings;
use uplink::probe::Target;
use uplink::{Folders, Request, State, UplinkError};

use crate::paths::Paths;

/// Brings the uplink to where the settings want it. The calling process has one thread still. Nothing is left half-way: what
/// fails is put back, and told.
pub(crate) fn settle(settings: Option<&UplinkSettings>, paths: &Paths) -> Result<(), UplinkError> {
    let folders = Folders { root: paths.on_node(Path::new("/")), run: paths.run_dir() };
    for found in uplink::status(&folders)? {
        match found.state {
            State::Joined => {}
            State::PutBack | State::Lost => tracing::warn!(link = %found.link, "{found}"),
            State::Moving | State::Unconfirmed { .. } => tracing::info!(link = %found.link, "{found}"),
        }
    }
    let Some(wanted) = settings else { return Ok(()) };
    if uplink::is_joined(&wanted.link, &wanted.bridge, &folders)? {
        return Ok(());
    }
    let request = Request {
        link: wanted.link.clone(),
        bridge: wanted.bridge.clone(),
        // Nobody sits here to confirm: who answers is what decides.
        confirm_within: std::time::Duration::ZERO,
        probes: wanted.probes.iter().copied().map(Target::Host).collect(),
        also: api_server().into_iter().collect(),
        persist: false,
    };
    uplink::prepare_join(&request, &folders)?.make()?;
    tracing::info!(link = %wanted.link, bridge = %wanted.bridge, "the uplink joined the bridge");
    Ok(())
}

/// As the kubelet tells every pod; absent outside of a cluster.
fn api_server() -> Option<Target> {
    let host: IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?;
    Some(Target::Port(SocketAddr::new(host, port)))
}

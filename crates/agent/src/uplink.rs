//! The uplink's place, before anything else: a move that was broken off is put back, and the one that is configured is made,
//! once.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use link_name::LinkNameError;
use node_network::settings::UplinkSettings;
use uplink::check::Refusal;
use uplink::probe::Target;
use uplink::{Folders, LinkStatus, Request, State, UplinkError};

use crate::paths::Paths;

/// Brings the uplink to where the settings want it. The calling process has one thread still. Nothing is left half-way: what
/// fails is put back, and told.
pub(crate) fn settle(settings: Option<&UplinkSettings>, paths: &Paths) -> Result<(), UplinkError> {
    let folders = folders(paths);
    let found = uplink::status(&folders)?;
    for link in &found {
        match link.state {
            State::Joined => {}
            State::PutBack | State::Lost => tracing::warn!(link = %link.link, "{link}"),
            State::Moving | State::Unconfirmed { .. } => tracing::info!(link = %link.link, "{link}"),
        }
    }
    let Some(wanted) = settings else { return Ok(()) };
    // Where somebody moves it by hand, that person decides; a link that is there is left alone.
    let settled = |link: &LinkStatus| match link.state {
        State::Joined => link.bridge == wanted.bridge.as_str(),
        State::Moving | State::Unconfirmed { .. } => true,
        State::PutBack | State::Lost => false,
    };
    if found.iter().any(|link| link.link == wanted.link.as_str() && settled(link)) {
        return Ok(());
    }
    let request = Request {
        link: wanted.link.clone(),
        bridge: wanted.bridge.clone(),
        // Nobody sits here to confirm: who answers is what decides.
        confirm_within: Duration::ZERO,
        probes: wanted.probes.iter().copied().map(Target::Host).collect(),
        also: api_server().into_iter().collect(),
        persist: false,
    };
    match uplink::prepare_join(&request, &folders) {
        // The node's own configuration has put it there.
        Err(UplinkError::Refused(Refusal::AlreadyPort { master, .. }))
            if master == wanted.bridge.as_str() =>
        {
            return Ok(());
        }
        prepared => prepared?.make()?,
    }
    tracing::info!(link = %wanted.link, bridge = %wanted.bridge, "the uplink joined the bridge");
    Ok(())
}

/// What came of taking a link out of its bridge.
#[derive(Debug)]
pub(crate) struct Left {
    /// `eth0 out of br0`.
    pub(crate) what: String,
    /// Whether it is out.
    pub(crate) outcome: Result<(), UplinkError>,
}

/// Takes every link that was joined out of its bridge again, for an uninstall: what came of each, by its name. A move that
/// waits for its confirmation is an error: its watchdog needs the journal, which an uninstall would remove.
pub(crate) fn leave_all(paths: &Paths) -> Result<Vec<Left>, UplinkError> {
    let folders = folders(paths);
    let leave = |link: &str| {
        let name = link.parse().map_err(|error: LinkNameError| UplinkError::Nothing(error.to_string()))?;
        uplink::prepare_leave(&name, &[], Duration::ZERO, &folders)?.make()
    };
    let left = |found: LinkStatus| {
        let outcome = match found.state {
            State::Joined => leave(&found.link),
            State::Moving | State::Unconfirmed { .. } => {
                Err(UplinkError::Unconfirmed { link: found.link.clone() })
            }
            State::PutBack | State::Lost => return None,
        };
        Some(Left { what: format!("{} out of {}", found.link, found.bridge), outcome })
    };
    Ok(uplink::status(&folders)?.into_iter().filter_map(left).collect())
}

fn folders(paths: &Paths) -> Folders {
    Folders { root: paths.on_node(Path::new("/")), run: paths.run_dir(), lib: paths.var_dir() }
}

/// As the kubelet tells every pod; absent outside of a cluster.
fn api_server() -> Option<Target> {
    let host: IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?;
    Some(Target::Port(SocketAddr::new(host, port)))
}

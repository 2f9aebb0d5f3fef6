//! Taking from WireGuard's peers what they were allowed for the pods of their nodes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kernel::KernelError;
use kernel::link;
use kernel::netlink::Socket;
use kernel::wireguard::Wireguard;
use node_network::observed::PublicKey;

use super::UninstallReport;
use crate::foreign_changes::ForeignChanges;

pub(super) fn take_back(socket: &mut Socket, foreign: &ForeignChanges, report: &mut UninstallReport) {
    let mut by_link: BTreeMap<&str, BTreeSet<(PublicKey, IpNet)>> = BTreeMap::new();
    for saved in foreign.allowed_ips() {
        if let Some(peer) = PublicKey::parse(&saved.peer) {
            by_link.entry(&saved.link).or_default().insert((peer, saved.pod_cidr));
        }
    }
    for (name, added) in by_link {
        report.note(format!("took the pods from the AllowedIPs of {name}"), of_link(socket, name, &added));
    }
}

/// Whether there was anything to take. A link or peer that is gone took it along.
fn of_link(
    socket: &mut Socket,
    name: &str,
    added: &BTreeSet<(PublicKey, IpNet)>,
) -> Result<bool, KernelError> {
    let Some(found) = link::by_name(socket, name)? else { return Ok(false) };
    let mut wireguard = Wireguard::open()?;
    let mut taken = false;
    for peer in wireguard.peers(found.index)? {
        let key = PublicKey(peer.public_key);
        let (ours, rest): (Vec<IpNet>, Vec<IpNet>) =
            peer.allowed_ips.iter().copied().partition(|net| added.contains(&(key, *net)));
        if !ours.is_empty() {
            wireguard.allow_only(found.index, &key.0, &rest)?;
            taken = true;
        }
    }
    Ok(taken)
}

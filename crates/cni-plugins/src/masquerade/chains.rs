//! Masquerading by iptables, in the reference plugins' chains: one for each container, to which `POSTROUTING` jumps.

use std::collections::BTreeSet;

use cni_spec::{Attachment, CniError, NetworkName};
use ipnet::IpNet;
use kernel::route::Family;

use super::Masquerade;
use crate::owner_tag::chain_name;
use crate::xtables::{
    BOTH, Change, Script, Snapshot, Xtables, XtablesError, comment_words, everywhere, restore,
};

const TABLE: &str = "nat";
const ENTRY: &str = "POSTROUTING";
/// How often a change is tried again that met somebody else's.
const ATTEMPTS: usize = 4;

/// The reference plugins know no interfaces here: one chain for a container.
fn own_chain(masquerade: &Masquerade<'_>) -> String {
    chain_name("CNI-", masquerade.network, masquerade.attachment.container_id())
}

fn comment(network: &NetworkName, container: &str) -> String {
    format!("name: \"{network}\" id: \"{container}\"")
}

const fn multicast(version: Family) -> &'static str {
    match version {
        Family::V4 => "224.0.0.0/4",
        Family::V6 => "ff00::/8",
    }
}

fn of_version(pods: &[IpNet], version: Family) -> Vec<IpNet> {
    pods.iter().filter(|pod| pod.addr().is_ipv4() == (version == Family::V4)).copied().collect()
}

pub(super) fn install(masquerade: &Masquerade<'_>, pods: &[IpNet]) -> Result<(), CniError> {
    let versions: Vec<Family> =
        BOTH.into_iter().filter(|version| !of_version(pods, *version).is_empty()).collect();
    let places = versions.into_iter().map(Xtables::named).collect::<Result<Vec<_>, _>>()?;
    let mut scripts = Vec::new();
    for place in &places {
        // The chain is made anew; what jumps to it must not be there twice.
        let chain = own_chain(masquerade);
        let snapshot = Snapshot::take(place, TABLE, &[ENTRY])?;
        let mut change = Change::new(place, TABLE);
        for jump in snapshot.jumps(ENTRY, &chain) {
            change.remove(jump);
        }
        change.commit()?;
        scripts.push((place, script(masquerade, &of_version(pods, place.version), place.version)));
    }
    Ok(restore(&scripts)?)
}

/// Everything of one version of IP.
fn script(masquerade: &Masquerade<'_>, pods: &[IpNet], version: Family) -> Script {
    let chain = own_chain(masquerade);
    let comment = comment_words(&comment(masquerade.network, masquerade.attachment.container_id()));
    let mut script = Script::new(TABLE);
    script.empty_chain(&chain);
    let subnets: BTreeSet<IpNet> = pods.iter().map(IpNet::trunc).collect();
    for subnet in subnets {
        script.append(&chain, &format!("-d {subnet} {comment} -j ACCEPT"));
    }
    script.append(&chain, &format!("! -d {} {comment} -j MASQUERADE", multicast(version)));
    for pod in pods {
        script.append(ENTRY, &format!("-s {} {comment} -j {chain}", pod.addr()));
    }
    script
}

pub(super) fn differences(masquerade: &Masquerade<'_>, pods: &[IpNet]) -> Result<Vec<String>, CniError> {
    let chain = own_chain(masquerade);
    let mut differences = Vec::new();
    for version in BOTH {
        let pods = of_version(pods, version);
        if pods.is_empty() {
            continue;
        }
        let snapshot = Snapshot::take(&Xtables::named(version)?, TABLE, &[ENTRY, &chain])?;
        let subnets: BTreeSet<IpNet> = pods.iter().map(IpNet::trunc).collect();
        // The reference plugins repeat the last rule for each address.
        if snapshot.rules_of(&chain).count() <= subnets.len() {
            differences.push(format!("chain `{chain}` of table `nat` is missing or lacks rules"));
        }
        if snapshot.jumps(ENTRY, &chain).count() < pods.len() {
            differences.push(format!("`{ENTRY}` does not send all of the pod's packets to `{chain}`"));
        }
    }
    Ok(differences)
}

pub(super) fn remove(masquerade: &Masquerade<'_>) -> Result<(), CniError> {
    Ok(remove_chains(&[own_chain(masquerade)], &[ENTRY])?)
}

/// Deletes chains, wherever they are, and what jumps to them from `entries`.
pub(crate) fn remove_chains(doomed: &[String], entries: &[&str]) -> Result<(), XtablesError> {
    for place in BOTH.into_iter().flat_map(|version| everywhere(version, TABLE)) {
        let mut chains: Vec<&str> = doomed.iter().map(String::as_str).collect();
        let mut attempts = 1..=ATTEMPTS;
        loop {
            // Asked for alone first, because nearly always there is none.
            let present = Snapshot::take(&place, TABLE, &chains)?;
            chains.retain(|chain| present.has(chain));
            if chains.is_empty() {
                break;
            }
            let snapshot = Snapshot::take(&place, TABLE, entries)?;
            let mut change = Change::new(&place, TABLE);
            for chain in &chains {
                for jump in entries.iter().flat_map(|entry| snapshot.jumps(entry, chain)) {
                    change.remove(jump);
                }
                change.delete_chain(chain);
            }
            match (change.commit(), attempts.next()) {
                (Ok(()), _) => break,
                // Somebody else changed the same chains meanwhile.
                (Err(_), Some(_)) => {}
                (Err(error), None) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The jumps name their network and container in their comments.
pub(super) fn collect(network: &NetworkName, valid: &[Attachment]) -> Result<(), CniError> {
    let kept: BTreeSet<String> =
        valid.iter().map(|attachment| comment(network, attachment.container_id())).collect();
    let of_network = format!("name: \"{network}\" id: ");
    let mut doomed = BTreeSet::new();
    for place in BOTH.into_iter().flat_map(|version| everywhere(version, TABLE)) {
        let snapshot = Snapshot::take(&place, TABLE, &[ENTRY])?;
        for jump in snapshot.rules_of(ENTRY) {
            let (Some(comment), Some(to)) = (&jump.comment, &jump.jumps_to) else { continue };
            if comment.starts_with(&of_network) && to.starts_with("CNI-") && !kept.contains(comment) {
                doomed.insert(to.clone());
            }
        }
    }
    Ok(remove_chains(&doomed.into_iter().collect::<Vec<_>>(), &[ENTRY])?)
}

//! The pods' rules in iptables' table `filter`, in the reference plugin's chains: `FORWARD` jumps to `CNI-FORWARD`, where an
//! administrator's chain comes first, and then two rules for each address.

use std::net::IpAddr;

use cni_spec::{CniError, FirewallConf};
use ipnet::IpNet;
use kernel::nftables::Verdict;
use kernel::nftables::xtables::Words;
use kernel::route::Family;

use super::{isolation, place, versions};
use crate::xtables::{BOTH, Change, Snapshot, Xtables, XtablesError, everywhere};

pub(super) const TABLE: &str = "filter";
pub(super) const FORWARD: &str = "FORWARD";
const PODS: &str = "CNI-FORWARD";
/// How often a change is tried again that met somebody else's.
pub(super) const ATTEMPTS: usize = 50;

/// What is accepted of one address: answers to it, and all from it.
fn accepted(pod: IpAddr) -> [Words; 2] {
    let pod = Some(IpNet::from(pod));
    let accept = Words::new(Verdict::Accept);
    [Words { destination: pod, established: true, ..accept.clone() }, Words { source: pod, ..accept }]
}

fn to_pods() -> Words {
    Words {
        comment: Some("CNI firewall plugin rules".to_owned()),
        ..Words::new(Verdict::Jump(PODS.to_owned()))
    }
}

fn to_admin(admin: &str) -> Words {
    Words {
        comment: Some("CNI firewall plugin admin overrides".to_owned()),
        ..Words::new(Verdict::Jump(admin.to_owned()))
    }
}

fn rules(pods: &[IpAddr], version: Family) -> impl Iterator<Item = Words> {
    pods.iter().filter(move |pod| pod.is_ipv4() == (version == Family::V4)).flat_map(|pod| accepted(*pod))
}

pub(super) fn accept(conf: &FirewallConf, pods: &[IpAddr]) -> Result<(), CniError> {
    for version in versions(pods) {
        let place = place(conf, version)?;
        persist(|| accept_in(&place, &conf.admin_chain, pods))?;
    }
    Ok(())
}

/// Tries again while somebody else changes the same chains.
pub(super) fn persist(mut change: impl FnMut() -> Result<(), XtablesError>) -> Result<(), XtablesError> {
    for _ in 1..ATTEMPTS {
        match change() {
            Err(XtablesError::Kernel(error)) if !error.is_permission() => {}
            other => return other,
        }
    }
    change()
}

fn accept_in(place: &Xtables, admin: &str, pods: &[IpAddr]) -> Result<(), XtablesError> {
    let seen = Snapshot::take(place, TABLE, &[FORWARD, PODS, admin])?;
    let mut change = Change::new(place, TABLE);
    let has_jump = seen.jumps(FORWARD, PODS).next().is_some();
    let has_admin = seen.jumps(PODS, admin).next().is_some();
    if !has_jump || !has_admin {
        change.only_if_unchanged_since(&seen);
    }
    if !seen.has(FORWARD) {
        change.filter_forward();
    }
    for chain in [PODS, admin] {
        if !seen.has(chain) {
            change.new_chain(chain);
        }
    }
    if !has_jump {
        // What keeps bridges apart must come before what accepts.
        let apart: Vec<_> = seen.jumps(FORWARD, isolation::STAGE_1).collect();
        for jump in &apart {
            change.remove(jump);
        }
        change.insert(FORWARD, &to_pods());
        if !apart.is_empty() {
            change.insert(FORWARD, &isolation::to_stage_1());
        }
    }
    if !has_admin {
        change.insert(PODS, &to_admin(admin));
    }
    for words in rules(pods, place.version) {
        if !seen.rules_of(PODS).any(|rule| rule.is(&words)) {
            change.append(PODS, &words);
        }
    }
    change.commit()
}

pub(super) fn differences(conf: &FirewallConf, pods: &[IpAddr]) -> Result<Vec<String>, CniError> {
    let mut differences = Vec::new();
    for version in versions(pods) {
        let seen = Snapshot::take(&place(conf, version)?, TABLE, &[FORWARD, PODS])?;
        if seen.jumps(FORWARD, PODS).next().is_none() {
            differences.push(format!("`{FORWARD}` does not jump to `{PODS}`"));
        }
        if seen.jumps(PODS, &conf.admin_chain).next().is_none() {
            differences.push(format!("`{PODS}` does not jump to `{}`", conf.admin_chain));
        }
        for words in rules(pods, version) {
            if !seen.rules_of(PODS).any(|rule| rule.is(&words)) {
                differences.push(format!("`{PODS}` lacks `{}`", words.text()));
            }
        }
    }
    Ok(differences)
}

/// Removes the rules of these addresses, wherever they are.
pub(super) fn forget(pods: &[IpAddr]) -> Result<(), CniError> {
    if pods.is_empty() {
        return Ok(());
    }
    for place in BOTH.into_iter().flat_map(|version| everywhere(version, TABLE)) {
        if rules(pods, place.version).next().is_some() {
            persist(|| forget_in(&place, pods))?;
        }
    }
    Ok(())
}

fn forget_in(place: &Xtables, pods: &[IpAddr]) -> Result<(), XtablesError> {
    let doomed: Vec<Words> = rules(pods, place.version).collect();
    let seen = Snapshot::take(place, TABLE, &[PODS])?;
    let mut change = Change::new(place, TABLE);
    for rule in seen.rules_of(PODS).filter(|rule| doomed.iter().any(|words| rule.is(words))) {
        change.remove(rule);
    }
    change.commit()
}

//! `ingressPolicy`: bridges that have one are kept apart by two stages in front of `FORWARD`, as Docker does it and the
//! reference plugin. What leaves such a bridge for elsewhere comes to the second stage, which drops it if it is bound for
//! another one. The rules are a bridge's, and stay when its last pod goes.

use std::net::IpAddr;

use cni_spec::{AttachResult, CniError, ErrorCode, FirewallConf, IngressPolicy};
use kernel::nftables::Verdict;
use kernel::nftables::xtables::Words;
use link_name::LinkName;

use super::filter::{FORWARD, TABLE, persist};
use super::{place, versions};
use crate::xtables::{Change, Snapshot, Xtables, XtablesError};

pub(super) const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// The first interface of the result is the bridge, where the plugin of that name made it.
pub(super) fn bridge_of(conf: &FirewallConf, result: &AttachResult) -> Result<LinkName, CniError> {
    let refuse = |reason: String| {
        CniError::new(
            ErrorCode::InvalidNetworkConfig,
            format!(
                "`ingressPolicy` is `{}`: {reason}; chain `{}` behind `bridge`, or set it to \"open\"",
                conf.ingress_policy.as_str(),
                conf.base.plugin_type
            ),
        )
    };
    let Some(first) = result.interfaces.first() else {
        return Err(refuse("`prevResult` has no interfaces".to_owned()));
    };
    LinkName::new(first.name.clone()).map_err(|error| refuse(format!("`prevResult.interfaces[0]`: {error}")))
}

fn of_all(words: Words) -> Words {
    let comment = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)";
    Words { comment: Some(comment.to_owned()), ..words }
}

pub(super) fn to_stage_1() -> Words {
    of_all(Words::new(Verdict::Jump(STAGE_1.to_owned())))
}

/// The rules of one bridge, each with its chain, in the order in which they are put in front.
fn of_bridge(bridge: &LinkName, policy: IngressPolicy) -> Vec<(&'static str, Words)> {
    let comment = Some(format!("CNI firewall plugin rules (ingressPolicy: {})", policy.as_str()));
    let leaves = Words {
        from_link: Some(bridge.clone()),
        to_link: Some((bridge.clone(), true)),
        comment: comment.clone(),
        ..Words::new(Verdict::Jump(STAGE_2.to_owned()))
    };
    let stays = Words {
        from_link: Some(bridge.clone()),
        to_link: Some((bridge.clone(), false)),
        comment,
        ..Words::new(Verdict::Drop)
    };
    let comes = of_all(Words { to_link: Some((bridge.clone(), false)), ..Words::new(Verdict::Drop) });
    let mut rules = vec![(STAGE_1, leaves)];
    if policy == IngressPolicy::Isolated {
        rules.push((STAGE_1, stays));
    }
    rules.push((STAGE_2, comes));
    rules
}

pub(super) fn set_up(conf: &FirewallConf, bridge: &LinkName, pods: &[IpAddr]) -> Result<(), CniError> {
    let rules = of_bridge(bridge, conf.ingress_policy);
    for version in versions(pods) {
        let place = place(conf, version)?;
        persist(|| set_up_in(&place, &rules))?;
    }
    Ok(())
}

fn set_up_in(place: &Xtables, rules: &[(&'static str, Words)]) -> Result<(), XtablesError> {
    let seen = Snapshot::take(place, TABLE, &[FORWARD, STAGE_1, STAGE_2])?;
    let mut change = Change::new(place, TABLE);
    let missing = missing(&seen, rules);
    if missing.is_empty() {
        return Ok(());
    }
    change.only_if_unchanged_since(&seen);
    if !seen.has(FORWARD) {
        change.filter_forward();
    }
    for chain in [STAGE_1, STAGE_2] {
        if !seen.has(chain) {
            change.new_chain(chain);
        }
    }
    for (chain, words) in missing {
        match words.verdict {
            Verdict::Return => change.append(chain, &words),
            _ => change.insert(chain, &words),
        };
    }
    change.commit()
}

/// What of all this is not there.
fn missing(seen: &Snapshot, rules: &[(&'static str, Words)]) -> Vec<(&'static str, Words)> {
    let back = of_all(Words::new(Verdict::Return));
    let shared = [(FORWARD, to_stage_1()), (STAGE_1, back.clone()), (STAGE_2, back)];
    shared
        .into_iter()
        .chain(rules.iter().cloned())
        .filter(|(chain, words)| !seen.rules_of(chain).any(|rule| rule.is(words)))
        .collect()
}

pub(super) fn differences(
    conf: &FirewallConf,
    bridge: &LinkName,
    pods: &[IpAddr],
) -> Result<Vec<String>, CniError> {
    let rules = of_bridge(bridge, conf.ingress_policy);
    let mut differences = Vec::new();
    for version in versions(pods) {
        let seen = Snapshot::take(&place(conf, version)?, TABLE, &[FORWARD, STAGE_1, STAGE_2])?;
        let lacks = |(chain, words): (&str, Words)| format!("`{chain}` lacks `{}`", words.text());
        differences.extend(missing(&seen, &rules).into_iter().map(lacks));
    }
    Ok(differences)
}

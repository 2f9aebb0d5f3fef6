//! What to change so that the observed node becomes the desired one, in an order that is safe to stop at any point.

mod allowed_ips;
mod change;
mod document;
mod forward_rules;
mod neighbours;
mod nft;
mod obstacles;
mod peers;
mod routes;
mod sysctls;

use std::collections::BTreeMap;

use ipnet::IpNet;

pub use allowed_ips::{AllowedIpsChange, AllowedIpsFault};
pub use change::{Change, ChangeLine, Sign};
pub use document::{ConditionDocument, PLAN_SCHEMA, PLAN_SCHEMA_VERSION, PlanDocument};
pub use forward_rules::{ForwardRuleChange, ForwardRulePlace};
pub use nft::{ElementChange, NftChange};
pub use peers::{PeerReport, PeerState, judge_effective, judge_effective_for_pods, probe_of};
pub use routes::{InstalledRoute, RouteChange, WantedLeg, WantedRoute};
pub use sysctls::SysctlChange;

use crate::condition::Condition;
use crate::desired::{Conflist, DesiredNode, Sysctl};
use crate::observed::ObservedNode;
use crate::settings::Settings;

/// The changes of one pass. The fields stand in the order in which they are applied, and [`Plan::changes`] is the
/// only way to walk them, so that no caller can apply them in another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    sysctls: Vec<SysctlChange>,
    nft: Option<NftChange>,
    forward_rules: Vec<ForwardRuleChange>,
    /// One change a destination: no order among them can hurt.
    routes: BTreeMap<IpNet, RouteChange>,
    allowed_ips: Vec<AllowedIpsChange>,
    ready_file: bool,
    conflist: Option<Conflist>,
    /// What is planned for each peer's pod CIDR, also where nothing changes.
    pub peers: Vec<PeerReport>,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
}

/// Decides what to change.
#[must_use]
pub fn plan(desired: &DesiredNode, observed: &ObservedNode, settings: &Settings) -> Plan {
    let mut conditions = desired.conditions.clone();
    let routes::RoutePlan { changes: routes, peers, allowed_ips } =
        routes::plan_routes(desired, observed, settings, &mut conditions);
    conditions.extend(neighbours::conditions(observed));
    let mut plan = Plan { routes, peers, allowed_ips, ..Plan::default() };
    if let Some(own) = &desired.own {
        plan.sysctls = sysctls::plan_sysctls(own, observed, &mut conditions);
        plan.nft = nft::plan_table(&own.nft, observed.nft.as_ref());
        plan.forward_rules = forward_rules::plan_rules(own, observed, &mut conditions);
        // An announced node is kept up to date whatever happens; only the first announcement waits.
        let announced = observed.conflist.is_some();
        let announce = (own.announce || announced) && !own.pod_cidrs.is_empty();
        plan.ready_file = announce && !own.awaits_bridge && !observed.ready_file;
        plan.conflist = own
            .conflist
            .as_ref()
            .filter(|_| announce)
            .filter(|conflist| observed.conflist.as_deref() != Some(conflist.render().as_bytes()))
            .cloned();
        if !own.announce && !announced {
            conditions.push(Condition::NotAnnounced);
        }
    }
    plan.conditions = conditions;
    plan
}

impl Plan {
    /// The changes in safe order: what protects the uplinks, NAT and what restricts forwarding, what others would
    /// drop, forwarding, what WireGuard lets through, new and changed routes, removal of orphans, and last the announcement.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let additions = self.routes.values().filter(|change| !change.is_delete());
        let deletions = self.routes.values().filter(|change| change.is_delete());
        let (uplinks, forwarding): (Vec<_>, Vec<_>) =
            self.sysctls.iter().partition(|change| matches!(change.sysctl, Sysctl::AcceptRa(_)));
        let uplinks = uplinks.into_iter().map(Change::Sysctl);
        uplinks
            .chain(self.nft.iter().map(Change::Nft))
            .chain(self.forward_rules.iter().map(Change::ForwardRule))
            .chain(forwarding.into_iter().map(Change::Sysctl))
            .chain(self.allowed_ips.iter().map(Change::AllowedIps))
            .chain(additions.chain(deletions).map(Change::Route))
            .chain(self.ready_file.then_some(Change::ReadyFile))
            .chain(self.conflist.iter().map(Change::Conflist))
    }

    /// Nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }
}

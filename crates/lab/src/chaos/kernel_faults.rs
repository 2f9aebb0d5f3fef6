//! Somebody deletes what is ours in a node's kernel.

use crate::chaos::field::Field;
use crate::chaos::setback::Setback;
use crate::fault;
use crate::foreign::OUR_PROTOCOLS;
use crate::ruleset;

/// `ip route flush proto 104`, and 105.
pub(crate) fn delete_routes(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let delete = || OUR_PROTOCOLS.iter().try_for_each(|protocol| fault::delete_routes(*protocol));
    Ok(field.damage_kernel(at, delete)?)
}

/// `nft flush table inet hostgw`, and `hostgw_hostport`.
pub(crate) fn delete_rules(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Ok(field.damage_kernel(at, ruleset::flush_our_rules)?)
}

/// `nft flush ruleset`. Others' tables are put back by their owners.
pub(crate) fn flush_ruleset(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.damage_kernel(at, ruleset::flush_everything)?;
    field.in_netns(at, ruleset::plant_foreign_table)?;
    Ok(field.renew_foreign(at, "ruleset object")?)
}

//! Which address pods of a range send to when they send elsewhere (pure).

use std::net::IpAddr;

use cni_spec::{CniError, ErrorCode, Mode, NetConf, NodeAddresses, Range};

/// The range's gateway. On the node's LAN the default of `host-local` would be somebody else's, as a rule the router's:
/// there it is the node's own address.
pub(super) fn of(conf: &NetConf, range: &Range, node: &NodeAddresses) -> Result<IpAddr, CniError> {
    let (Mode::L2 | Mode::L2Routed, None) = (conf.mode, range.given_gateway()) else {
        return Ok(range.gateway());
    };
    let mode = conf.mode.as_str();
    let refuse = |reason: String| {
        CniError::new(ErrorCode::InvalidNetworkConfig, format!("`ipam.ranges`: range {range} {reason}"))
    };
    let Some(own) = node.of(range.family()) else {
        return Err(refuse(format!(
            "names no gateway, and this node's {} address is not known: give `gateway`, or `nodeAddresses`",
            range.family()
        )));
    };
    if conf.mode == Mode::L2 && !range.subnet().contains(&own) {
        return Err(refuse(format!(
            "names no gateway, and this node's address {own} is not in {}, where pods of mode `{mode}` could reach it: \
             give `gateway`",
            range.subnet()
        )));
    }
    Ok(own)
}

/// Refuses ranges from which a pod would get the address of the LAN's router.
pub(super) fn refuse_routers(conf: &NetConf, routers: &[IpAddr]) -> Result<(), CniError> {
    for range in conf.ipam.range_sets.ranges() {
        let held = |router: &&IpAddr| range.contains(**router) && range.given_gateway() != Some(**router);
        if let Some(router) = routers.iter().find(held) {
            return Err(CniError::new(
                ErrorCode::InvalidNetworkConfig,
                format!(
                    "`ipam.ranges`: range {range} holds {router}, the router of this node: narrow the range, or name \
                     the router as its `gateway`"
                ),
            ));
        }
    }
    Ok(())
}

//! Policy rules (`ip rule`), as far as the lab plants them (`linux/fib_rules.h`).

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::KernelError;
use kernel::netlink::{Batch, CREATE, EXCL, Socket};

const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
/// `FR_ACT_TO_TBL`.
const LOOK_UP_TABLE: u8 = 1;

/// A rule that sends packets to a routing table.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyRule {
    /// Lower comes first.
    pub(crate) priority: u32,
    /// Only packets from there.
    pub(crate) from: Option<IpNet>,
    /// Only packets to there.
    pub(crate) to: Option<IpNet>,
    /// Only packets that came in over this link; `lo` stands for this host's own.
    pub(crate) incoming: Option<&'static str>,
    /// The table.
    pub(crate) table: u32,
}

/// Adds a rule. One of `from` and `to` must be given: it tells the family.
pub(crate) fn add(batch: &mut Batch, rule: &PolicyRule) {
    let prefix = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
    let mut header = [0; 12];
    header[0] = family(rule.from.or(rule.to).map(|net| net.addr()));
    header[1] = prefix(rule.to);
    header[2] = prefix(rule.from);
    header[7] = LOOK_UP_TABLE;
    let mut message = batch.message("add a policy rule", RTM_NEWRULE, CREATE | EXCL, &header);
    for (kind, net) in [(FRA_DST, rule.to), (FRA_SRC, rule.from)] {
        match net {
            Some(IpNet::V4(net)) => message.attribute(kind, &net.network().octets()),
            Some(IpNet::V6(net)) => message.attribute(kind, &net.network().octets()),
            None => &mut message,
        };
    }
    if let Some(link) = rule.incoming {
        message.text(FRA_IIFNAME, link);
    }
    message.u32(FRA_PRIORITY, rule.priority).u32(FRA_TABLE, rule.table);
}

fn family(ip: Option<IpAddr>) -> u8 {
    match ip {
        None => 0,
        Some(IpAddr::V4(_)) => 2,
        Some(IpAddr::V6(_)) => 10,
    }
}

/// Every rule, as the kernel's own bytes: they are only compared.
pub(crate) fn dump(socket: &mut Socket) -> Result<Vec<Vec<u8>>, KernelError> {
    let mut rules = Vec::new();
    for family in [2, 10] {
        let mut header = [0; 12];
        header[0] = family;
        let mut request = Batch::new();
        request.message("list policy rules", RTM_GETRULE, 0, &header);
        let before = rules.len();
        socket.dump(&mut request, |object| match object {
            Some((_, payload)) => rules.push(payload.to_vec()),
            None => rules.truncate(before),
        })?;
    }
    Ok(rules)
}

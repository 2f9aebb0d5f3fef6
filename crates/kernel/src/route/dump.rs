//! Listing routes.

use rustix::io::Errno;

use super::codec::{RTA_OIF, RTA_TABLE};
use super::{Family, RTM_GETROUTE, RTM_NEWROUTE, Route};
use crate::KernelError;
use crate::netlink::{Batch, Socket};

/// Which routes a dump gives. The kernel filters (`NETLINK_GET_STRICT_CHK`), so that 100,000 foreign routes cost
/// little; older kernels give all, and the filter is applied here once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this protocol.
    pub protocol: Option<u8>,
    /// Only of this table.
    pub table: Option<u32>,
    /// Only over this link.
    pub index: Option<u32>,
}

/// Every route that passes the filter, in the order in which the kernel holds them.
pub fn dump(socket: &mut Socket, family: Family, filter: Filter) -> Result<Vec<Route>, KernelError> {
    let mut header = [0; 12];
    header[0] = family.number();
    header[5] = filter.protocol.unwrap_or(0);
    let mut request = Batch::new();
    {
        let mut message = request.message("list routes", RTM_GETROUTE, 0, &header);
        if let Some(table) = filter.table {
            message.u32(RTA_TABLE, table);
        }
        if let Some(index) = filter.index {
            message.u32(RTA_OIF, index);
        }
    }
    let mut routes = Vec::new();
    let listed = socket.dump(&mut request, |object| match object {
        Some((RTM_NEWROUTE, payload)) => routes.extend(Route::parse(payload).filter(|route| {
            filter.protocol.is_none_or(|protocol| protocol == route.protocol)
                && filter.table.is_none_or(|table| table == route.table)
                && filter.index.is_none_or(|index| route.hops.iter().any(|hop| hop.index == Some(index)))
        })),
        Some(_) => {}
        None => routes.clear(),
    });
    match listed {
        // A table that nobody has used yet does not exist.
        Err(error) if error.errno == Errno::NOENT && filter.table.is_some() => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(routes),
    }
}

//! A route, as configurations wish it and results report it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::address::IpFamily;
use crate::error::CniError;
use crate::field::Field;

/// `RT_TABLE_MAIN` (`linux/rtnetlink.h`).
const TABLE_MAIN: u32 = 254;

/// A route of a pod. What is absent is the kernel's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop; absent, the gateway of the pod's address of this family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The path's MTU, in bytes (1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The TCP segment size to advertise, in bytes (1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric: lower wins (1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table (1.1.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope: 0 global, 253 link, 254 host (1.1.0; `RT_SCOPE_*`, `linux/rtnetlink.h`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// A route through a next hop, or through the gateway.
    #[must_use]
    pub const fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// The table that the kernel puts the route into: `main` where none is named, or 0 (`RT_TABLE_UNSPEC`).
    #[must_use]
    pub fn effective_table(&self) -> u32 {
        self.table.filter(|table| *table != 0).unwrap_or(TABLE_MAIN)
    }

    /// The metric that the kernel gives the route where none is named (`IP6_RT_PRIO_USER` for IPv6).
    #[must_use]
    pub fn effective_priority(&self) -> u32 {
        let unnamed = match self.family() {
            IpFamily::V4 => 0,
            IpFamily::V6 => 1024,
        };
        self.priority.filter(|priority| *priority != 0).unwrap_or(unnamed)
    }

    /// Whether it would stand where the route to what is on the pod's link stands already: in the main table, with no
    /// metric of its own. The kernel makes that route for the subnet of an address (`IP6_RT_PRIO_ADDRCONF` is its metric
    /// for IPv6), and this plugin for a gateway that is in no subnet.
    #[must_use]
    pub fn is_as_near_as_the_link(&self) -> bool {
        let on_link = match self.family() {
            IpFamily::V4 => &[0][..],
            IpFamily::V6 => &[256, 1024][..],
        };
        self.effective_table() == TABLE_MAIN && on_link.contains(&self.effective_priority())
    }

    /// The part that versions before 1.1.0 can say.
    #[must_use]
    pub const fn plain(&self) -> Self {
        Self::new(self.dst, self.gw)
    }

    /// The family of the destination.
    #[must_use]
    pub fn family(&self) -> IpFamily {
        IpFamily::of(self.dst.addr())
    }

    /// Reads a route as it stands.
    pub(crate) fn read(field: &Field<'_, '_>) -> Result<Self, CniError> {
        // The reference library leaves zeros out, so that a zero says nothing.
        let non_zero = |key, max| -> Result<Option<u32>, CniError> {
            Ok(field.optional(key, |value| value.number_as(0..=max))?.filter(|value| *value != 0))
        };
        Ok(Self {
            dst: field.required("dst", "give the destination in CIDR notation", read_net)?,
            gw: field.optional("gw", Field::ip)?,
            mtu: non_zero("mtu", 65_535)?,
            advmss: non_zero("advmss", 65_535)?,
            priority: non_zero("priority", u32::MAX.into())?,
            table: field.optional("table", |value| value.number_as(0..=u32::MAX.into()))?,
            scope: field.optional("scope", |value| value.number_as(0..=255))?,
        })
    }

    /// Reads a wish, which the kernel must be able to fulfil.
    pub(crate) fn read_wish(field: &Field<'_, '_>) -> Result<Self, CniError> {
        let route = Self::read(field)?;
        field.only(&["dst", "gw", "mtu", "advmss", "priority", "table", "scope"])?;
        if route.dst != route.dst.trunc() {
            return Err(field.refuse_key_because(
                "dst",
                format!("{} has host bits set: write {}", route.dst, route.dst.trunc()),
            ));
        }
        if let Some(gw) = route.gw {
            if IpFamily::of(gw) != route.family() {
                return Err(field.refuse_key_because(
                    "gw",
                    format!("{gw} is not of the family of {}: give an {} address", route.dst, route.family()),
                ));
            }
            if gw.is_unspecified() || gw.is_multicast() || gw.is_loopback() {
                return Err(field
                    .refuse_key_because("gw", format!("{gw} is no next hop: give the gateway's address")));
            }
        }
        Ok(route)
    }
}

/// Reads an address with its prefix; host bits are kept.
pub(crate) fn read_net(field: Field<'_, '_>) -> Result<IpNet, CniError> {
    field
        .text()?
        .parse()
        .map_err(|_| field.refuse("give an address and prefix, as in 10.1.0.0/16 or fd00::/64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn zero_says_nothing_where_the_reference_library_leaves_it_out() {
        let value = json!({"dst": "0.0.0.0/0", "mtu": 0, "priority": 0, "table": 0, "scope": 0});
        let route = Route::read(&Field::document("route", &value)).unwrap();
        assert_eq!((route.mtu, route.priority, route.table, route.scope), (None, None, Some(0), Some(0)));
    }

    #[test]
    fn a_wish_that_the_kernel_would_refuse_is_refused() {
        let refused = |value| Route::read_wish(&Field::document("r", &value)).unwrap_err().msg;
        insta::assert_debug_snapshot!([
            refused(json!({})),
            refused(json!("0.0.0.0/0")),
            refused(json!({"dst": "10.0.0.0"})),
            refused(json!({"dst": "10.0.0.1/8"})),
            refused(json!({"dst": "10.0.0.0/8", "gw": "fd00::1"})),
            refused(json!({"dst": "10.0.0.0/8", "gw": "0.0.0.0"})),
            refused(json!({"dst": "10.0.0.0/8", "gw": "10.0.0.1/8"})),
            refused(json!({"dst": "10.0.0.0/8", "mtu": 65_536})),
            refused(json!({"dst": "10.0.0.0/8", "table": -1})),
            refused(json!({"dst": "10.0.0.0/8", "scope": 256})),
            refused(json!({"dst": "10.0.0.0/8", "via": "10.0.0.1"})),
            refused(json!({"dst": "10.0.0.0/8", "prioritty": 7})),
        ]);
    }
}

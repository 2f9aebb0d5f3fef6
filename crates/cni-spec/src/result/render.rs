//! A result as each version of the specification prescribes it.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::address::IpFamily;
use crate::error::{CniError, ErrorCode};
use crate::result::{AttachResult, Dns, Interface, IpConfig};
use crate::route::Route;
use crate::version::SpecVersion;

/// Since 0.3.0. The keys stand in the order of the specification.
#[derive(Serialize)]
struct ListForm<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    interfaces: &'a [Interface],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<ListedIp<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    routes: &'a [Route],
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'a Dns>,
}

#[derive(Serialize)]
struct ListedIp<'a> {
    /// "4" or "6", from 0.3.0 to 0.4.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: &'a IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

/// Until 0.2.0: one address a family, routes beside it.
#[derive(Serialize)]
struct FamilyForm<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<FamilyIp<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<FamilyIp<'a>>,
    dns: &'a Dns,
}

#[derive(Serialize)]
struct FamilyIp<'a> {
    ip: &'a IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<&'a Route>,
}

impl AttachResult {
    /// The JSON for stdout, in the version of the call's configuration.
    ///
    /// What the version cannot say is left out ([`Self::carried_by`]). As the reference library prints it, an empty
    /// `dns` is there before 1.0.0 and left out since.
    pub fn to_json(&self, version: SpecVersion) -> Result<String, CniError> {
        let carried = self.carried_by(version);
        let json = if version < SpecVersion::V0_3_0 {
            let [ip4, ip6] = IpFamily::BOTH.map(|family| carried.family_ip(family));
            serde_json::to_string(&FamilyForm { cni_version: version.as_str(), ip4, ip6, dns: &carried.dns })
        } else {
            let has_ip_version = version < SpecVersion::V1_0_0;
            let ips = carried.ips.iter().map(|ip| ListedIp {
                version: has_ip_version.then_some(if ip.address.addr().is_ipv4() { "4" } else { "6" }),
                interface: ip.interface,
                address: &ip.address,
                gateway: ip.gateway,
            });
            serde_json::to_string(&ListForm {
                cni_version: version.as_str(),
                interfaces: &carried.interfaces,
                ips: ips.collect(),
                routes: &carried.routes,
                dns: (has_ip_version || !carried.dns.is_empty()).then_some(&carried.dns),
            })
        };
        json.map_err(|cause| {
            CniError::new(
                ErrorCode::Internal,
                format!("failed to render the result as CNI {version}: {cause}"),
            )
        })
    }

    /// The part of this result that a version can say.
    ///
    /// Before 1.1.0 there are no details of interfaces and routes; before 0.3.0 there are no interfaces, one address a
    /// family (the first), and only the routes of families with an address, IPv4 before IPv6.
    #[must_use]
    pub fn carried_by(&self, version: SpecVersion) -> Cow<'_, Self> {
        if version >= SpecVersion::V1_1_0 {
            return Cow::Borrowed(self);
        }
        if version >= SpecVersion::V0_3_0 {
            let plain = |interface: &Interface| Interface {
                name: interface.name.clone(),
                mac: interface.mac.clone(),
                sandbox: interface.sandbox.clone(),
                ..Interface::default()
            };
            return Cow::Owned(Self {
                interfaces: self.interfaces.iter().map(plain).collect(),
                ips: self.ips.clone(),
                routes: self.routes.iter().map(Route::plain).collect(),
                dns: self.dns.clone(),
            });
        }
        let mut carried = Self { dns: self.dns.clone(), ..Self::default() };
        for family in IpFamily::BOTH {
            if let Some(ip) = self.first_ip(family) {
                carried.ips.push(IpConfig { interface: None, ..ip.clone() });
                let routes = self.routes.iter().filter(|route| route.family() == family);
                carried.routes.extend(routes.map(Route::plain));
            }
        }
        Cow::Owned(carried)
    }

    fn first_ip(&self, family: IpFamily) -> Option<&IpConfig> {
        self.ips.iter().find(|ip| IpFamily::of(ip.address.addr()) == family)
    }

    fn family_ip(&self, family: IpFamily) -> Option<FamilyIp<'_>> {
        self.first_ip(family).map(|ip| FamilyIp {
            ip: &ip.address,
            gateway: ip.gateway,
            routes: self.routes.iter().filter(|route| route.family() == family).collect(),
        })
    }
}

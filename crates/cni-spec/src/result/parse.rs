//! A result of any version, as another plugin or an earlier call left it.

use crate::error::CniError;
use crate::field::{Field, parse_object};
use crate::result::{AttachResult, Dns, Interface, IpConfig};
use crate::route::{Route, read_net};
use crate::version::SpecVersion;

/// The bound on the whole input is nearer than this bound on a list.
const MAX_ENTRIES: usize = 1 << 16;

impl AttachResult {
    /// Reads a result. A `cniVersion` inside it decides its form; `version` does where there is none, because results
    /// before 1.0.0 need not have one.
    pub fn from_json(json: &[u8], version: SpecVersion) -> Result<Self, CniError> {
        let value = parse_object(json, "the result")?;
        Self::read(&Field::document("result", &value), version)
    }

    pub(crate) fn read(result: &Field<'_, '_>, version: SpecVersion) -> Result<Self, CniError> {
        let version = match result.optional("cniVersion", Field::text)? {
            Some(own) if !own.is_empty() => SpecVersion::parse(own)?,
            _ => version,
        };
        let read = if version < SpecVersion::V0_3_0 {
            Self::read_families(result)
        } else {
            Self::read_lists(result)
        };
        Ok(read?.carried_by(version).into_owned())
    }

    fn read_families(result: &Field<'_, '_>) -> Result<Self, CniError> {
        let mut read = Self { dns: read_dns(result)?, ..Self::default() };
        for key in ["ip4", "ip6"] {
            if let Some(ip) = result.get(key)? {
                let address = ip.required("ip", "give the address in CIDR notation", read_net)?;
                if address.addr().is_ipv4() != (key == "ip4") {
                    return Err(
                        ip.refuse_key_because("ip", format!("{address} is not of this family; move it"))
                    );
                }
                let gateway = ip.optional("gateway", Field::ip)?;
                read.ips.push(IpConfig { interface: None, address, gateway });
                read.routes.extend(ip.each("routes", MAX_ENTRIES, |route| Route::read(&route))?);
            }
        }
        Ok(read)
    }

    fn read_lists(result: &Field<'_, '_>) -> Result<Self, CniError> {
        let interfaces = result.each("interfaces", MAX_ENTRIES, |field| Interface::read(&field))?;
        let ips = result.each("ips", MAX_ENTRIES, |field| IpConfig::read(&field, interfaces.len()))?;
        let routes = result.each("routes", MAX_ENTRIES, |route| Route::read(&route))?;
        Ok(Self { interfaces, ips, routes, dns: read_dns(result)? })
    }
}

fn read_dns(result: &Field<'_, '_>) -> Result<Dns, CniError> {
    Ok(result.optional("dns", |dns| Dns::read(&dns))?.unwrap_or_default())
}

/// A text that says nothing when it is empty.
fn non_empty(field: &Field<'_, '_>, key: &'static str) -> Result<Option<String>, CniError> {
    Ok(field.optional(key, Field::owned_text)?.filter(|text| !text.is_empty()))
}

impl Interface {
    fn read(field: &Field<'_, '_>) -> Result<Self, CniError> {
        let mtu: Option<u32> = field.optional("mtu", |mtu| mtu.number_as(0..=u32::MAX.into()))?;
        Ok(Self {
            name: field.required("name", "name the link", Field::owned_text)?,
            mac: non_empty(field, "mac")?,
            mtu: mtu.filter(|mtu| *mtu != 0),
            sandbox: non_empty(field, "sandbox")?,
            socket_path: non_empty(field, "socketPath")?,
            pci_id: non_empty(field, "pciID")?,
        })
    }
}

impl IpConfig {
    fn read(field: &Field<'_, '_>, interfaces: usize) -> Result<Self, CniError> {
        let interface = field.optional("interface", |index| {
            let number: usize = index.number_as(0..=u32::MAX.into())?;
            if number < interfaces {
                return Ok(number);
            }
            Err(index.refuse(format!("there are {interfaces} interfaces; give the index of one, from 0")))
        })?;
        Ok(Self {
            interface,
            address: field.required("address", "give the address in CIDR notation", read_net)?,
            gateway: field.optional("gateway", Field::ip)?,
        })
    }
}

impl Dns {
    pub(crate) fn read(field: &Field<'_, '_>) -> Result<Self, CniError> {
        let texts = |key| field.each(key, MAX_ENTRIES, |field| Ok(field.text()?.to_owned()));
        Ok(Self {
            nameservers: texts("nameservers")?,
            domain: non_empty(field, "domain")?,
            search: texts("search")?,
            options: texts("options")?,
        })
    }
}

//! The `ipam` section, in the syntax of `host-local`.

use std::path::PathBuf;

use ipnet::{IpNet, Ipv6Net};

use crate::address::IpFamily;
use crate::dhcp_conf::{self, DhcpConf};
use crate::error::CniError;
use crate::field::Field;
use crate::range::Range;
use crate::range_set::{RangeSet, RangeSets};
use crate::route::{Route, read_net};
use crate::version::SpecVersion;

/// Where attachment records are kept unless `ipam.dataDir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/run/hostgw/ipam";

/// One pod has one address of each set.
const MAX_RANGE_SETS: usize = 64;
const MAX_RANGES: usize = 1024;
pub(crate) const MAX_ROUTES: usize = 1024;

/// The keys of `ipam`; those of a range may stand in it, too.
const KEYS: [&str; 9] =
    ["type", "dataDir", "ranges", "routes", "slaac", "subnet", "rangeStart", "rangeEnd", "gateway"];
const RANGE_KEYS: [&str; 4] = ["subnet", "rangeStart", "rangeEnd", "gateway"];

/// Where a pod's addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConf {
    /// One address comes from each set. Before a lease is had there are none of IPv4, where a DHCP server lends these.
    pub range_sets: RangeSets,
    /// `ipam.slaac`: pods form an IPv6 address of a prefix that the LAN's router announces (RFC 4862) and that is of this
    /// subnet, in the place of a range.
    pub slaac: Option<Ipv6Net>,
    /// How a DHCP server is asked, where `type` is `dhcp`.
    pub dhcp: Option<DhcpConf>,
    /// `ipam.dataDir`: the folder of the attachment records.
    pub data_dir: PathBuf,
}

impl IpamConf {
    /// Reads `ipam`, the wished routes in it, and the `ipRanges` that a runtime may put before its ranges.
    pub(crate) fn read(conf: &Field<'_, '_>, version: SpecVersion) -> Result<(Self, Vec<Route>), CniError> {
        let Some(ipam) = conf.get("ipam")? else {
            return Err(conf.missing(
                "ipam",
                r#"give the pods' ranges, as in {"ranges": [[{"subnet": "10.1.0.0/24"}]]}"#,
            ));
        };
        let kind = ipam.get("type")?;
        if let Some(kind) = &kind
            && kind.text()? == "dhcp"
        {
            ipam.only(&dhcp_conf::KEYS)?;
            let dhcp = Some(DhcpConf::read(&ipam)?);
            let range_sets = read_range_sets_beside_dhcp(&ipam)?;
            let slaac = read_slaac(&ipam, &range_sets)?;
            let routes = ipam.each("routes", MAX_ROUTES, |route| Route::read_wish(&route))?;
            return Ok((Self { range_sets, slaac, dhcp, data_dir: data_dir(&ipam)? }, routes));
        }
        if let Some(kind) = kind
            && !matches!(kind.text()?, "" | "host-local" | "hostgw")
        {
            return Err(kind.unsupported(
                "this plugin allocates addresses itself; remove the key, write `dhcp`, or use the `bridge` or `ptp` type",
            ));
        }
        if let Some(resolv_conf) = ipam.get("resolvConf")? {
            return Err(resolv_conf.unsupported("this plugin reads no such file; name the servers in `dns`"));
        }
        ipam.only(&KEYS)?;
        let single = RANGE_KEYS.iter().try_fold(false, |any, key| Ok(any || ipam.get(key)?.is_some()))?;
        let has_none = !single && ipam.get("ranges")?.is_none() && conf.get("runtimeConfig")?.is_none();
        let range_sets = if has_none && ipam.get("slaac")?.is_some() {
            RangeSets::none()
        } else {
            read_range_sets(conf, &ipam, version, single)?
        };
        let slaac = read_slaac(&ipam, &range_sets)?;
        let routes = ipam.each("routes", MAX_ROUTES, |route| Route::read_wish(&route))?;
        Ok((Self { range_sets, slaac, dhcp: None, data_dir: data_dir(&ipam)? }, routes))
    }

    /// Whether pods get addresses of this family.
    #[must_use]
    pub fn has_family(&self, family: IpFamily) -> bool {
        self.range_sets.has_family(family)
            || match family {
                IpFamily::V4 => self.dhcp.is_some(),
                IpFamily::V6 => self.slaac.is_some(),
            }
    }
}

/// The ranges beside a DHCP server, which lends the IPv4 addresses.
fn read_range_sets_beside_dhcp(ipam: &Field<'_, '_>) -> Result<RangeSets, CniError> {
    let sets = read_sets(ipam, "ranges")?;
    if sets.is_empty() {
        return Ok(RangeSets::none());
    }
    if sets.iter().any(|set| set.family() == IpFamily::V4) {
        return Err(ipam.refuse_key_because(
            "ranges",
            "the DHCP server lends the IPv4 addresses; give IPv6 ranges alone, or remove `type`",
        ));
    }
    RangeSets::new(sets).map_err(|error| ipam.refuse_key_because("ranges", error))
}

fn read_slaac(ipam: &Field<'_, '_>, range_sets: &RangeSets) -> Result<Option<Ipv6Net>, CniError> {
    ipam.optional("slaac", |slaac| match read_net(slaac)? {
        IpNet::V4(_) => {
            Err(slaac.refuse("addresses are formed for IPv6 alone; give an IPv6 subnet, as in 2000::/3"))
        }
        IpNet::V6(_) if range_sets.has_family(IpFamily::V6) => {
            Err(slaac.refuse("`ranges` give IPv6 addresses already; remove these, or this key"))
        }
        IpNet::V6(subnet) if subnet.prefix_len() > 64 => {
            Err(slaac.refuse("addresses are formed in prefixes of 64 bits (RFC 4862); give 64 bits or fewer"))
        }
        IpNet::V6(subnet) => Ok(subnet.trunc()),
    })
}

/// Every range set: those of the runtime, then the `single` one whose keys stand in `ipam` itself, then `ranges`.
pub(crate) fn read_range_sets(
    conf: &Field<'_, '_>,
    ipam: &Field<'_, '_>,
    version: SpecVersion,
    single: bool,
) -> Result<RangeSets, CniError> {
    let mut sets = Vec::new();
    if let Some(runtime) = conf.get("runtimeConfig")? {
        sets.extend(read_sets(&runtime, "ipRanges")?);
    }
    if single {
        sets.push(read_set(ipam, vec![read_range(ipam)?])?);
    }
    sets.extend(read_sets(ipam, "ranges")?);
    if sets.is_empty() {
        return Err(ipam.refuse_key_because(
            "ranges",
            r#"holds no range: give one, as in [[{"subnet": "10.1.0.0/24"}]]"#,
        ));
    }
    if sets.len() > MAX_RANGE_SETS || sets.iter().map(|set| set.ranges().len()).sum::<usize>() > MAX_RANGES {
        return Err(ipam.refuse_key_because(
            "ranges",
            format!("too many ranges; give at most {MAX_RANGE_SETS} sets and {MAX_RANGES} ranges"),
        ));
    }
    if version < SpecVersion::V0_3_0 {
        refuse_several_of_a_family(ipam, &sets, version)?;
    }
    RangeSets::new(sets).map_err(|error| ipam.refuse_key_because("ranges", error))
}

/// Reads `dataDir` alone, which DEL and GC need even when the ranges are wrong.
pub(crate) fn data_dir(ipam: &Field<'_, '_>) -> Result<PathBuf, CniError> {
    Ok(ipam.optional("dataDir", Field::absolute_path)?.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)))
}

fn read_sets(parent: &Field<'_, '_>, key: &'static str) -> Result<Vec<RangeSet>, CniError> {
    parent.each(key, MAX_RANGE_SETS, |set| {
        let ranges = set.list(MAX_RANGES)?.map(|range| read_listed(&range)).collect::<Result<_, _>>()?;
        read_set(&set, ranges)
    })
}

fn read_set(field: &Field<'_, '_>, ranges: Vec<Range>) -> Result<RangeSet, CniError> {
    RangeSet::new(ranges).map_err(|error| field.refuse_because(error))
}

fn read_listed(field: &Field<'_, '_>) -> Result<Range, CniError> {
    let range = read_range(field)?;
    field.only(&RANGE_KEYS)?;
    Ok(range)
}

fn read_range(field: &Field<'_, '_>) -> Result<Range, CniError> {
    Range::new(
        field.required("subnet", "give the subnet in CIDR notation, as in 10.1.0.0/24", read_net)?,
        field.optional("rangeStart", Field::ip_or_none)?.flatten(),
        field.optional("rangeEnd", Field::ip_or_none)?.flatten(),
        field.optional("gateway", Field::ip_or_none)?.flatten(),
    )
    .map_err(|error| field.refuse_key_because(error.key(), error))
}

/// Results of these versions carry one address a family.
fn refuse_several_of_a_family(
    ipam: &Field<'_, '_>,
    sets: &[RangeSet],
    version: SpecVersion,
) -> Result<(), CniError> {
    for family in IpFamily::BOTH {
        let count = sets.iter().filter(|set| set.family() == family).count();
        if count > 1 {
            return Err(ipam.refuse_key_because(
                "ranges",
                format!(
                    "{count} {family} sets, but `cniVersion` {version} carries one address a family; \
                     raise `cniVersion` to 0.3.0 or later"
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::NetConf;

    fn parse(mode: &str, ipam: &str) -> Result<NetConf, String> {
        let stdin = format!(
            r#"{{"cniVersion":"1.0.0","name":"n","type":"hostgw","mode":"{mode}","ipam":{{{ipam}}}}}"#
        );
        NetConf::parse(stdin.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_that_form_themselves_stand_beside_ipv4_and_bring_their_default_route() {
        for (ipam, families) in [
            (r#""slaac":"2001:db8::/48""#, 1),
            (r#""slaac":"2001:db8::/48","ranges":[[{"subnet":"192.0.2.0/24"}]]"#, 2),
            // The server names the other.
            (r#""slaac":"2001:db8::/48","type":"dhcp""#, 1),
            (r#""ranges":[[{"subnet":"2001:db8::/64"}]],"type":"dhcp""#, 1),
        ] {
            let conf = parse("l2-routed", ipam).unwrap();
            assert_eq!(conf.routes.len(), families, "{ipam}");
            assert!(conf.ipam.has_family(crate::IpFamily::V6));
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_key() {
        for (mode, ipam, said) in [
            ("ptp", r#""slaac":"2001:db8::/48""#, "mode `ptp`"),
            ("bridge", r#""type":"dhcp","ranges":[[{"subnet":"2001:db8::/64"}]]"#, "mode `bridge`"),
            ("l2", r#""type":"dhcp","ranges":[[{"subnet":"192.0.2.0/24"}]]"#, "IPv6 ranges alone"),
            ("l2", r#""slaac":"192.0.2.0/24""#, "IPv6 alone"),
            ("l2", r#""slaac":"2001:db8::/65""#, "64 bits or fewer"),
            ("l2", r#""slaac":"2001:db8::/64","ranges":[[{"subnet":"2001:db8::/64"}]]"#, "already"),
            ("l2", r#""slaac":true"#, "`ipam.slaac`"),
        ] {
            let told = parse(mode, ipam).unwrap_err();
            assert!(told.contains(said), "{ipam}: {told}");
        }
    }
}

//! What an ADD asks for, checked before anything is touched.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address_range::AddressRange;
use crate::claim::Claim;
use crate::error::ReserveError;
use crate::host_port::HostPort;
use crate::record::Allocation;
use cni_spec::Attachment;

/// A range that addresses are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First to last address.
    pub addresses: AddressRange,
    /// Gives the prefix length of what is handed out.
    pub subnet: IpNet,
    /// Never handed out.
    pub gateway: Option<IpAddr>,
    /// Further addresses that are never handed out, in any order; those outside the range do not matter.
    pub excluded: Vec<IpAddr>,
}

/// What an ADD asks for.
pub struct Request<'a> {
    /// For whom.
    pub attachment: &'a Attachment,
    /// One address is taken from each set, from whichever of its ranges comes next.
    pub range_sets: &'a [Vec<Range>],
    /// Addresses asked for by name (capability `ips`), each from another set.
    pub requested: &'a [IpAddr],
    /// The node's ports that shall lead to the pod.
    pub host_ports: &'a [HostPort],
}

/// How one range set is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish<'a> {
    /// By whichever address is next.
    Any,
    /// By this one.
    Exactly(IpAddr, &'a Range),
}

impl Range {
    /// Whether `address` never goes to a pod, as far as the configuration says.
    fn excludes(&self, address: IpAddr) -> bool {
        self.gateway == Some(address) || self.excluded.contains(&address)
    }

    /// The indexes that are never handed out, sorted.
    pub(crate) fn excluded_indexes(&self) -> Vec<u64> {
        let addresses = self.excluded.iter().copied().chain(self.gateway);
        let mut indexes: Vec<u64> =
            addresses.filter_map(|address| self.addresses.index_of(address)).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    /// How many addresses may go to pods.
    #[must_use]
    pub fn usable(&self) -> u64 {
        self.addresses.indexes() - self.excluded_indexes().len() as u64
    }

    /// `address` as a pod of this range gets it.
    pub(crate) fn allocation(&self, address: IpAddr) -> Allocation {
        // The subnet's family is the range's, so its prefix length fits.
        let address = IpNet::new(address, self.subnet.prefix_len()).unwrap_or_else(|_| address.into());
        Allocation { address, gateway: self.gateway, range: self.addresses }
    }
}

impl Request<'_> {
    /// What each range set is asked for, in their order; an error where the request contradicts itself or the ranges.
    pub(crate) fn wishes(&self) -> Result<Vec<Wish<'_>>, ReserveError> {
        let mut wishes = vec![Wish::Any; self.range_sets.len()];
        for &address in self.requested {
            let holders = self.range_sets.iter().enumerate().filter_map(|(set, ranges)| {
                Some((set, ranges.iter().find(|range| range.addresses.contains(address))?))
            });
            let mut holders = holders.peekable();
            let Some(&(first, range)) = holders.peek() else {
                let ranges = self.range_sets.iter().flatten().map(|range| range.addresses).collect();
                return Err(ReserveError::OutsideRanges { address, ranges });
            };
            if range.excludes(address) {
                return Err(ReserveError::Excluded { address });
            }
            // Sets may overlap: the first that is still without an address serves.
            match holders.find(|&(set, _)| wishes[set] == Wish::Any) {
                Some((set, range)) => wishes[set] = Wish::Exactly(address, range),
                None => return Err(ReserveError::SecondOfSet { address, set: first }),
            }
        }
        self.check_host_ports()?;
        Ok(wishes)
    }

    fn check_host_ports(&self) -> Result<(), ReserveError> {
        let mut seen: Vec<Claim> = Vec::new();
        for port in self.host_ports {
            for claim in port.claims() {
                if seen.contains(&claim) {
                    return Err(ReserveError::HostPortTwice { port: port.clone() });
                }
                seen.push(claim);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range {
            addresses: text.parse().unwrap(),
            subnet: "10.0.0.0/8".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            excluded: vec!["10.0.0.9".parse().unwrap(), "10.99.0.1".parse().unwrap()],
        }
    }

    fn wishes(requested: &[&str]) -> Result<Vec<Option<IpAddr>>, String> {
        let requested: Vec<IpAddr> = requested.iter().map(|text| text.parse().unwrap()).collect();
        let sets = [
            vec![range("10.0.0.1-10.0.0.20"), range("10.0.1.1-10.0.1.20")],
            vec![range("10.0.0.1-10.0.0.40")],
        ];
        let request = Request {
            attachment: &"a:eth0".parse().unwrap(),
            range_sets: &sets,
            requested: &requested,
            host_ports: &[],
        };
        let wishes = request.wishes().map_err(|error| error.to_string())?;
        Ok(wishes
            .iter()
            .map(|wish| match wish {
                Wish::Any => None,
                Wish::Exactly(address, _) => Some(*address),
            })
            .collect())
    }

    #[test]
    fn a_requested_address_goes_to_the_first_set_that_holds_it_and_is_free() {
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(wishes(&[]), Ok(vec![None, None]));
        assert_eq!(wishes(&["10.0.0.30"]), Ok(vec![None, address("10.0.0.30")]));
        assert_eq!(wishes(&["10.0.0.5", "10.0.0.6"]), Ok(vec![address("10.0.0.5"), address("10.0.0.6")]));
    }

    #[test]
    fn requests_that_cannot_be_served_are_refused_with_the_address() {
        for requested in
            [&["10.0.0.1"][..], &["10.0.0.9"], &["10.2.0.1"], &["fd00::1"], &["10.0.1.5", "10.0.1.6"]]
        {
            let error = wishes(requested).unwrap_err();
            assert!(error.contains(requested.last().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_gateway_and_the_excluded_of_the_range_do_not_count_as_usable() {
        assert_eq!(range("10.0.0.1-10.0.0.20").usable(), 18);
        assert_eq!(range("10.0.1.1-10.0.1.20").usable(), 20);
    }
}

//! ADD: one address from each range set, all or none.

use std::net::IpAddr;

use attachment::Attachment;
use cni_spec::{
    AttachResult, CniArgs, CniError, Dns, ErrorCode, HostLocalConf, IpConfig, Range, RangeSet, RangeSets,
};
use ipnet::IpNet;

use super::folder::{Change, Folder, FolderError};
use super::search::{SearchError, search};
use super::{already_attached, boot, folder_failed, resolv_conf};

/// Reserves addresses, and gives what the plugin answers.
pub(crate) fn add(
    conf: &HostLocalConf,
    attachment: &Attachment,
    args: &CniArgs,
) -> Result<AttachResult, CniError> {
    let dns = match &conf.resolv_conf {
        Some(path) => resolv_conf::read(path)?,
        None => Dns::default(),
    };
    let wishes = wishes(&conf.range_sets, conf.requested_ips(args)?)?;
    let mut folder = Folder::open(&conf.store.data_dir, conf.store.base.name.as_str())
        .map_err(|error| folder_failed(&error))?;
    refuse_second(&folder, &conf.range_sets, attachment)?;
    let gateways: Vec<IpAddr> = conf.range_sets.ranges().map(Range::gateway).collect();
    let mut ips = Vec::with_capacity(wishes.len());
    for (number, (set, wish)) in conf.range_sets.as_slice().iter().zip(wishes).enumerate() {
        let claimed = match wish {
            Some(address) => claim_requested(&folder, address, attachment).map(|()| address),
            None => claim_next(&folder, (number, set), &gateways, attachment),
        };
        match claimed {
            Ok(address) => {
                // A turn that is lost costs nothing but the order.
                folder.note_last_reserved(number, address).ok();
                ips.extend(ip_config(set, address));
            }
            Err(error) => {
                for ip in &ips {
                    folder.remove(ip.address.addr()).map_err(|error| folder_failed(&error))?;
                }
                return Err(error);
            }
        }
    }
    folder.note(Change::Claimed(attachment));
    Ok(AttachResult { ips, routes: conf.routes.clone(), dns, ..AttachResult::default() })
}

/// The address that is wished of each set, if any.
fn wishes(sets: &RangeSets, mut requested: Vec<IpAddr>) -> Result<Vec<Option<IpAddr>>, CniError> {
    let wishes = sets.as_slice().iter().map(|set| {
        let wished = requested.iter().position(|address| range_of(set, *address).is_some());
        wished.map(|place| requested.remove(place))
    });
    let wishes: Vec<Option<IpAddr>> = wishes.collect();
    let refuse = |reason| Err(CniError::new(ErrorCode::InvalidNetworkConfig, reason));
    if let Some(left) = requested.first() {
        return refuse(format!(
            "requested address {left} is in no range of its own: a pod gets one address of each range set; request \
             another, or none"
        ));
    }
    let is_gateway = |(set, address): (&RangeSet, IpAddr)| {
        range_of(set, address).is_some_and(|range| range.gateway() == address)
    };
    let of_sets = sets.as_slice().iter().zip(&wishes).filter_map(|(set, wish)| Some((set, (*wish)?)));
    match of_sets.into_iter().find(|wish| is_gateway(*wish)) {
        Some((_, gateway)) => refuse(format!(
            "requested address {gateway} is the gateway of its range: request another, or none"
        )),
        None => Ok(wishes),
    }
}

fn range_of(set: &RangeSet, address: IpAddr) -> Option<&Range> {
    set.ranges().iter().find(|range| range.contains(address))
}

fn ip_config(set: &RangeSet, address: IpAddr) -> Option<IpConfig> {
    let range = range_of(set, address)?;
    let address = IpNet::new(address, range.subnet().prefix_len()).ok()?;
    Some(IpConfig { interface: None, address, gateway: Some(range.gateway()) })
}

/// The specification knows no second ADD of the same attachment, nor does the reference.
fn refuse_second(folder: &Folder, sets: &RangeSets, attachment: &Attachment) -> Result<(), CniError> {
    if !folder.may_hold(attachment) {
        return Ok(());
    }
    let held = folder.all_held().map_err(|error| folder_failed(&error))?;
    let own = held
        .iter()
        .find(|held| held.holder.is(attachment) && sets.ranges().any(|range| range.contains(held.address)));
    own.map_or(Ok(()), |held| Err(already_attached(attachment, held.address)))
}

fn claim_requested(folder: &Folder, address: IpAddr, attachment: &Attachment) -> Result<(), CniError> {
    let claim = || folder.claim(address, attachment).map_err(|error| folder_failed(&error));
    if claim()? || boot::free_dead(folder, Some(address))? && claim()? {
        return Ok(());
    }
    let holder = folder.holder(address).map_err(|error| folder_failed(&error))?;
    let holder = holder.map_or_else(|| "somebody".to_owned(), |holder| holder.to_string());
    Err(CniError::new(
        ErrorCode::AddressTaken,
        format!("requested address {address} belongs to {holder}: request another, or delete that container"),
    ))
}

fn claim_next(
    folder: &Folder,
    (number, set): (usize, &RangeSet),
    gateways: &[IpAddr],
    attachment: &Attachment,
) -> Result<IpAddr, CniError> {
    let next = || {
        search::<FolderError>(
            set,
            folder.last_reserved(number),
            gateways,
            |address| folder.claim(address, attachment),
            || folder.addresses(),
        )
    };
    let found = match next() {
        Err(SearchError::Exhausted) if boot::free_dead(folder, None)? => next(),
        other => other,
    };
    found.map_err(|error| match error {
        SearchError::Failed(error) => folder_failed(&error),
        SearchError::Exhausted => {
            let ranges: Vec<String> = set.ranges().iter().map(ToString::to_string).collect();
            CniError::new(
                ErrorCode::RangeExhausted,
                format!(
                    "every address of range set {number} ({}) is taken: delete pods, or give it another range",
                    ranges.join(", ")
                ),
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets() -> RangeSets {
        let set = |subnet: &str| {
            RangeSet::new(vec![Range::new(subnet.parse().unwrap(), None, None, None).unwrap()]).unwrap()
        };
        RangeSets::new(vec![set("10.1.0.0/24"), set("fd00::/64")]).unwrap()
    }

    fn wished(requested: &[&str]) -> Result<Vec<Option<IpAddr>>, String> {
        let requested = requested.iter().map(|ip| ip.parse().unwrap()).collect();
        wishes(&sets(), requested).map_err(|error| error.msg)
    }

    #[test]
    fn a_wish_belongs_to_the_set_that_holds_it() {
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(wished(&["fd00::5"]), Ok(vec![None, ip("fd00::5")]));
        assert_eq!(wished(&["fd00::5", "10.1.0.9"]), Ok(vec![ip("10.1.0.9"), ip("fd00::5")]));
    }

    #[test]
    fn a_wish_that_no_set_can_grant_is_refused() {
        assert!(wished(&["10.2.0.9"]).unwrap_err().contains("10.2.0.9"));
        assert!(wished(&["10.1.0.8", "10.1.0.9"]).unwrap_err().contains("10.1.0.9"));
        let gateway = sets().ranges().next().unwrap().gateway().to_string();
        assert!(wished(&[&gateway]).unwrap_err().contains("is the gateway"));
    }
}

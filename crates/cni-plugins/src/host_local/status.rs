//! STATUS: "yes", but where `strictStatus` asks to be told of exhaustion: any other answer makes the node NotReady and
//! drives away pods that run well.

use std::convert::Infallible;
use std::net::IpAddr;

use cni_spec::{CniError, ErrorCode, HostLocalConf, Range, StatusConf};

use super::folder::Folder;
use super::folder_failed;
use super::search::search;

/// Fails with code 50 where `strictStatus` is set and a range set has no address left.
pub(crate) fn status(stdin: &[u8]) -> Result<(), CniError> {
    if !StatusConf::parse(stdin)?.strict {
        return Ok(());
    }
    let conf = HostLocalConf::parse(stdin)?;
    let folder = Folder::find(&conf.store.data_dir, conf.store.base.name.as_str())
        .map_err(|error| folder_failed(&error))?;
    let Some(folder) = folder else { return Ok(()) };
    let taken = folder.addresses().map_err(|error| folder_failed(&error))?;
    drop(folder);
    let gateways: Vec<IpAddr> = conf.range_sets.ranges().map(Range::gateway).collect();
    for (number, set) in conf.range_sets.as_slice().iter().enumerate() {
        let is_free = |address: IpAddr| Ok::<_, Infallible>(taken.binary_search(&address).is_err());
        if search(set, None, &gateways, is_free, || Ok(taken.clone())).is_err() {
            return Err(CniError::new(
                ErrorCode::NotAvailable,
                format!(
                    "every address of range set {number} is taken: delete pods, or give it another range"
                ),
            ));
        }
    }
    Ok(())
}

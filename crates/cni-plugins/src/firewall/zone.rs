//! A zone of firewalld: the pod's addresses are sources of it, so that what comes from them is treated as the zone says.

use std::net::IpAddr;

use cni_spec::{CniError, ErrorCode};
use ipnet::IpNet;

use super::bus::{Bus, BusError, Reply};

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const INTERFACE: &str = "org.fedoraproject.FirewallD1.zone";
/// firewalld's word for a source that the zone has already.
const ALREADY: &str = "ZONE_ALREADY_SET";

fn refused(error: &BusError) -> CniError {
    CniError::new(
        ErrorCode::KernelRefused,
        format!("firewalld cannot be asked: {error}; start it, or set `backend` to \"nftables\""),
    )
}

/// Whether firewalld is on the system's bus.
pub(super) fn is_running() -> bool {
    Bus::connect().and_then(|mut bus| bus.has_owner(NAME)).unwrap_or(false)
}

pub(super) fn status() -> Result<(), CniError> {
    match Bus::connect().and_then(|mut bus| bus.has_owner(NAME)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CniError::new(
            ErrorCode::NotAvailable,
            "firewalld does not run: start it, or choose another `backend`",
        )),
        Err(error) => Err(CniError { code: ErrorCode::NotAvailable, ..refused(&error) }),
    }
}

fn call(bus: &mut Bus, method: &str, zone: &str, pod: IpAddr) -> Result<Reply, BusError> {
    bus.call(NAME, PATH, INTERFACE, method, &[zone, &IpNet::from(pod).to_string()])
}

pub(super) fn add(zone: &str, pods: &[IpAddr]) -> Result<(), CniError> {
    let mut bus = Bus::connect().map_err(|error| refused(&error))?;
    for pod in pods {
        match call(&mut bus, "addSource", zone, *pod).map_err(|error| refused(&error))? {
            Reply::Refused(reason) if !reason.contains(ALREADY) => {
                return Err(CniError::new(
                    ErrorCode::KernelRefused,
                    format!(
                        "firewalld did not add {pod} to zone `{zone}`: {reason}; see `firewall-cmd --get-zones`"
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A zone that does not have them is well; so is a firewalld that is gone, and its zones with it.
pub(super) fn remove(zone: &str, pods: &[IpAddr]) -> Result<(), CniError> {
    let Ok(mut bus) = Bus::connect() else { return Ok(()) };
    for pod in pods {
        if call(&mut bus, "removeSource", zone, *pod).is_err() {
            break;
        }
    }
    Ok(())
}

pub(super) fn differences(zone: &str, pods: &[IpAddr]) -> Result<Vec<String>, CniError> {
    let mut bus = Bus::connect().map_err(|error| refused(&error))?;
    let mut differences = Vec::new();
    for pod in pods {
        match call(&mut bus, "querySource", zone, *pod).map_err(|error| refused(&error))? {
            Reply::Truth(true) => {}
            Reply::Refused(reason) => {
                differences.push(format!("zone `{zone}` cannot be asked for {pod}: {reason}"));
            }
            _ => differences.push(format!("{pod} is no source of firewalld's zone `{zone}`")),
        }
    }
    Ok(differences)
}

//! The bridge that bridged pods share: made by the first pod, found by the others, also when two are first at once,
//! and made whole again by the agent.

use std::net::IpAddr;

use cni_spec::MIN_MTU_V6;
use ipnet::IpNet;
use kernel::KernelError;
use kernel::address;
use kernel::link::{self, Link, LinkLocal, Mac, Made};
use kernel::netlink::{Batch, Failure, Socket};
use kernel::sysctl::Sysctls;
use link_name::LinkName;

use super::plan::link_local;
use super::steps::enable_ipv6;
use super::{Side, Step, WiringError, mac_of};

/// What the bridge is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePlan {
    /// Its name.
    pub name: LinkName,
    /// The gateway addresses that it holds, each with its subnet's prefix.
    pub gateways: Vec<IpNet>,
    /// Payload of a frame: what a new bridge begins with. Afterwards the kernel keeps it at its ports' least, until
    /// somebody sets it by hand (`br_mtu_auto_adjust` in `net/bridge/br_if.c`); to set it is therefore a repair.
    pub mtu: u32,
    /// It leads to the node's LAN: somebody else's, which is never made here.
    pub leads_to_lan: bool,
}

/// What a bridge lacks.
#[derive(Debug, PartialEq, Eq)]
struct Lacking {
    deaf_to_routers: bool,
    ipv6_enabled: bool,
    steps: Vec<Step>,
}

impl Default for Lacking {
    fn default() -> Self {
        Self { deaf_to_routers: true, ipv6_enabled: true, steps: Vec::new() }
    }
}

impl Lacking {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn shown(&self) -> Vec<String> {
        let deaf = (!self.deaf_to_routers).then(|| "hear no router advertisements".to_owned());
        let enabled = (!self.ipv6_enabled).then(|| "enable IPv6".to_owned());
        deaf.into_iter().chain(enabled).chain(self.steps.iter().map(Step::to_string)).collect()
    }
}

/// Whether a bridge of this Ethernet address was made by us: others' are random, or a port's.
#[must_use]
pub fn is_our_bridge_mac(mac: Mac) -> bool {
    let ours = mac_of(IpAddr::from([0, 0, 0, 0]), Side::Host);
    mac[..2] == ours[..2]
}

impl BridgePlan {
    /// The address that a new bridge gets.
    fn mac(&self) -> Mac {
        let first = self.gateways.first().map_or(IpAddr::from([0, 0, 0, 0]), IpNet::addr);
        mac_of(first, Side::Host)
    }

    /// Finds or makes the bridge, and gives it what it lacks: all of it where it is ours, also one that was half made
    /// when its maker died; somebody else's only gets the gateways that it lacks, and is set up.
    pub fn ensure(&self, socket: &mut Socket) -> Result<Link, WiringError> {
        let bridge = match link::by_name(socket, self.name.as_str())? {
            Some(found) => self.checked(found)?,
            None if self.leads_to_lan => return Err(self.no_lan()),
            None => self.create(socket)?,
        };
        let (bridge, _) = self.fit_for_ipv6(socket, bridge)?;
        self.complete(socket, &bridge, &self.lacking(&bridge))?;
        Ok(bridge)
    }

    /// Makes the bridge of living pods what [`Self::ensure`] made it, and says what that took. A link that goes down
    /// loses its IPv6 addresses, and one of ours gets no link-local address from the kernel when it comes back.
    pub fn restore(&self, socket: &mut Socket) -> Result<(Link, Vec<String>), WiringError> {
        let Some(found) = link::by_name(socket, self.name.as_str())? else {
            if self.leads_to_lan {
                return Err(self.no_lan());
            }
            return Ok((self.ensure(socket)?, vec!["made anew".to_owned()]));
        };
        let (found, raised) = self.fit_for_ipv6(socket, found)?;
        let mut lacking = self.lacking(&found);
        if found.mtu != self.least_mtu() && self.is_ours(&found) {
            // Somebody has set it by hand: what fits no pod's link would be dropped there without a word, and a smaller one
            // would outlast the pod whose it was.
            lacking.steps.insert(0, Step::Mtu(self.least_mtu()));
        }
        let held: Vec<IpNet> =
            address::dump_of(socket, found.index)?.into_iter().map(|address| address.ip).collect();
        lacking.steps.retain(|step| !matches!(step, Step::Address(wanted) if held.contains(wanted)));
        let repairs = raised.iter().map(Step::to_string).chain(lacking.shown()).collect();
        if lacking.is_nothing() {
            return Ok((found, repairs));
        }
        let bridge = self.checked(found)?;
        self.complete(socket, &bridge, &lacking)?;
        Ok((bridge, repairs))
    }

    /// Gives a bridge of ours on which the kernel has no IPv6 for want of room an MTU that IPv6 takes, and says so. To be
    /// done before all else: what IPv6 does on it is then as on a new link.
    fn fit_for_ipv6(&self, socket: &mut Socket, found: Link) -> Result<(Link, Option<Step>), WiringError> {
        if found.mtu >= MIN_MTU_V6 || !self.speaks_ipv6() || !self.is_ours(&found) {
            return Ok((found, None));
        }
        let step = Step::Mtu(self.least_mtu());
        self.carry_out(socket, std::slice::from_ref(&step), found.index)?;
        Ok((link::by_index(socket, found.index)?.unwrap_or(found), Some(step)))
    }

    /// The plan's MTU, or IPv6's least where it is spoken here.
    fn least_mtu(&self) -> u32 {
        if self.speaks_ipv6() { self.mtu.max(MIN_MTU_V6) } else { self.mtu }
    }

    fn is_ours(&self, found: &Link) -> bool {
        !self.leads_to_lan && found.mac.is_some_and(is_our_bridge_mac)
    }

    /// What `found` lacks of this plan. The addresses are all named: to add one that is there costs less than to look.
    fn lacking(&self, found: &Link) -> Lacking {
        let mut lacking = Lacking::default();
        let our_mac = found.mac.filter(|_| self.is_ours(found));
        if our_mac.is_some()
            && let Some(ipv6) = found.ipv6
        {
            // A pod must not be able to teach the node routes.
            lacking.deaf_to_routers = ipv6.accept_ra == 0;
            lacking.ipv6_enabled = !(ipv6.disabled && self.speaks_ipv6());
            if ipv6.link_local != LinkLocal::NotAutomatic {
                lacking.steps.push(Step::NoAutomaticLinkLocal);
            }
        }
        lacking.steps.extend(self.gateways.iter().map(|gateway| Step::Address(*gateway)));
        // The address from which a bridge with an IPv6 gateway speaks to its neighbours.
        let link_local = our_mac.filter(|_| self.speaks_ipv6()).map(|mac| Step::Address(link_local(mac)));
        lacking.steps.extend(link_local);
        // Last: a bridge of ours that is up was made whole.
        if !found.is_up() {
            lacking.steps.push(Step::Up);
        }
        lacking
    }

    fn speaks_ipv6(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway.addr().is_ipv6())
    }

    fn no_lan(&self) -> WiringError {
        WiringError::NoLanLink {
            what: "bridge",
            name: self.name.to_string(),
            remedy: "mode `l2` needs a bridge that has the link to the LAN as a port; make it, name it in `bridge`, or \
                     use mode `l2-routed`",
        }
    }

    fn checked(&self, found: Link) -> Result<Link, WiringError> {
        match found.kind.as_deref() {
            Some("bridge") => Ok(found),
            kind => {
                let kind = kind.unwrap_or("physical link").to_owned();
                Err(WiringError::NotABridge { name: self.name.to_string(), kind })
            }
        }
    }

    /// Makes the bridge, still down: it must first be told to hear no router, and to make no address of its own.
    fn create(&self, socket: &mut Socket) -> Result<Link, WiringError> {
        let (mac, mtu) = (self.mac(), self.least_mtu());
        let made = link::make(socket, &self.name, |batch| {
            link::create_bridge(batch, &self.name, mac, mtu, false);
        });
        match made? {
            Made::New(link) => Ok(link),
            Made::Refused(error, Some(present)) if error.is_present() => self.checked(present),
            Made::Refused(error, _) => Err(error.attempting(format!("create bridge {}", self.name)).into()),
        }
    }

    fn complete(&self, socket: &mut Socket, bridge: &Link, lacking: &Lacking) -> Result<(), WiringError> {
        if !lacking.deaf_to_routers {
            Sysctls::default().write(&format!("net/ipv6/conf/{}/accept_ra", self.name), "0")?;
        }
        if !lacking.ipv6_enabled {
            enable_ipv6(&self.name)?;
        }
        Ok(self.carry_out(socket, &lacking.steps, bridge.index)?)
    }

    /// Another pod's ADD may be doing the same at the same time: what is there already is as good.
    fn carry_out(&self, socket: &mut Socket, steps: &[Step], index: u32) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        for step in steps {
            step.write(&mut batch, index);
        }
        let harmful =
            |failure: &Failure| !failure.error.is_present() && !steps[failure.index].may_fail(&failure.error);
        match socket.execute(&mut batch)?.into_iter().find(harmful) {
            None => Ok(()),
            Some(failure) => {
                Err(failure.error.attempting(format!("{} on bridge {}", steps[failure.index], self.name)))
            }
        }
    }
}

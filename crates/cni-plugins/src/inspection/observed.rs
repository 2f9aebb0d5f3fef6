//! What the kernel holds in one namespace, read once.

use cni_spec::CniError;
use kernel::address::{self, Address};
use kernel::link::{self, Link};
use kernel::neighbour::{self, Neighbour};
use kernel::netlink::{Protocol, Socket};
use kernel::route::{self, Family, Filter, Route};

use crate::failure::kernel_refused;

/// One side of a pod's link: the node, or the pod.
pub(crate) struct Side {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
    /// What it answers for.
    pub(crate) proxied: Vec<Neighbour>,
}

impl Side {
    /// Reads the calling thread's namespace.
    pub(crate) fn observe() -> Result<Self, CniError> {
        let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
        let mut routes = route::dump(&mut socket, Family::V4, Filter::default()).map_err(kernel_refused)?;
        routes.extend(route::dump(&mut socket, Family::V6, Filter::default()).map_err(kernel_refused)?);
        Ok(Self {
            links: link::dump(&mut socket).map_err(kernel_refused)?,
            addresses: address::dump(&mut socket).map_err(kernel_refused)?,
            routes,
            neighbours: neighbour::dump(&mut socket, false).map_err(kernel_refused)?,
            proxied: neighbour::dump(&mut socket, true).map_err(kernel_refused)?,
        })
    }

    /// The link of this name.
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

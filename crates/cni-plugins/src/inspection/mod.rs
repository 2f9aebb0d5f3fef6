//! What the kernel holds of a pod's link, and how that differs from a link plan: for CHECK of every plugin.

mod observed;
mod step;

pub(crate) use observed::Side;
pub(crate) use step::{Place, difference, gateway_difference};

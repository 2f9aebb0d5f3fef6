//! The plugin of type `hostgw`: link, addresses, routes, host ports and bandwidth of a pod in one process.

mod add;
mod check;
mod del;
mod facts;
mod formed;
mod gateway;
mod gc;
mod intent;
mod leased;
mod make_way;
mod status;
mod survey;

pub(crate) use add::add;
pub(crate) use check::check;
pub(crate) use del::del;
pub(crate) use gc::gc;
pub(crate) use status::status;

//! Host ports: elements of maps in the table `inet hostgw_hostport`.

mod listener;

use attachment::Record;
use cni_spec::CniError;

pub(crate) use listener::refuse_listened;

pub(crate) fn publish(_record: &Record) -> Result<(), CniError> {
    Ok(())
}
pub(crate) fn withdraw(_record: &Record) -> Result<(), CniError> {
    Ok(())
}
pub(crate) fn missing(_record: &Record) -> Result<Vec<String>, CniError> {
    Ok(vec![])
}

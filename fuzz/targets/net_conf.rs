//! A network configuration, as every verb reads it: a value that holds what it promises, or a short error.
#![no_main]

use cni_spec::{BaseConf, CniError, NetConf, SpecVersion, StatusConf, StoreConf, version_report};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn short(error: &CniError) {
    assert!(error.msg.len() < 2_000, "{}", error.msg);
    assert!(serde_json::from_str::<Value>(&error.to_json(SpecVersion::NEWEST)).is_ok());
}

fuzz_target!(|bytes: &[u8]| {
    match NetConf::parse(bytes) {
        Ok(conf) => {
            // DEL and STATUS read less, so they accept whatever ADD does.
            assert!(StoreConf::parse(bytes).is_ok_and(|store| store.data_dir == conf.ipam.data_dir));
            assert!(conf.base.cni_version < SpecVersion::V1_1_0 || StatusConf::parse(bytes).is_ok());
            for range in conf.ipam.range_sets.ranges() {
                assert!(range.size() > 0 && range.contains(range.start()) && range.contains(range.end()));
            }
            assert!(conf.routes.iter().all(|route| conf.ipam.range_sets.has_family(route.family())));
        }
        Err(error) => short(&error),
    }
    if let Err(error) = BaseConf::parse(bytes).and_then(|base| base.prev_result()) {
        short(&error);
    }
    for error in [StoreConf::parse(bytes).err(), StatusConf::parse(bytes).err()].iter().flatten() {
        short(error);
    }
    assert!(serde_json::from_str::<Value>(&version_report(bytes)).is_ok());
});

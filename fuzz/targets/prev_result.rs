//! A result in each version: what was read and can be said in a version is read back from it unchanged.
#![no_main]

use cni_spec::{AttachResult, SpecVersion};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for version in SpecVersion::ALL {
        let result = match AttachResult::from_json(bytes, version) {
            Ok(result) => result,
            Err(error) => {
                assert!(error.msg.len() < 2_000, "{}", error.msg);
                continue;
            }
        };
        for other in SpecVersion::ALL {
            let json = result.to_json(other).expect("a result that was read can be written");
            let again = AttachResult::from_json(json.as_bytes(), other).expect("what was written is read");
            assert_eq!(again, *result.carried_by(other), "{version} as {other}: {json}");
        }
    }
});

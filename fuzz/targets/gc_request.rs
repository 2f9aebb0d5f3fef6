//! GC's list: a missing or unreadable one is an error, and never an empty one.
#![no_main]

use cni_spec::GcRequest;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = GcRequest::parse(bytes) else { return };
    let conf: Value = serde_json::from_slice(bytes).expect("what was accepted is JSON");
    let given = |key: &str| conf[key].as_array().map(Vec::len);
    let listed = given("cni.dev/valid-attachments").or_else(|| given("cni.dev/attachments"));
    assert_eq!(listed, Some(request.valid.len()));
});

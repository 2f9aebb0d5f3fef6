//! GC's list: a missing or unreadable one is an error, and never an empty one.
#![no_main]

use cni_spec::GcRequest;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = GcRequest::parse(bytes) else { return };
    let conf: Value = serde_json::from_slice(bytes).expect("what was accepted is JSON");
    // Keys are read in any case, as Go reads them: one list at least is the one that was taken.
    let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let lists = conf.as_object().into_iter().flatten();
    let lists = lists.filter(|(key, _)| keys.iter().any(|known| known.eq_ignore_ascii_case(key)));
    let mut lengths = lists.filter_map(|(_, list)| list.as_array().map(Vec::len));
    assert!(lengths.any(|length| length == request.valid.len()), "{request:?}");
});

//! A kubeconfig: access to a server, or a short error. Files that it names are read as far as they are there.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = agent::check_kubeconfig("/nonexistent/kubeconfig".as_ref(), bytes) {
        assert!(error.to_string().len() < 4_000, "{error}");
    }
});

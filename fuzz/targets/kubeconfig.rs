//! A kubeconfig: access to a server, or an error that can be told. Files that it names are read as far as they are there.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = agent::check_kubeconfig("/nonexistent/kubeconfig".as_ref(), bytes) {
        assert!(!error.to_string().is_empty());
    }
});

//! A line of a watch of Nodes: an event, or an error that can be told.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = agent::check_watch_line(bytes) {
        assert!(!error.to_string().is_empty());
    }
});

//! A call's environment: one variable a line, `CNI_ARGS` among them.
#![no_main]

use cni_spec::{CallEnvironment, CniArgs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = CniArgs::parse(&text) {
        assert!(error.msg.len() < 2_000, "{}", error.msg);
    }
    let look_up = |wanted: &str| {
        let mut variables = text.lines().filter_map(|line| line.split_once('='));
        variables.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
    };
    match CallEnvironment::read(look_up) {
        Ok(environment) => {
            // The attachment becomes the name of a file.
            if let Some(attachment) = environment.attachment() {
                let name = attachment.to_string();
                assert!(name.len() < 256 && !name.starts_with('.') && !name.contains(['/', '\0']));
            }
        }
        Err(error) => assert!(error.msg.len() < 2_000, "{}", error.msg),
    }
});

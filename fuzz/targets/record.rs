//! An attachment record as it lies on disk: what is read is written and read back unchanged.
#![no_main]

use attachment::{Claim, Entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::decode(bytes.to_vec()) else { return };
    for claim in entry.record.claims() {
        // A claim is the name of a file.
        let name = claim.to_string();
        assert!(!name.contains(['/', '\0']) && name.parse::<Claim>() == Ok(claim));
    }
    let encoded = entry.record.encode().expect("a record that was read can be written");
    let again = Entry::decode(encoded).expect("what was written is read");
    assert_eq!(again.record, entry.record);
});

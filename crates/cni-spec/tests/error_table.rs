//! docs/errors.md lists exactly the codes that there are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use cni_spec::ErrorCode;

#[test]
fn the_documented_codes_are_those_of_the_enum_and_each_says_when() {
    let page = include_str!("../../../docs/errors.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
        let code: u16 = cells.next()?.parse().ok()?;
        let (name, when) = (cells.next()?.to_owned(), cells.next()?);
        assert!(!when.is_empty(), "{line}");
        Some((code, name))
    });
    let documented: Vec<(u16, String)> = rows.collect();
    let known: Vec<(u16, String)> =
        ErrorCode::ALL.iter().map(|code| (code.number(), format!("{code:?}"))).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_list_of_all_codes_leaves_none_out() {
    // A new variant has to be put into this match, and then into the list.
    let place = |code: ErrorCode| match code {
        ErrorCode::IncompatibleVersion => 0,
        ErrorCode::UnsupportedField => 1,
        ErrorCode::UnknownContainer => 2,
        ErrorCode::InvalidEnvironment => 3,
        ErrorCode::Io => 4,
        ErrorCode::Decode => 5,
        ErrorCode::InvalidNetworkConfig => 6,
        ErrorCode::InvalidNetworkNamespace => 7,
        ErrorCode::TryAgainLater => 8,
        ErrorCode::NotAvailable => 9,
        ErrorCode::NotAvailableLimitedConnectivity => 10,
        ErrorCode::RangeExhausted => 11,
        ErrorCode::InterfaceExists => 12,
        ErrorCode::HostPortTaken => 13,
        ErrorCode::KernelRefused => 14,
        ErrorCode::AttachmentExists => 15,
        ErrorCode::AddressTaken => 16,
        ErrorCode::CheckFailed => 17,
        ErrorCode::Internal => 18,
        // Another plugin's, in no list of ours.
        ErrorCode::Foreign(_) => usize::MAX,
    };
    assert!(ErrorCode::ALL.iter().enumerate().all(|(index, code)| place(*code) == index));
}

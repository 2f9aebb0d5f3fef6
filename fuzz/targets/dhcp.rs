//! Frames from a hostile DHCP server: none makes the client panic, linger, or take what it did not ask for.
#![no_main]

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcp_client::{Exchange, Goal, Identity, Message, Next, Terms, parse_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frames: Vec<Vec<u8>>| {
    let identity = Identity {
        mac: [2, 0, 0, 0, 0, 9],
        client_id: vec![0, 1],
        provided: Vec::new(),
        requested: vec![1, 3, 121],
        subnet: None,
    };
    let patience = Duration::from_secs(20);
    let mut exchange = Exchange::new(identity, Goal::Acquire { wished: None }, Duration::ZERO, patience, 7);
    let xid = exchange.xid().to_be_bytes();
    let mut now = Duration::ZERO;
    let mut frames = frames.into_iter();
    loop {
        match exchange.next(now) {
            Next::Send(_) => {}
            Next::Wait(until) => now = until,
            Next::GiveUp(_) => break,
        }
        let Some(mut frame) = frames.next() else { continue };
        if let Some((_, payload)) = parse_frame(&frame) {
            let _heard = exchange.receive(payload, now);
        }
        // The number is not for a fuzzer to guess.
        if let Some(number) = frame.get_mut(4..8) {
            number.copy_from_slice(&xid);
        }
        if let Ok(message) = Message::decode(&frame)
            && let Ok(terms) = Terms::of(&message, None)
        {
            assert!(terms.renew_seconds <= terms.rebind_seconds && terms.rebind_seconds <= terms.lease_seconds);
            assert_ne!(terms.router, Some(terms.address.addr()));
            assert_ne!(terms.address.addr(), Ipv4Addr::UNSPECIFIED);
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        if exchange.receive(&frame, now).is_some() {
            break;
        }
    }
});

//! Datagrams that claim to be the kernel's, and every object that is read from them.
#![no_main]

use kernel::netlink::{Attributes, Replies, Reply};
use kernel::{address::Address, conntrack, link::Link, neighbour::Neighbour, route::Route};
use libfuzzer_sys::fuzz_target;

fn read(payload: &[u8]) {
    for attribute in Attributes::new(payload) {
        let _ = (attribute.u8(), attribute.u16(), attribute.u32(), attribute.be16(), attribute.be64());
        let _ = (attribute.text(), attribute.ip(), attribute.mac(), attribute.nested().count());
    }
    let _ = (Link::parse(payload), Address::parse(payload), Neighbour::parse(payload));
    let _ = conntrack::Flow::parse(payload);
    if let Some(route) = Route::parse(payload) {
        let _ = route.to_string();
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    for (_, _, reply) in Replies::new(bytes) {
        if let Reply::Object { payload, .. } = reply {
            read(payload);
        }
    }
});

//! The store within one process.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

#[path = "../fixture/mod.rs"]
mod fixture;

mod damage;
mod lock;
mod model;
mod reclaim;
mod reserve;

fn claim(text: &str) -> attachment::Claim {
    text.parse().unwrap()
}

fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

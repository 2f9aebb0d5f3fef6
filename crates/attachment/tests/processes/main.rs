//! The store between processes: killed at any instant, many at once, on a full disk, at any size.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test's helper fails by panicking, as the test does")]

mod child;

#[path = "../fixture/mod.rs"]
mod fixture;

mod concurrency;
mod crash;
mod disk;
mod growth;

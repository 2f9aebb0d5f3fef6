//! hostgw
fn main() {}

//! hostgw-cni
fn main() {}

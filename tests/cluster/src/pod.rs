//! What runs in the test's pods, and asks them: a server that tells who it is and which source address it saw, a client,
//! and a stream that counts what is lost.

pub mod ask;
pub mod serve;
pub mod stream;

/// TCP and UDP port of the server.
pub const PORT: u16 = 8080;
/// Where a pod's own stream tells its counts, on the pod's loopback address.
pub const COUNTS_PORT: u16 = 8081;

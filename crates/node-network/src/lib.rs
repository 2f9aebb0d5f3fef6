//! node-network

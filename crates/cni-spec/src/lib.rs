//! cni-spec

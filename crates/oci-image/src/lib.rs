//! An OCI image made of static programs and nothing else, as one file that `ctr images import`, `skopeo` and `crane`
//! take; and the bill of materials of those programs. Equal input gives equal bytes: no clock, no user, no machine.

mod elf;
mod error;
pub mod image;
mod layer;
pub mod layout;
pub mod sbom;

pub use elf::Architecture;
pub use error::ImageError;

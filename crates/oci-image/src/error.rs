//! What can be wrong with what an image is to be made of.

use std::io;
use std::path::PathBuf;

/// Why there is no image or no bill of materials.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read or written.
    #[error("failed to {attempted} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program would not start in an image that holds nothing else.
    #[error("cannot put {} into an image: {reason}", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// `--program` is not `NAME=FILE`.
    #[error("`{0}` does not say which program: write NAME=FILE, such as hostgw=target/release/hostgw")]
    Argument(String),
    /// Two files would have one name.
    #[error("the image would hold two files named /{0}: give each program a name of its own")]
    TwoOfOneName(String),
    /// The output of `cargo metadata` does not hold what it should.
    #[error("cannot make a bill of materials: {0}")]
    Metadata(String),
    /// A document cannot be written as JSON.
    #[error("failed to encode JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The archive cannot be written.
    #[error("failed to write an archive: {0}")]
    Archive(#[from] io::Error),
}

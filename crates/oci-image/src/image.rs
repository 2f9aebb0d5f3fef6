//! What an image is made of, checked: programs that start with nothing beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::elf::static_program;
use crate::{Architecture, ImageError};

/// `NAME=FILE` of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramArgument {
    /// Its name in the image's root folder.
    pub name: String,
    /// Where it is now.
    pub file: PathBuf,
}

impl FromStr for ProgramArgument {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let wrong = || ImageError::Argument(text.to_owned());
        let (name, file) = text.split_once('=').ok_or_else(wrong)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) || file.is_empty() {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), file: file.into() })
    }
}

/// A program that is known to be static.
#[derive(Debug)]
pub struct Program {
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

/// All that is in an image.
#[derive(Debug)]
pub struct Image {
    /// The reference under which a runtime knows it, such as `localhost/hostgw:0.1.0`.
    pub(crate) reference: String,
    /// The command, the name of a program first.
    pub(crate) entrypoint: Vec<String>,
    /// `org.opencontainers.image.*`, by its last part.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) programs: Vec<Program>,
    pub(crate) architecture: Architecture,
}

impl Image {
    /// Reads the programs and refuses those that could not start. The first is the entry point.
    /// `labels` are `org.opencontainers.image.*`, by their last part.
    pub fn read(
        reference: &str,
        programs: &[ProgramArgument],
        labels: Vec<(String, String)>,
    ) -> Result<Self, ImageError> {
        let mut architecture = None;
        let mut read = Vec::new();
        for argument in programs {
            let contents = read_file(&argument.file)?;
            let refused = |reason: String| ImageError::Program { path: argument.file.clone(), reason };
            let found = static_program(&contents).map_err(refused)?;
            if *architecture.get_or_insert(found) != found {
                return Err(refused(format!("it is for {}, the others are not", found.as_str())));
            }
            read.push(Program { name: argument.name.clone(), contents });
        }
        let (Some(architecture), Some(first)) = (architecture, programs.first()) else {
            return Err(ImageError::Argument(String::new()));
        };
        read.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = read.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ImageError::TwoOfOneName(pair[0].name.clone()));
        }
        Ok(Self {
            reference: reference.to_owned(),
            entrypoint: vec![format!("/{}", first.name)],
            labels,
            programs: read,
            architecture,
        })
    }
}

/// Reads a file whole.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::File { attempted: "read", path: path.to_owned(), source })
}

/// Writes a file whole.
pub fn write_file(path: &Path, contents: &[u8]) -> Result<(), ImageError> {
    fs::write(path, contents).map_err(|source| ImageError::File {
        attempted: "write",
        path: path.to_owned(),
        source,
    })
}

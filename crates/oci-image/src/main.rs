//! The `oci-image` program: `build` and `sbom`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oci_image::image::{Image, ProgramArgument, read_file, write_file};
use oci_image::sbom::{self, Library};
use oci_image::{ImageError, layout};

/// Build an OCI image of static programs, and its bill of materials, without a container engine.
#[derive(Debug, Parser)]
#[command(name = "oci-image", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write an image, as an OCI layout in one archive, and print its digest.
    Build {
        /// The reference under which a runtime knows it.
        #[arg(long, value_name = "REFERENCE")]
        name: String,
        /// A program and its name in the image; the first one is what the image starts. Can be repeated.
        #[arg(long = "program", value_name = "NAME=FILE", required = true)]
        programs: Vec<ProgramArgument>,
        /// An annotation and label, `KEY=VALUE`, such as version=0.1.0 for org.opencontainers.image.version.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write the bill of materials (CycloneDX 1.6, JSON) of packages, from the output of `cargo metadata`.
    Sbom {
        /// The output of `cargo metadata --format-version 1 --locked --filter-platform TARGET`.
        #[arg(long, value_name = "FILE")]
        metadata: PathBuf,
        /// A package of the workspace whose program is in the image. Can be repeated.
        #[arg(long = "package", value_name = "NAME", required = true)]
        packages: Vec<String>,
        /// What the programs carry and cargo does not know, such as glibc@2.41=LGPL-2.1-or-later. Can be repeated.
        #[arg(long = "library", value_name = "NAME@VERSION=LICENSE")]
        libraries: Vec<Library>,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails.
            let _ = writeln!(std::io::stderr(), "oci-image: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), ImageError> {
    match command {
        Command::Build { name, programs, labels, out } => {
            let archive = layout::render(&Image::read(&name, &programs, labels)?)?;
            write_file(&out, &archive.bytes)?;
            writeln!(std::io::stdout(), "{}", archive.manifest_digest).map_err(ImageError::Archive)
        }
        Command::Sbom { metadata, packages, libraries, out } => {
            let text = String::from_utf8_lossy(&read_file(&metadata)?).into_owned();
            write_file(&out, &sbom::bill(&text, &packages, &libraries)?)
        }
    }
}

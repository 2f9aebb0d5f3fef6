//! What an ELF header says of a program: its architecture, and whether it needs anything but the kernel.

/// An architecture, by the name that images give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `x86_64`.
    Amd64,
    /// `aarch64`.
    Arm64,
}

impl Architecture {
    /// The name in an image (`GOARCH`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// Offsets of ELF-64's header and program header fields (`elf.h`).
const E_MACHINE: usize = 18;
const E_PHOFF: usize = 32;
const E_PHENTSIZE: usize = 54;
const E_PHNUM: usize = 56;
const PT_INTERP: u32 = 3;

/// The architecture of a static 64-bit program, or what is wrong with it.
pub(crate) fn static_program(file: &[u8]) -> Result<Architecture, String> {
    // Class 2: 64 bits; data 1: little endian.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit little-endian ELF program".to_owned());
    }
    let cut = || "its ELF header is cut off".to_owned();
    let architecture = match number::<2>(file, E_MACHINE).ok_or_else(cut)? {
        62 => Architecture::Amd64,
        183 => Architecture::Arm64,
        other => return Err(format!("its ELF machine {other} is neither x86_64 (62) nor aarch64 (183)")),
    };
    let first = number::<8>(file, E_PHOFF).ok_or_else(cut)?;
    let size = number::<2>(file, E_PHENTSIZE).ok_or_else(cut)?;
    let count = number::<2>(file, E_PHNUM).ok_or_else(cut)?;
    for index in 0..count {
        let at = first.checked_add(index * size).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
        if number::<4>(file, at).ok_or_else(cut)? == u64::from(PT_INTERP) {
            return Err("it asks for a dynamic linker, and the image has none: build it statically \
                        (docs/decisions/0002-static-non-pie.md)"
                .to_owned());
        }
    }
    Ok(architecture)
}

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(file: &[u8], at: usize) -> Option<u64> {
    let bytes = file.get(at..at.checked_add(N)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with one program header of this kind.
    fn program(machine: u8, header: u8) -> Vec<u8> {
        let mut file = vec![0; 120];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[E_MACHINE] = machine;
        file[E_PHOFF] = 64;
        file[E_PHENTSIZE] = 56;
        file[E_PHNUM] = 1;
        file[64] = header;
        file
    }

    #[test]
    fn a_static_program_tells_its_architecture() {
        assert_eq!(static_program(&program(62, 1)), Ok(Architecture::Amd64));
        assert_eq!(static_program(&program(183, 1)), Ok(Architecture::Arm64));
    }

    #[test]
    fn a_program_that_would_not_start_alone_is_refused_with_the_reason() {
        assert!(static_program(&program(62, 3)).unwrap_err().contains("dynamic linker"));
        assert!(static_program(&program(40, 1)).unwrap_err().contains("machine 40"));
        assert!(static_program(b"#!/bin/sh\n").unwrap_err().contains("no 64-bit"));
        assert!(static_program(&program(62, 1)[..60]).unwrap_err().contains("cut off"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = b"\x7fELF\x02\x01".to_vec();
            file.extend(tail);
            let _ = static_program(&file);
        }
    }
}

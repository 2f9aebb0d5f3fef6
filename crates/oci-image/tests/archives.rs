//! Two builds of one image are one file, and what is in it is what its digests say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use oci_image::image::{Image, ProgramArgument};
use oci_image::layout::{Archive, render};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The smallest file that passes for a static program of this machine number.
fn program(folder: &Path, name: &str, machine: u8) -> ProgramArgument {
    let mut file = vec![0; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18] = machine;
    file.extend(name.bytes());
    let path = folder.join(name);
    std::fs::write(&path, file).unwrap();
    format!("{name}={}", path.display()).parse().unwrap()
}

fn build(programs: &[ProgramArgument]) -> Archive {
    let labels = vec![("version".to_owned(), "1".to_owned())];
    render(&Image::read("registry.example/hostgw:1", programs, labels).unwrap()).unwrap()
}

fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    tar::Archive::new(archive)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            (entry.path().unwrap().display().to_string(), contents)
        })
        .collect()
}

fn blob(files: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let contents = &files[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(format!("sha256:{:x}", Sha256::digest(contents)), digest);
    assert_eq!(contents.len() as u64, descriptor["size"].as_u64().unwrap());
    contents.clone()
}

#[test]
fn equal_programs_from_other_places_and_of_other_age_give_equal_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = build(&[program(one.path(), "hostgw", 62), program(one.path(), "hostgw-cni", 62)]);
    let second = [program(other.path(), "hostgw", 62), program(other.path(), "hostgw-cni", 62)];
    let old = std::time::SystemTime::UNIX_EPOCH;
    std::fs::File::open(&second[0].file).unwrap().set_modified(old).unwrap();
    let second = build(&second);
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(first.manifest_digest, second.manifest_digest);
}

#[test]
fn every_digest_holds_and_the_layer_holds_the_programs_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let archive = build(&[program(folder.path(), "hostgw", 183), program(folder.path(), "hostgw-cni", 183)]);
    let files = files(&archive.bytes);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let named = &index["manifests"][0];
    assert_eq!(named["digest"], archive.manifest_digest.as_str());
    assert_eq!(named["annotations"]["io.containerd.image.name"], "registry.example/hostgw:1");
    let manifest: Value = serde_json::from_slice(&blob(&files, named)).unwrap();
    let config: Value = serde_json::from_slice(&blob(&files, &manifest["config"])).unwrap();
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["config"]["Entrypoint"][0], "/hostgw");

    let mut layer = Vec::new();
    flate2::read::GzDecoder::new(blob(&files, &manifest["layers"][0]).as_slice())
        .read_to_end(&mut layer)
        .unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{:x}", Sha256::digest(&layer)).as_str());
    let names: Vec<String> = self::files(&layer).into_keys().collect();
    assert_eq!(names, ["hostgw", "hostgw-cni"]);
}

#[test]
fn programs_of_two_architectures_and_two_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mixed = [program(folder.path(), "a", 62), program(folder.path(), "b", 183)];
    assert!(Image::read("x:1", &mixed, Vec::new()).unwrap_err().to_string().contains("arm64"));
    let twice = [program(folder.path(), "a", 62), program(folder.path(), "a", 62)];
    assert!(Image::read("x:1", &twice, Vec::new()).unwrap_err().to_string().contains("/a"));
    assert!("a/b=c".parse::<ProgramArgument>().is_err());
}

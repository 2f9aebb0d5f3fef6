//! The bill of materials, as CycloneDX 1.6: every crate that is linked into the programs, from `cargo metadata`, and the
//! libraries of which cargo does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ImageError;

/// The part of `cargo metadata --format-version 1` that matters here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// Nothing for what is linked; `build` or `dev` for what is not.
    kind: Option<String>,
}

/// A library that a static program carries and that is no crate: the C library, Rust's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    name: String,
    version: String,
    /// An SPDX expression.
    license: String,
}

impl FromStr for Library {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(what, license)| {
            let (name, version) = what.split_once('@')?;
            Some(Self { name: name.to_owned(), version: version.to_owned(), license: license.to_owned() })
        });
        parts
            .filter(|library| {
                ![&library.name, &library.version, &library.license].iter().any(|part| part.is_empty())
            })
            .ok_or_else(|| "write NAME@VERSION=LICENSE, such as glibc@2.41=LGPL-2.1-or-later".to_owned())
    }
}

impl Library {
    fn purl(&self) -> String {
        format!("pkg:generic/{}@{}", self.name, self.version.replace('+', "%2B"))
    }
}

/// Writes the bill of `roots`, names of workspace packages, with all that is linked into them, and the `libraries` that each
/// carries besides. What only builds or tests them is left out.
pub fn bill(metadata: &str, roots: &[String], libraries: &[Library]) -> Result<Vec<u8>, ImageError> {
    let metadata: Metadata = serde_json::from_str(metadata).map_err(|error| {
        ImageError::Metadata(format!("the output of cargo metadata is not read: {error}"))
    })?;
    let resolve = metadata.resolve.ok_or_else(|| {
        ImageError::Metadata("cargo metadata was told --no-deps: let it resolve".to_owned())
    })?;
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let linked: BTreeMap<&str, BTreeSet<&str>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let is_linked =
                |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            (
                node.id.as_str(),
                node.deps.iter().filter(is_linked).map(|dependency| dependency.pkg.as_str()).collect(),
            )
        })
        .collect();

    let mut waiting = Vec::new();
    for root in roots {
        let own = |package: &&Package| package.name == *root && package.source.is_none();
        let package = metadata.packages.iter().find(own).ok_or_else(|| {
            ImageError::Metadata(format!("the workspace has no package `{root}`: name one that it has"))
        })?;
        waiting.push(package.id.as_str());
    }
    let version =
        waiting.first().and_then(|id| packages.get(id)).map_or("", |package| package.version.as_str());
    let mut reached = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(linked.get(id).into_iter().flatten());
        }
    }

    let described: Vec<(&Package, String)> =
        reached.iter().filter_map(|id| packages.get(id)).map(|package| (*package, purl(package))).collect();
    let name_of: BTreeMap<&str, &str> =
        described.iter().map(|(package, purl)| (package.id.as_str(), purl.as_str())).collect();
    let mut components: Vec<Value> =
        described.iter().map(|(package, purl)| component(package, purl)).collect();
    components.extend(libraries.iter().map(|library| {
        described_as(&library.purl(), &library.name, &library.version, Some(&library.license))
    }));
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let mut dependencies: Vec<Value> = described
        .iter()
        .map(|(package, purl)| {
            let crates = linked.get(package.id.as_str()).into_iter().flatten();
            let crates = crates.filter_map(|id| name_of.get(id).map(|purl| (*purl).to_owned()));
            let is_root = package.source.is_none() && roots.contains(&package.name);
            let carried = libraries.iter().filter(|_| is_root).map(Library::purl);
            json!({"ref": purl, "dependsOn": crates.chain(carried).collect::<BTreeSet<_>>()})
        })
        .chain(libraries.iter().map(|library| json!({"ref": library.purl(), "dependsOn": []})))
        .collect();
    dependencies.sort_by_key(|dependency| dependency["ref"].to_string());
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "hostgw", "version": version}},
        "components": components,
        "dependencies": dependencies,
    });
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The package URL, which is the same on every machine; the id of a package of ours holds a path.
fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"))
}

fn component(package: &Package, purl: &str) -> Value {
    // Cargo still takes the slash of old manifests, which SPDX does not know.
    let license = package.license.as_ref().map(|license| license.replace('/', " OR "));
    described_as(purl, &package.name, &package.version, license.as_deref())
}

fn described_as(purl: &str, name: &str, version: &str, license: Option<&str>) -> Value {
    let mut component =
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl});
    if let Some(license) = license {
        component["licenses"] = json!([{"expression": license}]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "packages": [
            {"id": "path+file:///a#hostgw@0.1.0", "name": "hostgw", "version": "0.1.0", "license": "Apache-2.0", "source": null},
            {"id": "r#linked@1.0.0", "name": "linked", "version": "1.0.0+x", "license": "MIT/Apache-2.0", "source": "registry+r"},
            {"id": "r#tests@2.0.0", "name": "tests", "version": "2.0.0", "license": "MIT", "source": "registry+r"}
        ],
        "resolve": {"nodes": [
            {"id": "path+file:///a#hostgw@0.1.0", "deps": [
                {"pkg": "r#linked@1.0.0", "dep_kinds": [{"kind": null}]},
                {"pkg": "r#tests@2.0.0", "dep_kinds": [{"kind": "dev"}]}
            ]},
            {"id": "r#linked@1.0.0", "deps": []},
            {"id": "r#tests@2.0.0", "deps": []}
        ]}
    }"#;

    #[test]
    fn what_is_linked_is_listed_with_its_licence_and_what_only_tests_is_not() {
        let bill: Value =
            serde_json::from_slice(&bill(METADATA, &["hostgw".to_owned()], &[]).unwrap()).unwrap();
        let names: Vec<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["hostgw", "linked"]);
        assert_eq!(bill["components"][1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][1]["purl"], "pkg:cargo/linked@1.0.0%2Bx");
        assert_eq!(bill["dependencies"][0]["dependsOn"][0], "pkg:cargo/linked@1.0.0%2Bx");
    }

    #[test]
    fn libraries_that_are_no_crates_stand_in_it_and_the_program_depends_on_them() {
        let libc: Library = "glibc@2.41=LGPL-2.1-or-later".parse().unwrap();
        let bill: Value =
            serde_json::from_slice(&bill(METADATA, &["hostgw".to_owned()], &[libc]).unwrap()).unwrap();
        let found = &bill["components"][2];
        assert_eq!((&found["purl"], &found["version"]), (&json!("pkg:generic/glibc@2.41"), &json!("2.41")));
        assert_eq!(found["licenses"][0]["expression"], "LGPL-2.1-or-later");
        assert_eq!(bill["dependencies"][0]["dependsOn"][1], "pkg:generic/glibc@2.41");
        assert_eq!(bill["dependencies"][1]["dependsOn"], json!([]));
        for text in ["glibc", "glibc@2.41", "glibc@=LGPL", "@1=MIT", "glibc@1="] {
            assert!(text.parse::<Library>().unwrap_err().contains("NAME@VERSION=LICENSE"), "{text}");
        }
    }

    #[test]
    fn no_path_of_the_machine_stands_in_it() {
        let bill = String::from_utf8(bill(METADATA, &["hostgw".to_owned()], &[]).unwrap()).unwrap();
        assert!(!bill.contains("file://"), "{bill}");
    }

    #[test]
    fn a_package_that_is_not_there_is_named() {
        let error = bill(METADATA, &["nobody".to_owned()], &[]).unwrap_err();
        assert!(error.to_string().contains("`nobody`"), "{error}");
    }
}

//! The bill of materials: every crate that is linked into the programs, from `cargo metadata`, as CycloneDX 1.6.

use std::collections::{BTreeMap, BTreeSet};

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

/// Writes the bill of `roots`, names of workspace packages, with all that is linked into them. What only builds or tests
/// them is left out.
pub fn bill(metadata: &str, roots: &[String]) -> Result<Vec<u8>, ImageError> {
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
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let mut dependencies: Vec<Value> = described
        .iter()
        .map(|(package, purl)| {
            let on: BTreeSet<&str> = linked
                .get(package.id.as_str())
                .into_iter()
                .flatten()
                .filter_map(|id| name_of.get(id).copied())
                .collect();
            json!({"ref": purl, "dependsOn": on})
        })
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
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    });
    if let Some(license) = &package.license {
        // Cargo still takes the slash of old manifests, which SPDX does not know.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
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
        let bill: Value = serde_json::from_slice(&bill(METADATA, &["hostgw".to_owned()]).unwrap()).unwrap();
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
    fn no_path_of_the_machine_stands_in_it() {
        let bill = String::from_utf8(bill(METADATA, &["hostgw".to_owned()]).unwrap()).unwrap();
        assert!(!bill.contains("file://"), "{bill}");
    }

    #[test]
    fn a_package_that_is_not_there_is_named() {
        let error = bill(METADATA, &["nobody".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("`nobody`"), "{error}");
    }
}

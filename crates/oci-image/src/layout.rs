//! The file formats: an OCI image layout (image-spec 1.1, image-layout.md) in one archive.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::ImageError;
use crate::image::Image;
use crate::layer::{self, append};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Readers insist on times; this one says that there is none.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// An image as an archive, and the digest by which it is pinned.
#[derive(Debug)]
pub struct Archive {
    /// An OCI image layout.
    pub bytes: Vec<u8>,
    /// `sha256:…` of the manifest: what a registry will call it.
    pub manifest_digest: String,
}

/// Renders the image.
pub fn render(image: &Image) -> Result<Archive, ImageError> {
    let layer = layer::pack(&image.programs)?;
    let labels: BTreeMap<String, &str> = image
        .labels
        .iter()
        .map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.as_str()))
        .collect();
    let config = serde_json::to_vec(&json!({
        "created": NO_TIME,
        "architecture": image.architecture.as_str(),
        "os": "linux",
        "config": {"Entrypoint": image.entrypoint, "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": NO_TIME, "created_by": "oci-image"}],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer.blob)],
        "annotations": labels,
    }))?;
    let mut named = descriptor(MANIFEST, &manifest);
    // The first is containerd's, the second everybody's, which holds the tag only.
    named["annotations"] = json!({
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": tag(&image.reference),
    });
    named["platform"] = json!({"architecture": image.architecture.as_str(), "os": "linux"});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [named],
    }))?;

    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut archive, "index.json", &index)?;
    for blob in [&manifest, &config, &layer.blob] {
        append(&mut archive, &format!("blobs/sha256/{}", hexadecimal(blob)), blob)?;
    }
    Ok(Archive { bytes: archive.into_inner()?, manifest_digest: digest(&manifest) })
}

/// `sha256:` and the hash in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// What stands behind the colon of a reference; a colon before the last slash is a port.
fn tag(reference: &str) -> &str {
    let name = reference.rsplit_once('/').map_or(reference, |(_, name)| name);
    name.split_once(':').map_or("latest", |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(tag("localhost:5000/a/hostgw:0.1.0"), "0.1.0");
        assert_eq!(tag("registry:5000/hostgw"), "latest");
        assert_eq!(tag("hostgw"), "latest");
    }
}

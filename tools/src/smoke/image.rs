//! The content that smoke pushes: a small image and a referrer.
//!
//! Owns: the documents (image-spec: config, manifest; an artifact manifest with a subject) and their digests.
//! Refuses: runnable images; the layers are random bytes.

use bytes::Bytes;
use serde_json::json;
use tonnage_engine::Digest;

use super::content::Content;

/// Media type of an image manifest (image-spec).
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index, which is also what a list of referrers is.
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const ARTIFACT_TYPE: &str = "application/vnd.tonnage.smoke.v1";
/// Size in bytes of the layer that is pushed in chunks.
const CHUNKED_BYTES: u64 = 3 << 20;

/// Content with its digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    /// Its name in messages.
    pub(crate) name: &'static str,
    /// Its bytes.
    pub(crate) content: Content,
    /// Their digest.
    pub(crate) digest: Digest,
}

impl Blob {
    fn new(name: &'static str, content: Content) -> Self {
        let digest = content.digest();
        Self {
            name,
            content,
            digest,
        }
    }

    fn json(name: &'static str, document: &serde_json::Value) -> Self {
        Self::new(name, Content::Bytes(Bytes::from(document.to_string())))
    }

    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({
            "mediaType": media_type,
            "digest": self.digest.to_string(),
            "size": self.content.length(),
        })
    }
}

/// The image and its referrer.
#[derive(Debug)]
pub(crate) struct Image {
    /// Image configuration, a few hundred bytes.
    pub(crate) config: Blob,
    /// A layer to push in chunks.
    pub(crate) small: Blob,
    /// The layer of the size that was asked for.
    pub(crate) large: Blob,
    /// The image's manifest.
    pub(crate) manifest: Blob,
    /// The empty blob that the referrer lists.
    pub(crate) empty: Blob,
    /// A manifest whose subject is the image's.
    pub(crate) referrer: Blob,
}

impl Image {
    /// Generates an image whose bytes follow from the seed, and hashes it.
    pub(crate) fn make_up(seed: u64, size: u64) -> Self {
        let small = Content::Random {
            seed: seed ^ 1,
            length: CHUNKED_BYTES,
        };
        let small = Blob::new("the chunked layer", small);
        let large = Blob::new("the large layer", Content::Random { seed, length: size });
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Labels": { "seed": seed.to_string() } },
            "rootfs": {
                "type": "layers",
                "diff_ids": [small.digest.to_string(), large.digest.to_string()],
            },
        });
        let config = Blob::json("the config", &config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.descriptor(CONFIG_TYPE),
            "layers": [small.descriptor(LAYER_TYPE), large.descriptor(LAYER_TYPE)],
        });
        let manifest = Blob::json("the manifest", &manifest);
        let empty = Blob::json("the empty blob", &json!({}));
        let referrer = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": empty.descriptor(EMPTY_TYPE),
            "layers": [empty.descriptor(EMPTY_TYPE)],
            "subject": manifest.descriptor(MANIFEST_TYPE),
        });
        let referrer = Blob::json("the referrer", &referrer);
        Self {
            config,
            small,
            large,
            manifest,
            empty,
            referrer,
        }
    }

    /// Returns all blobs that are not manifests.
    pub(crate) fn blobs(&self) -> [&Blob; 4] {
        [&self.config, &self.small, &self.large, &self.empty]
    }
}

//! The JSON document of a manifest.
//!
//! Owns: [`Document`] and [`Descriptor`], with the types of all their fields, also of those that only clients use
//! (image-spec manifest.md, image-index.md, descriptor.md). Refuses: validating fields in combination (`judge`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, MapAccess};
use tonnage_engine::vocabulary::Digest;

use super::error::ManifestError;
use super::object::{Fields, List, Nullable, Object, Text, Texts};

/// The fields of an image, an index or an artifact.
#[derive(Debug, Default)]
pub(super) struct Document<'a> {
    pub(super) schema_version: Option<i64>,
    pub(super) media_type: Option<Cow<'a, str>>,
    pub(super) artifact_type: Option<Cow<'a, str>>,
    pub(super) config: Option<Descriptor<'a>>,
    pub(super) layers: Option<Vec<Descriptor<'a>>>,
    pub(super) manifests: Option<Vec<Descriptor<'a>>>,
    /// `manifests` is present and null, which Go writes for an empty list.
    pub(super) null_manifests: bool,
    pub(super) blobs: Option<Vec<Descriptor<'a>>>,
    pub(super) subject: Option<Descriptor<'a>>,
    pub(super) annotations: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    /// Layers of Docker's schema 1.
    pub(super) fs_layers: bool,
}

impl<'de> Fields<'de> for Document<'de> {
    const KNOWN: &'static [&'static str] = &[
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "blobs",
        "subject",
        "annotations",
        "fsLayers",
    ];

    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        let one = Nullable(Object::<Descriptor<'de>>::new());
        let several = Nullable(List(Object::<Descriptor<'de>>::new()));
        match field {
            "schemaVersion" => self.schema_version = map.next_value()?,
            "mediaType" => self.media_type = map.next_value_seed(Nullable(Text))?,
            "artifactType" => self.artifact_type = map.next_value_seed(Nullable(Text))?,
            "config" => self.config = map.next_value_seed(one)?,
            "layers" => self.layers = map.next_value_seed(several)?,
            "manifests" => {
                self.manifests = map.next_value_seed(several)?;
                self.null_manifests = self.manifests.is_none();
            }
            "blobs" => self.blobs = map.next_value_seed(several)?,
            "subject" => self.subject = map.next_value_seed(one)?,
            "annotations" => self.annotations = map.next_value_seed(Nullable(Texts))?,
            _ => {
                let layers = Nullable(List(Object::<Other>::new()));
                self.fs_layers = map.next_value_seed(layers)?.is_some();
            }
        }
        Ok(())
    }
}

/// The description of content that a manifest lists or refers to.
#[derive(Debug, Default)]
pub(super) struct Descriptor<'a> {
    pub(super) media_type: Option<Cow<'a, str>>,
    digest: Option<Cow<'a, str>>,
    size: Option<u64>,
    data: Option<Cow<'a, str>>,
}

impl<'de> Fields<'de> for Descriptor<'de> {
    const KNOWN: &'static [&'static str] = &[
        "mediaType",
        "digest",
        "size",
        "urls",
        "annotations",
        "data",
        "platform",
        "artifactType",
    ];

    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "mediaType" => self.media_type = map.next_value_seed(Nullable(Text))?,
            "digest" => self.digest = Some(map.next_value_seed(Text)?),
            "size" => {
                // Go's is an int64, and the specification's is not negative.
                let size = u64::try_from(map.next_value::<i64>()?);
                self.size = Some(size.map_err(|_negative| A::Error::custom("a size is negative"))?);
            }
            "urls" => drop(map.next_value_seed(Nullable(List(Text)))?),
            "annotations" => drop(map.next_value_seed(Nullable(Texts))?),
            "data" => self.data = map.next_value_seed(Nullable(Text))?,
            "platform" => {
                map.next_value_seed(Nullable(Object::<Platform>::new()))?;
            }
            _ => drop(map.next_value_seed(Nullable(Text))?),
        }
        Ok(())
    }
}

impl Descriptor<'_> {
    /// Returns its digest. Fails if the digest, the size or the embedded content is missing or invalid.
    pub(super) fn digest(&self, place: &'static str) -> Result<Digest, ManifestError> {
        let (Some(digest), Some(size)) = (&self.digest, self.size) else {
            return Err(ManifestError::Incomplete { place });
        };
        let digest: Digest = digest
            .parse()
            .map_err(|why| ManifestError::Digest { place, why })?;
        if let Some(data) = self.data.as_deref().filter(|data| !data.is_empty()) {
            let content = STANDARD.decode(data).ok();
            let same = |content: &Vec<u8>| {
                u64::try_from(content.len()) == Ok(size)
                    && Digest::of(digest.algorithm(), content) == digest
            };
            if !content.as_ref().is_some_and(same) {
                return Err(ManifestError::Data { place });
            }
        }
        Ok(digest)
    }
}

/// A platform. It is not kept, but its types are checked, because clients select content by it.
#[derive(Debug, Default)]
struct Platform;

impl<'de> Fields<'de> for Platform {
    const KNOWN: &'static [&'static str] = &[
        "architecture",
        "os",
        "os.version",
        "os.features",
        "variant",
        "features",
    ];

    fn read<A: MapAccess<'de>>(&mut self, field: &str, map: &mut A) -> Result<(), A::Error> {
        match field {
            "os.features" | "features" => drop(map.next_value_seed(Nullable(List(Text)))?),
            _ => drop(map.next_value_seed(Nullable(Text))?),
        }
        Ok(())
    }
}

/// An object whose fields are ignored.
#[derive(Debug, Default)]
struct Other;

impl<'de> Fields<'de> for Other {
    const KNOWN: &'static [&'static str] = &[];

    fn read<A: MapAccess<'de>>(&mut self, _: &str, _: &mut A) -> Result<(), A::Error> {
        Ok(())
    }
}

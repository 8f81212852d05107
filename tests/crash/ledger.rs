//! The record of what the server acknowledged and must therefore still have.
//!
//! Owns: [`Ledger`] of one pusher, and its check. Refuses: assumptions about writes without an answer or with an error.
//! They may have happened or not, but as a whole; once seen, they happened.

use std::collections::HashSet;

use hyper::StatusCode;
use tonnage_tests::content::{Content, digest_of_bytes};
use tonnage_tests::http::LastByte;
use tonnage_tests::push::Pusher;

/// The state of one pusher's repository. No other pusher writes there, so the record is complete.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The content of every blob that got its 201 and was not deleted since.
    pub blobs: Vec<(Content, String)>,
    /// Blobs that a manifest named. They are not deleted on their own.
    pub named: HashSet<String>,
    /// Digests of blobs whose delete got its 202.
    pub deleted_blobs: Vec<String>,
    /// Blobs whose delete got no 202: present as a whole, or absent.
    pub doubtful_blobs: Vec<(Content, String)>,
    /// Blobs whose mount into the second repository got its 201.
    pub mounted: Vec<(Content, String)>,
    /// Every manifest that got its 201 and was not deleted since.
    pub manifests: Vec<Vec<u8>>,
    /// Digests of manifests whose delete got its 202.
    pub deleted: Vec<String>,
    /// Manifests whose write or delete got no answer: either state is right.
    pub doubtful: Vec<Vec<u8>>,
    /// The tags that this pusher moves.
    pub tags: Vec<Tag>,
    /// The upload that was being sent when the connection broke: its location and its content.
    pub unfinished: Option<(String, Content)>,
    /// Uploads that were finished after a restart: their number, and how many of their bytes did not have to be sent
    /// again.
    pub resumed: (u64, u64),
    /// Whether the server collects with a short grace: a blob that no acknowledged manifest names may be gone.
    pub collects: bool,
}

/// The digests to which a tag may point.
#[derive(Debug, Clone, Default)]
pub struct Tag {
    pub name: String,
    /// The state after the last acknowledged write (`None`: no such tag).
    pub settled: Option<String>,
    /// The states that later writes without an answer may have left.
    pub in_doubt: Vec<Option<String>>,
}

impl Tag {
    /// Records that a write of this was acknowledged, or that it was seen.
    pub fn settle(&mut self, at: Option<String>) {
        self.settled = at;
        self.in_doubt.clear();
    }

    /// Returns whether the tag may be absent, or at this digest.
    pub fn may_be(&self, at: Option<&String>) -> bool {
        self.settled.as_ref() == at || self.in_doubt.iter().any(|one| one.as_ref() == at)
    }

    /// Reads the tag. A digest that is seen there is settled. An absent tag settles nothing while the server may still
    /// find it at its next start.
    pub async fn look(&mut self, pusher: &mut Pusher) -> Result<(), String> {
        let found = self.ask(pusher).await?;
        if self.settled != found {
            self.settle(found);
        }
        Ok(())
    }

    /// Reads the tag when nothing is unknown any more, which settles it.
    pub async fn check(&mut self, pusher: &mut Pusher) -> Result<(), String> {
        let found = self.ask(pusher).await?;
        self.settle(found);
        Ok(())
    }

    async fn ask(&mut self, pusher: &mut Pusher) -> Result<Option<String>, String> {
        let answer = pusher.get_manifest(&self.name).await?;
        let found = match answer.status {
            StatusCode::OK => Some(digest_of_bytes(&answer.body)),
            StatusCode::NOT_FOUND => None,
            other => return Err(format!("GET of tag {}: {other}", self.name)),
        };
        if self.may_be(found.as_ref()) {
            return Ok(found);
        }
        let path = pusher.manifest_path(&self.name);
        Err(format!(
            "{path} is {found:?}, not {:?} (unknown: {:?})",
            self.settled, self.in_doubt
        ))
    }
}

/// Returns the repository into which blobs are mounted from `repository`.
pub fn mount_target(repository: &str) -> String {
    format!("{repository}-beside")
}

impl Ledger {
    /// Returns whether a blob that got its 201 may be gone.
    pub fn may_be_gone(&self, digest: &str) -> bool {
        let names = |manifest: &Vec<u8>| {
            let mut parts = manifest.windows(digest.len());
            parts.any(|part| part == digest.as_bytes())
        };
        self.collects && !self.manifests.iter().any(names)
    }

    pub fn tag(&mut self, name: &str) -> &mut Tag {
        if let Some(at) = self.tags.iter().position(|tag| tag.name == name) {
            return &mut self.tags[at];
        }
        self.tags.push(Tag {
            name: name.to_owned(),
            ..Tag::default()
        });
        self.tags.last_mut().expect("a tag was just added")
    }

    /// Reads everything, settles what was unknown, and finishes the unfinished upload.
    pub async fn check(&mut self, pusher: &mut Pusher) -> Result<(), String> {
        self.check_blobs(pusher).await?;
        for bytes in &self.manifests {
            if !has_manifest(pusher, bytes).await? {
                let digest = digest_of_bytes(bytes);
                return Err(format!(
                    "acknowledged manifest {} is gone",
                    pusher.manifest_path(&digest)
                ));
            }
        }
        for digest in &self.deleted {
            let answer = pusher.get_manifest(digest).await?;
            answer.wanted(
                StatusCode::NOT_FOUND,
                &format!("GET of the deleted manifest {digest}"),
            )?;
        }
        for bytes in std::mem::take(&mut self.doubtful) {
            if has_manifest(pusher, &bytes).await? {
                self.manifests.push(bytes);
            }
        }
        for tag in &mut self.tags {
            tag.check(pusher).await?;
        }
        self.finish_upload(pusher).await
    }

    async fn check_blobs(&mut self, pusher: &mut Pusher) -> Result<(), String> {
        let mount_target = mount_target(pusher.repository());
        let here = self.blobs.iter().map(|blob| (blob, false));
        let mut gone = HashSet::new();
        for ((content, digest), mounted) in here.chain(self.mounted.iter().map(|blob| (blob, true)))
        {
            let path = if mounted {
                format!("/v2/{mount_target}/blobs/{digest}")
            } else {
                pusher.blob_path(digest)
            };
            if pusher.client.get_compare(&path, *content).await? {
                continue;
            }
            if !self.may_be_gone(digest) {
                return Err(format!("acknowledged blob {path} ({content:?}) is gone"));
            }
            gone.insert((mounted, digest.clone()));
        }
        self.blobs
            .retain(|(_, digest)| !gone.contains(&(false, digest.clone())));
        self.mounted
            .retain(|(_, digest)| !gone.contains(&(true, digest.clone())));
        for digest in &self.deleted_blobs {
            let answer = pusher.head_blob(digest).await?;
            let what = format!("HEAD of the deleted blob {digest}");
            answer.wanted(StatusCode::NOT_FOUND, &what)?;
        }
        for (content, digest) in std::mem::take(&mut self.doubtful_blobs) {
            let path = pusher.blob_path(&digest);
            if pusher.client.get_compare(&path, content).await? {
                self.blobs.push((content, digest));
            }
        }
        Ok(())
    }

    /// Finishes the upload. The offset of its status is true if the rest from there gives the right digest.
    async fn finish_upload(&mut self, pusher: &mut Pusher) -> Result<(), String> {
        let Some((at, content)) = self.unfinished.take() else {
            return Ok(());
        };
        let Some((offset, mut next)) = pusher.upload_offset(&at).await? else {
            return Ok(());
        };
        if offset > content.length {
            return Err(format!(
                "upload {at} claims {offset} bytes of {}",
                content.length
            ));
        }
        let rest = offset..content.length;
        let last = LastByte::default();
        pusher
            .chunks(&mut next, content, rest, 4 << 20, &last)
            .await?;
        let digest = content.digest();
        pusher
            .close_upload(&next, &digest, tonnage_tests::http::Upload::empty())
            .await
            .map_err(|why| format!("upload {at} resumed at {offset} of {content:?}: {why}"))?;
        self.blobs.push((content, digest));
        self.resumed = (self.resumed.0 + 1, self.resumed.1 + offset);
        Ok(())
    }
}

/// Returns whether the manifest is present, byte for byte.
pub async fn has_manifest(pusher: &mut Pusher, bytes: &[u8]) -> Result<bool, String> {
    let digest = digest_of_bytes(bytes);
    let answer = pusher.get_manifest(&digest).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    let answer = answer.wanted(StatusCode::OK, &format!("GET of manifest {digest}"))?;
    if answer.body == bytes {
        return Ok(true);
    }
    Err(format!(
        "manifest {digest} has other bytes: {}",
        digest_of_bytes(&answer.body)
    ))
}

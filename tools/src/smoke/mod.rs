//! Tests a registry as a client: push, pull, compare, delete.
//!
//! Owns: the order of the steps, and the deletion of what was pushed, also after a failure.
//! Refuses: registry-specific paths; it must work with every registry that implements the OCI distribution-spec.

mod client;
mod content;
mod image;
mod record;
mod steps;

use std::time::Duration;

use http::HeaderValue;
use rustls::ClientConfig;

use client::Registry;
use image::{Blob, Image};
use record::{Outcome, Stop};
pub(crate) use record::{Recorder, Step, Verdict};
use steps::Repository;

use crate::units::format_size;

/// The tag that is pushed.
const TAG: &str = "smoke";
/// Name of the step that measures pushing.
const PUSH_LARGE: &str = "push the large layer";
/// Name of the step that measures pulling.
const PULL_LARGE: &str = "pull and compare the large layer";

/// Options of a run.
#[derive(Debug)]
pub(crate) struct SmokeOptions {
    /// `http://host:port` or `https://host:port`.
    pub(crate) url: String,
    /// What is trusted.
    pub(crate) tls: ClientConfig,
    /// Credentials, for every request to the registry.
    pub(crate) authorization: Option<HeaderValue>,
    /// The repository to which it pushes.
    pub(crate) repository: String,
    /// Determines every byte of the content.
    pub(crate) seed: u64,
    /// Bytes of the large layer.
    pub(crate) size_bytes: u64,
    /// Longest time without progress.
    pub(crate) stall_timeout: Duration,
    /// Whether a missing optional part counts as a failure.
    pub(crate) strict: bool,
    /// Whether what was pushed is kept.
    pub(crate) keep: bool,
    /// Whether steps are printed as they end.
    pub(crate) print: bool,
}

/// Runs all steps.
pub(crate) async fn run(options: &SmokeOptions) -> Recorder {
    let registry = Registry::new(
        options.url.clone(),
        options.tls.clone(),
        options.authorization.clone(),
    );
    let mut recorder = Recorder::new(
        registry.meter().clone(),
        options.stall_timeout,
        options.strict,
        options.print,
    );
    let repository = Repository::new(&registry, &options.repository);
    if recorder
        .step("connect to the registry", 0, repository.ping())
        .await
        .is_err()
    {
        return recorder;
    }
    let image = Image::generate(options.seed, options.size_bytes);
    let whole = push(&mut recorder, &repository, &image).await;
    let whole = match whole {
        Ok(()) => pull(&mut recorder, &repository, &image).await,
        Err(stop) => Err(stop),
    };
    if options.keep {
        return recorder;
    }
    match whole {
        Ok(()) => {
            // A failure is in the report, and no step follows it.
            delete(&mut recorder, &repository, &image)
                .await
                .unwrap_or(());
        }
        Err(Stop) => clean_up(&mut recorder, &repository, &image).await,
    }
    recorder
}

async fn push(recorder: &mut Recorder, to: &Repository<'_>, image: &Image) -> Result<(), Stop> {
    recorder
        .step(
            "push the config in one POST",
            0,
            to.push_in_one_post(&image.config),
        )
        .await?;
    let small = &image.small;
    recorder
        .step(
            "push a layer in chunks",
            small.content.length(),
            to.push_in_chunks(small),
        )
        .await?;
    let refused = to.refuse_wrong_digest(&image.config, &image.large);
    recorder.step("reject a wrong digest", 0, refused).await?;
    let large = &image.large;
    let name = format!("{PUSH_LARGE} ({})", format_size(large.content.length()));
    recorder
        .step(name, large.content.length(), to.push_in_one_put(large))
        .await?;
    recorder
        .step(
            "push the manifest under a tag",
            0,
            to.put_manifest(TAG, &image.manifest),
        )
        .await
}

async fn pull(recorder: &mut Recorder, from: &Repository<'_>, image: &Image) -> Result<(), Stop> {
    for blob in [&image.config, &image.small, &image.large] {
        recorder
            .step(
                format!("check {} (HEAD)", blob.name),
                0,
                from.head_blob(blob),
            )
            .await?;
    }
    let manifest = &image.manifest;
    recorder
        .step(
            "pull the manifest by tag",
            0,
            from.pull_manifest(TAG, manifest),
        )
        .await?;
    let digest = manifest.digest.to_string();
    recorder
        .step(
            "pull the manifest by digest",
            0,
            from.pull_manifest(&digest, manifest),
        )
        .await?;
    recorder
        .step("find the tag in the list", 0, from.lists_tag(TAG))
        .await?;
    for blob in [&image.config, &image.small] {
        let name = format!("pull and compare {}", blob.name);
        recorder.step(name, 0, from.pull(blob)).await?;
    }
    let large = &image.large;
    recorder
        .step(PULL_LARGE, large.content.length(), from.pull(large))
        .await?;
    let (start, end) = middle(large);
    recorder
        .step("pull a range of it", 0, from.pull_range(large, start, end))
        .await?;
    recorder
        .step(
            "push what the referrer lists",
            0,
            from.push_in_one_put(&image.empty),
        )
        .await?;
    let referrer = &image.referrer;
    recorder
        .step("push a referrer", 0, from.put_referrer(referrer, manifest))
        .await?;
    recorder
        .step(
            "find the referrer",
            0,
            from.lists_referrer(manifest, referrer),
        )
        .await
}

/// Returns a range that begins and ends away from every boundary, if the blob is large enough.
fn middle(blob: &Blob) -> (u64, u64) {
    let length = blob.content.length();
    let start = length / 3;
    (start, (start + 200_001).min(length))
}

async fn delete(recorder: &mut Recorder, from: &Repository<'_>, image: &Image) -> Result<(), Stop> {
    let referrer = image.referrer.digest.to_string();
    recorder
        .step("delete the referrer", 0, from.delete_manifest(&referrer))
        .await?;
    recorder
        .step("delete the tag", 0, from.delete_manifest(TAG))
        .await?;
    let digest = image.manifest.digest.to_string();
    recorder
        .step("delete the manifest", 0, from.delete_manifest(&digest))
        .await?;
    for blob in image.blobs() {
        recorder
            .step(format!("delete {}", blob.name), 0, from.delete_blob(blob))
            .await?;
    }
    Ok(())
}

/// Deletes what was pushed, after a failure, and checks nothing else.
async fn clean_up(recorder: &mut Recorder, from: &Repository<'_>, image: &Image) {
    let work = async {
        let mut left = Vec::new();
        for manifest in [&image.referrer, &image.manifest] {
            left.extend(
                from.delete_manifest(&manifest.digest.to_string())
                    .await
                    .err(),
            );
        }
        for blob in image.blobs() {
            left.extend(from.delete_blob(blob).await.err());
        }
        // What was never pushed cannot be deleted, which is not another failure.
        Ok(match left.len() {
            0 => Outcome::Done,
            count => Outcome::DoneWithNote(format!(
                "{count} of 6 did not exist or could not be deleted"
            )),
        })
    };
    recorder
        .step("clean up after the failure", 0, work)
        .await
        .unwrap_or(());
}

/// Returns the rates of pushing and pulling the large layer, in MiB/s.
pub(crate) fn rates(recorder: &Recorder) -> (Option<f64>, Option<f64>) {
    (recorder.rate(PUSH_LARGE), recorder.rate(PULL_LARGE))
}

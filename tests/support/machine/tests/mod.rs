//! Tests of the simulator: with one that loses too little, every crash test would pass.

mod disk;
mod executor;
mod images;
mod stops;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use tonnage_engine::io::{Call, Class, Env, FileRef, OpenMode, exact};

use super::*;

/// The class of all calls; the disk does not distinguish classes.
const CALL: Call = Class::Background.call();
const DIR: &str = "/store";

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed, &Image::with_dir(DIR));
    machine.disk.set_noise(Noise::NONE);
    machine
}

async fn create(env: &Env, name: &str) -> FileRef {
    env.io
        .open(CALL, &path(name), OpenMode::CreateNew)
        .await
        .unwrap()
}

async fn write(file: &FileRef, offset: u64, content: &[u8]) {
    exact::write_all(&**file, CALL, offset, vec![Bytes::copy_from_slice(content)])
        .await
        .unwrap();
}

fn content(image: &Image, name: &str) -> Option<Vec<u8>> {
    image.files.get(&path(name)).map(Content::to_vec)
}

/// Returns the bytes of `name` in every crash image.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let images = disk.crash_images(&Policy::thorough(1));
    images
        .iter()
        .map(|crash| content(&crash.image, name))
        .collect()
}

/// Creates a file of this content whose data and name are durable.
async fn durable(env: &Env, name: &str, bytes: &[u8]) -> FileRef {
    let file = create(env, name).await;
    write(&file, 0, bytes).await;
    file.sync_data(CALL).await.unwrap();
    exact::sync_dir(&*env.io, CALL, Path::new(DIR))
        .await
        .unwrap();
    file
}

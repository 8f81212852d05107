//! A store composed of single structures, opened and read.
//!
//! Owns: the files around the fuzzed one. Refuses: to choose bytes, which the targets do.

use tonnage_engine::format::superblock::Superblock;
use tonnage_engine::{OpenReport, Store, View};

use crate::by_name::ByName as _;
use crate::machine::{Content, Image, Machine, Noise};
use crate::model::generate::options;
use crate::model::recover::store_path;

/// Returns a closed store of that id with these files, by their names in it.
pub fn image<'a>(
    store_id: [u8; 16],
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Image {
    let superblock = Superblock {
        store_id,
        hash_key: [9; 16],
        compatible: 0,
        read_only_compatible: 0,
        incompatible: 0,
        created_unix_ms: 0,
    };
    let mut image = Image::with_dir(store_path());
    for directory in ["journal", "segments", "uploads", "runs"] {
        image.dirs.insert(store_path().join(directory));
    }
    let mut add = |name: &str, bytes: &[u8]| {
        let path = store_path().join(name);
        image.files.insert(path, Content::from(bytes));
    };
    add("superblock", &superblock.encode());
    for (name, bytes) in files {
        add(name, bytes);
    }
    image
}

/// Opens the store, if it opens, and reads everything in its catalog.
pub fn look(image: &Image) -> Option<OpenReport> {
    let machine = Machine::new(1, image);
    machine.disk.set_noise(Noise::NONE);
    machine.executor.block_on(async {
        let opened = Store::open(machine.env.clone(), &store_path(), options()).await;
        let (store, report) = opened.ok()?;
        read(&store.view());
        Some(report)
    })
}

fn read(view: &View) {
    for name in view.repositories(None, 100).unwrap_or_default() {
        drop(view.tags(&name, None, 100));
        drop(view.links(&name, None, 100));
        for entry in view.manifests(&name, None, 100).unwrap_or_default() {
            drop(view.children(&name, &entry.digest));
            drop(view.referrers(&name, &entry.digest, None, 100));
        }
    }
}

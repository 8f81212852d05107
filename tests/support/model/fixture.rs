//! Stores as files in a directory, with a text of their content, so that every later version can be tested with them.
//!
//! Owns: reading and writing such a directory, and the text. Refuses: the list of versions (tests/engine/fixtures.rs).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::recover::{Found, empty_disk, store_path};
use crate::machine::{Content, Image};

/// Reads the store of a version as a disk.
pub fn load(folder: &Path) -> io::Result<Image> {
    let mut image = empty_disk();
    load_into(&mut image, folder, &store_path())?;
    Ok(image)
}

fn load_into(image: &mut Image, folder: &Path, at: &Path) -> io::Result<()> {
    image.dirs.insert(at.to_path_buf());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = at.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            load_into(image, &entry.path(), &name)?;
        } else {
            let bytes = fs::read(entry.path())?;
            image.files.insert(name, Content::from(bytes.as_slice()));
        }
    }
    Ok(())
}

/// Writes the store of a disk into a directory, except for files of zeros.
pub fn save(image: &Image, folder: &Path) -> io::Result<()> {
    let root = store_path();
    for (path, content) in &image.files {
        let Ok(name) = path.strip_prefix(&root) else {
            continue;
        };
        if name == Path::new("reserve") {
            continue;
        }
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, content.to_vec())?;
    }
    Ok(())
}

/// Returns everything that was found, one fact a line, in a fixed order.
pub fn describe(found: &Found) -> String {
    let mut text = format!("lsn {}\n", found.lsn);
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("writing to a string succeeds");
    };
    for digest in &found.model.stored {
        line(format_args!("stored {digest}"));
    }
    for (name, repository) in &found.model.repositories {
        line(format_args!("repository {name}"));
        for digest in &repository.links {
            line(format_args!("link {name} {digest}"));
        }
        for (digest, manifest) in &repository.manifests {
            line(format_args!(
                "manifest {name} {digest} {} bytes",
                manifest.size
            ));
            if let Some(subject) = &manifest.subject {
                line(format_args!("subject {name} {digest} {subject}"));
            }
            for child in &manifest.children {
                line(format_args!("child {name} {digest} {child}"));
            }
        }
        for (tag, digest) in &repository.tags {
            line(format_args!("tag {name} {tag} {digest}"));
        }
    }
    for id in found.uploads.keys() {
        line(format_args!("upload {id}"));
    }
    text
}

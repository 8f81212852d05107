//! The state of the simulated disk: live names and bytes, durable ones, and the effects between the two.
//!
//! Owns: [`MachineState`], which is pure: no futures, no faults, no randomness.
//!
//! Invariants:
//! - An effect is one completed change of one file or one directory, with a number that grows over the whole disk. A
//!   sync makes durable exactly the effects of its file or directory that were complete when it was called.
//! - The live state is the durable one with every effect applied in order.
//! - Data belongs to an inode, names to a directory: synced data without a synced name is unreachable.
//! - After a failed sync the effects that it covered may or may not be on the disk, and no later sync changes that.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::content::Content;
use super::image::Image;

pub(super) type Inode = usize;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;

/// The target of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(Inode),
}

/// A change of a file's bytes or size.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Write { offset: u64, bytes: Bytes },
    SetLen(u64),
    Grow(u64),
}

impl Data {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, bytes } => content.write(*offset, bytes),
            Self::SetLen(len) => content.set_len(*len),
            Self::Grow(len) => content.grow(*len),
        }
    }
}

/// A change of a directory; `None` removes the name.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) node: Option<Node>,
}

impl Entry {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self.node {
            Some(node) => drop(names.insert(self.path.clone(), node)),
            None => drop(names.remove(&self.path)),
        }
    }
}

/// The durability of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// No sync has covered it yet.
    Pending,
    /// A sync that covered it failed.
    Unknown,
    /// Synced, but after one that is not.
    Durable,
}

#[derive(Debug, Clone)]
pub(super) struct Effect<T> {
    pub(super) number: u64,
    pub(super) fate: Durability,
    pub(super) change: T,
}

/// The effects of one file or directory, oldest first.
type Effects<T> = Vec<Effect<T>>;

#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) live: Content,
    pub(super) durable: Content,
    pub(super) effects: Effects<Data>,
    linked: bool,
    handles: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct MachineState {
    pub(super) files: Vec<FileState>,
    pub(super) names: BTreeMap<PathBuf, Node>,
    pub(super) durable_names: BTreeMap<PathBuf, Node>,
    pub(super) entries: BTreeMap<PathBuf, Effects<Entry>>,
    last_effect: u64,
}

impl MachineState {
    pub(super) fn from_image(image: &Image) -> Self {
        let mut machine = Self::default();
        for dir in &image.dirs {
            machine.names.insert(dir.clone(), Node::Dir);
        }
        for (path, content) in &image.files {
            let (live, durable) = (content.clone(), content.clone());
            let file = FileState {
                live,
                durable,
                linked: true,
                ..FileState::default()
            };
            machine
                .names
                .insert(path.clone(), Node::File(machine.files.len()));
            machine.files.push(file);
        }
        machine.durable_names.clone_from(&machine.names);
        machine
    }

    /// Returns the same disk and page cache without processes: no file is open.
    pub(super) fn without_processes(&self) -> Self {
        let mut machine = self.clone();
        for file in &mut machine.files {
            file.handles = 0;
        }
        machine
    }

    /// Returns the image of the names and bytes that the machine sees now.
    pub(super) fn live_image(&self) -> Image {
        build_image(&self.names, |inode| self.files[inode].live.clone())
    }

    /// Returns the number of the newest effect, up to which a sync called now covers.
    pub(super) fn newest(&self) -> u64 {
        self.last_effect
    }

    pub(super) fn file_at(&self, path: &Path) -> io::Result<Inode> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(io::Error::from_raw_os_error(EISDIR)),
            None => Err(io::Error::from_raw_os_error(ENOENT)),
        }
    }

    pub(super) fn check_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::Error::from_raw_os_error(ENOTDIR)),
            None => Err(io::Error::from_raw_os_error(ENOENT)),
        }
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check_dir(dir)?;
        let inside = self.names.keys().filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.check_new(path)?;
        self.change_entry(path, Some(Node::Dir));
        Ok(())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        self.check_new(path)?;
        let inode = self.files.len();
        self.files.push(FileState {
            linked: true,
            ..FileState::default()
        });
        self.change_entry(path, Some(Node::File(inode)));
        Ok(inode)
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.file_at(path)?;
        self.files[inode].linked = false;
        self.change_entry(path, None);
        Ok(())
    }

    fn check_new(&self, path: &Path) -> io::Result<()> {
        self.check_dir(path.parent().unwrap_or(Path::new("")))?;
        if self.names.contains_key(path) {
            return Err(io::Error::from_raw_os_error(EEXIST));
        }
        Ok(())
    }

    fn change_entry(&mut self, path: &Path, node: Option<Node>) {
        let change = Entry {
            path: path.to_owned(),
            node,
        };
        change.apply(&mut self.names);
        self.last_effect += 1;
        let effect = Effect {
            number: self.last_effect,
            fate: Durability::Pending,
            change,
        };
        let dir = path
            .parent()
            .expect("a checked path has a parent")
            .to_owned();
        self.entries.entry(dir).or_default().push(effect);
    }

    pub(super) fn change_data(&mut self, inode: Inode, change: Data) {
        self.last_effect += 1;
        let file = &mut self.files[inode];
        change.apply(&mut file.live);
        file.effects.push(Effect {
            number: self.last_effect,
            fate: Durability::Pending,
            change,
        });
    }

    /// Ends a sync of a file that covers effects up to `covers`.
    pub(super) fn sync_file(&mut self, inode: Inode, covers: u64, succeeded: bool) {
        let file = &mut self.files[inode];
        settle(&mut file.effects, covers, succeeded, |data| {
            data.apply(&mut file.durable)
        });
    }

    /// Ends a sync of a directory that covers effects up to `covers`.
    pub(super) fn sync_dir(&mut self, dir: &Path, covers: u64, succeeded: bool) {
        if let Some(effects) = self.entries.get_mut(dir) {
            let names = &mut self.durable_names;
            settle(effects, covers, succeeded, |entry| entry.apply(names));
        }
    }

    pub(super) fn add_handle(&mut self, inode: Inode) {
        self.files[inode].handles += 1;
    }

    pub(super) fn drop_handle(&mut self, inode: Inode) {
        self.files[inode].handles -= 1;
    }

    /// Returns the number of handles of open files.
    pub(super) fn open_files(&self) -> usize {
        self.files.iter().map(|file| file.handles).sum()
    }

    /// Returns the bytes in use: the sizes of all files that have a name or are open. Holes count.
    pub(super) fn used_bytes(&self) -> u64 {
        let kept = self
            .files
            .iter()
            .filter(|file| file.linked || file.handles > 0);
        kept.map(|file| file.live.len()).sum()
    }
}

/// Marks the effects that a sync covered, and applies the durable ones before the first undecided one.
fn settle<T>(effects: &mut Effects<T>, covers: u64, succeeded: bool, mut apply: impl FnMut(&T)) {
    let fate = if succeeded {
        Durability::Durable
    } else {
        Durability::Unknown
    };
    for effect in effects.iter_mut() {
        if effect.fate == Durability::Pending && effect.number <= covers {
            effect.fate = fate;
        }
    }
    let settled = effects
        .iter()
        .take_while(|effect| effect.fate == Durability::Durable)
        .count();
    for effect in effects.drain(..settled) {
        apply(&effect.change);
    }
}

/// Builds an image of `names`; names below a missing directory are unreachable.
pub(super) fn build_image(
    names: &BTreeMap<PathBuf, Node>,
    mut content: impl FnMut(Inode) -> Content,
) -> Image {
    let mut image = Image::default();
    // A directory sorts before its content.
    for (path, node) in names {
        let reachable = path
            .parent()
            .is_none_or(|parent| image.dirs.contains(parent));
        match node {
            Node::Dir if reachable => drop(image.dirs.insert(path.clone())),
            Node::File(inode) if reachable => {
                drop(image.files.insert(path.clone(), content(*inode)));
            }
            Node::Dir | Node::File(_) => {}
        }
    }
    image
}

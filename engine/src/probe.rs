//! The places of the engine that change a disk, counted for the tests.
//!
//! Owns: [`Place`], every place that writes or syncs, counted when it is reached. The counts exist only with the feature `mutations`,
//! which only the tests ask for; without it [`reached`] is empty and the compiler removes it.
//!
//! Invariant: counts belong to a thread. The simulated machine runs on one, so that several can run side by side.

#[cfg(feature = "mutations")]
use std::cell::RefCell;

macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* #[doc = $text] $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

named! {
    /// A place of the engine that changes a disk or makes a change durable.
    Place {
        SuperblockCreate => "superblock: create",
        SuperblockWrite => "superblock: write",
        SuperblockSync => "superblock: sync",
        SuperblockDirectorySync => "superblock: sync of the store's directory",
        DirectoryCreate => "store: create a directory",
        ReserveCreate => "reserve: create",
        ReserveAllocate => "reserve: allocate",
        ReserveUnlink => "reserve: give up",
        ReserveCut => "reserve: give up a part",
        JournalCreate => "journal: create a file",
        JournalZeros => "journal: fill a file with zeros",
        JournalZerosSync => "journal: sync the zeros",
        JournalDirectorySync => "journal: sync its directory",
        JournalHeader => "journal: write a file's header",
        JournalHeaderSync => "journal: sync the header",
        JournalFrame => "journal: write a frame",
        JournalFrameSync => "journal: sync a frame",
        JournalEnd => "journal: write its end again at an open",
        JournalEndSync => "journal: sync its end at an open",
        JournalTrim => "journal: cut a finished file",
        JournalRemove => "journal: remove a prepared file",
        JournalRemoveSync => "journal: sync the removal",
        SegmentCreate => "segment: create",
        SegmentHeader => "segment: write the header",
        SegmentDirectorySync => "segment: sync the directory",
        SegmentUnlink => "segment: unlink",
        SharedHeaderSync => "shared segment: sync the header",
        SharedAppend => "shared segment: append records",
        SharedSync => "shared segment: sync records",
        DedicatedReserve => "dedicated segment: allocate",
        DedicatedWrite => "dedicated segment: write payload",
        DedicatedSync => "dedicated segment: sync",
        DedicatedFinish => "dedicated segment: write table and frame",
        DedicatedCut => "dedicated segment: cut what is too long",
        DedicatedResume => "dedicated segment: cut to the upload checkpoint",
        UploadLogCreate => "upload log: create",
        UploadLogHeader => "upload log: write the header",
        UploadLogAppend => "upload log: append a checkpoint",
        UploadLogSync => "upload log: sync",
        UploadLogDirectorySync => "upload log: sync the directory",
        UploadLogCut => "upload log: cut behind the last checkpoint",
        UploadLogUnlink => "upload log: remove",
        UploadLogForget => "upload log: remove at open",
        BaseDirectoryCreate => "base: create the directory",
        BaseCreate => "base: create a file",
        BasePages => "base: write pages",
        BaseTail => "base: write the page directory",
        BaseHeader => "base: write the header",
        BaseSync => "base: sync a file",
        BaseDirectorySync => "base: sync the directory",
        BaseUnlink => "base: remove an unnamed file",
        BaseAbandon => "base: remove a file of a failed checkpoint",
        CheckpointCreate => "checkpoint: create a slot",
        CheckpointWrite => "checkpoint: write the record",
        CheckpointCut => "checkpoint: cut the slot",
        CheckpointSync => "checkpoint: sync the record",
        CheckpointDirectorySync => "checkpoint: sync the store's directory",
        RecoveryUnlink => "recovery: remove what nothing names",
        RecoveryJournalSync => "recovery: sync the journal's directory",
        RecoverySegmentsSync => "recovery: sync the segments' directory",
    }
}

/// The engine is about to change the disk here.
#[cfg(not(feature = "mutations"))]
#[inline]
pub fn reached(_: Place) {}

#[cfg(feature = "mutations")]
thread_local! {
    static COUNTS: RefCell<Vec<u64>> = RefCell::new(vec![0; Place::ALL.len()]);
}

/// The engine is about to change the disk here.
#[cfg(feature = "mutations")]
pub fn reached(place: Place) {
    COUNTS.with_borrow_mut(|counts| {
        if let Some(count) = counts.get_mut(place as usize) {
            *count += 1;
        }
    });
}

/// How often this thread reached each place since it was last asked.
#[cfg(feature = "mutations")]
pub fn take_counts() -> Vec<(Place, u64)> {
    let counts = COUNTS.replace(vec![0; Place::ALL.len()]);
    Place::ALL.iter().copied().zip(counts).collect()
}

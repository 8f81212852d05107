//! What tests see of the inside, and what they can break on purpose.
//!
//! Owns: [`Place`], every place that writes or syncs, counted when it is reached; [`Mutation`], known-bad changes, of which one can
//! be switched on; [`Race`], such changes that only another thread at the wrong moment shows. All exist only with the feature
//! `mutations`, which only the tests ask for; without it [`reached`], [`mutated`] and [`raced`] are constants that the compiler
//! removes.
//!
//! Invariant: counts and the switch belong to a thread. The simulated machine runs on one, so that several can run side by side.

#[cfg(feature = "mutations")]
use std::cell::{Cell, RefCell};

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

named! {
    /// A known-bad change of the engine: tests that do not notice it are worth nothing.
    Mutation {
        SkipSharedSync => "skip-shared-sync",
        SkipDedicatedSync => "skip-dedicated-sync",
        SkipSegmentDirectorySync => "skip-segment-directory-sync",
        SkipFrameSync => "skip-frame-sync",
        SkipJournalDirectorySync => "skip-journal-directory-sync",
        SkipJournalHeaderSync => "skip-journal-header-sync",
        JournalBeforeData => "journal-before-data",
        PublishBeforeCommit => "publish-before-commit",
        NextFrameBeforeSync => "next-frame-before-sync",
        AnswerBeforePublish => "answer-before-publish",
        ChunkUnchecked => "chunk-checksum-not-checked",
        FrameUnchecked => "frame-checksum-not-checked",
        PageUnchecked => "page-checksum-not-checked",
        SealUnchecked => "structure-checksum-not-checked",
        TornIsCorrupt => "torn-taken-for-corrupt",
        CorruptIsTorn => "corrupt-taken-for-torn",
        NoLeaseOnHead => "no-lease-on-head",
        NoSpaceSwallowed => "no-space-swallowed",
        SyncErrorSwallowed => "sync-error-swallowed",
        SyncTriedAgain => "failed-sync-tried-again",
        WrongEpoch => "wrong-epoch-replayed",
        TornFrameCounted => "torn-frame-counted-into-the-old-epoch",
        StalePrecondition => "precondition-against-durable-state",
        PreconditionUnchecked => "precondition-not-checked",
        RefuseBeforeDurable => "refused-before-the-reason-is-durable",
        StaleBase => "stale-base-after-checkpoint",
        CheckpointTooNew => "checkpoint-names-newer-journal-position",
        SegmentIdReused => "segment-id-reused-after-crash",
        OrphansByName => "recovery-removes-named-segments",
        UploadSegmentRemoved => "recovery-removes-segments-of-uploads",
        UploadBeyondSync => "upload-checkpoint-before-sync",
        ResumeCommitted => "resume-of-a-committed-upload",
        RollbackKeepsLog => "rollback-leaves-upload-log",
        TagsOutliveManifest => "tags-outlive-their-manifest",
        EdgesOutliveManifest => "edges-outlive-their-manifest",
        RemainsForgotten => "rows-outlive-their-repository",
        RepositoryIdReused => "repository-id-reused",
        FailedFrameStays => "failed-frame-stays-in-head",
        DroppedShortWrite => "short-write-taken-for-whole",
        AbandonCommitted => "segment-unlinked-after-commit",
        EndTrusted => "journal-end-not-written-again",
        SuperblockTrusted => "superblock-not-written-again",
        NameTrusted => "store-directory-not-synced-again",
    }
}

named! {
    /// A known-bad change that one thread alone never notices: for `tests/races`.
    Race {
        FreezeLoadsEarly => "freeze-loads-the-state-before-the-lock",
        InstallLoadsEarly => "install-loads-the-state-before-the-lock",
        PublishUnlocked => "published-outside-the-lock",
        AnswerFirst => "answered-a-moment-before-it-is-published",
        JudgedApart => "judged-and-queued-in-two-steps",
        CheckedEarly => "poison-and-close-checked-before-the-lock",
        ClosingApart => "close-looked-at-apart-from-the-queue",
        RoomBeforeListening => "room-looked-at-before-listening",
        PinDroppedApart => "pin-dropped-in-two-steps",
        PromisedAtFirstLook => "promised-without-a-second-look",
        FinishedApart => "upload-finished-in-two-steps",
        UploadsCountedEarly => "uploads-counted-before-one-is-added",
        IdTakenApart => "segment-id-read-and-counted-apart",
        RetiredUnlocked => "segment-retired-outside-the-lock",
    }
}

/// The engine is about to change the disk here.
#[cfg(not(feature = "mutations"))]
#[inline]
pub fn reached(_: Place) {}

/// Whether a known-bad change is on.
#[cfg(not(feature = "mutations"))]
#[inline]
pub const fn mutated(_: Mutation) -> bool {
    false
}

/// Whether a known-bad change of this sort is on.
#[cfg(not(feature = "mutations"))]
#[inline]
pub const fn raced(_: Race) -> bool {
    false
}

#[cfg(feature = "mutations")]
thread_local! {
    static RACE: Cell<Option<Race>> = const { Cell::new(None) };
    static COUNTS: RefCell<Vec<u64>> = RefCell::new(vec![0; Place::ALL.len()]);
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
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

/// Whether a known-bad change is on.
#[cfg(feature = "mutations")]
pub fn mutated(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Switches a known-bad change on for this thread, or all off.
#[cfg(feature = "mutations")]
pub fn switch(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

/// Whether a known-bad change of this sort is on.
#[cfg(feature = "mutations")]
pub fn raced(race: Race) -> bool {
    RACE.get() == Some(race)
}

/// Switches a known-bad change of this sort on for this thread, or all off.
#[cfg(feature = "mutations")]
pub fn switch_race(race: Option<Race>) {
    RACE.set(race);
}

/// How often this thread reached each place since it was last asked.
#[cfg(feature = "mutations")]
pub fn take_counts() -> Vec<(Place, u64)> {
    let counts = COUNTS.replace(vec![0; Place::ALL.len()]);
    Place::ALL.iter().copied().zip(counts).collect()
}

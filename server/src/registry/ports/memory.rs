//! The port for the memory of answers.
//!
//! Owns: [`ReadAccount`], [`HeldMemory`], [`AnswerReads`]: how the answers of all clients share one budget.
//! Refuses: storage. All of it is memory of this process, so its methods wait only for memory.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// The memory that one client's answers take from the budget that all clients share.
///
/// # Contract
///
/// - A client that reads nothing of its answers loses memory to others that wait for it; one that reads does not.
/// - The holder reports progress with [`ReadAccount::record_progress`]. It drops an answer when
///   [`ReadAccount::revoked`] resolves, calls [`ReadAccount::record_drop`] and waits for [`ReadAccount::revoked`]
///   again.
/// - Memory is returned when what holds it drops.
pub trait ReadAccount: Send + Sync + Debug {
    /// Records that the client read bytes.
    fn record_progress(&self);

    /// Resolves once memory of the client is needed: an answer that it does not read must be dropped, or all of them.
    fn revoked(&self) -> BoxFuture<'static, ()>;

    /// Records that one of its answers was dropped; [`ReadAccount::revoked`] resolves again if that is not enough.
    fn record_drop(&self);

    /// Allows or forbids that bytes of answers are mapped from files, not copied. Whoever allows it uses them only in
    /// [`ReadAccount::used_unchanged`].
    fn set_mapping_allowed(&self, is_allowed: bool);

    /// Runs `use_bytes`, which may use mapped bytes of answers. Returns false if those may not be the ones that were
    /// checked.
    fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool;

    /// Returns a future that reads mapped bytes that are no longer in memory, and resolves to whether they are as they
    /// were checked. `None` if all are in memory.
    fn load_mapped(&self) -> Option<BoxFuture<'static, bool>>;

    /// Begins an answer that is read from blobs; an urgent one is small.
    fn answer(&self, urgent: bool) -> AnswerReads;

    /// Waits for `bytes` of memory for another answer; an urgent one is small.
    fn hold(&self, urgent: bool, bytes: usize) -> BoxFuture<'_, Box<dyn HeldMemory>>;
}

/// The reads of one answer; only the blob store that made it can use it.
#[derive(Debug, Clone)]
pub struct AnswerReads(pub Arc<dyn Any + Send + Sync>);

/// Memory of an answer, until it drops.
pub trait HeldMemory: Send + Sync + Debug {
    /// Releases the memory beyond `bytes`, because the answer is shorter than expected.
    fn shrink(&mut self, bytes: usize);

    /// Sets whether the answer waits for its client, as it does at first. While it does not, the client
    /// loses no memory because of it.
    fn set_awaited(&self, awaited: bool);
}

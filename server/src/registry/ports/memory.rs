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
/// - A client that reads nothing of its answers gives way to others that wait for memory; one that reads does not.
/// - The holder reports progress with [`ReadAccount::record_progress`]. It drops an answer when
///   [`ReadAccount::revoked`] resolves, calls [`ReadAccount::record_drop`] and waits for [`ReadAccount::revoked`] again.
/// - Memory is returned when what holds it drops.
pub trait ReadAccount: Send + Sync + Debug {
    /// Records that the client read bytes.
    fn record_progress(&self);

    /// Resolves once the client has to give way: an answer that it does not read has to be dropped, or all of them.
    fn revoked(&self) -> BoxFuture<'static, ()>;

    /// Records that one of its answers was dropped; [`ReadAccount::revoked`] resolves again if that is not enough.
    fn record_drop(&self);

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

    /// Sets whether the answer waits for its client, as it does at first. While it does not, the client need not give
    /// way because of it.
    fn set_awaited(&self, awaited: bool);
}

//! A queue that serves owners in turn, however many items each has.
//!
//! Owns: [`RoundRobin`]. Refuses: waiting, and what an item is.
//!
//! Invariants: owners are served round-robin. The items of one owner keep their order. An owner without items is not in
//! the queue.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items by owner, served round-robin.
#[derive(Debug)]
pub(crate) struct RoundRobin<K, T> {
    items: HashMap<K, VecDeque<T>>,
    /// The owners in the order of their turns, each once.
    order: VecDeque<K>,
}

impl<K, T> Default for RoundRobin<K, T> {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, T> RoundRobin<K, T> {
    /// Returns whether the owner has an item.
    pub(crate) fn has(&self, owner: K) -> bool {
        self.items.contains_key(&owner)
    }

    /// Returns the item to be taken next.
    pub(crate) fn first(&self) -> Option<&T> {
        self.items.get(self.order.front()?)?.front()
    }

    /// Adds an item after those of its owner.
    pub(crate) fn push(&mut self, owner: K, item: T) {
        self.own(owner).push_back(item);
    }

    /// Takes the next item. Its owner then has the last turn.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let owner = self.order.pop_front()?;
        let own = self.items.get_mut(&owner)?;
        let item = own.pop_front();
        if own.is_empty() {
            self.items.remove(&owner);
        } else {
            self.order.push_back(owner);
        }
        item
    }

    /// Takes the item of an owner that `is_it` selects; `None` if there is none.
    pub(crate) fn remove(&mut self, owner: K, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let own = self.items.get_mut(&owner)?;
        let item = own.remove(own.iter().position(is_it)?);
        if own.is_empty() {
            self.take(owner);
        }
        item
    }

    /// Takes all items of an owner.
    pub(crate) fn take(&mut self, owner: K) -> VecDeque<T> {
        self.order.retain(|other| *other != owner);
        self.items.remove(&owner).unwrap_or_default()
    }

    /// Adds items after those of their owner.
    pub(crate) fn append(&mut self, owner: K, mut items: VecDeque<T>) {
        if !items.is_empty() {
            self.own(owner).append(&mut items);
        }
    }

    /// Returns the items of an owner, to which one is added; gives it a turn if it had none.
    fn own(&mut self, owner: K) -> &mut VecDeque<T> {
        let own = self.items.entry(owner).or_default();
        if own.is_empty() {
            self.order.push_back(owner);
        }
        own
    }
}

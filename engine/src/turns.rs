//! Whose turn it is among owners that each have several items waiting.
//!
//! Owns: [`Turns`]. Refuses: waiting, and what an item is.
//!
//! Invariants: owners have their turn one after the other, however many items each has; an owner's own are in the order in which they
//! came; one without items is not there.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items of owners that take turns.
#[derive(Debug)]
pub(crate) struct Turns<K, T> {
    items: HashMap<K, VecDeque<T>>,
    /// The owners, each once.
    order: VecDeque<K>,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// Whether the owner has an item.
    pub(crate) fn has(&self, owner: K) -> bool {
        self.items.contains_key(&owner)
    }

    /// The item whose turn is next.
    pub(crate) fn first(&self) -> Option<&T> {
        self.items.get(self.order.front()?)?.front()
    }

    /// Adds an item behind those of its owner.
    pub(crate) fn push(&mut self, owner: K, item: T) {
        self.own(owner).push_back(item);
    }

    /// Takes the item whose turn it is; its owner is the last then.
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

    /// Takes an item of an owner out; `None` if it is not there.
    pub(crate) fn remove(&mut self, owner: K, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let own = self.items.get_mut(&owner)?;
        let item = own.remove(own.iter().position(is_it)?);
        if own.is_empty() {
            self.take(owner);
        }
        item
    }

    /// Takes all that an owner has.
    pub(crate) fn take(&mut self, owner: K) -> VecDeque<T> {
        self.order.retain(|other| *other != owner);
        self.items.remove(&owner).unwrap_or_default()
    }

    /// Adds items behind those of their owner.
    pub(crate) fn append(&mut self, owner: K, mut items: VecDeque<T>) {
        if !items.is_empty() {
            self.own(owner).append(&mut items);
        }
    }

    /// What an owner has, which something is added to: it has turns from now on.
    fn own(&mut self, owner: K) -> &mut VecDeque<T> {
        let own = self.items.entry(owner).or_default();
        if own.is_empty() {
            self.order.push_back(owner);
        }
        own
    }
}

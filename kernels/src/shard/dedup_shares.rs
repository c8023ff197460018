//! Which tenant holds how many keys of the dedup window, and which holds the most.
//!
//! Invariant: `heap[0]` is the share with the greatest (keys, id); ids are hashes of names, so the
//! answer does not depend on the order in which tenants came. A share without a key is forgotten.

use hashbrown::HashTable;

/// No entry.
pub const NONE: u32 = u32::MAX;

/// One tenant's keys: a list of entries, oldest first.
#[derive(Clone, Copy)]
pub struct Share {
    pub id: u64,
    pub keys: u32,
    pub oldest: u32,
    pub newest: u32,
    heap_at: u32,
}

#[derive(Default)]
pub struct Shares {
    slots: Vec<Share>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    heap: Vec<u32>,
}

impl Shares {
    /// The slot of `id`, made where it has none.
    pub fn slot(&mut self, id: u64) -> u32 {
        let slots = &self.slots;
        if let Some(&slot) = self.by_id.find(id, |&slot| slots[slot as usize].id == id) {
            return slot;
        }
        let heap_at = self.heap.len() as u32;
        let share = Share { id, keys: 0, oldest: NONE, newest: NONE, heap_at };
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(share);
        } else {
            self.slots[slot as usize] = share;
        }
        self.heap.push(slot);
        let slots = &self.slots;
        self.by_id.insert_unique(id, slot, |&slot| slots[slot as usize].id);
        self.rise(heap_at as usize);
        slot
    }

    pub fn find(&self, id: u64) -> Option<u32> {
        self.by_id.find(id, |&slot| self.slots[slot as usize].id == id).copied()
    }

    pub fn get(&self, slot: u32) -> &Share {
        &self.slots[slot as usize]
    }

    /// The share with the most keys, where there is any.
    pub fn largest(&self) -> Option<u32> {
        self.heap.first().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Share> {
        self.heap.iter().map(|&slot| self.get(slot))
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// `entry` became the newest of `slot`; returns the one that was.
    pub fn push(&mut self, slot: u32, entry: u32) -> u32 {
        let share = &mut self.slots[slot as usize];
        let before = std::mem::replace(&mut share.newest, entry);
        if before == NONE {
            share.oldest = entry;
        }
        share.keys += 1;
        let at = share.heap_at as usize;
        self.rise(at);
        before
    }

    /// The oldest of `slot` goes, and `next` is the oldest now.
    pub fn pop(&mut self, slot: u32, next: u32) {
        let share = &mut self.slots[slot as usize];
        share.oldest = next;
        share.keys -= 1;
        let (at, id) = (share.heap_at as usize, share.id);
        if share.keys > 0 {
            self.sink(at);
            return;
        }
        if let Ok(found) = self.by_id.find_entry(id, |&other| other == slot) {
            found.remove();
        }
        self.free.push(slot);
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            self.place(at, self.heap[at]);
            self.sink(at);
            self.rise(at);
        }
    }

    fn weight(&self, at: usize) -> (u32, u64) {
        let share = self.get(self.heap[at]);
        (share.keys, share.id)
    }

    fn place(&mut self, at: usize, slot: u32) {
        self.heap[at] = slot;
        self.slots[slot as usize].heap_at = at as u32;
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (slot_a, slot_b) = (self.heap[a], self.heap[b]);
        self.place(a, slot_b);
        self.place(b, slot_a);
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.weight(at) > self.weight((at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let children = (2 * at + 1..2 * at + 3).filter(|&child| child < self.heap.len());
            let Some(child) = children.max_by_key(|&child| self.weight(child)) else { return };
            if self.weight(child) <= self.weight(at) {
                return;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

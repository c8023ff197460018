//! Decoded pages, shared by all readers of a process, at most `bytes_max` of them.
//!
//! Two generations: new and re-used pages are young; when the young half is full the old one is
//! dropped and the young becomes old. That is near LRU without a list to keep.

use crate::codec::page::Page;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reader's number and a page's within it.
pub(super) type PageId = (u64, u32);

#[derive(Default)]
struct Generations {
    young: HashMap<PageId, Arc<Page>>,
    old: HashMap<PageId, Arc<Page>>,
    young_bytes: usize,
    old_bytes: usize,
}

pub struct PageCache {
    bytes_max: usize,
    generations: Mutex<Generations>,
    reader_next: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Reads that met a damaged page, of all readers: kept here because all of them share it.
    damaged: AtomicU64,
}

impl PageCache {
    pub fn new(bytes_max: usize) -> Arc<PageCache> {
        Arc::new(PageCache {
            bytes_max,
            generations: Mutex::default(),
            reader_next: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        })
    }

    pub(super) fn new_reader(&self) -> u64 {
        self.reader_next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn get(&self, id: PageId) -> Option<Arc<Page>> {
        let mut generations = self.generations.lock();
        let mut found = generations.young.get(&id).cloned();
        if found.is_none()
            && let Some(page) = generations.old.remove(&id)
        {
            generations.old_bytes -= page.memory_bytes();
            generations.put(id, page.clone(), self.bytes_max);
            found = Some(page);
        }
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn put(&self, id: PageId, page: Arc<Page>) {
        self.generations.lock().put(id, page, self.bytes_max);
    }

    /// Forget the pages of a reader that is gone.
    pub(super) fn forget(&self, reader: u64) {
        let mut generations = self.generations.lock();
        let generations = &mut *generations;
        generations.young.retain(|id, _| id.0 != reader);
        generations.old.retain(|id, _| id.0 != reader);
        let bytes = |pages: &HashMap<PageId, Arc<Page>>| {
            pages.values().map(|page| page.memory_bytes()).sum()
        };
        generations.young_bytes = bytes(&generations.young);
        generations.old_bytes = bytes(&generations.old);
    }

    pub fn memory_bytes(&self) -> usize {
        let generations = self.generations.lock();
        generations.young_bytes + generations.old_bytes
    }

    pub(super) fn note_damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads that met a damaged page, since the start.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// (hits, misses) since the start.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

impl Generations {
    fn put(&mut self, id: PageId, page: Arc<Page>, bytes_max: usize) {
        let bytes = page.memory_bytes();
        if bytes > bytes_max / 2 {
            return;
        }
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        if self.young.insert(id, page).is_none() {
            self.young_bytes += bytes;
        }
    }
}

//! What of a disk is durable and what only seems to be: the state behind the in-memory disk.
//!
//! Invariant: a page, a size and a name each have a durable version and the newer ones a power cut
//! may or may not keep; nothing here can fail, for an operation is checked before it is recorded.

use super::parent;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PAGE_BYTES: usize = 512;
type PageBytes = Arc<[u8; PAGE_BYTES]>;
pub type FileNumber = usize;

/// Something with a durable version, a current one, and those between that a crash may pick.
#[derive(Clone)]
pub struct Versions<T> {
    durable: T,
    pub current: T,
    between: Vec<T>,
    dirty: bool,
}

impl<T: Clone> Versions<T> {
    fn new(durable: T) -> Versions<T> {
        Versions { current: durable.clone(), durable, between: Vec::new(), dirty: false }
    }
    fn set(&mut self, value: T) {
        self.between.push(value.clone());
        self.current = value;
        self.dirty = true;
    }
    fn sync(&mut self) {
        if self.dirty {
            *self = Versions::new(self.current.clone());
        }
    }
    fn after_crash(&self, random: &mut Random) -> &T {
        if self.between.is_empty() || !random.survives() {
            return &self.durable;
        }
        // Mostly the last version: a page is written back as it stood then.
        let last = self.between.len() - 1;
        let pick = if random.below(4) == 0 { random.below(self.between.len()) } else { last };
        &self.between[pick]
    }
}

#[derive(Clone)]
pub struct FileState {
    pub byte_size: Versions<u64>,
    /// Absent pages are zero.
    pages: BTreeMap<u64, Versions<Option<PageBytes>>>,
}

impl FileState {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = 0;
        while at < data.len() {
            let position = offset + at as u64;
            let (number, start) =
                (position / PAGE_BYTES as u64, (position % PAGE_BYTES as u64) as usize);
            let length = (PAGE_BYTES - start).min(data.len() - at);
            let page = self.pages.entry(number).or_insert_with(|| Versions::new(None));
            let mut bytes = page.current.as_deref().copied().unwrap_or([0; PAGE_BYTES]);
            bytes[start..start + length].copy_from_slice(&data[at..at + length]);
            page.set(Some(Arc::new(bytes)));
            at += length;
        }
        let end = offset + data.len() as u64;
        if end > self.byte_size.current {
            self.byte_size.set(end);
        }
    }

    fn set_byte_size(&mut self, bytes: u64) {
        if bytes < self.byte_size.current {
            let (last, start) = (bytes / PAGE_BYTES as u64, (bytes % PAGE_BYTES as u64) as usize);
            for (number, page) in self.pages.range_mut(last..) {
                let keep = if *number == last { start } else { 0 };
                let rest = page.current.as_deref().filter(|_| keep > 0).map(|bytes| {
                    let mut bytes = *bytes;
                    bytes[keep..].fill(0);
                    Arc::new(bytes)
                });
                page.set(rest);
            }
        }
        if bytes != self.byte_size.current {
            self.byte_size.set(bytes);
        }
    }

    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = self.byte_size.current.saturating_sub(offset);
        let total = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut at = 0;
        while at < total {
            let position = offset + at as u64;
            let start = (position % PAGE_BYTES as u64) as usize;
            let length = (PAGE_BYTES - start).min(total - at);
            match self.pages.get(&(position / PAGE_BYTES as u64)).and_then(|p| p.current.as_deref())
            {
                Some(page) => buffer[at..at + length].copy_from_slice(&page[start..start + length]),
                None => buffer[at..at + length].fill(0),
            }
            at += length;
        }
        total
    }
}

#[derive(Clone, Debug)]
pub enum Operation {
    Create(String),
    Write(FileNumber, u64, Arc<[u8]>),
    SetByteSize(FileNumber, u64),
    Sync(FileNumber),
    Lose(FileNumber),
    Rename(String, String),
    Remove(String),
    CreateDirectory(String),
    SyncDirectory(String),
}

/// A change of directory entries, atomic: a rename never leaves both names, or none.
#[derive(Clone)]
struct EntryChange {
    directory: String,
    entries: Vec<(String, Option<FileNumber>)>,
}

fn apply_entries(names: &mut BTreeMap<String, FileNumber>, change: &EntryChange) {
    for (path, target) in &change.entries {
        match target {
            Some(file) => names.insert(path.clone(), *file),
            None => names.remove(path),
        };
    }
}

#[derive(Clone, Default)]
pub struct State {
    pub files: Vec<FileState>,
    pub names: BTreeMap<String, FileNumber>,
    durable_names: BTreeMap<String, FileNumber>,
    pending: Vec<EntryChange>,
    pub directories: BTreeSet<String>,
}

impl State {
    fn change_entries(&mut self, path: &str, entries: Vec<(String, Option<FileNumber>)>) {
        let change = EntryChange { directory: parent(path).to_owned(), entries };
        apply_entries(&mut self.names, &change);
        self.pending.push(change);
    }

    /// The operation was checked before it was recorded; applying it cannot fail.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create(path) => {
                self.files.push(FileState { byte_size: Versions::new(0), pages: BTreeMap::new() });
                let file = self.files.len() - 1;
                self.change_entries(path, vec![(path.clone(), Some(file))]);
            }
            Operation::Write(file, offset, data) => self.files[*file].write(*offset, data),
            Operation::SetByteSize(file, bytes) => self.files[*file].set_byte_size(*bytes),
            Operation::Sync(file) => {
                let file = &mut self.files[*file];
                file.byte_size.sync();
                file.pages.values_mut().for_each(Versions::sync);
            }
            Operation::Lose(file) => {
                let file = &mut self.files[*file];
                file.byte_size.dirty = false;
                file.pages.values_mut().for_each(|page| page.dirty = false);
            }
            Operation::Rename(from, to) => {
                let file = self.names.get(from).copied();
                self.change_entries(to, vec![(from.clone(), None), (to.clone(), file)]);
            }
            Operation::Remove(path) => self.change_entries(path, vec![(path.clone(), None)]),
            Operation::CreateDirectory(path) => {
                let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                self.directories.extend(ends.map(|end| path[..end].to_owned()));
            }
            Operation::SyncDirectory(path) => {
                let durable = &mut self.durable_names;
                self.pending.retain(|change| {
                    if change.directory != *path {
                        return true;
                    }
                    apply_entries(durable, change);
                    false
                });
            }
        }
    }

    /// Everything that survives, durable in a new state.
    pub fn after_crash(&self, random: &mut Random) -> State {
        let mut names = self.durable_names.clone();
        for change in &self.pending {
            if random.survives() {
                apply_entries(&mut names, change);
            }
        }
        let mut image = State { directories: self.directories.clone(), ..State::default() };
        let mut numbers = BTreeMap::new();
        for (path, number) in names {
            let number = *numbers.entry(number).or_insert_with(|| {
                let file = &self.files[number];
                let byte_size = *file.byte_size.after_crash(random);
                let survivors = file.pages.iter().map(|(number, page)| {
                    (*number, Versions::new(page.after_crash(random).clone()))
                });
                let mut survivor =
                    FileState { byte_size: Versions::new(u64::MAX), pages: survivors.collect() };
                // Pages past the surviving size are gone.
                survivor.set_byte_size(byte_size);
                survivor.byte_size.sync();
                survivor.pages.values_mut().for_each(Versions::sync);
                image.files.push(survivor);
                image.files.len() - 1
            });
            image.names.insert(path, number);
        }
        image.durable_names = image.names.clone();
        image
    }
}

/// SplitMix64, and how likely an unsynced change is to survive in this image.
pub struct Random {
    state: u64,
    survival_percent: u64,
}

impl Random {
    /// One image in three keeps nothing unsynced and one in six everything; both are common in
    /// practice and would hardly ever come out of independent draws.
    pub fn new(seed: u64) -> Random {
        let mut random = Random { state: seed, survival_percent: 0 };
        random.survival_percent = [0, 0, 100, 10, 50, 90][random.below(6)];
        random
    }
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
    fn survives(&mut self) -> bool {
        self.next() % 100 < self.survival_percent
    }
}

//! Interned strings: one arena of text, a dense symbol a string. Append only.
//!
//! The index is built when first asked for: a table that only passes from the socket to JSON never
//! pays for it.

use hashbrown::HashTable;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Strings by symbol, and back. Symbol 0 is the empty string.
#[derive(Clone, Debug)]
pub struct Interner {
    text: String,
    /// End of each string in `text`; it starts where its predecessor ends.
    ends: Vec<u32>,
    index: OnceLock<HashTable<u32>>,
    /// Keyed per process by the registry, so that no sender can aim at one bucket.
    seed: u64,
}

impl Default for Interner {
    fn default() -> Interner {
        Interner::new(0)
    }
}

impl Interner {
    pub fn new(seed: u64) -> Interner {
        Interner { text: String::new(), ends: vec![0], index: OnceLock::new(), seed }
    }

    /// Strings as they stand in a file: `text` cut at `ends`. The caller has checked that the ends
    /// ascend, stay on character boundaries and start with the empty string.
    pub(super) fn from_parts(text: String, ends: Vec<u32>) -> Interner {
        Interner { text, ends, index: OnceLock::new(), seed: 0 }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.len() <= 1
    }

    /// All text, string after string.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    pub fn get(&self, symbol: u32) -> &str {
        let (start, end) = self.range(symbol);
        &self.text[start..end]
    }

    pub fn bytes(&self, symbol: u32) -> &[u8] {
        let (start, end) = self.range(symbol);
        &self.text.as_bytes()[start..end]
    }

    fn range(&self, symbol: u32) -> (usize, usize) {
        let at = symbol as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        (start as usize, self.ends[at] as usize)
    }

    fn index(&self) -> &HashTable<u32> {
        self.index.get_or_init(|| {
            let hash = |symbol: &u32| xxh3_64_with_seed(self.bytes(*symbol), self.seed);
            let mut index = HashTable::with_capacity(self.ends.len());
            for symbol in 0..self.ends.len() as u32 {
                index.insert_unique(hash(&symbol), symbol, hash);
            }
            index
        })
    }

    /// The symbol of `bytes`, if it was ever interned.
    pub fn find(&self, bytes: &[u8]) -> Option<u32> {
        let hash = xxh3_64_with_seed(bytes, self.seed);
        self.index().find(hash, |&symbol| self.bytes(symbol) == bytes).copied()
    }

    /// The symbol of `string`, made if new. The text may not pass 4 GiB (`byte_size` tells).
    pub fn intern(&mut self, string: &str) -> u32 {
        match self.find(string.as_bytes()) {
            Some(symbol) => symbol,
            None => self.add_new(string),
        }
    }

    /// The symbol of a string that the caller knows not to be there yet.
    pub fn add_new(&mut self, string: &str) -> u32 {
        let symbol = self.ends.len() as u32;
        self.text.push_str(string);
        self.ends.push(u32::try_from(self.text.len()).expect("interned text passed 4 GiB"));
        let (text, ends, seed) = (&self.text, &self.ends, self.seed);
        if let Some(index) = self.index.get_mut() {
            let hash = |symbol: &u32| {
                let at = *symbol as usize;
                let start = if at == 0 { 0 } else { ends[at - 1] as usize };
                xxh3_64_with_seed(&text.as_bytes()[start..ends[at] as usize], seed)
            };
            index.insert_unique(xxh3_64_with_seed(string.as_bytes(), seed), symbol, hash);
        }
        symbol
    }

    /// Bytes of text held.
    pub fn byte_size(&self) -> usize {
        self.text.len()
    }

    pub fn memory_bytes(&self) -> usize {
        self.text.capacity()
            + self.ends.capacity() * 4
            + self.index.get().map_or(0, |index| index.allocation_size())
    }
}

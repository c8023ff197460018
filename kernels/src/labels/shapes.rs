//! Shapes: lists of label names, interned. A series is a shape plus one value a name, so "which
//! position holds `le`" is answered once a shape, not once a series.

use hashbrown::{HashSet, HashTable};
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Hash of a key made of symbols. Symbols are dense numbers that no sender chooses.
pub(super) fn hash_symbols(first: u32, rest: impl Iterator<Item = u32>) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u32(first);
    for symbol in rest {
        hasher.write_u32(symbol);
    }
    hasher.finish()
}

/// Lists of name symbols by number, and back. Shape 0 is the empty list.
#[derive(Clone, Debug)]
pub struct Shapes {
    names: Vec<u32>,
    ends: Vec<u32>,
    index: HashTable<u32>,
}

impl Default for Shapes {
    fn default() -> Shapes {
        let mut shapes = Shapes { names: Vec::new(), ends: Vec::new(), index: HashTable::new() };
        shapes.intern(&[]);
        shapes
    }
}

impl Shapes {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.len() <= 1
    }

    /// Name symbols of a shape, ascending by their strings.
    pub fn get(&self, shape: u32) -> &[u32] {
        list(&self.names, &self.ends, shape)
    }

    pub fn find(&self, names: &[u32]) -> Option<u32> {
        let hash = hash_symbols(names.len() as u32, names.iter().copied());
        self.index.find(hash, |&shape| self.get(shape) == names).copied()
    }

    pub fn intern(&mut self, names: &[u32]) -> u32 {
        if let Some(shape) = self.find(names) {
            return shape;
        }
        let shape = self.ends.len() as u32;
        self.names.extend_from_slice(names);
        self.ends.push(self.names.len() as u32);
        let (all, ends) = (&self.names, &self.ends);
        let hash_of = |shape: &u32| {
            let names = list(all, ends, *shape);
            hash_symbols(names.len() as u32, names.iter().copied())
        };
        self.index.insert_unique(hash_of(&shape), shape, hash_of);
        shape
    }

    pub fn memory_bytes(&self) -> usize {
        (self.names.capacity() + self.ends.capacity()) * 4 + self.index.allocation_size()
    }
}

fn list<'a>(names: &'a [u32], ends: &[u32], shape: u32) -> &'a [u32] {
    let at = shape as usize;
    let start = if at == 0 { 0 } else { ends[at - 1] as usize };
    &names[start..ends[at] as usize]
}

/// What is left of one shape: the shape of the remaining names and where their values stand.
#[derive(Clone, Debug)]
pub struct Kept {
    pub shape: u32,
    pub positions: Box<[u32]>,
}

/// `by (names)` or `without (names)` over shapes, worked out once a shape.
pub struct Projection {
    names: HashSet<u32>,
    without: bool,
    kept: Vec<Option<Kept>>,
    /// The shapes that remain.
    pub shapes: Shapes,
    scratch: Vec<u32>,
}

impl Projection {
    /// `names` are symbols; names unknown to the table are simply not there.
    pub fn new(names: impl IntoIterator<Item = u32>, without: bool) -> Projection {
        Projection {
            names: names.into_iter().collect(),
            without,
            kept: Vec::new(),
            shapes: Shapes::default(),
            scratch: Vec::new(),
        }
    }

    /// Forget the source shapes (not the remaining ones): the next source numbers its own.
    pub fn next_source(&mut self) {
        self.kept.clear();
    }

    /// What is left of the source's shape `number`, whose names are `names`.
    pub fn keep(&mut self, number: u32, names: &[u32]) -> &Kept {
        let at = number as usize;
        if at >= self.kept.len() {
            self.kept.resize(at + 1, None);
        }
        if self.kept[at].is_none() {
            self.scratch.clear();
            let mut positions = Vec::new();
            for (position, name) in names.iter().enumerate() {
                if self.names.contains(name) != self.without {
                    self.scratch.push(*name);
                    positions.push(position as u32);
                }
            }
            let shape = self.shapes.intern(&self.scratch);
            self.kept[at] = Some(Kept { shape, positions: positions.into_boxed_slice() });
        }
        self.kept[at].as_ref().expect("just made")
    }
}

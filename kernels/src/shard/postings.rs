//! The index of one tenant: label pair -> rows, name -> its pairs, shape -> rows.
//!
//! Invariant: rows only ever arrive in ascending order, so every posting is sorted and appending
//! costs no search. Pair numbers are dense and the tenant's own; names and values are symbols.

use crate::model::{SeriesRow, Symbol};
use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;
use rustc_hash::{FxBuildHasher, FxHasher};
use std::hash::Hasher;
use std::ops::Range;

/// Rows of one pair. Most pairs of a large registry have one row (an instance, a pod, an id), so
/// a bitmap each would be most of the memory.
#[derive(Clone, Debug)]
pub enum Posting {
    One(SeriesRow),
    Few(Vec<SeriesRow>),
    Many(Box<Rows>),
}

/// A growing set of rows. Series that come together mostly have most pairs in common, so the last
/// run of rows stands apart: making it longer is an addition, not a search in the bitmap.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    bitmap: RoaringBitmap,
    /// Above all rows of the bitmap.
    run: Range<SeriesRow>,
}

impl Rows {
    /// Append a row above all others.
    #[inline]
    fn push(&mut self, row: SeriesRow) {
        if row != self.run.end || self.run.is_empty() {
            self.close_run();
            self.run.start = row;
        }
        self.run.end = row + 1;
    }

    fn close_run(&mut self) {
        // Not `try_push`: it looks for the greatest row from the end of a 64 Ki page.
        match self.run.len() {
            0 => {}
            1 => drop(self.bitmap.insert(self.run.start)),
            _ => drop(self.bitmap.insert_range(self.run.clone())),
        }
    }

    pub fn len(&self) -> u64 {
        self.bitmap.len() + self.run.len() as u64
    }

    pub fn add_to(&self, rows: &mut RoaringBitmap) {
        *rows |= &self.bitmap;
        rows.insert_range(self.run.clone());
    }

    pub fn to_bitmap(&self) -> RoaringBitmap {
        let mut rows = self.bitmap.clone();
        rows.insert_range(self.run.clone());
        rows
    }

    fn count_in(&self, rows: &RoaringBitmap) -> u64 {
        self.bitmap.intersection_len(rows) + rows.range_cardinality(self.run.clone())
    }

    fn retain_in(&self, rows: &mut RoaringBitmap) {
        let mut kept = RoaringBitmap::new();
        kept.insert_range(self.run.clone());
        kept &= &*rows;
        *rows &= &self.bitmap;
        *rows |= kept;
    }

    fn memory_bytes(&self) -> usize {
        self.bitmap.serialized_size() + size_of::<Rows>()
    }
}

/// Above this a bitmap is smaller than four bytes a row.
const FEW_MAX: usize = 48;

impl Posting {
    /// Append a row above all others.
    fn push(&mut self, row: SeriesRow) {
        match self {
            Posting::One(first) => *self = Posting::Few(vec![*first, row]),
            Posting::Few(rows) if rows.len() < FEW_MAX => rows.push(row),
            Posting::Few(rows) => {
                let mut many = Rows::default();
                rows.iter().for_each(|&row| many.push(row));
                many.push(row);
                *self = Posting::Many(Box::new(many));
            }
            Posting::Many(rows) => rows.push(row),
        }
    }

    pub fn count(&self) -> u64 {
        match self {
            Posting::One(_) => 1,
            Posting::Few(rows) => rows.len() as u64,
            Posting::Many(rows) => rows.len(),
        }
    }

    /// The lowest row.
    pub fn first(&self) -> SeriesRow {
        match self {
            Posting::One(row) => *row,
            Posting::Few(rows) => rows[0],
            Posting::Many(rows) => rows.bitmap.min().unwrap_or(rows.run.start),
        }
    }

    /// How many of its rows are among these?
    pub fn count_in(&self, rows: &RoaringBitmap) -> u64 {
        match self {
            Posting::One(row) => u64::from(rows.contains(*row)),
            Posting::Few(few) => few.iter().filter(|&&row| rows.contains(row)).count() as u64,
            Posting::Many(many) => many.count_in(rows),
        }
    }

    /// How many rows from `first` on, up to the greatest of `rows`? Rows that come later do not count.
    pub fn count_from(&self, first: SeriesRow, rows: &RoaringBitmap) -> u64 {
        let Some(last) = rows.max().filter(|&last| last >= first) else { return 0 };
        let new = first..=last;
        match self {
            Posting::One(row) => u64::from(new.contains(row)),
            Posting::Few(few) => few.iter().filter(|&row| new.contains(row)).count() as u64,
            Posting::Many(many) => {
                let run = many.run.start.max(first)..many.run.end.min(last + 1);
                many.bitmap.range_cardinality(new) + run.len() as u64
            }
        }
    }

    /// Is any of its rows among these?
    pub fn meets(&self, rows: &RoaringBitmap) -> bool {
        match self {
            Posting::One(row) => rows.contains(*row),
            Posting::Few(few) => few.iter().any(|&row| rows.contains(row)),
            Posting::Many(many) => {
                rows.range_cardinality(many.run.clone()) > 0 || !many.bitmap.is_disjoint(rows)
            }
        }
    }

    pub fn to_bitmap(&self) -> RoaringBitmap {
        match self {
            Posting::One(row) => std::iter::once(*row).collect(),
            Posting::Few(few) => few.iter().copied().collect(),
            Posting::Many(rows) => rows.to_bitmap(),
        }
    }

    pub fn retain_in(&self, rows: &mut RoaringBitmap) {
        match self {
            Posting::Many(many) => many.retain_in(rows),
            few => *rows &= few.to_bitmap(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Posting::One(_) => 0,
            Posting::Few(rows) => rows.capacity() * 4 + 8,
            Posting::Many(rows) => rows.memory_bytes(),
        }
    }
}

/// One tenant's index.
#[derive(Default, Debug)]
pub struct TenantIndex {
    /// (name, value) of each pair.
    pairs: Vec<(Symbol, Symbol)>,
    postings: Vec<Posting>,
    numbers: HashTable<u32>,
    /// The pairs of each name, in the order they came.
    names: HashMap<Symbol, Vec<u32>, FxBuildHasher>,
    shapes: HashMap<u32, Posting, FxBuildHasher>,
    rows: Rows,
}

fn hash_pair(name: Symbol, value: Symbol) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u64(u64::from(name) << 32 | u64::from(value));
    hasher.finish()
}

impl TenantIndex {
    /// The pair's number, if any series has it.
    pub fn find(&self, name: Symbol, value: Symbol) -> Option<u32> {
        let same = |&pair: &u32| self.pairs[pair as usize] == (name, value);
        self.numbers.find(hash_pair(name, value), same).copied()
    }

    /// Add `row` to a pair; answers the pair's number.
    pub fn add(&mut self, name: Symbol, value: Symbol, row: SeriesRow) -> u32 {
        if let Some(pair) = self.find(name, value) {
            self.postings[pair as usize].push(row);
            return pair;
        }
        let pair = self.pairs.len() as u32;
        self.pairs.push((name, value));
        self.postings.push(Posting::One(row));
        let pairs = &self.pairs;
        self.numbers.insert_unique(hash_pair(name, value), pair, |&pair| {
            let (name, value) = pairs[pair as usize];
            hash_pair(name, value)
        });
        self.names.entry(name).or_default().push(pair);
        pair
    }

    /// Add `row` to a pair known by its number.
    pub fn add_known(&mut self, pair: u32, row: SeriesRow) {
        self.postings[pair as usize].push(row);
    }

    /// Note the row itself and its shape: once a row, after its pairs.
    pub fn add_row(&mut self, shape: u32, row: SeriesRow) {
        self.rows.push(row);
        self.shapes.entry(shape).and_modify(|rows| rows.push(row)).or_insert(Posting::One(row));
    }

    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn posting(&self, pair: u32) -> &Posting {
        &self.postings[pair as usize]
    }

    /// (value, rows) of every pair of a name.
    pub fn values(&self, name: Symbol) -> impl ExactSizeIterator<Item = (Symbol, &Posting)> {
        let pairs: &[u32] = self.names.get(&name).map_or(&[], Vec::as_slice);
        pairs.iter().map(|&pair| (self.pairs[pair as usize].1, &self.postings[pair as usize]))
    }

    pub fn names(&self) -> impl Iterator<Item = (Symbol, usize)> {
        self.names.iter().map(|(&name, pairs)| (name, pairs.len()))
    }

    pub fn pair_count(&self) -> usize {
        self.pairs.len()
    }

    /// As `pairs`, of some numbers: new pairs get higher ones.
    pub fn pairs_between(
        &self,
        numbers: Range<usize>,
    ) -> impl Iterator<Item = (Symbol, Symbol, &Posting)> {
        let pairs = self.pairs[numbers.clone()].iter().zip(&self.postings[numbers]);
        pairs.map(|(&(name, value), rows)| (name, value, rows))
    }

    /// (name, value, rows) of every pair.
    pub fn pairs(&self) -> impl Iterator<Item = (Symbol, Symbol, &Posting)> {
        self.pairs.iter().zip(&self.postings).map(|(&(name, value), rows)| (name, value, rows))
    }

    pub fn shapes(&self) -> impl Iterator<Item = (u32, &Posting)> {
        self.shapes.iter().map(|(&shape, rows)| (shape, rows))
    }

    /// Walks all postings: for status and tests, not for every record.
    pub fn memory_bytes(&self) -> usize {
        let heap: usize = self.postings.iter().map(Posting::memory_bytes).sum();
        let shapes: usize = self.shapes.values().map(Posting::memory_bytes).sum();
        let names: usize = self.names.values().map(|pairs| pairs.capacity() * 4 + 40).sum();
        heap + shapes
            + names
            + self.rows.memory_bytes()
            + self.pairs.capacity() * 8
            + self.postings.capacity() * size_of::<Posting>()
            + self.numbers.allocation_size()
            + self.shapes.allocation_size()
    }
}

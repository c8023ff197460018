//! Grouping and matching: series with the same labels under `by`, `without`, `on` or `ignoring`
//! get the same number, in order of first appearance. Keys are symbols; no string is touched.

use super::METRIC_NAME;
use super::shapes::{Projection, Shapes, hash_symbols};
use super::table::LabelTable;
use hashbrown::HashTable;
use std::cmp::Ordering;
use std::sync::Arc;

/// Numbers keys of (remaining shape, remaining values). Serves tables and the registry alike.
pub struct Grouping {
    projection: Projection,
    index: HashTable<u32>,
    /// The groups' own labels, laid out as in a table.
    shape_of: Vec<u32>,
    starts: Vec<u32>,
    values: Vec<u32>,
    last: u32,
}

impl Grouping {
    pub fn new(projection: Projection) -> Grouping {
        Grouping {
            projection,
            index: HashTable::new(),
            shape_of: Vec::new(),
            starts: vec![0],
            values: Vec::new(),
            last: 0,
        }
    }

    /// The next source numbers its shapes anew (symbols and groups stay).
    pub fn next_source(&mut self) {
        self.projection.next_source();
    }

    pub fn len(&self) -> usize {
        self.shape_of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.shape_of.is_empty()
    }

    /// The group of a series whose shape `number` has `names`, with `values` parallel to them.
    pub fn group_of(&mut self, number: u32, names: &[u32], values: &[u32]) -> u32 {
        let kept = self.projection.keep(number, names);
        let shape = kept.shape;
        let start = self.values.len();
        self.values.extend(kept.positions.iter().map(|&at| values[at as usize]));
        let (shape_of, starts, all) = (&self.shape_of, &self.starts, &self.values);
        let key = &all[start..];
        let values_of =
            |group: u32| &all[starts[group as usize] as usize..starts[group as usize + 1] as usize];
        let same = |group: u32| shape_of[group as usize] == shape && values_of(group) == key;
        // Neighbours mostly share their group.
        if !shape_of.is_empty() && same(self.last) {
            self.values.truncate(start);
            return self.last;
        }
        let hash = hash_symbols(shape, key.iter().copied());
        if let Some(&group) = self.index.find(hash, |&group| same(group)) {
            self.values.truncate(start);
            self.last = group;
            return group;
        }
        let group = shape_of.len() as u32;
        self.index.insert_unique(hash, group, |&group| {
            hash_symbols(shape_of[group as usize], values_of(group).iter().copied())
        });
        self.shape_of.push(shape);
        self.starts.push(self.values.len() as u32);
        self.last = group;
        group
    }

    /// The groups' labels: (shapes, shape of each group, starts, values).
    pub fn into_parts(self) -> (Shapes, Vec<u32>, Vec<u32>, Vec<u32>) {
        (self.projection.shapes, self.shape_of, self.starts, self.values)
    }
}

impl LabelTable {
    /// `by (names)` or `without (names)`; the latter drops the metric name as well.
    /// Returns the group of each series, numbered by first appearance, and the groups' labels.
    pub fn group<S: AsRef<str>>(&self, names: &[S], without: bool) -> (Vec<u32>, LabelTable) {
        let implied = without.then_some(METRIC_NAME);
        let names = names.iter().map(AsRef::as_ref).chain(implied);
        let symbols = names.filter_map(|name| self.strings.find(name.as_bytes()));
        self.number(Projection::new(symbols, without))
    }

    fn number(&self, projection: Projection) -> (Vec<u32>, LabelTable) {
        let mut grouping = Grouping::new(projection);
        let groups = self.group_into(&mut grouping);
        let (shapes, shape_of, starts, values) = grouping.into_parts();
        let (strings, shapes) = (Arc::clone(&self.strings), Arc::new(shapes));
        (groups, LabelTable { strings, shapes, shape_of, starts, values })
    }

    fn group_into(&self, grouping: &mut Grouping) -> Vec<u32> {
        (0..self.len())
            .map(|i| {
                let (names, values) = self.symbols(i);
                grouping.group_of(self.shape_of[i], names, values)
            })
            .collect()
    }

    /// Numbers of the whole label sets by first appearance.
    pub fn dedup_ids(&self) -> Vec<u32> {
        self.number(Projection::new([], true)).0
    }

    /// The first series whose label set came before, if any.
    pub fn first_duplicate(&self) -> Option<usize> {
        let mut fresh = 0;
        self.dedup_ids().into_iter().position(|id| {
            let seen = id < fresh;
            fresh += u32::from(!seen);
            seen
        })
    }

    /// Signatures of both sides of a binary operation in one numbering: `on (names)` or
    /// `ignoring (names)`; the latter ignores the metric name too. Returns both sides' ids and
    /// how many there are.
    pub fn match_with<S: AsRef<str>>(
        &self,
        other: &LabelTable,
        names: &[S],
        on: bool,
    ) -> (Vec<u32>, Vec<u32>, u32) {
        let mut symbols = Translation::new(self, other);
        let implied = (!on).then_some(METRIC_NAME);
        let wanted: Vec<u32> = names
            .iter()
            .map(AsRef::as_ref)
            .chain(implied)
            .filter_map(|name| symbols.find(name.as_bytes()))
            .collect();
        let mut grouping = Grouping::new(Projection::new(wanted, !on));
        let left = self.group_into(&mut grouping);
        grouping.next_source();
        let mut shapes: Vec<Option<Box<[u32]>>> = vec![None; other.shapes.len()];
        let mut values = Vec::new();
        let right = (0..other.len())
            .map(|i| {
                let shape = other.shape_of[i];
                let names = shapes[shape as usize].get_or_insert_with(|| {
                    other.shapes.get(shape).iter().map(|&name| symbols.ours(name)).collect()
                });
                values.clear();
                values.extend(other.values_at(i).iter().map(|&value| symbols.ours(value)));
                grouping.group_of(shape, names, &values)
            })
            .collect();
        (left, right, grouping.len() as u32)
    }

    /// Positions of the series in the order of Prometheus' `labels.Compare`; equals keep theirs.
    pub fn sort_order(&self) -> Vec<u32> {
        let ranks = self.ranks();
        let values: Vec<u32> = self.values.iter().map(|&value| ranks[value as usize]).collect();
        let ranked = |i: u32| {
            let at = i as usize;
            (
                self.shapes.get(self.shape_of[at]),
                &values[self.starts[at] as usize..self.starts[at + 1] as usize],
            )
        };
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by(|&a, &b| {
            let same_shape = self.shape_of[a as usize] == self.shape_of[b as usize];
            let ((a_names, a_values), (b_names, b_values)) = (ranked(a), ranked(b));
            if same_shape {
                return a_values.cmp(b_values);
            }
            let a_pairs = a_names.iter().map(|&name| ranks[name as usize]).zip(a_values);
            let b_pairs = b_names.iter().map(|&name| ranks[name as usize]).zip(b_values);
            a_pairs.cmp(b_pairs).then(Ordering::Equal)
        });
        order
    }

    /// The place of each symbol in use among all of them, by bytes.
    fn ranks(&self) -> Vec<u32> {
        let mut used = vec![false; self.strings.len()];
        self.values.iter().for_each(|&value| used[value as usize] = true);
        for shape in 0..self.shapes.len() {
            self.shapes.get(shape as u32).iter().for_each(|&name| used[name as usize] = true);
        }
        let mut sorted: Vec<u32> =
            (0..self.strings.len() as u32).filter(|&symbol| used[symbol as usize]).collect();
        sorted.sort_unstable_by_key(|&symbol| self.strings.bytes(symbol));
        let mut ranks = vec![0; self.strings.len()];
        for (rank, symbol) in sorted.into_iter().enumerate() {
            ranks[symbol as usize] = rank as u32;
        }
        ranks
    }
}

/// The symbols of another table in ours; strings we do not know get numbers past our own.
struct Translation<'a> {
    ours: &'a LabelTable,
    other: &'a LabelTable,
    symbols: Vec<u32>,
    fresh: u32,
    shared: bool,
}

impl<'a> Translation<'a> {
    fn new(ours: &'a LabelTable, other: &'a LabelTable) -> Translation<'a> {
        let shared = Arc::ptr_eq(&ours.strings, &other.strings);
        let symbols = if shared { Vec::new() } else { vec![u32::MAX; other.strings.len()] };
        Translation { ours, other, symbols, fresh: ours.strings.len() as u32, shared }
    }

    fn ours(&mut self, theirs: u32) -> u32 {
        if self.shared {
            return theirs;
        }
        let known = self.symbols[theirs as usize];
        if known != u32::MAX {
            return known;
        }
        let found = self.ours.strings.find(self.other.strings.bytes(theirs)).unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        self.symbols[theirs as usize] = found;
        found
    }

    fn find(&mut self, name: &[u8]) -> Option<u32> {
        let ours = self.ours.strings.find(name);
        ours.or_else(|| self.other.strings.find(name).map(|theirs| self.ours(theirs)))
    }
}

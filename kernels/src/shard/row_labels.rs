//! The labels of rows as tables, and rows by group: out of the shard's symbols into a table's own.

use super::registry::Registry;
use crate::labels::{Grouping, LabelTable, LabelTableBuilder, METRIC_NAME, Projection};
use crate::model::{SeriesRow, Symbol};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

impl Registry {
    /// Labels of rows, in their order.
    pub fn label_table(&self, rows: &[SeriesRow]) -> LabelTable {
        let mut copy = TableCopy::new(self, rows.len());
        for &row in rows {
            let (_, names, values) = self.parts(row);
            copy.push(names, values);
        }
        copy.builder.finish()
    }

    /// Group of each row under `by (names)` or `without (names)` (which drops `__name__` too),
    /// numbered by first appearance, and the groups' labels.
    pub fn group_rows(
        &self,
        rows: &[SeriesRow],
        names: &[String],
        without: bool,
    ) -> (Vec<u32>, LabelTable) {
        let implied = without.then_some(METRIC_NAME);
        let names = names.iter().map(String::as_str).chain(implied);
        let symbols = names.filter_map(|name| self.strings.find(name.as_bytes()));
        let mut grouping = Grouping::new(Projection::new(symbols, without));
        let group_of = |&row: &SeriesRow| {
            let (shape, names, values) = self.parts(row);
            grouping.group_of(shape, names, values)
        };
        let groups = rows.iter().map(group_of).collect();
        let (shapes, shape_of, starts, values) = grouping.into_parts();
        let mut copy = TableCopy::new(self, shape_of.len());
        for (group, &shape) in shape_of.iter().enumerate() {
            let values = &values[starts[group] as usize..starts[group + 1] as usize];
            copy.push(shapes.get(shape), values);
        }
        (groups, copy.builder.finish())
    }
}

/// Copies series out of the registry into a table with symbols of its own.
struct TableCopy<'a> {
    registry: &'a Registry,
    builder: LabelTableBuilder,
    /// Their symbol -> ours (0 = not yet): one place a symbol for many series ...
    dense: Vec<u32>,
    /// ... a map for few.
    sparse: HashMap<Symbol, u32, FxBuildHasher>,
    /// (theirs, ours) at each position of the series before: mostly the same again.
    recent: Vec<(u32, u32)>,
}

impl<'a> TableCopy<'a> {
    fn new(registry: &'a Registry, series: usize) -> TableCopy<'a> {
        let symbols = registry.strings.len();
        TableCopy {
            registry,
            builder: LabelTableBuilder::default(),
            dense: if series >= symbols / 16 { vec![0; symbols] } else { Vec::new() },
            sparse: HashMap::default(),
            recent: Vec::new(),
        }
    }

    fn push(&mut self, names: &[Symbol], values: &[Symbol]) {
        if self.recent.len() < names.len() * 2 {
            self.recent.resize(names.len() * 2, (0, 0));
        }
        for (at, (&name, &value)) in names.iter().zip(values).enumerate() {
            let name = self.symbol(at * 2, name);
            let value = self.symbol(at * 2 + 1, value);
            self.builder.label(name, value);
        }
        self.builder.end_series();
    }

    fn symbol(&mut self, at: usize, theirs: Symbol) -> u32 {
        if self.recent[at].0 != theirs {
            let ours = match self.dense.get_mut(theirs as usize) {
                Some(ours) => ours,
                None => self.sparse.entry(theirs).or_insert(0),
            };
            if *ours == 0 {
                *ours = self.builder.add_new(self.registry.strings.get(theirs));
            }
            self.recent[at] = (theirs, *ours);
        }
        self.recent[at].1
    }
}

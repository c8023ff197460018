//! One numbering of the label sets of several tables: equal sets get the same number, whichever
//! table they stand in. Strings are looked up once a table, series compare as numbers.

use super::group::Grouping;
use super::shapes::Projection;
use super::strings::Interner;
use super::table::LabelTable;
use std::sync::Arc;

/// The label sets met so far, numbered by first appearance.
pub struct Union {
    strings: Interner,
    grouping: Grouping,
}

impl Default for Union {
    fn default() -> Union {
        // Without no names: the whole label set is the key.
        Union { strings: Interner::default(), grouping: Grouping::new(Projection::new([], true)) }
    }
}

impl Union {
    /// Label sets so far.
    pub fn len(&self) -> usize {
        self.grouping.len()
    }

    pub fn is_empty(&self) -> bool {
        self.grouping.is_empty()
    }

    /// The number of each series of `table`, in its order.
    pub fn add(&mut self, table: &LabelTable) -> Vec<u32> {
        self.grouping.next_source();
        let mut symbols = vec![u32::MAX; table.strings.len()];
        let strings = &mut self.strings;
        let mut ours = |theirs: u32| {
            let known = &mut symbols[theirs as usize];
            if *known == u32::MAX {
                *known = strings.intern(table.strings.get(theirs));
            }
            *known
        };
        let mut shapes: Vec<Option<Box<[u32]>>> = vec![None; table.shapes.len()];
        let mut values = Vec::new();
        (0..table.len())
            .map(|i| {
                let shape = table.shape_of[i];
                let names = shapes[shape as usize].get_or_insert_with(|| {
                    table.shapes.get(shape).iter().map(|&name| ours(name)).collect()
                });
                values.clear();
                values.extend(table.values_at(i).iter().map(|&value| ours(value)));
                self.grouping.group_of(shape, names, &values)
            })
            .collect()
    }

    /// All label sets, in the order of their numbers.
    pub fn finish(self) -> LabelTable {
        let (shapes, shape_of, starts, values) = self.grouping.into_parts();
        let (strings, shapes) = (Arc::new(self.strings), Arc::new(shapes));
        LabelTable { strings, shapes, shape_of, starts, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_label_sets_share_a_number_across_tables() {
        let table = |series: &[&[(&str, &str)]]| {
            let lists: Vec<Vec<(&str, &str)>> = series.iter().map(|s| s.to_vec()).collect();
            LabelTable::from_lists(&lists)
        };
        let mut union = Union::default();
        let first = table(&[&[("a", "1"), ("b", "x")], &[("a", "1")], &[]]);
        let second = table(&[&[("b", "x")], &[("a", "1")], &[("b", "x"), ("a", "1")]]);
        assert_eq!(union.add(&first), [0, 1, 2]);
        assert_eq!(union.add(&second), [3, 1, 0]);
        assert_eq!(union.add(&first), [0, 1, 2]);
        assert_eq!(union.len(), 4);
        let all = union.finish().to_list();
        assert_eq!(all[0], [("a".to_owned(), "1".to_owned()), ("b".into(), "x".into())]);
        assert_eq!(all[3], [("b".to_owned(), "x".to_owned())]);
        assert!(all[2].is_empty());
    }
}

//! `LabelTable`: the label sets of S series. Immutable; every operation gives a new table that
//! shares strings and shapes where it can.

use super::shapes::Shapes;
use super::strings::Interner;
use crate::error::{KernelError, Result};
use std::sync::Arc;

/// Label sets of S series, in the order of their series.
#[derive(Clone, Debug)]
pub struct LabelTable {
    pub(super) strings: Arc<Interner>,
    pub(super) shapes: Arc<Shapes>,
    pub(super) shape_of: Vec<u32>,
    /// Series `i` owns `values[starts[i]..starts[i + 1]]`, parallel to the names of its shape.
    pub(super) starts: Vec<u32>,
    pub(super) values: Vec<u32>,
}

impl Default for LabelTable {
    fn default() -> LabelTable {
        LabelTableBuilder::default().finish()
    }
}

impl LabelTable {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.shape_of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.shape_of.is_empty()
    }

    pub fn memory_bytes(&self) -> usize {
        self.strings.memory_bytes()
            + self.shapes.memory_bytes()
            + (self.shape_of.capacity() + self.starts.capacity() + self.values.capacity()) * 4
    }

    /// Name and value symbols of series `i`.
    pub(crate) fn symbols(&self, i: usize) -> (&[u32], &[u32]) {
        (self.shapes.get(self.shape_of[i]), self.values_at(i))
    }

    pub(super) fn values_at(&self, i: usize) -> &[u32] {
        &self.values[self.starts[i] as usize..self.starts[i + 1] as usize]
    }

    /// Number of symbols: each is below it.
    pub(crate) fn symbol_count(&self) -> usize {
        self.strings.len()
    }

    pub(crate) fn string(&self, symbol: u32) -> &str {
        self.strings.get(symbol)
    }

    /// Labels of series `i`, ascending by name.
    pub fn labels(&self, i: usize) -> impl Iterator<Item = (&str, &str)> {
        let (names, values) = self.symbols(i);
        names.iter().zip(values).map(|(&n, &v)| (self.strings.get(n), self.strings.get(v)))
    }

    /// Value of `name` in series `i`; empty where it is absent.
    pub fn value(&self, i: usize, name: &str) -> &str {
        self.labels(i).find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }

    /// Label sets as lists of pairs, ascending by name.
    pub fn to_list(&self) -> Vec<Vec<(String, String)>> {
        let own = |(n, v): (&str, &str)| (n.to_owned(), v.to_owned());
        (0..self.len()).map(|i| self.labels(i).map(own).collect()).collect()
    }

    /// A table of the given label sets; names may come in any order, empty values are dropped,
    /// of a name given twice the last counts.
    pub fn from_lists<S: AsRef<str>>(series: &[Vec<(S, S)>]) -> LabelTable {
        let mut builder = LabelTableBuilder::default();
        let mut sorted: Vec<(&str, &str)> = Vec::new();
        for labels in series {
            sorted.clear();
            sorted.extend(labels.iter().map(|(n, v)| (n.as_ref(), v.as_ref())));
            sorted.sort_by_key(|(n, _)| *n);
            for (at, &(name, value)) in sorted.iter().enumerate() {
                if sorted.get(at + 1).is_none_or(|next| next.0 != name) && !value.is_empty() {
                    let (name, value) = (builder.intern(name), builder.intern(value));
                    builder.label(name, value);
                }
            }
            builder.end_series();
        }
        builder.finish()
    }

    /// The series at `index`, in that order; an index may come more than once.
    pub fn take(&self, index: &[usize]) -> Result<LabelTable> {
        if let Some(bad) = index.iter().find(|&&i| i >= self.len()) {
            return Err(out_of_range(*bad, self.len()));
        }
        let mut table = self.empty_like(index.len());
        for &i in index {
            table.shape_of.push(self.shape_of[i]);
            table.values.extend_from_slice(self.values_at(i));
            table.starts.push(table.values.len() as u32);
        }
        Ok(table)
    }

    /// A table without series over the same strings and shapes.
    pub(super) fn empty_like(&self, capacity: usize) -> LabelTable {
        let mut starts = Vec::with_capacity(capacity + 1);
        starts.push(0);
        LabelTable {
            strings: Arc::clone(&self.strings),
            shapes: Arc::clone(&self.shapes),
            shape_of: Vec::with_capacity(capacity),
            starts,
            values: Vec::with_capacity(capacity * 4),
        }
    }

    /// The series of all tables, table after table.
    pub fn concat(tables: &[&LabelTable]) -> LabelTable {
        let Some((first, rest)) = tables.split_first() else {
            return LabelTable::default();
        };
        let mut answer = (*first).clone();
        for table in rest {
            answer.append(table);
        }
        answer
    }

    pub(super) fn append(&mut self, other: &LabelTable) {
        let base = self.values.len() as u32;
        if Arc::ptr_eq(&self.strings, &other.strings) && Arc::ptr_eq(&self.shapes, &other.shapes) {
            self.shape_of.extend_from_slice(&other.shape_of);
            self.values.extend_from_slice(&other.values);
        } else {
            let strings = Arc::make_mut(&mut self.strings);
            let mut symbols = vec![u32::MAX; other.strings.len()];
            let mut symbol = |theirs: u32| {
                let ours = &mut symbols[theirs as usize];
                if *ours == u32::MAX {
                    *ours = strings.intern(other.strings.get(theirs));
                }
                *ours
            };
            let shapes = Arc::make_mut(&mut self.shapes);
            let mut shape_map = vec![u32::MAX; other.shapes.len()];
            for &theirs in &other.shape_of {
                let ours = &mut shape_map[theirs as usize];
                if *ours == u32::MAX {
                    let names: Vec<u32> =
                        other.shapes.get(theirs).iter().map(|&name| symbol(name)).collect();
                    *ours = shapes.intern(&names);
                }
                self.shape_of.push(*ours);
            }
            self.values.extend(other.values.iter().map(|&value| symbol(value)));
        }
        self.starts.extend(other.starts[1..].iter().map(|end| base + end));
    }

    /// All label names in use, ascending.
    pub fn names(&self) -> Vec<String> {
        let mut seen = vec![false; self.shapes.len()];
        self.shape_of.iter().for_each(|&shape| seen[shape as usize] = true);
        let mut names: Vec<&str> = (0..self.shapes.len())
            .filter(|&shape| seen[shape])
            .flat_map(|shape| self.shapes.get(shape as u32))
            .map(|&name| self.strings.get(name))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(str::to_owned).collect()
    }

    /// For each series the symbol of its value of `name`, 0 where absent.
    pub(super) fn column(&self, name: &str) -> Vec<u32> {
        let Some(symbol) = self.strings.find(name.as_bytes()) else {
            return vec![0; self.len()];
        };
        let mut positions: Vec<Option<Option<usize>>> = vec![None; self.shapes.len()];
        (0..self.len())
            .map(|i| {
                let shape = self.shape_of[i];
                let position = positions[shape as usize].get_or_insert_with(|| {
                    self.shapes.get(shape).iter().position(|&name| name == symbol)
                });
                position.map_or(0, |at| self.values[self.starts[i] as usize + at])
            })
            .collect()
    }

    /// Value of `name` for each series, empty where absent.
    pub fn values_of(&self, name: &str) -> Vec<&str> {
        self.column(name).into_iter().map(|symbol| self.strings.get(symbol)).collect()
    }

    /// The values of `name` as codes numbered by first appearance, and their strings.
    pub fn codes_of(&self, name: &str) -> (Vec<u32>, Vec<&str>) {
        let mut codes = vec![u32::MAX; self.strings.len()];
        let mut strings = Vec::new();
        let column = self.column(name).into_iter().map(|symbol| {
            let code = &mut codes[symbol as usize];
            if *code == u32::MAX {
                *code = strings.len() as u32;
                strings.push(self.strings.get(symbol));
            }
            *code
        });
        (column.collect(), strings)
    }
}

pub(super) fn out_of_range(index: usize, length: usize) -> KernelError {
    KernelError::Backend(format!("series index {index} of a table of {length}"))
}

/// Builds a table series by series: `intern` strings, give `label`s ascending by name, `end_series`.
#[derive(Default)]
pub struct LabelTableBuilder {
    strings: Interner,
    shapes: Shapes,
    shape_of: Vec<u32>,
    ends: Vec<u32>,
    values: Vec<u32>,
    names: Vec<u32>,
    previous: Vec<u32>,
}

impl LabelTableBuilder {
    pub fn intern(&mut self, string: &str) -> u32 {
        self.strings.intern(string)
    }

    /// As `intern`, for a string that was not given before.
    pub fn add_new(&mut self, string: &str) -> u32 {
        self.strings.add_new(string)
    }

    /// One label of the open series; names must ascend, the value must not be empty.
    pub fn label(&mut self, name: u32, value: u32) {
        self.names.push(name);
        self.values.push(value);
    }

    pub fn end_series(&mut self) {
        let shape = match self.shape_of.last() {
            Some(&shape) if self.previous == self.names => shape,
            _ => self.shapes.intern(&self.names),
        };
        self.shape_of.push(shape);
        self.ends.push(self.values.len() as u32);
        std::mem::swap(&mut self.previous, &mut self.names);
        self.names.clear();
    }

    pub fn finish(self) -> LabelTable {
        let mut starts = Vec::with_capacity(self.ends.len() + 1);
        starts.push(0);
        starts.extend_from_slice(&self.ends);
        LabelTable {
            strings: Arc::new(self.strings),
            shapes: Arc::new(self.shapes),
            shape_of: self.shape_of,
            starts,
            values: self.values,
        }
    }
}

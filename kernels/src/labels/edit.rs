//! Changing labels: drop, keep, set, replace, join, copy. Each is worked out once a shape and once
//! a distinct value, then applied to the columns.

use super::go_regex;
use super::shapes::{Projection, Shapes};
use super::strings::Interner;
use super::table::{LabelTable, out_of_range};
use crate::error::{KernelError, Result};
use regex_automata::util::captures::Captures;
use std::sync::Arc;

/// Text that all labels of one table may hold, and one value that is made. What is stored is far
/// smaller; a query that builds values out of values is what comes here.
const TEXT_BYTES_MAX: usize = 256 << 20;
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Errors: `sluiceway-query-labels-limit`.
fn check_room(strings: &Interner, value_bytes: usize) -> Result<()> {
    let (what, bytes, limit) = if value_bytes > VALUE_BYTES_MAX {
        ("a label's value", value_bytes, VALUE_BYTES_MAX)
    } else {
        ("all labels", strings.text().len() + value_bytes, TEXT_BYTES_MAX)
    };
    if bytes <= limit {
        return Ok(());
    }
    let message = format!("{what} would come to {bytes} bytes, over {limit}");
    Err(KernelError::client(422, "sluiceway-query-labels-limit", message))
}

/// Where a name stands, or would stand, in a shape.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    present: bool,
    shape_with: u32,
    shape_without: u32,
}

impl LabelTable {
    /// The table without these labels.
    pub fn drop<S: AsRef<str>>(&self, names: &[S]) -> LabelTable {
        self.project(names, true)
    }

    /// The table with only these labels.
    pub fn keep<S: AsRef<str>>(&self, names: &[S]) -> LabelTable {
        self.project(names, false)
    }

    fn project<S: AsRef<str>>(&self, names: &[S], without: bool) -> LabelTable {
        let symbols = names.iter().filter_map(|name| self.strings.find(name.as_ref().as_bytes()));
        let mut projection = Projection::new(symbols, without);
        let mut table = self.empty_like(self.len());
        for i in 0..self.len() {
            let (names, values) = self.symbols(i);
            let kept = projection.keep(self.shape_of[i], names);
            table.values.extend(kept.positions.iter().map(|&at| values[at as usize]));
            table.shape_of.push(kept.shape);
            table.starts.push(table.values.len() as u32);
        }
        table.shapes = Arc::new(projection.shapes);
        table
    }

    /// Every series with label `name` of this value; an empty value drops the label.
    pub fn set_label(&self, name: &str, value: &str) -> LabelTable {
        let mut strings = Arc::clone(&self.strings);
        let symbol = intern(&mut strings, value);
        self.with_column(strings, name, |_| symbol)
    }

    /// Series `i` with label `name` of value `values[i]`; an empty value drops the label.
    pub fn with_values<S: AsRef<str>>(&self, name: &str, values: &[S]) -> Result<LabelTable> {
        if values.len() != self.len() {
            return Err(out_of_range(values.len(), self.len()));
        }
        let mut strings = Arc::clone(&self.strings);
        let mut column = Vec::with_capacity(values.len());
        for value in values {
            check_room(&strings, value.as_ref().len())?;
            column.push(intern(&mut strings, value.as_ref()));
        }
        Ok(self.with_column(strings, name, |i| column[i]))
    }

    /// `label_replace`: where `regex` matches the whole value of `source`, label `target` becomes
    /// `replacement` with `$1`, `${1}`, `$name` expanded as Go's regexp does; empty drops it.
    pub fn replace(
        &self,
        target: &str,
        replacement: &str,
        source: &str,
        regex: &str,
    ) -> Result<LabelTable> {
        let regex_compiled = go_regex::compile(regex, go_regex::parse(regex)?)?;
        let mut captures = regex_compiled.create_captures();
        let references = replacement.matches('$').count();
        let mut strings = Arc::clone(&self.strings);
        // Per distinct value: not seen, no match, or the new value.
        let mut replaced: Vec<Option<Option<u32>>> = vec![None; self.strings.len()];
        let (from, old) = (self.column(source), self.column(target));
        let mut column = Vec::with_capacity(self.len());
        for (source, old) in from.into_iter().zip(old) {
            let fresh = match replaced[source as usize] {
                Some(known) => known,
                None => {
                    let value = self.strings.get(source);
                    check_room(&strings, replacement.len() + references * value.len())?;
                    regex_compiled.captures(value, &mut captures);
                    let fresh = captures.is_match().then(|| {
                        let text =
                            go_regex::expand(replacement, |group| capture(&captures, value, group));
                        intern(&mut strings, &text)
                    });
                    replaced[source as usize] = Some(fresh);
                    fresh
                }
            };
            column.push(fresh.unwrap_or(old));
        }
        Ok(self.with_column(strings, target, |i| column[i]))
    }

    /// `label_join`: label `target` becomes the values of `sources` joined by `separator`.
    pub fn join<S: AsRef<str>>(
        &self,
        target: &str,
        separator: &str,
        sources: &[S],
    ) -> Result<LabelTable> {
        let columns: Vec<Vec<u32>> = sources.iter().map(|s| self.column(s.as_ref())).collect();
        let mut strings = Arc::clone(&self.strings);
        let mut text = String::new();
        let mut column: Vec<u32> = Vec::with_capacity(self.len());
        for i in 0..self.len() {
            if i > 0 && columns.iter().all(|column| column[i] == column[i - 1]) {
                column.push(column[i - 1]);
                continue;
            }
            text.clear();
            for (at, source) in columns.iter().enumerate() {
                if at > 0 {
                    text.push_str(separator);
                }
                text.push_str(self.strings.get(source[i]));
                check_room(&strings, text.len())?;
            }
            column.push(intern(&mut strings, &text));
        }
        Ok(self.with_column(strings, target, |i| column[i]))
    }

    /// `group_left (names)`: series `i` takes these labels from series `index[i]` of `other`; a
    /// label absent there is dropped here.
    pub fn copy_labels<S: AsRef<str>>(
        &self,
        other: &LabelTable,
        index: &[usize],
        names: &[S],
    ) -> Result<LabelTable> {
        if index.len() != self.len() {
            return Err(out_of_range(index.len(), self.len()));
        }
        if let Some(bad) = index.iter().find(|&&i| i >= other.len()) {
            return Err(out_of_range(*bad, other.len()));
        }
        let mut answer = self.clone();
        for name in names {
            let column = other.column(name.as_ref());
            let mut strings = Arc::clone(&answer.strings);
            let mut ours = vec![u32::MAX; other.strings.len()];
            let mut symbols = Vec::with_capacity(index.len());
            for &i in index {
                let symbol = &mut ours[column[i] as usize];
                if *symbol == u32::MAX {
                    *symbol = intern(&mut strings, other.strings.get(column[i]));
                }
                symbols.push(*symbol);
            }
            answer = answer.with_column(strings, name.as_ref(), |i| symbols[i]);
        }
        Ok(answer)
    }

    /// Every series with `name` set to the symbol `column(i)` of `strings`; 0 drops it.
    fn with_column(
        &self,
        mut strings: Arc<Interner>,
        name: &str,
        column: impl Fn(usize) -> u32,
    ) -> LabelTable {
        let name_symbol = intern(&mut strings, name);
        let mut table = self.empty_like(self.len());
        let shapes = Arc::make_mut(&mut table.shapes);
        let mut places: Vec<Option<Place>> = vec![None; self.shapes.len()];
        for i in 0..self.len() {
            let shape = self.shape_of[i];
            let place = *places[shape as usize]
                .get_or_insert_with(|| place(shapes, shape, name_symbol, &strings));
            let values = self.values_at(i);
            let value = column(i);
            table.values.extend_from_slice(&values[..place.at]);
            if value != 0 {
                table.values.push(value);
            }
            table.values.extend_from_slice(&values[place.at + usize::from(place.present)..]);
            table.shape_of.push(if value == 0 { place.shape_without } else { place.shape_with });
            table.starts.push(table.values.len() as u32);
        }
        table.strings = strings;
        table
    }
}

fn place(shapes: &mut Shapes, shape: u32, name: u32, strings: &Interner) -> Place {
    let mut names = shapes.get(shape).to_vec();
    let found = names.binary_search_by_key(&strings.bytes(name), |&n| strings.bytes(n));
    let (at, present) = match found {
        Ok(at) => (at, true),
        Err(at) => (at, false),
    };
    if present {
        names.remove(at);
    }
    let shape_without = shapes.intern(&names);
    names.insert(at, name);
    Place { at, present, shape_with: shapes.intern(&names), shape_without }
}

/// Intern into a shared table: copied only when the string is new.
fn intern(strings: &mut Arc<Interner>, string: &str) -> u32 {
    match strings.find(string.as_bytes()) {
        Some(symbol) => symbol,
        None => Arc::make_mut(strings).intern(string),
    }
}

fn capture<'a>(captures: &Captures, value: &'a str, group: &str) -> &'a str {
    let span = match group.parse::<usize>() {
        Ok(number) => captures.get_group(number),
        Err(_) => captures.get_group_by_name(group),
    };
    span.map_or("", |span| &value[span.range()])
}

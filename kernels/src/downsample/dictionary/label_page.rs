//! A label page: the label sets of 1,024 series, with strings of their own, so that it is read
//! alone.

use super::columns::{broken, put, put_differences, read, read_differences, read_u32};
use super::text::{Texts, put_texts};
use crate::codec::bytes::{Cursor, put_varint};
use crate::downsample::mark::Mark;
use crate::error::Result;
use crate::labels::{Interner, LabelTableBuilder, Shapes};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

pub const LABEL_PAGE_SERIES: usize = 1024;
/// Names of all shapes of a page together; bounds what a page may claim.
const SHAPE_NAMES_MAX: usize = 1 << 20;
const STRINGS_MAX: usize = 1 << 22;

/// Collects series; strings are symbols of the writer's.
#[derive(Default)]
pub struct LabelPageBuilder {
    /// The writer's symbol -> the page's string.
    numbers: HashMap<u32, u32, FxBuildHasher>,
    symbols: Vec<u32>,
    shapes: Shapes,
    shape_of: Vec<u32>,
    marks: Vec<i64>,
    values: Vec<u32>,
    names: Vec<u32>,
}

impl LabelPageBuilder {
    pub fn len(&self) -> usize {
        self.shape_of.len()
    }

    /// The next series: (name, value) symbols, ascending by name.
    pub fn push(&mut self, labels: &[(u32, u32)], mark: Mark) {
        let mut number = |symbol: u32| {
            let next = self.symbols.len() as u32;
            *self.numbers.entry(symbol).or_insert_with(|| {
                self.symbols.push(symbol);
                next
            })
        };
        self.names.clear();
        for &(name, value) in labels {
            self.names.push(number(name));
            self.values.push(number(value));
        }
        self.shape_of.push(self.shapes.intern(&self.names));
        self.marks.push(i64::from(mark.to_u8()));
    }

    /// Append the page, and start the next.
    pub fn encode(&mut self, out: &mut Vec<u8>, strings: &Interner) -> Result<()> {
        put_varint(out, self.shape_of.len() as u64);
        put_varint(out, self.symbols.len() as u64);
        put_varint(out, self.shapes.len() as u64);
        put_texts(out, self.symbols.iter().map(|&symbol| strings.bytes(symbol)))?;
        let shapes = || (0..self.shapes.len()).map(|shape| self.shapes.get(shape as u32));
        put(out, &shapes().map(|names| names.len() as i64).collect::<Vec<i64>>());
        put(out, &shapes().flatten().map(|&name| i64::from(name)).collect::<Vec<i64>>());
        put(out, &self.shape_of.iter().map(|&shape| i64::from(shape)).collect::<Vec<i64>>());
        put(out, &self.marks);
        let mut columns: Vec<Vec<Vec<i64>>> =
            shapes().map(|names| vec![Vec::new(); names.len()]).collect();
        let mut values = self.values.iter();
        for &shape in &self.shape_of {
            let columns = &mut columns[shape as usize];
            for (column, &value) in columns.iter_mut().zip(&mut values) {
                column.push(i64::from(value));
            }
        }
        columns.iter().flatten().for_each(|column| put_differences(out, column));
        *self = LabelPageBuilder::default();
        Ok(())
    }
}

/// A label page in memory.
pub struct LabelPage {
    texts: Texts,
    shapes: Vec<Vec<u32>>,
    shape_of: Vec<u32>,
    marks: Vec<Mark>,
    /// Values of series `i`: `values[starts[i]..starts[i + 1]]`, parallel to its shape's names.
    starts: Vec<usize>,
    values: Vec<u32>,
}

impl LabelPage {
    pub fn read(bytes: &[u8]) -> Result<LabelPage> {
        let mut cursor = Cursor::new(bytes);
        let series = cursor.count(LABEL_PAGE_SERIES)?;
        let strings = cursor.count(STRINGS_MAX)?;
        let shape_count = cursor.count(LABEL_PAGE_SERIES + 1)?;
        let texts = Texts::read(&mut cursor, strings)?;
        (0..strings).try_for_each(|index| texts.string(index).map(drop))?;
        let shapes = read_shapes(&mut cursor, shape_count, &texts)?;
        let shape_of = read_u32(&mut cursor, series)?;
        if shape_of.iter().any(|&shape| shape as usize >= shape_count) {
            return Err(broken("shape of a series"));
        }
        let mark = |&byte: &i64| {
            let mark = u8::try_from(byte).ok().and_then(Mark::from_u8);
            mark.ok_or_else(|| broken("mark of a series"))
        };
        let marks = read(&mut cursor, series)?.iter().map(mark).collect::<Result<Vec<Mark>>>()?;
        let mut sizes = vec![0; shape_count];
        shape_of.iter().for_each(|&shape| sizes[shape as usize] += 1);
        let mut starts = vec![0];
        for &shape in &shape_of {
            starts.push(starts[starts.len() - 1] + shapes[shape as usize].len());
        }
        let mut values = vec![0; starts[series]];
        for (shape, names) in shapes.iter().enumerate() {
            for position in 0..names.len() {
                let mut column = read_differences(&mut cursor, sizes[shape])?.into_iter();
                let own = (0..series).filter(|&index| shape_of[index] as usize == shape);
                for (index, number) in own.zip(&mut column) {
                    let number = u32::try_from(number).ok().filter(|n| (*n as usize) < strings);
                    values[starts[index] + position] =
                        number.ok_or_else(|| broken("value of a label"))?;
                }
            }
        }
        if !cursor.is_empty() {
            return Err(broken("end of a label page"));
        }
        Ok(LabelPage { texts, shapes, shape_of, marks, starts, values })
    }

    pub fn len(&self) -> usize {
        self.shape_of.len()
    }

    pub fn mark(&self, index: usize) -> Mark {
        self.marks[index]
    }

    /// Labels of a series, ascending by name.
    pub fn labels(&self, index: usize) -> impl Iterator<Item = (&str, &str)> {
        let names = &self.shapes[self.shape_of[index] as usize];
        let values = &self.values[self.starts[index]..self.starts[index + 1]];
        // `read` saw that all are UTF-8.
        let text = |&number: &u32| self.texts.string(number as usize).unwrap_or_default();
        names.iter().zip(values).map(move |(name, value)| (text(name), text(value)))
    }

    /// Give a builder the labels of a series. `symbols`: the page's strings as the builder's
    /// symbols, 0 where not yet asked; empty at first.
    pub fn copy(&self, index: usize, symbols: &mut Vec<u32>, builder: &mut LabelTableBuilder) {
        symbols.resize(self.texts.len(), 0);
        let names = &self.shapes[self.shape_of[index] as usize];
        let values = &self.values[self.starts[index]..self.starts[index + 1]];
        for (&name, &value) in names.iter().zip(values) {
            let mut symbol = |number: u32| {
                let known = &mut symbols[number as usize];
                if *known == 0 {
                    let text = self.texts.string(number as usize).unwrap_or_default();
                    *known = builder.intern(text);
                }
                *known
            };
            let (name, value) = (symbol(name), symbol(value));
            builder.label(name, value);
        }
        builder.end_series();
    }
}

fn read_shapes(cursor: &mut Cursor, count: usize, texts: &Texts) -> Result<Vec<Vec<u32>>> {
    let lengths = read_u32(cursor, count)?;
    let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    if total > SHAPE_NAMES_MAX as u64 {
        return Err(broken("shapes"));
    }
    let names = read_u32(cursor, total as usize)?;
    if names.iter().any(|&name| name as usize >= texts.len()) {
        return Err(broken("name of a shape"));
    }
    let mut rest = names.as_slice();
    let mut shapes = Vec::with_capacity(count);
    for &length in &lengths {
        let (own, others) = rest.split_at(length as usize);
        rest = others;
        if !own.is_sorted_by(|&a, &b| texts.get(a as usize) < texts.get(b as usize)) {
            return Err(broken("order of names"));
        }
        shapes.push(own.to_vec());
    }
    Ok(shapes)
}

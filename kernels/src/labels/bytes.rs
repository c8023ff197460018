//! `LabelTable` as bytes: docs/formats/labels.md. What is read is checked in full: a table from a
//! broken peer is an error, never a panic.

use super::shapes::Shapes;
use super::strings::Interner;
use super::table::LabelTable;
use crate::error::{KernelError, Result};
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"SLT1";
const COUNTS: usize = 6;
const HEADER_BYTES: usize = 8 + COUNTS * 4;

fn corrupt(why: &str) -> KernelError {
    KernelError::corruption(format!("label table: {why}"))
}

fn push_all(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    numbers.into_iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

impl LabelTable {
    pub fn to_bytes(&self) -> Vec<u8> {
        // A table cut from a larger one shares its strings: send only those in use.
        let used = self.strings_used();
        if used * 2 < self.strings.len() {
            let mut compact = LabelTable::default();
            compact.append(self);
            return compact.write();
        }
        self.write()
    }

    fn strings_used(&self) -> usize {
        if self.values.len() * 2 >= self.strings.len() * 8 {
            return self.strings.len();
        }
        let mut seen = vec![false; self.strings.len()];
        self.values.iter().for_each(|&value| seen[value as usize] = true);
        seen.into_iter().filter(|&s| s).count()
    }

    fn write(&self) -> Vec<u8> {
        let (strings, shapes) = (&self.strings, &self.shapes);
        let shape_names: usize = (0..shapes.len()).map(|s| shapes.get(s as u32).len()).sum();
        let numbers = strings.len() + shapes.len() + shape_names + self.len() + self.values.len();
        let mut out = Vec::with_capacity(HEADER_BYTES + numbers * 4 + strings.byte_size());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 4]);
        let counts = [
            strings.len(),
            strings.byte_size(),
            shapes.len(),
            shape_names,
            self.len(),
            self.values.len(),
        ];
        push_all(&mut out, counts.map(|count| count as u32));
        push_all(&mut out, strings.ends().iter().copied());
        let mut end = 0;
        for shape in 0..shapes.len() {
            end += shapes.get(shape as u32).len() as u32;
            push_all(&mut out, [end]);
        }
        for shape in 0..shapes.len() {
            push_all(&mut out, shapes.get(shape as u32).iter().copied());
        }
        push_all(&mut out, self.shape_of.iter().copied());
        push_all(&mut out, self.values.iter().copied());
        out.extend_from_slice(strings.text().as_bytes());
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<LabelTable> {
        if bytes.len() < HEADER_BYTES || &bytes[..4] != MAGIC {
            return Err(corrupt("not a version 1 table"));
        }
        if crc32fast::hash(&bytes[8..]).to_le_bytes() != bytes[4..8] {
            return Err(corrupt("checksum"));
        }
        let counts = numbers(&bytes[8..HEADER_BYTES]);
        let [strings, text, shapes, names, series, values] = counts[..] else {
            return Err(corrupt("header"));
        };
        let length = HEADER_BYTES as u64
            + text as u64
            + 4 * [strings, shapes, names, series, values].map(u64::from).iter().sum::<u64>();
        if length != bytes.len() as u64 || strings == 0 || shapes == 0 {
            return Err(corrupt("length"));
        }
        let mut rest = &bytes[HEADER_BYTES..];
        let mut column = |count: u32| {
            let (head, tail) = rest.split_at(count as usize * 4);
            rest = tail;
            numbers(head)
        };
        let string_ends = column(strings);
        let shape_ends = column(shapes);
        let names = column(names);
        let shape_of = column(series);
        let values = column(values);
        let strings = read_strings(rest, string_ends)?;
        let shapes = read_shapes(&strings, &shape_ends, &names)?;
        let mut starts = Vec::with_capacity(shape_of.len() + 1);
        let mut end = 0u64;
        starts.push(0);
        for &shape in &shape_of {
            if shape as usize >= shapes.len() {
                return Err(corrupt("shape of a series"));
            }
            end += shapes.get(shape).len() as u64;
            starts.push(u32::try_from(end).map_err(|_| corrupt("values"))?);
        }
        let known = 1..strings.len() as u32;
        if end != values.len() as u64 || values.iter().any(|value| !known.contains(value)) {
            return Err(corrupt("values"));
        }
        let (strings, shapes) = (Arc::new(strings), Arc::new(shapes));
        Ok(LabelTable { strings, shapes, shape_of, starts, values })
    }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn read_strings(text: &[u8], ends: Vec<u32>) -> Result<Interner> {
    let text = std::str::from_utf8(text).map_err(|_| corrupt("text is not UTF-8"))?;
    // Only symbol 0 is the empty string: a label never has another one as its value.
    let ordered = ends.is_sorted_by(|a, b| a < b) && ends.first() == Some(&0);
    let whole = ends.last().is_some_and(|&end| end as usize == text.len());
    if !ordered || !whole || !ends.iter().all(|&end| text.is_char_boundary(end as usize)) {
        return Err(corrupt("string ends"));
    }
    Ok(Interner::from_parts(text.to_owned(), ends))
}

fn read_shapes(strings: &Interner, ends: &[u32], names: &[u32]) -> Result<Shapes> {
    let mut shapes = Shapes::default();
    let mut start = 0;
    for (number, &end) in ends.iter().enumerate() {
        let list = names.get(start..end as usize).ok_or_else(|| corrupt("shape ends"))?;
        if list.iter().any(|&name| name as usize >= strings.len()) {
            return Err(corrupt("name of a shape"));
        }
        if !list.is_sorted_by(|&a, &b| strings.bytes(a) < strings.bytes(b)) {
            return Err(corrupt("order of names"));
        }
        if shapes.intern(list) != number as u32 {
            return Err(corrupt("shape given twice"));
        }
        start = end as usize;
    }
    if start != names.len() {
        return Err(corrupt("shape ends"));
    }
    Ok(shapes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_is_refused() {
        let table = LabelTable::from_lists(&[vec![("a", "x")]]);
        let mut bytes = table.to_bytes();
        assert!(LabelTable::from_bytes(&bytes).is_ok());
        // Of a fuzzer: a second empty string, which "x" becomes where "a" takes its letter.
        let mut ends = (HEADER_BYTES..bytes.len()).step_by(4).take(table.strings.len());
        let (name_end, value_end) = (ends.clone().nth(1), ends.next_back());
        let (Some(name_end), Some(value_end)) = (name_end, value_end) else { panic!("two ends") };
        bytes.copy_within(value_end..value_end + 4, name_end);
        let crc = crc32fast::hash(&bytes[8..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        assert!(LabelTable::from_bytes(&bytes).is_err());
    }
}

//! The registry as bytes: docs/formats/registry.md. A delta since a mark, or all of it.
//!
//! Invariant: applying the deltas in the order they were written gives a registry that answers
//! every question as the writer's did. A reader believes no number it has not checked.

use super::registry::Registry;
use super::registry_bytes::{Input, Output, corrupt};
use crate::error::Result;
use crate::model::{FamilyMetadata, SeriesRow, SeriesType, Symbol};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::ops::Range;

const MAGIC: &[u8; 7] = b"SLWREG\x01";

/// How far a registry had come; what came later is the next delta. The default is the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    tenants: usize,
    strings: usize,
    shapes: usize,
    rows: usize,
    hours: usize,
    version: u64,
}

impl Registry {
    pub fn mark(&self) -> Mark {
        Mark {
            tenants: self.tenants.len(),
            strings: self.strings.len(),
            shapes: self.shapes.len(),
            rows: self.rows.len(),
            hours: self.hours.len(),
            version: self.version,
        }
    }

    /// What changed since `from`; from the default mark a snapshot.
    pub fn encode_delta(&self, from: &Mark) -> Vec<u8> {
        self.encode_between(from, &self.mark())
    }

    /// What was new at `to`, a mark of this registry, since `from`. Series that came later are left
    /// out; of what changes in place (types, days, metadata) the rows of `to` get the newest.
    pub fn encode_between(&self, from: &Mark, to: &Mark) -> Vec<u8> {
        // A registry is born with the empty string, the metric's name and the empty shape.
        let (strings, shapes) = (from.strings.max(2), from.shapes.max(1));
        let mut out = Output(MAGIC.to_vec());
        for (before, now) in [
            (from.tenants, to.tenants),
            (strings, to.strings.max(2)),
            (shapes, to.shapes.max(1)),
            (from.rows, to.rows),
        ] {
            out.number(before as u64);
            out.number((now - before) as u64);
        }
        self.tenants[from.tenants..to.tenants]
            .iter()
            .for_each(|tenant| out.text(&tenant.written()));
        let new = strings as u32..to.strings as u32;
        new.clone().for_each(|symbol| out.number(self.strings.bytes(symbol).len() as u64));
        new.for_each(|symbol| out.0.extend_from_slice(self.strings.bytes(symbol)));
        for shape in shapes as u32..to.shapes as u32 {
            out.numbers(self.shapes.get(shape).iter().map(|&name| u64::from(name)));
        }
        self.encode_rows(&mut out, from.rows..to.rows);
        let mut retyped = self.types.changed(from.version);
        retyped.retain(|&(row, ..)| (row as usize) < to.rows);
        out.number(retyped.len() as u64);
        for (row, code, generation) in retyped {
            out.number(u64::from(row));
            out.0.push(code);
            out.number(u64::from(generation));
        }
        let until = to.rows as SeriesRow;
        let mut days: Vec<(i32, RoaringBitmap)> = Vec::new();
        for (day, rows) in self.alive.changed(from.version) {
            let mut rows = rows.clone();
            rows.remove_range(until..);
            if !rows.is_empty() {
                days.push((day, rows));
            }
        }
        out.number(days.len() as u64);
        for (day, mut rows) in days {
            rows.optimize();
            out.signed(i64::from(day));
            out.number(rows.serialized_size() as u64);
            rows.serialize_into(&mut out.0).expect("a vector takes all bytes");
        }
        let mut families = self.families.changed(from.version);
        families.retain(|(tenant, _)| (*tenant as usize) < to.tenants);
        out.number(families.len() as u64);
        for (tenant, family) in families {
            out.number(u64::from(tenant));
            out.text(&family.name);
            out.0.push(family.series_type as u8);
            out.text(&family.help);
            out.text(&family.unit);
        }
        out.number((to.hours - from.hours) as u64);
        for &(hour, row) in &self.hours[from.hours..to.hours] {
            out.signed(hour);
            out.number(u64::from(row));
        }
        out.0
    }

    fn encode_rows(&self, out: &mut Output, range: Range<usize>) {
        let rows = &self.rows[range.clone()];
        let mut by_shape: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for run in rows.chunk_by(|a, b| (a.tenant, a.shape) == (b.tenant, b.shape)) {
            [run[0].tenant, run[0].shape, run.len() as u32]
                .into_iter()
                .for_each(|number| out.number(u64::from(number)));
            by_shape.entry(run[0].shape).or_default().extend(run.iter().map(|r| r.value_start));
        }
        for (shape, starts) in by_shape {
            for position in 0..self.shapes.get(shape).len() {
                let mut before = 0;
                for &start in &starts {
                    let value = i64::from(self.values[start as usize + position]);
                    out.signed(value - before);
                    before = value;
                }
            }
        }
        out.0.extend_from_slice(&self.types.codes()[range]);
    }

    /// Take over what `encode_delta` wrote; the registry must stand where the delta begins.
    ///
    /// Errors: `Corruption`; the registry is then in no defined state and must be dropped.
    pub fn apply_delta(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            return Err(corrupt("not a registry section of version 1"));
        };
        let mut input = Input(rest);
        let held = [self.tenants.len(), self.strings.len(), self.shapes.len(), self.rows.len()];
        let mut new = [0; 4];
        for (held, new) in held.into_iter().zip(&mut new) {
            if input.number()? != held as u64 {
                return Err(corrupt("a delta of another predecessor"));
            }
            *new = input.count()?;
        }
        let [tenants, strings, shapes, rows] = new;
        for _ in 0..tenants {
            let name = input.text()?;
            if self.restore_retired(name) {
                continue;
            }
            if self.tenant_number(name).is_some() {
                return Err(corrupt("tenant given twice"));
            }
            self.tenant(name);
        }
        self.apply_strings(&mut input, strings)?;
        for _ in 0..shapes {
            let mut names = Vec::new();
            for _ in 0..input.count()? {
                names.push(input.below(self.strings.len())?);
            }
            if !names.is_sorted_by(|&a, &b| self.strings.bytes(a) < self.strings.bytes(b)) {
                return Err(corrupt("order of names"));
            }
            let known = self.shapes.len();
            if self.shapes.intern(&names) as usize != known {
                return Err(corrupt("shape given twice"));
            }
        }
        self.apply_rows(&mut input, rows)?;
        self.version += 1;
        for _ in 0..input.count()? {
            let row = input.below(self.rows.len())?;
            let code = input.bytes(1)?[0];
            let generation = input.below(u32::MAX as usize)?;
            self.types.restore(row, code, generation, self.version);
        }
        for _ in 0..input.count()? {
            let day = i32::try_from(input.signed()?).map_err(|_| corrupt("day"))?;
            let length = input.count()?;
            let alive = RoaringBitmap::deserialize_from(input.bytes(length)?)
                .map_err(|_| corrupt("rows of a day"))?;
            if alive.max().is_some_and(|row| row as usize >= self.rows.len()) {
                return Err(corrupt("rows of a day"));
            }
            self.alive.restore(day, alive, self.version);
        }
        for _ in 0..input.count()? {
            let tenant = input.below(self.tenants.len())?;
            let name = input.text()?.to_owned();
            let series_type = SeriesType::from_u8(input.bytes(1)?[0]);
            let (help, unit) = (input.text()?.to_owned(), input.text()?.to_owned());
            let family = FamilyMetadata { name, series_type, help, unit };
            self.families.note(tenant, &family, self.version);
        }
        for _ in 0..input.count()? {
            let hour = input.signed()?;
            self.hours.push((hour, input.below(self.rows.len())?));
        }
        if input.0.is_empty() { Ok(()) } else { Err(corrupt("bytes after the end")) }
    }

    fn apply_strings(&mut self, input: &mut Input, count: usize) -> Result<()> {
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            lengths.push(input.count()?);
        }
        for length in lengths {
            let string = input.utf8(length)?;
            if self.strings.byte_size() + length > u32::MAX as usize {
                return Err(corrupt("more text than a registry holds"));
            }
            let known = self.strings.len();
            if self.strings.intern(string) as usize != known {
                return Err(corrupt("string given twice"));
            }
        }
        Ok(())
    }

    fn apply_rows(&mut self, input: &mut Input, count: usize) -> Result<()> {
        let mut runs = Vec::new();
        let mut by_shape: BTreeMap<u32, (usize, Vec<Symbol>)> = BTreeMap::new();
        let mut named = 0;
        while named < count {
            let tenant = input.below(self.tenants.len())?;
            let shape = input.below(self.shapes.len())?;
            let rows = input.count()?;
            named += rows;
            if rows == 0 || named > count {
                return Err(corrupt("runs of rows"));
            }
            by_shape.entry(shape).or_default().0 += rows;
            runs.push((tenant, shape, rows));
        }
        let known = self.strings.len() as i64;
        for (&shape, (rows, values)) in &mut by_shape {
            let width = self.shapes.get(shape).len();
            if width.saturating_mul(*rows) > input.0.len() {
                return Err(corrupt("more values than bytes"));
            }
            // Written position by position, kept row by row.
            values.resize(width * *rows, 0);
            for position in 0..width {
                let mut value = 0i64;
                for row in 0..*rows {
                    value = value.wrapping_add(input.signed()?);
                    if !(1..known).contains(&value) {
                        return Err(corrupt("value of a label"));
                    }
                    values[row * width + position] = value as Symbol;
                }
            }
        }
        let codes = input.bytes(count)?;
        let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
        for (tenant, shape, rows) in runs {
            let values = &by_shape[&shape].1;
            let width = self.shapes.get(shape).len();
            let next = taken.entry(shape).or_default();
            for _ in 0..rows {
                self.restore(tenant, shape, &values[*next * width..(*next + 1) * width]);
                *next += 1;
            }
        }
        self.end_restore();
        codes.iter().for_each(|&code| self.types.push_code(code));
        Ok(())
    }
}

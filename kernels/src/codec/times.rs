//! Time vectors of a page: series scraped together share one, a regular grid is three numbers.
//! See docs/formats/block.md, section Page.

use super::Codec;
use super::bytes::{Cursor, put_varint};
use super::column::{put_column, read_column};
use crate::error::{KernelError, Result};

/// Collects the vectors of a page that is being filled.
pub struct TimesBuilder {
    vectors: TimeVectors,
    /// Hash -> 1 + a vector seen with it. A miss costs bytes, not truth.
    lookup: Box<[u32; LOOKUP_SLOTS]>,
    references: Vec<i64>,
    columns: [Vec<i64>; 5],
}

/// More than the targets whose series stand side by side in a page.
const LOOKUP_SLOTS: usize = 1 << LOOKUP_BITS;
const LOOKUP_BITS: u32 = 11;

impl Default for TimesBuilder {
    fn default() -> TimesBuilder {
        TimesBuilder {
            vectors: TimeVectors::default(),
            lookup: Box::new([0; LOOKUP_SLOTS]),
            references: Vec::new(),
            columns: Default::default(),
        }
    }
}

/// A slot by the shape of a vector: its length, first, middle and last time.
fn slot(times: &[i64]) -> usize {
    let middle = times[times.len() / 2].wrapping_add(times.len() as i64) as u64;
    let ends = (times[0] as u64).rotate_left(21) ^ times[times.len() - 1] as u64;
    let hash = (ends ^ middle.rotate_left(42)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (hash >> (u64::BITS - LOOKUP_BITS)) as usize
}

/// The distinct vectors of a page and which series has which.
#[derive(Default)]
pub struct TimeVectors {
    ends: Vec<u32>,
    times: Vec<i64>,
    vector_of: Vec<u32>,
}

impl TimeVectors {
    pub fn series_count(&self) -> usize {
        self.vector_of.len()
    }
    pub fn of_series(&self, series: usize) -> &[i64] {
        self.vector(self.vector_of[series] as usize)
    }
    fn vector(&self, index: usize) -> &[i64] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.times[start..self.ends[index] as usize]
    }
    pub fn memory_bytes(&self) -> usize {
        self.times.len() * 8 + (self.ends.len() + self.vector_of.len()) * 4
    }
}

impl TimesBuilder {
    pub fn clear(&mut self) {
        self.vectors.ends.clear();
        self.vectors.times.clear();
        self.vectors.vector_of.clear();
        self.lookup.fill(0);
    }

    /// Add the next series' times: not empty, ascending.
    pub fn push(&mut self, times: &[i64]) {
        let vectors = &mut self.vectors;
        if let Some(&last) = vectors.vector_of.last()
            && vectors.vector(last as usize) == times
        {
            vectors.vector_of.push(last);
            return;
        }
        let new = vectors.ends.len() as u32;
        let slot = &mut self.lookup[slot(times)];
        if let Some(known) = slot.checked_sub(1)
            && vectors.vector(known as usize) == times
        {
            vectors.vector_of.push(known);
            return;
        }
        *slot = new + 1;
        vectors.times.extend_from_slice(times);
        vectors.ends.push(vectors.times.len() as u32);
        vectors.vector_of.push(new);
    }

    pub fn series(&self) -> impl Iterator<Item = &[i64]> {
        (0..self.vectors.series_count()).map(|series| self.vectors.of_series(series))
    }

    /// Append the section; the vector count stands before it, in the page's head.
    pub fn encode(&mut self, out: &mut Vec<u8>, codec: Codec) {
        let vectors = &self.vectors;
        let mut next = 0;
        self.references.clear();
        self.references.extend(vectors.vector_of.iter().map(|&vector| {
            let back = i64::from(next - vector);
            next += u32::from(back == 0);
            back
        }));
        put_column(out, &self.references, codec);
        self.columns.iter_mut().for_each(Vec::clear);
        let [lengths, firsts, steps, irregular, residuals] = &mut self.columns;
        let (mut start, mut first_before) = (0, 0i64);
        for &end in &vectors.ends {
            let vector = &vectors.times[start..end as usize];
            start = end as usize;
            lengths.push(vector.len() as i64);
            firsts.push(vector[0].wrapping_sub(first_before));
            first_before = vector[0];
            let step = vector.get(1).map_or(0, |second| second.wrapping_sub(vector[0]));
            steps.push(step);
            let residual = |pair: &[i64]| pair[1].wrapping_sub(pair[0]).wrapping_sub(step);
            let is_irregular = vector.windows(2).any(|pair| residual(pair) != 0);
            irregular.push(i64::from(is_irregular));
            if is_irregular {
                residuals.extend(vector.windows(2).map(residual));
            }
        }
        for column in &self.columns {
            put_column(out, column, codec);
        }
    }

    pub fn put_count(&self, out: &mut Vec<u8>) {
        put_varint(out, self.vectors.ends.len() as u64);
    }
}

/// How many points each series of a page has: the section's head, without its times.
pub fn read_lengths(
    cursor: &mut Cursor,
    series: usize,
    count: usize,
    points_max: usize,
) -> Result<Vec<u32>> {
    let (vectors, lengths) = read_head(cursor, series, count, points_max)?;
    Ok(vectors.vector_of.iter().map(|&vector| lengths[vector as usize] as u32).collect())
}

/// Which series has which vector, where the vectors end, and how long each is.
fn read_head(
    cursor: &mut Cursor,
    series: usize,
    count: usize,
    points_max: usize,
) -> Result<(TimeVectors, Vec<i64>)> {
    let broken = || KernelError::corruption("block: time vectors do not fit the page");
    let mut column = Vec::new();
    read_column(cursor, series, &mut column)?;
    let mut vectors = TimeVectors::default();
    let mut next = 0i64;
    vectors.vector_of.reserve_exact(series);
    for &back in &column {
        if !(0..=next).contains(&back) {
            return Err(broken());
        }
        vectors.vector_of.push((next - back) as u32);
        next += i64::from(back == 0);
    }
    if next != count as i64 {
        return Err(broken());
    }
    let mut lengths = Vec::new();
    read_column(cursor, count, &mut lengths)?;
    let mut total = 0usize;
    for &length in &lengths {
        if length < 1 || length > (points_max - total) as i64 {
            return Err(broken());
        }
        total += length as usize;
        vectors.ends.push(total as u32);
    }
    Ok((vectors, lengths))
}

/// Read the section of a page with so many series and vectors, which hold at most `points_max`.
pub fn read_times(
    cursor: &mut Cursor,
    series: usize,
    count: usize,
    points_max: usize,
) -> Result<TimeVectors> {
    let (mut vectors, lengths) = read_head(cursor, series, count, points_max)?;
    let (mut column, mut firsts, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let total = vectors.ends.last().map_or(0, |&end| end as usize);
    read_column(cursor, count, &mut firsts)?;
    read_column(cursor, count, &mut steps)?;
    read_column(cursor, count, &mut column)?;
    let residual_count = column
        .iter()
        .zip(&lengths)
        .map(|(irregular, length)| if *irregular != 0 { *length as usize - 1 } else { 0 })
        .sum();
    let mut residuals = Vec::new();
    read_column(cursor, residual_count, &mut residuals)?;
    let mut residuals = residuals.as_slice();
    vectors.times.reserve_exact(total);
    let mut first = 0i64;
    for index in 0..count {
        first = first.wrapping_add(firsts[index]);
        let (step, length) = (steps[index], lengths[index] as usize);
        let mut time = first;
        vectors.times.push(time);
        if column[index] == 0 {
            vectors.times.extend((1..length).map(|_| {
                time = time.wrapping_add(step);
                time
            }));
        } else {
            let (own, rest) = residuals.split_at(length - 1);
            residuals = rest;
            vectors.times.extend(own.iter().map(|residual| {
                time = time.wrapping_add(step).wrapping_add(*residual);
                time
            }));
        }
    }
    Ok(vectors)
}

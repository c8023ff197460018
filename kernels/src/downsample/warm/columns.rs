//! What the sections of a window page are made of: per-series settings and pooled columns.

use crate::codec::bytes::{Cursor, put_varint};
use crate::codec::column::read_column;
pub(super) use crate::downsample::dictionary::columns::{
    broken, put, put_differences, read, read_differences, read_u32, read_u32_differences,
};
use crate::downsample::read_buffers::Numbers;
use crate::error::Result;

/// As `read`, into a column that was given back.
pub(super) fn read_into(
    cursor: &mut Cursor,
    count: usize,
    numbers: &mut Numbers,
) -> Result<Vec<i64>> {
    let mut values = numbers.take();
    read_column(cursor, count, &mut values)?;
    Ok(values)
}

/// Positions in a page and the bits that replace what its columns say there.
#[derive(Default)]
pub(super) struct Exceptions {
    positions: Vec<i64>,
    bits: Vec<i64>,
}

impl Exceptions {
    /// Positions ascend.
    pub fn push(&mut self, position: usize, value: f64) {
        self.positions.push(position as i64);
        self.bits.push(value.to_bits() as i64);
    }

    /// Append, and start anew.
    pub fn put(&mut self, out: &mut Vec<u8>) {
        put_varint(out, self.positions.len() as u64);
        put_differences(out, &self.positions);
        put(out, &self.bits);
        self.positions.clear();
        self.bits.clear();
    }

    /// Hands each (position below `limit`, value) to `replace`.
    pub fn read(
        cursor: &mut Cursor,
        limit: usize,
        mut replace: impl FnMut(usize, f64),
    ) -> Result<()> {
        let count = cursor.count(limit)?;
        let positions = read_differences(cursor, count)?;
        let bits = read(cursor, count)?;
        for (&position, &bits) in positions.iter().zip(&bits) {
            let position = usize::try_from(position).ok().filter(|position| *position < limit);
            let position = position.ok_or_else(|| broken("exception outside its page"))?;
            replace(position, f64::from_bits(bits as u64));
        }
        Ok(())
    }
}

/// A number a window that is mostly the same within a series: the usual one a series, what the
/// others lack where any differs.
#[derive(Default)]
pub(super) struct Usual {
    usual: Vec<i64>,
    varies: Vec<i64>,
    residuals: Vec<i64>,
}

impl Usual {
    /// The next series' numbers.
    pub fn push(&mut self, values: &[i64]) {
        let usual = majority(values);
        let varies = values.iter().any(|&value| value != usual);
        self.usual.push(usual);
        self.varies.push(i64::from(varies));
        if varies {
            self.residuals.extend(values.iter().map(|value| value.wrapping_sub(usual)));
        }
    }

    /// The next series' numbers less what a grid says, with the usual one given.
    pub fn push_residuals(&mut self, usual: i64, values: &[i64]) {
        let varies = values.iter().any(|&value| value != 0);
        self.usual.push(usual);
        self.varies.push(i64::from(varies));
        if varies {
            self.residuals.extend_from_slice(values);
        }
    }

    pub fn put_heads(&self, out: &mut Vec<u8>) {
        put(out, &self.usual);
        put(out, &self.varies);
    }

    /// Append the residuals, and start anew.
    pub fn put_residuals(&mut self, out: &mut Vec<u8>) {
        put(out, &self.residuals);
        self.usual.clear();
        self.varies.clear();
        self.residuals.clear();
    }
}

/// What `Usual` wrote.
pub(super) struct UsualColumn {
    pub usual: Vec<i64>,
    varies: Vec<i64>,
    residuals: Vec<i64>,
    at: usize,
}

impl UsualColumn {
    pub fn read_heads(cursor: &mut Cursor, series: usize) -> Result<UsualColumn> {
        let (usual, varies) = (read(cursor, series)?, read(cursor, series)?);
        Ok(UsualColumn { usual, varies, residuals: Vec::new(), at: 0 })
    }

    /// `lengths`: how many numbers each series has; they sum to a checked count.
    pub fn read_residuals(
        &mut self,
        cursor: &mut Cursor,
        lengths: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let varying = self.varies.iter().zip(lengths).filter(|(varies, _)| **varies != 0);
        let count = varying.map(|(_, length)| length).sum();
        self.residuals = read(cursor, count)?;
        Ok(())
    }

    /// The residuals of series `index`, which has `length` numbers; empty where all are zero.
    /// Series come in order, each once.
    pub fn residuals(&mut self, index: usize, length: usize) -> &[i64] {
        if self.varies[index] == 0 {
            return &[];
        }
        let start = self.at;
        self.at += length;
        &self.residuals[start..self.at]
    }
}

/// The value that more than half have, if one has; else one of them. 0 of nothing.
fn majority(values: &[i64]) -> i64 {
    let (mut candidate, mut lead) = (0, 0u32);
    for &value in values {
        if lead == 0 {
            candidate = value;
        }
        lead = if value == candidate { lead + 1 } else { lead - 1 };
    }
    candidate
}

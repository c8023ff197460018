//! Columns of integers as pieces of files hold them, and what is said of a piece that is damaged.

use crate::codec::Codec;
use crate::codec::bytes::Cursor;
use crate::codec::column::{put_column, read_column};
use crate::error::{KernelError, Result};

pub fn broken(what: &str) -> KernelError {
    KernelError::corruption(format!("window file: {what}"))
}

pub fn put(out: &mut Vec<u8>, values: &[i64]) {
    put_column(out, values, Codec::Dense);
}

pub fn put_differences(out: &mut Vec<u8>, values: &[i64]) {
    let mut before = 0i64;
    let steps: Vec<i64> = values
        .iter()
        .map(|&value| value.wrapping_sub(std::mem::replace(&mut before, value)))
        .collect();
    put(out, &steps);
}

/// `count` must be bounded by something already checked.
pub fn read(cursor: &mut Cursor, count: usize) -> Result<Vec<i64>> {
    let mut values = Vec::new();
    read_column(cursor, count, &mut values)?;
    Ok(values)
}

pub fn read_differences(cursor: &mut Cursor, count: usize) -> Result<Vec<i64>> {
    let mut values = read(cursor, count)?;
    let mut sum = 0i64;
    for value in &mut values {
        sum = sum.wrapping_add(*value);
        *value = sum;
    }
    Ok(values)
}

pub fn read_u32(cursor: &mut Cursor, count: usize) -> Result<Vec<u32>> {
    numbers(&read(cursor, count)?)
}

pub fn read_u32_differences(cursor: &mut Cursor, count: usize) -> Result<Vec<u32>> {
    numbers(&read_differences(cursor, count)?)
}

fn numbers(values: &[i64]) -> Result<Vec<u32>> {
    let number = |&value: &i64| u32::try_from(value).map_err(|_| broken("number outside u32"));
    values.iter().map(number).collect()
}

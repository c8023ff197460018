//! Varints and a cursor over untrusted bytes. Reading past the end is `Corruption`, never a panic.

use crate::error::{KernelError, Result};

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A read position in a byte slice.
#[derive(Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
}

fn short() -> KernelError {
    KernelError::corruption("block: bytes end early")
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes }
    }
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or_else(short)?;
        self.bytes = rest;
        Ok(head)
    }
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(KernelError::corruption("block: varint too long"))
    }
    pub fn zigzag(&mut self) -> Result<i64> {
        Ok(unzigzag(self.varint()?))
    }
    /// A count that sizes an allocation: at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize> {
        let value = self.varint()?;
        if value > max as u64 {
            return Err(KernelError::corruption(format!("block: count {value} over {max}")));
        }
        Ok(value as usize)
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// What was not read.
    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }
}

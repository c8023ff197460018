//! A flat walker over protobuf bytes. It borrows, never allocates, never recurses, and keeps
//! absolute positions so that a batch can point into the body.
//!
//! Invariant: `at <= bytes.len()`; every length is checked against the end before use.

use crate::error::KernelError;
use std::ops::Range;

/// The bytes are not protobuf of this shape. Zero-sized, to keep the hot path in registers.
#[derive(Clone, Copy, Debug)]
pub struct Malformed;

impl From<Malformed> for KernelError {
    #[cold]
    fn from(_: Malformed) -> KernelError {
        let message = "the body is not a well-formed message of this content type";
        KernelError::client(400, "sluiceway-body-malformed", message)
    }
}

/// A message of the other remote write version than its content type says.
#[cold]
pub fn wrong_version(declared: &str, sent: &str) -> KernelError {
    let message = format!("the content type says remote write {declared}, the body is {sent}");
    KernelError::client(400, "sluiceway-body-malformed", message)
}

pub type Read<T> = Result<T, Malformed>;

pub const VARINT: u32 = 0;
pub const FIXED64: u32 = 1;
pub const BYTES: u32 = 2;
pub const FIXED32: u32 = 5;

#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    #[inline(always)]
    pub fn done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Read<u64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.varint_long(),
        }
    }

    #[inline]
    fn varint_long(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return if i == 9 && byte > 1 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    /// The next tag, or None at the end. Field number 0 and groups are refused.
    #[inline(always)]
    pub fn next_tag(&mut self) -> Read<Option<u32>> {
        if self.done() {
            return Ok(None);
        }
        match u32::try_from(self.varint()?) {
            Ok(tag) if tag >= 8 => Ok(Some(tag)),
            _ => Err(Malformed),
        }
    }

    #[inline(always)]
    pub fn fixed64(&mut self) -> Read<u64> {
        let chunk = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        let value = u64::from_le_bytes(*chunk.ok_or(Malformed)?);
        self.at += 8;
        Ok(value)
    }

    #[inline(always)]
    pub fn double(&mut self) -> Read<f64> {
        self.fixed64().map(f64::from_bits)
    }

    /// Where a length-delimited field's bytes stand; the cursor moves behind them.
    #[inline(always)]
    pub fn range(&mut self) -> Read<Range<usize>> {
        let length = self.varint()?;
        if length > (self.bytes.len() - self.at) as u64 {
            return Err(Malformed);
        }
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }

    #[inline(always)]
    pub fn slice(&mut self) -> Read<&'a [u8]> {
        let range = self.range()?;
        Ok(&self.bytes[range])
    }

    /// A cursor over the next length-delimited field, in the same positions.
    #[inline(always)]
    pub fn message(&mut self) -> Read<Cursor<'a>> {
        let range = self.range()?;
        Ok(Cursor { bytes: &self.bytes[..range.end], at: range.start })
    }

    pub fn skip(&mut self, tag: u32) -> Read<()> {
        match tag & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.advance(8),
            BYTES => self.range().map(drop),
            FIXED32 => self.advance(4),
            _ => Err(Malformed),
        }
    }

    fn advance(&mut self, bytes: usize) -> Read<()> {
        if self.bytes.len() - self.at < bytes {
            return Err(Malformed);
        }
        self.at += bytes;
        Ok(())
    }

    /// Values of a repeated field of `VARINT` or `FIXED64`, packed or one by one. Keeps at most
    /// `max + 1` of them, by which the caller sees that there were too many.
    pub fn repeated<T>(
        &mut self,
        (tag, wire): (u32, u32),
        out: &mut Vec<T>,
        max: usize,
        map: impl Fn(u64) -> T,
    ) -> Read<()> {
        let mut each = |cursor: &mut Cursor<'a>| {
            let bits = if wire == VARINT { cursor.varint()? } else { cursor.fixed64()? };
            if out.len() <= max {
                out.push(map(bits));
            }
            Ok(())
        };
        if tag & 7 == wire {
            return each(self);
        }
        if tag & 7 != BYTES {
            return Err(Malformed);
        }
        let mut packed = self.message()?;
        while !packed.done() {
            each(&mut packed)?;
        }
        Ok(())
    }
}

#[inline(always)]
pub fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub fn unzigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

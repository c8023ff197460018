//! Numbers and text of state sections and letters: varints, zigzag, counts checked before they are used.

use crate::error::{KernelError, Result};

pub(super) fn corrupt(why: &str) -> KernelError {
    KernelError::corruption(format!("state section: {why}"))
}

pub(super) struct Output(pub Vec<u8>);

impl Output {
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub fn numbers(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.number(numbers.len() as u64);
        numbers.for_each(|number| self.number(number));
    }

    pub fn text(&mut self, text: &str) {
        self.sized(text.as_bytes());
    }

    /// A length, then that many bytes.
    pub fn sized(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn number(&mut self) -> Result<u64> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let (&byte, rest) = self.0.split_first().ok_or_else(|| corrupt("cut short"))?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
            if shift > 63 {
                return Err(corrupt("a number of more than 64 bits"));
            }
        }
    }

    pub fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A count of things that take at least a byte each.
    pub fn count(&mut self) -> Result<usize> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(count),
            _ => Err(corrupt("a count beyond the end")),
        }
    }

    pub fn below(&mut self, end: usize) -> Result<u32> {
        let number = self.number()?;
        match u32::try_from(number) {
            Ok(number) if (number as usize) < end => Ok(number),
            _ => Err(corrupt("a number beyond what exists")),
        }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).ok_or_else(|| corrupt("cut short"))?;
        self.0 = tail;
        Ok(head)
    }

    pub fn sized(&mut self) -> Result<&'a [u8]> {
        let length = self.count()?;
        self.bytes(length)
    }

    pub fn utf8(&mut self, length: usize) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(length)?).map_err(|_| corrupt("text is not UTF-8"))
    }

    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.count()?;
        self.utf8(length)
    }
}

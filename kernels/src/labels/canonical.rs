//! Canonical label bytes: for each label, ascending by name, `varint(name length) name
//! varint(value length) value`. The series id is a hash of them (docs/formats/registry.md).

use crate::error::{KernelError, Result};

/// Append `length` as a LEB128 varint.
pub fn push_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Append one label.
pub fn push_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push_length(out, name.len());
    out.extend_from_slice(name);
    push_length(out, value.len());
    out.extend_from_slice(value);
}

/// The labels of canonical bytes: (name, value, the whole label's bytes).
pub fn labels(bytes: &[u8]) -> Labels<'_> {
    Labels { rest: bytes }
}

pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = Result<(&'a [u8], &'a [u8], &'a [u8])>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = self.rest;
        let label = field(whole).and_then(|(name, rest)| {
            let (value, rest) = field(rest)?;
            Some((name, value, rest))
        });
        let Some((name, value, rest)) = label else {
            self.rest = &[];
            return Some(Err(KernelError::corruption("canonical labels end inside a label")));
        };
        self.rest = rest;
        Some(Ok((name, value, &whole[..whole.len() - rest.len()])))
    }
}

#[inline]
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut length = usize::from(first & 0x7f);
    let (mut byte, mut shift) = (first, 7);
    while byte & 0x80 != 0 {
        if shift > 28 {
            return None;
        }
        (byte, rest) = rest.split_first().map(|(b, r)| (*b, r))?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
    }
    rest.split_at_checked(length)
}

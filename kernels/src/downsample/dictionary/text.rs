//! Strings, packed: their lengths in a column, their text end to end, compressed where that helps.

use super::columns::{broken, put, read};
use crate::codec::bytes::{Cursor, put_varint};
use crate::error::{KernelError, Result};

/// Text of one piece of a file.
const TEXT_BYTES_MAX: usize = 256 << 20;
const ZSTD_LEVEL: i32 = 9;

pub fn put_texts<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let (mut lengths, mut text) = (Vec::new(), Vec::new());
    for one in texts {
        lengths.push(one.len() as i64);
        text.extend_from_slice(one);
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(KernelError::Backend(format!(
            "window file: {} bytes of labels at once",
            text.len()
        )));
    }
    put(out, &lengths);
    let packed = zstd::bulk::compress(&text, ZSTD_LEVEL)?;
    let stored = if packed.len() < text.len() { &packed } else { &text };
    put_varint(out, text.len() as u64);
    put_varint(out, stored.len() as u64);
    out.extend_from_slice(stored);
    Ok(())
}

/// Packed strings in memory: bytes, which the caller makes strings of.
#[derive(Debug, Default)]
pub struct Texts {
    ends: Vec<usize>,
    text: Vec<u8>,
}

impl Texts {
    /// `count` must be bounded by something already checked.
    pub fn read(cursor: &mut Cursor, count: usize) -> Result<Texts> {
        let lengths = read(cursor, count)?;
        let raw_length = cursor.count(TEXT_BYTES_MAX)?;
        let stored_length = cursor.count(TEXT_BYTES_MAX)?;
        let stored = cursor.take(stored_length)?;
        let text = if stored_length < raw_length {
            zstd::bulk::decompress(stored, raw_length).map_err(|_| broken("text"))?
        } else {
            stored.to_vec()
        };
        let mut end = 0usize;
        let ends: Option<Vec<usize>> = lengths
            .iter()
            .map(|&length| {
                end = usize::try_from(length).ok().and_then(|length| end.checked_add(length))?;
                (end <= text.len()).then_some(end)
            })
            .collect();
        match ends {
            Some(ends) if end == text.len() && end == raw_length => Ok(Texts { ends, text }),
            _ => Err(broken("lengths of texts")),
        }
    }

    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn string(&self, index: usize) -> Result<&str> {
        std::str::from_utf8(self.get(index)).map_err(|_| broken("text is not UTF-8"))
    }
}

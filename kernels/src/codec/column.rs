//! A column of i64: constant, bit-packed in groups of 64, or pco. See docs/formats/block.md.
//!
//! The reader knows the count from the context; the tag tells how the values are written.

use super::Codec;
use super::bytes::{Cursor, put_varint, put_zigzag, zigzag};
use crate::error::{KernelError, Result};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

const TAG_CONSTANT: u8 = 0;
const TAG_PACKED: u8 = 1;
const TAG_PCO: u8 = 2;
const GROUP: usize = 64;
/// Below this, pco's metadata outweighs what it saves.
const PCO_VALUES_MIN: usize = 48;
const PCO_LEVEL: usize = 8;

/// Append `values` as a column.
pub fn put_column(out: &mut Vec<u8>, values: &[i64], codec: Codec) {
    let Some(&first) = values.first() else { return };
    if values.iter().all(|value| *value == first) {
        out.push(TAG_CONSTANT);
        put_zigzag(out, first);
        return;
    }
    let start = out.len();
    if codec == Codec::Dense && values.len() >= PCO_VALUES_MIN {
        out.push(TAG_PCO);
        // pco fails only on a bad configuration; packing is always there.
        match pco_encode(values) {
            Some(bytes) if bytes.len() < packed_size(values) => {
                put_varint(out, bytes.len() as u64);
                out.extend_from_slice(&bytes);
                return;
            }
            _ => out.truncate(start),
        }
    }
    out.push(TAG_PACKED);
    put_packed(out, values);
}

/// Read a column of `count` values, replacing what `values` held.
pub fn read_column(cursor: &mut Cursor, count: usize, values: &mut Vec<i64>) -> Result<()> {
    values.clear();
    if count == 0 {
        return Ok(());
    }
    match cursor.u8()? {
        TAG_CONSTANT => {
            let value = cursor.zigzag()?;
            values.resize(count, value);
        }
        TAG_PACKED => read_packed(cursor, count, values)?,
        TAG_PCO => {
            let length = cursor.count(usize::MAX >> 1)?;
            let bytes = cursor.take(length)?;
            values.resize(count, 0);
            pco_decode(bytes, values)
                .ok_or_else(|| KernelError::corruption("block: pco column unreadable"))?;
        }
        tag => return Err(KernelError::corruption(format!("block: column tag {tag}"))),
    }
    Ok(())
}

/// Lowest value and the width of the others above it.
fn frame(group: &[i64]) -> (i64, u32) {
    let (mut low, mut high) = (i64::MAX, i64::MIN);
    for &value in group {
        low = low.min(value);
        high = high.max(value);
    }
    (low, u64::BITS - (high.wrapping_sub(low) as u64).leading_zeros())
}

/// Bytes of `values` as a packed column.
pub fn packed_size(values: &[i64]) -> usize {
    let mut base = 0i64;
    values.chunks(GROUP).fold(0, |size, group| {
        let (low, width) = frame(group);
        let step = zigzag(low.wrapping_sub(base)) | 1;
        base = low;
        let varint = (70 - step.leading_zeros() as usize) / 7;
        size + 1 + varint + (group.len() * width as usize).div_ceil(8)
    })
}

fn put_packed(out: &mut Vec<u8>, values: &[i64]) {
    let mut base = 0i64;
    for group in values.chunks(GROUP) {
        let (low, width) = frame(group);
        out.push(width as u8);
        put_zigzag(out, low.wrapping_sub(base));
        base = low;
        pack(out, group, low, width);
    }
}

fn pack(out: &mut Vec<u8>, group: &[i64], base: i64, width: u32) {
    if width == 0 {
        return;
    }
    let (mut word, mut filled) = (0u64, 0u32);
    for &value in group {
        let value = value.wrapping_sub(base) as u64;
        word |= value << filled;
        filled += width;
        if filled >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            filled -= 64;
            word = if filled == 0 { 0 } else { value >> (width - filled) };
        }
    }
    out.extend_from_slice(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

fn read_packed(cursor: &mut Cursor, count: usize, values: &mut Vec<i64>) -> Result<()> {
    // Groups are copied here so that a value is always one load, also the last of a group.
    let mut padded = [0u8; GROUP * 8 + 16];
    let mut base = 0i64;
    let mut left = count;
    while left > 0 {
        let size = left.min(GROUP);
        left -= size;
        let width = cursor.u8()? as usize;
        if width > 64 {
            return Err(KernelError::corruption(format!("block: width {width}")));
        }
        base = base.wrapping_add(cursor.zigzag()?);
        if width == 0 {
            values.resize(values.len() + size, base);
            continue;
        }
        let packed = cursor.take((size * width).div_ceil(8))?;
        padded[..packed.len()].copy_from_slice(packed);
        unpack(&padded, size, width, base, values);
    }
    Ok(())
}

fn unpack(
    padded: &[u8; GROUP * 8 + 16],
    size: usize,
    width: usize,
    base: i64,
    values: &mut Vec<i64>,
) {
    let mask = u64::MAX >> (64 - width);
    let mut group = [0i64; GROUP];
    if width <= 56 {
        for (index, slot) in group.iter_mut().enumerate() {
            let bit = index * width;
            let mut word = [0u8; 8];
            word.copy_from_slice(&padded[bit / 8..bit / 8 + 8]);
            let value = (u64::from_le_bytes(word) >> (bit % 8)) & mask;
            *slot = base.wrapping_add(value as i64);
        }
    } else {
        for (index, slot) in group.iter_mut().enumerate() {
            let bit = index * width;
            let mut word = [0u8; 16];
            word.copy_from_slice(&padded[bit / 8..bit / 8 + 16]);
            let value = (u128::from_le_bytes(word) >> (bit % 8)) as u64 & mask;
            *slot = base.wrapping_add(value as i64);
        }
    }
    values.extend_from_slice(&group[..size]);
}

fn pco_encode(values: &[i64]) -> Option<Vec<u8>> {
    // Differences, scales and slopes are taken before: pco only models what is left.
    let config = ChunkConfig::default()
        .with_compression_level(PCO_LEVEL)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(DeltaSpec::NoOp)
        .with_paging_spec(PagingSpec::Exact(vec![values.len()]));
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(values, &config).ok()?;
    let out = file.write_header(Vec::with_capacity(values.len() * 2)).ok()?;
    let out = chunk.write_meta(out).ok()?;
    chunk.write_page(0, out).ok()
}

fn pco_decode(bytes: &[u8], values: &mut [i64]) -> Option<()> {
    let (file, bytes) = FileDecompressor::new(bytes).ok()?;
    // Four bits of mode, four of delta: what we write has neither, and a dictionary mode would
    // allocate by a length that nothing has checked.
    if bytes.first() != Some(&0) {
        return None;
    }
    let (mut chunk, bytes) = file.chunk_decompressor::<i64, _>(bytes).ok()?;
    let mut page = chunk.page_decompressor(bytes, values.len()).ok()?;
    let progress = page.read(values).ok()?;
    (progress.n_processed == values.len() && progress.finished).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[i64], codec: Codec) {
        let mut bytes = Vec::new();
        put_column(&mut bytes, values, codec);
        let mut back = Vec::new();
        let mut cursor = Cursor::new(&bytes);
        read_column(&mut cursor, values.len(), &mut back).expect("readable");
        assert_eq!(back, values);
        assert!(cursor.is_empty());
        for end in 0..bytes.len() {
            let mut cut = Cursor::new(&bytes[..end]);
            assert!(read_column(&mut cut, values.len(), &mut back).is_err() || !values.is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_column_comes_back(
            values in prop::collection::vec(any::<i64>(), 0..300), width in 0u32..64,
        ) {
            let narrow: Vec<i64> = values.iter().map(|value| value >> width).collect();
            for codec in [Codec::Fast, Codec::Dense] {
                round_trip(&narrow, codec);
            }
        }
    }

    #[test]
    fn a_mode_that_we_never_write_is_refused() {
        // Of a fuzzer: pco's dictionary mode, with room for 30 million entries.
        let bytes = [TAG_PCO, 6, 1, 4, 1, 1, 29, 60, 0];
        let mut values = Vec::new();
        assert!(read_column(&mut Cursor::new(&bytes), 1, &mut values).is_err());
        let good: Vec<i64> = (0..500).map(|at| at * at % 97).collect();
        let packed = pco_encode(&good).unwrap_or_default();
        let mut back = vec![0; good.len()];
        assert!(pco_decode(&packed, &mut back).is_some() && back == good);
    }

    #[test]
    fn packed_size_is_exact() {
        for width in 0..64 {
            let values: Vec<i64> = (0..200i64)
                .map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> width)
                .collect();
            let mut bytes = Vec::new();
            put_packed(&mut bytes, &values);
            assert_eq!(bytes.len(), packed_size(&values));
        }
    }
}

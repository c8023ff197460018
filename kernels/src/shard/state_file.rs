//! Bytes of a state file (docs/formats/state.md): a checked header, then checked sections.
//!
//! Invariant: nothing is allocated by a length whose CRC has not been checked.

use crate::error::{KernelError, Result};
use std::borrow::Cow;

const MAGIC: &[u8; 8] = b"SLWSTATE";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 36;
const SECTION_HEADER_BYTES: usize = 28;
const DECODED_BYTES_MAX: u64 = 8 << 30;
/// Below this a section is stored as it is.
const COMPRESS_BYTES_MIN: usize = 256;

pub const SECTION_REGISTRY: u16 = 1;
/// Keys of no named tenant: read, not written.
pub const SECTION_DEDUP_NAMELESS: u16 = 2;
pub const SECTION_LEDGER: u16 = 3;
/// What the seal that wrote the file would have the manifest say: `freeze::Seal` in JSON.
pub const SECTION_SEAL: u16 = 4;
pub const SECTION_GOVERNANCE: u16 = 5;
pub const SECTION_DEDUP: u16 = 6;
pub const SECTION_FOLD: u16 = 7;
/// Stands before the registry's.
pub const SECTION_DELETED: u16 = 8;
pub const SECTION_OPEN_HOUR: u16 = 9;
pub const SECTION_COVERAGE: u16 = 10;

pub struct StateHeader {
    pub snapshot: bool,
    pub next_sequence: u64,
    pub fence: u64,
}

pub fn encode(header: &StateHeader, sections: &[(u16, &[u8])]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[u8::from(header.snapshot), 0]);
    out.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    out.extend_from_slice(&header.next_sequence.to_le_bytes());
    out.extend_from_slice(&header.fence.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    for &(tag, bytes) in sections {
        let packed = if bytes.len() >= COMPRESS_BYTES_MIN {
            Some(zstd::bulk::compress(bytes, 3)?).filter(|packed| packed.len() < bytes.len())
        } else {
            None
        };
        let stored = packed.as_deref().unwrap_or(bytes);
        let start = out.len();
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&u16::from(packed.is_some()).to_le_bytes());
        out.extend_from_slice(&(stored.len() as u64).to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(stored).to_le_bytes());
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(stored);
    }
    Ok(out)
}

/// A section's tag and its decoded bytes.
pub type Section<'a> = (u16, Cow<'a, [u8]>);

/// The header and the sections, in their order.
pub fn decode(bytes: &[u8]) -> Result<(StateHeader, Vec<Section<'_>>)> {
    let bad = |what: &str| KernelError::corruption(format!("state file: {what}"));
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| bad("header cut short"))?;
    if &header[..8] != MAGIC {
        return Err(bad("not a state file"));
    }
    if u32_at(header, 32) != crc32fast::hash(&header[..32]) {
        return Err(bad("header checksum"));
    }
    let version = u16_at(header, 8);
    if version != VERSION {
        return Err(bad(&format!("version {version}; this build reads {VERSION}")));
    }
    let head = StateHeader {
        snapshot: header[10] == 1,
        next_sequence: u64_at(header, 16),
        fence: u64_at(header, 24),
    };
    let mut sections = Vec::new();
    let mut at = HEADER_BYTES;
    for _ in 0..u32_at(header, 12) {
        let section =
            bytes.get(at..at + SECTION_HEADER_BYTES).ok_or_else(|| bad("section cut short"))?;
        if u32_at(section, 24) != crc32fast::hash(&section[..24]) {
            return Err(bad("section header checksum"));
        }
        at += SECTION_HEADER_BYTES;
        let (stored_bytes, decoded_bytes) = (u64_at(section, 4), u64_at(section, 12));
        if decoded_bytes > DECODED_BYTES_MAX {
            return Err(bad("section too large"));
        }
        let stored = usize::try_from(stored_bytes)
            .ok()
            .and_then(|n| bytes.get(at..at.checked_add(n)?))
            .ok_or_else(|| bad("section cut short"))?;
        if u32_at(section, 20) != crc32fast::hash(stored) {
            return Err(bad("section checksum"));
        }
        at += stored.len();
        let decoded = match u16_at(section, 2) {
            0 => Cow::Borrowed(stored),
            1 => Cow::Owned(
                zstd::bulk::decompress(stored, decoded_bytes as usize)
                    .map_err(|error| bad(&error.to_string()))?,
            ),
            other => return Err(bad(&format!("encoding {other}"))),
        };
        if decoded.len() as u64 != decoded_bytes {
            return Err(bad("section size"));
        }
        sections.push((u16_at(section, 0), decoded));
    }
    if at != bytes.len() {
        return Err(bad("bytes after the last section"));
    }
    Ok((head, sections))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let head = StateHeader { snapshot: true, next_sequence: 42, fence: 7 };
        let long = vec![5_u8; 1_000];
        let bytes = encode(&head, &[(SECTION_REGISTRY, &long), (SECTION_LEDGER, b"{}")])
            .unwrap_or_default();
        assert!(bytes.len() < 300);
        let decoded = decode(&bytes);
        let Ok((header, sections)) = decoded else { panic!("good bytes refused") };
        assert!(header.snapshot && header.next_sequence == 42 && header.fence == 7);
        assert_eq!(sections[0].1.as_ref(), long.as_slice());
        assert_eq!(sections[1], (SECTION_LEDGER, Cow::Borrowed(&b"{}"[..])));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}

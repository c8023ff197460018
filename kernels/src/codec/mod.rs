//! Codecs: columns of points to bytes and back, without loss of a bit. Pure functions, no disk.
//!
//! `bytes` (varints, a checked cursor) -> `column` (integers) -> `times`, `values` -> `page`.
//! The layout is docs/formats/block.md.

pub mod bytes;
pub mod column;
pub mod page;
pub mod times;
pub mod values;

/// How hard a writer tries. Readers do not care: every column says how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Bit-packing: for seals, at the rate of ingest.
    Fast = 1,
    /// pco where it is smaller: for merged blocks.
    Dense = 2,
}

//! The bytes of an export's frames: zstd, under a cap that holds before memory is taken.

use crate::error::{KernelError, Result};
use std::io::Read;

const LEVEL: i32 = 3;

pub fn pack(data: &[u8]) -> Result<Vec<u8>> {
    Ok(zstd::bulk::compress(data, LEVEL)?)
}

/// Exactly `bytes` bytes out of `packed`.
///
/// Errors: Corruption.
pub fn unpack(packed: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let broken = |what: &str| KernelError::corruption(format!("export frame: {what}"));
    let reader =
        zstd::stream::read::Decoder::with_buffer(packed).map_err(|e| broken(&e.to_string()))?;
    let mut out = Vec::new();
    reader.take(bytes as u64 + 1).read_to_end(&mut out).map_err(|e| broken(&e.to_string()))?;
    if out.len() == bytes { Ok(out) } else { Err(broken("another length than it says")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_bytes_come_back_and_lies_are_told() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        let packed = pack(&data).unwrap_or_default();
        assert!(packed.len() < data.len() / 4);
        assert_eq!(unpack(&packed, data.len()).ok(), Some(data.clone()));
        assert!(unpack(&packed, data.len() - 1).is_err());
        assert!(unpack(&packed, data.len() + 1).is_err());
        assert!(unpack(&packed[..packed.len() / 2], data.len()).is_err());
        assert!(unpack(b"no zstd", 4).is_err());
    }
}

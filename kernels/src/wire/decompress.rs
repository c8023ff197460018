//! Bodies out of their compression, under caps that hold before memory is taken.
//!
//! Invariant: never holds more than `DECODED_BYTES_MAX` of output plus one zstd window; a declared
//! length is checked before it is believed, and an undeclared one inside the loop.

use super::decoder::Decoder;
use super::limits::{
    DECODED_BYTES_MAX, EXPANSION_FREE_BYTES, EXPANSION_RATIO_MAX, ZSTD_WINDOW_LOG_MAX,
};
use crate::error::{KernelError, Result};
use crate::model::PayloadEncoding;
use std::io::Read;

pub fn decompress(body: &[u8], encoding: PayloadEncoding, decoder: &Decoder) -> Result<Vec<u8>> {
    let mut out = decoder.take_buffer();
    match encoding {
        PayloadEncoding::Identity => {
            check_size(body.len(), DECODED_BYTES_MAX)?;
            out.extend_from_slice(body);
        }
        PayloadEncoding::Snappy => {
            let declared = snap::raw::decompress_len(body).map_err(|e| malformed("snappy", &e))?;
            check_size(declared, bytes_max(body))?;
            out.resize(declared, 0);
            let written = snap::raw::Decoder::new()
                .decompress(body, &mut out)
                .map_err(|e| malformed("snappy", &e))?;
            out.truncate(written);
        }
        PayloadEncoding::Gzip => {
            stream(flate2::read::MultiGzDecoder::new(body), "gzip", bytes_max(body), &mut out)?;
        }
        PayloadEncoding::Zstd => {
            let mut reader = zstd::stream::read::Decoder::with_buffer(body)?;
            reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            stream(reader, "zstd", bytes_max(body), &mut out)?;
        }
    }
    Ok(out)
}

/// What `decompress` gives at most; a body that declares nonsense gives nothing.
pub fn decoded_bytes_max(body: &[u8], encoding: PayloadEncoding) -> usize {
    match encoding {
        PayloadEncoding::Identity => body.len(),
        PayloadEncoding::Snappy => snap::raw::decompress_len(body).unwrap_or(0),
        PayloadEncoding::Gzip | PayloadEncoding::Zstd => bytes_max(body),
    }
}

fn bytes_max(body: &[u8]) -> usize {
    body.len().saturating_mul(EXPANSION_RATIO_MAX).clamp(EXPANSION_FREE_BYTES, DECODED_BYTES_MAX)
}

/// Grows `out` as bytes arrive, so that a liar costs no more than what it really sends.
fn stream(reader: impl Read, name: &str, max: usize, out: &mut Vec<u8>) -> Result<()> {
    let mut capped = reader.take(max as u64 + 1);
    capped.read_to_end(out).map_err(|e| malformed(name, &e))?;
    check_size(out.len(), max)
}

fn check_size(bytes: usize, max: usize) -> Result<()> {
    if bytes <= max {
        return Ok(());
    }
    let message = format!(
        "the request decompresses to more than {max} bytes: at most {DECODED_BYTES_MAX}, and \
         {EXPANSION_RATIO_MAX} times its compressed size"
    );
    Err(KernelError::client(413, "sluiceway-decoded-bytes-limit", message))
}

fn malformed(name: &str, error: &dyn std::fmt::Display) -> KernelError {
    let text = error.to_string();
    let words = text.strip_prefix(name).unwrap_or(&text).trim_start_matches([':', ' ']);
    KernelError::client(400, "sluiceway-body-malformed", format!("{name}: {words}"))
}

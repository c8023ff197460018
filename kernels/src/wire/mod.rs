//! Wire decoders: a request's body in, a `Batch` of good rows in columns out.
//!
//! Invariant: decoding is a pure function of (body, format, encoding, received time, decoder
//! version); only label hashes depend on the process' seed and they are never persisted. Replaying
//! a journal record therefore gives the batch that was acked.
//!
//! Every walker is flat and hand-written: no recursion on input (but for OTLP attribute values, at
//! most 8 levels), no unknown field kept, each length
//! checked before memory is taken (`limits`).

pub mod columns;
mod decoder;
mod decompress;
pub(crate) mod histogram;
mod labels;
pub mod limits;
mod otlp;
mod proto;
mod remote_write1;
mod remote_write2;
mod rows;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use proto::{Cursor, put_varint};

use crate::error::{KernelError, Result};
use crate::model::{Batch, PayloadEncoding, PayloadFormat};
use proto::Malformed;

/// Part of every journal record: a replay decodes with the rules that acked it.
pub const DECODER_VERSION: u8 = 1;

/// Decompress, walk, validate. Good rows are kept, bad ones counted by reason in the batch.
/// Raises `Client` 400 for a body that is not the format, 413 for one past a limit.
pub fn decode(
    body: &[u8],
    format: PayloadFormat,
    encoding: PayloadEncoding,
    received_ms: i64,
    decoder: &Decoder,
) -> Result<Batch> {
    decode_judged(body, format, encoding, received_ms, decoder, false)
}

/// As `decode`. With `judged`, no label set is judged: for a body that these very rules have found
/// to be good, every row of it.
pub fn decode_judged(
    body: &[u8],
    format: PayloadFormat,
    encoding: PayloadEncoding,
    received_ms: i64,
    decoder: &Decoder,
    judged: bool,
) -> Result<Batch> {
    let body = decompress::decompress(body, encoding, decoder)?;
    let batch = match format {
        PayloadFormat::RemoteWrite1 => {
            return remote_write1::decode(body, received_ms, decoder, judged);
        }
        PayloadFormat::RemoteWrite2 => remote_write2::decode(&body, received_ms, decoder),
        PayloadFormat::OtlpProtobuf => otlp::decode(&body, received_ms, decoder),
        PayloadFormat::OtlpJson => otlp::to_protobuf(&body)
            .and_then(|protobuf| otlp::decode(&protobuf, received_ms, decoder)),
        // Never a door's: such a body comes from nobody who may be told more.
        PayloadFormat::Columns => Err(Malformed.into()),
    };
    decoder.give_buffer(body);
    batch
}

/// May whoever has other things to do decode this body at once? Looks at its length only, the
/// declared one where there is one.
pub fn is_quick(body: &[u8], format: PayloadFormat, encoding: PayloadEncoding) -> bool {
    let bytes_max = match format {
        PayloadFormat::RemoteWrite1 => limits::QUICK_REMOTE_WRITE_1_BYTES_MAX,
        _ => limits::QUICK_BYTES_MAX,
    };
    decompress::decoded_bytes_max(body, encoding) <= bytes_max
}

/// From remote write 1.0's raw `repeated Label` bytes (validated by `decode`) to the canonical
/// form of `BatchSeries`: sorted by name, empty values dropped. Appends to `out`.
pub fn canonical_labels(raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
    labels::canonical_labels(raw, out)
        .map_err(|_| KernelError::corruption("labels that were never validated"))
}

/// The metric's name of labels that `decode` has found good; empty where they have none. Raises
/// `Corruption` where they are no labels.
pub fn metric_name(labels: &[u8], canonical: bool) -> Result<&[u8]> {
    labels::metric_name(labels, canonical)
        .map_err(|_| KernelError::corruption("labels that were never validated"))
}

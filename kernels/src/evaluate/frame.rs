//! Frames of the evaluate protocol (docs/formats/evaluate.md).
//!
//! Invariant: nothing is allocated for a frame before its head's checksum and its length's cap
//! have been checked.

use crate::error::{KernelError, Result, room_for};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

const MAGIC: &[u8; 4] = b"SWEV";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 28;
/// Longest JSON payload.
const JSON_BYTES_MAX: usize = 16 << 20;
/// Longest piece of a column.
pub const PIECE_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Request = 1,
    Answer = 2,
    Piece = 3,
    Error = 4,
}

pub struct Head {
    pub kind: Kind,
    pub request_id: u64,
    length: usize,
    crc32: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

pub fn write(out: &mut impl Write, kind: Kind, request_id: u64, payload: &[u8]) -> Result<()> {
    let mut head = [0u8; HEAD_BYTES];
    head[..4].copy_from_slice(MAGIC);
    head[4] = VERSION;
    head[5] = kind as u8;
    head[8..16].copy_from_slice(&request_id.to_le_bytes());
    head[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[20..24].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc32 = crc32fast::hash(&head[..24]);
    head[24..].copy_from_slice(&crc32.to_le_bytes());
    if payload.len() < 4096 {
        // One system call and one wake-up of the peer for a small frame.
        let mut whole = Vec::with_capacity(HEAD_BYTES + payload.len());
        whole.extend_from_slice(&head);
        whole.extend_from_slice(payload);
        return Ok(out.write_all(&whole)?);
    }
    out.write_all(&head)?;
    Ok(out.write_all(payload)?)
}

/// Read a frame's head; None at the end of the stream.
pub fn read_head(input: &mut impl Read) -> Result<Option<Head>> {
    let mut head = [0u8; HEAD_BYTES];
    loop {
        match input.read(&mut head[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    input.read_exact(&mut head[1..])?;
    if &head[..4] != MAGIC {
        return Err(KernelError::corruption("evaluate frame: not one"));
    }
    if crc32fast::hash(&head[..24]) != u32_at(&head, 24) {
        return Err(KernelError::corruption("evaluate frame: head checksum"));
    }
    if head[4] != VERSION {
        let message = format!("evaluate protocol version {}, this build speaks {VERSION}", head[4]);
        return Err(KernelError::corruption(message));
    }
    let kind = match head[5] {
        1 => Kind::Request,
        2 => Kind::Answer,
        3 => Kind::Piece,
        4 => Kind::Error,
        other => return Err(KernelError::corruption(format!("evaluate frame: kind {other}"))),
    };
    let length = u32_at(&head, 16) as usize;
    if length > if kind == Kind::Piece { PIECE_BYTES } else { JSON_BYTES_MAX } {
        return Err(KernelError::corruption(format!("evaluate frame: {length} bytes")));
    }
    let request_id = u64::from(u32_at(&head, 8)) | u64::from(u32_at(&head, 12)) << 32;
    Ok(Some(Head { kind, request_id, length, crc32: u32_at(&head, 20) }))
}

/// Read a frame's payload into `payload`, replacing what was there.
pub fn read_payload(input: &mut impl Read, head: &Head, payload: &mut Vec<u8>) -> Result<()> {
    payload.resize(head.length, 0);
    input.read_exact(payload)?;
    if crc32fast::hash(payload) != head.crc32 {
        return Err(KernelError::corruption("evaluate frame: payload checksum"));
    }
    Ok(())
}

/// How a column's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    Bytes,
    F64,
    I64,
    Bits,
}

/// Name, type and length in bytes.
pub type ColumnHead = (String, ColumnType, usize);

#[derive(Debug, Serialize, Deserialize)]
pub struct AnswerHead {
    pub columns: Vec<ColumnHead>,
    #[serde(default)]
    pub series: usize,
    #[serde(default)]
    pub steps: usize,
    #[serde(default)]
    pub stats: serde_json::Value,
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A column's content.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    Bytes(Vec<u8>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    /// On the wire eight flags a byte, lowest bit first.
    Bits(Vec<bool>),
}

impl Column {
    pub fn head(&self, name: &str) -> ColumnHead {
        let (kind, bytes) = match self {
            Column::Bytes(bytes) => (ColumnType::Bytes, bytes.len()),
            Column::F64(values) => (ColumnType::F64, values.len() * 8),
            Column::I64(values) => (ColumnType::I64, values.len() * 8),
            Column::Bits(flags) => (ColumnType::Bits, flags.len().div_ceil(8)),
        };
        (name.to_owned(), kind, bytes)
    }

    /// An empty column with room for `bytes` of the wire.
    pub fn with_room(kind: ColumnType, bytes: usize) -> Result<Column> {
        let what = "the shard's answer";
        Ok(match kind {
            ColumnType::Bytes => Column::Bytes(room_for(bytes, what)?),
            ColumnType::F64 => Column::F64(room_for(bytes / 8, what)?),
            ColumnType::I64 => Column::I64(room_for(bytes / 8, what)?),
            ColumnType::Bits => Column::Bits(room_for(bytes.saturating_mul(8), what)?),
        })
    }

    /// Hand the bytes over in pieces.
    pub fn pieces(&self, mut send: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = Vec::new();
        match self {
            Column::Bytes(bytes) => bytes.chunks(PIECE_BYTES).try_for_each(send),
            Column::F64(values) => values.chunks(PIECE_BYTES / 8).try_for_each(|values| {
                piece.clear();
                values.iter().for_each(|value| piece.extend_from_slice(&value.to_le_bytes()));
                send(&piece)
            }),
            Column::I64(values) => values.chunks(PIECE_BYTES / 8).try_for_each(|values| {
                piece.clear();
                values.iter().for_each(|value| piece.extend_from_slice(&value.to_le_bytes()));
                send(&piece)
            }),
            Column::Bits(flags) => flags.chunks(PIECE_BYTES * 8).try_for_each(|flags| {
                piece.clear();
                piece.extend(flags.chunks(8).map(|flags| {
                    flags.iter().rev().fold(0, |byte, &flag| byte << 1 | u8::from(flag))
                }));
                send(&piece)
            }),
        }
    }

    /// Take in a piece; pieces end at whole values.
    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        let eights = || {
            let (eights, rest) = piece.as_chunks::<8>();
            if rest.is_empty() {
                Ok(eights.iter())
            } else {
                Err(KernelError::corruption("evaluate column: torn value"))
            }
        };
        match self {
            Column::Bytes(bytes) => bytes.extend_from_slice(piece),
            Column::F64(values) => values.extend(eights()?.map(|&b| f64::from_le_bytes(b))),
            Column::I64(values) => values.extend(eights()?.map(|&b| i64::from_le_bytes(b))),
            Column::Bits(flags) => {
                flags.extend(piece.iter().flat_map(|byte| (0..8).map(move |i| byte >> i & 1 != 0)));
            }
        }
        Ok(())
    }
}

/// An error as it crosses the socket.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WireError {
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub status: u16,
    #[serde(default)]
    pub retry_after_s: f64,
}

impl From<&KernelError> for WireError {
    fn from(error: &KernelError) -> WireError {
        let of = |kind: &str, message: &str| WireError {
            kind: kind.to_owned(),
            message: message.to_owned(),
            ..WireError::default()
        };
        match error {
            KernelError::Client { status, id, message } => {
                WireError { id: (*id).to_owned(), status: *status, ..of("client", message) }
            }
            KernelError::Overloaded { retry_after_s, message } => {
                WireError { retry_after_s: *retry_after_s, ..of("overloaded", message) }
            }
            KernelError::Backend(message) => of("backend", message),
            KernelError::Corruption(message) => of("corruption", message),
            KernelError::Deadline(message) => of("deadline", message),
            KernelError::Cancelled(message) => of("cancelled", message),
        }
    }
}

impl From<WireError> for KernelError {
    fn from(error: WireError) -> KernelError {
        let message = error.message;
        match error.kind.as_str() {
            "client" => {
                KernelError::Client { status: error.status, id: known_id(&error.id), message }
            }
            "overloaded" => KernelError::Overloaded { retry_after_s: error.retry_after_s, message },
            "corruption" => KernelError::Corruption(message),
            "deadline" => KernelError::Deadline(message),
            "cancelled" => KernelError::Cancelled(message),
            _ => KernelError::Backend(message),
        }
    }
}

/// Ids are constants of the program; each that a peer names is kept once, a bounded number of them.
fn known_id(id: &str) -> &'static str {
    static IDS: parking_lot::Mutex<Vec<&'static str>> = parking_lot::Mutex::new(Vec::new());
    let mut ids = IDS.lock();
    if let Some(known) = ids.iter().find(|known| **known == id) {
        return known;
    }
    if ids.len() >= 256 || id.len() > 100 {
        return "sluiceway-query-refused";
    }
    let id: &'static str = Box::leak(id.to_owned().into_boxed_str());
    ids.push(id);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_back_as_they_went() -> Result<()> {
        for column in [
            Column::Bytes(vec![7; PIECE_BYTES + 3]),
            Column::F64(vec![-0.0, 1.5, f64::INFINITY]),
            Column::I64(vec![i64::MIN, -1, 5]),
            Column::Bits((0..64).map(|i| i % 3 == 0).collect()),
        ] {
            let (_, kind, bytes) = column.head("x");
            let mut back = Column::with_room(kind, bytes)?;
            column.pieces(|piece| back.push(piece))?;
            assert_eq!(back, column);
        }
        Ok(())
    }

    #[test]
    fn damaged_frames_are_refused() -> Result<()> {
        let mut good = Vec::new();
        write(&mut good, Kind::Request, 7, b"{}")?;
        let read = |bytes: &[u8]| -> Result<Vec<u8>> {
            let mut input = bytes;
            let mut payload = Vec::new();
            let head = read_head(&mut input)?.ok_or(KernelError::Backend("end".to_owned()))?;
            read_payload(&mut input, &head, &mut payload)?;
            Ok(payload)
        };
        assert_eq!(read(&good)?, b"{}");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read(&bad).is_err(), "byte {at}");
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
        Ok(())
    }
}

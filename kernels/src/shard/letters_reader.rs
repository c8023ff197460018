//! Reading dead letters: a file's chunks and the letters in them, by tenant, time and reason.
//!
//! Invariant: nothing is allocated by a length whose CRC has not been checked; a damaged chunk is
//! counted and passed over, and no other tenant's letter is ever decoded for one that asks.

use super::letters::{CHUNK_HEADER_BYTES, HEADER_BYTES, MAGIC, VERSION};
use super::registry_bytes::Input;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::labels::canonical;
use crate::labels::number::push_float;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What Prometheus and most clients send for "not a number".
const NAN_BITS: u64 = 0x7ff8_0000_0000_0001;
const DECODED_BYTES_MAX: usize = 1 << 30;
const REASONS: [&str; 6] =
    ["", "active_series", "new_series_per_hour", "fold_full", "fold_late", "fold_histogram"];
const ACTIONS: [&str; 6] = ["", "observe", "drop", "strip", "aggregate", "overflow"];

/// What is asked for; absent is everything. Times are of receipt, half-open.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub tenant: Option<String>,
    pub reason: Option<String>,
    pub since_ms: i64,
    pub until_ms: i64,
    /// Matching letters left out first, then how many are told.
    pub skip: u64,
    pub limit: u64,
}

/// A letter for people.
#[derive(Debug, Serialize)]
pub struct Told {
    pub tenant: String,
    pub received_ms: i64,
    pub sequence: u64,
    pub policy_version: u64,
    pub reason: String,
    pub action: String,
    pub budget: String,
    pub labels: BTreeMap<String, String>,
    /// (time, value as `value_text` says it).
    pub floats: Vec<(i64, String)>,
    /// (time, canonical bytes in base64).
    pub histograms: Vec<(i64, String)>,
}

#[derive(Debug, Default, Serialize)]
pub struct Answer {
    pub letters: Vec<Told>,
    /// Letters that match, told or not, up to the last one told.
    pub matched: u64,
    pub damaged_chunks: u64,
}

struct ChunkHeader<'a> {
    decoded: usize,
    letters: u64,
    first_received_ms: i64,
    last_received_ms: i64,
    tenant: &'a str,
    stored: &'a [u8],
    stored_crc: u32,
}

fn corrupt(what: &str) -> KernelError {
    KernelError::corruption(format!("dead letters: {what}"))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Letters of a file that match, in the order applied within a tenant.
///
/// Errors: `Corruption` where the file's header is damaged, or no more chunks can be told apart.
pub fn read(disk: &dyn Disk, path: &str, query: &Query) -> Result<Answer> {
    let bytes = disk.read_all(path)?;
    let mut answer = Answer::default();
    let (mut rest, chunks) = open(&bytes)?;
    for _ in 0..chunks {
        let chunk;
        (chunk, rest) = next_chunk(rest)?;
        let other_tenant = query.tenant.as_ref().is_some_and(|tenant| tenant != chunk.tenant);
        if other_tenant
            || chunk.last_received_ms < query.since_ms
            || chunk.first_received_ms >= query.until_ms
        {
            continue;
        }
        if read_chunk(&chunk, query, &mut answer).is_err() {
            answer.damaged_chunks += 1;
        }
        if answer.letters.len() as u64 >= query.limit {
            break;
        }
    }
    Ok(answer)
}

/// What follows the file's header, and how many chunks that is.
fn open(bytes: &[u8]) -> Result<(&[u8], u32)> {
    let (header, rest) =
        bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| corrupt("header cut short"))?;
    if &header[..8] != MAGIC
        || u32::from_le_bytes(array(header, 32)) != crc32fast::hash(&header[..32])
    {
        return Err(corrupt("header"));
    }
    let version = u16::from_le_bytes(array(header, 8));
    if version != VERSION {
        return Err(corrupt(&format!("version {version}; this build reads {VERSION}")));
    }
    Ok((rest, u32::from_le_bytes(array(header, 12))))
}

fn next_chunk(bytes: &[u8]) -> Result<(ChunkHeader<'_>, &[u8])> {
    let cut = || corrupt("chunk cut short");
    let fixed = bytes.get(..CHUNK_HEADER_BYTES).ok_or_else(cut)?;
    let tenant_end = CHUNK_HEADER_BYTES + usize::from(u16::from_le_bytes(array(fixed, 36)));
    let header = bytes.get(..tenant_end + 4).ok_or_else(cut)?;
    if u32::from_le_bytes(array(header, tenant_end)) != crc32fast::hash(&header[..tenant_end]) {
        return Err(corrupt("chunk header checksum"));
    }
    let stored = u32::from_le_bytes(array(fixed, 0)) as usize;
    let (stored, rest) = bytes[tenant_end + 4..].split_at_checked(stored).ok_or_else(cut)?;
    let tenant = std::str::from_utf8(&header[CHUNK_HEADER_BYTES..tenant_end]);
    let chunk = ChunkHeader {
        decoded: u32::from_le_bytes(array(fixed, 4)) as usize,
        letters: u64::from(u32::from_le_bytes(array(fixed, 8))),
        first_received_ms: i64::from_le_bytes(array(fixed, 20)),
        last_received_ms: i64::from_le_bytes(array(fixed, 28)),
        tenant: tenant.map_err(|_| corrupt("tenant"))?,
        stored,
        stored_crc: u32::from_le_bytes(array(fixed, 38)),
    };
    Ok((chunk, rest))
}

fn read_chunk(chunk: &ChunkHeader, query: &Query, answer: &mut Answer) -> Result<()> {
    if chunk.decoded > DECODED_BYTES_MAX || crc32fast::hash(chunk.stored) != chunk.stored_crc {
        return Err(corrupt("chunk checksum"));
    }
    let decoded = zstd::bulk::decompress(chunk.stored, chunk.decoded)?;
    let mut input = Input(&decoded);
    for _ in 0..chunk.letters {
        if answer.letters.len() as u64 >= query.limit {
            return Ok(());
        }
        let mut letter = Input(input.sized()?);
        let (received_ms, sequence) = (letter.signed()?, letter.number()?);
        let policy_version = letter.number()?;
        let codes = letter.bytes(2)?;
        let name = |names: &[&str], code: u8| {
            names.get(usize::from(code)).map_or_else(|| code.to_string(), |&name| name.to_owned())
        };
        let (reason, action) = (name(&REASONS, codes[0]), name(&ACTIONS, codes[1]));
        if !(query.since_ms..query.until_ms).contains(&received_ms)
            || query.reason.as_ref().is_some_and(|wanted| *wanted != reason)
        {
            continue;
        }
        answer.matched += 1;
        if answer.matched <= query.skip {
            continue;
        }
        let mut told = Told {
            tenant: chunk.tenant.to_owned(),
            received_ms,
            sequence,
            policy_version,
            reason,
            action,
            budget: letter.text()?.to_owned(),
            labels: labels(letter.sized()?)?,
            floats: Vec::new(),
            histograms: Vec::new(),
        };
        read_points(&mut letter, &mut told)?;
        answer.letters.push(told);
    }
    Ok(())
}

fn read_points(letter: &mut Input, told: &mut Told) -> Result<()> {
    let mut time_ms = 0_i64;
    for _ in 0..letter.count()? {
        time_ms = time_ms.wrapping_add(letter.signed()?);
        let bits = u64::from_le_bytes(array(letter.bytes(8)?, 0));
        told.floats.push((time_ms, value_text(bits)));
    }
    time_ms = 0;
    for _ in 0..letter.count()? {
        time_ms = time_ms.wrapping_add(letter.signed()?);
        told.histograms.push((time_ms, STANDARD.encode(letter.sized()?)));
    }
    Ok(())
}

/// A value as Prometheus writes it; a NaN that is not the usual one (a stale marker is) with its
/// bits, so that the text says all of the value.
fn value_text(bits: u64) -> String {
    let value = f64::from_bits(bits);
    if value.is_nan() && bits != NAN_BITS {
        return format!("NaN:{bits:016x}");
    }
    let mut text = Vec::new();
    push_float(&mut text, value);
    String::from_utf8_lossy(&text).into_owned()
}

fn labels(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    canonical::labels(bytes)
        .map(|label| label.map(|(name, value, _)| (text(name), text(value))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::budget::Action;
    use super::super::letters::{Letter, LetterReason, Letters, frame};
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::labels::canonical::push_label;
    use crate::model::Batch;

    fn everything() -> Query {
        Query {
            tenant: None,
            reason: None,
            since_ms: i64::MIN,
            until_ms: i64::MAX,
            skip: 0,
            limit: u64::MAX,
        }
    }

    fn file(disk: &MemoryDisk, path: &str, count: usize) -> Result<()> {
        let mut letters = Letters::default();
        let (mut scratch, mut framed, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        push_label(&mut labels, b"__name__", b"up");
        for number in 0..count {
            let letter = Letter {
                received_ms: number as i64,
                sequence: number as u64,
                policy_version: 7,
                reason: LetterReason::NewSeriesPerHour,
                action: Action::Drop,
                budget: "all",
                labels: &labels,
                floats: &[(5, 1.5), (-5, f64::INFINITY)],
                histograms: &[],
            };
            frame(&letter, &Batch::default(), &mut scratch, &mut framed);
            letters.push(["a", "b"][number % 2], &framed, 2, number as i64);
        }
        let meta = letters.write(disk, path, 3, 9)?;
        assert_eq!((meta.letters, meta.points), (count as u64, 2 * count as u64));
        Ok(())
    }

    #[test]
    fn what_is_written_is_read_by_tenant_and_time() -> Result<()> {
        let disk = MemoryDisk::new();
        // More than a chunk of each tenant.
        file(&disk, "many", 20_000)?;
        let all = read(&disk, "many", &everything())?;
        assert_eq!((all.letters.len(), all.matched, all.damaged_chunks), (20_000, 20_000, 0));
        let first = &all.letters[0];
        assert_eq!((first.reason.as_str(), first.action.as_str()), ("new_series_per_hour", "drop"));
        assert_eq!(first.floats, [(5, "1.5".to_owned()), (-5, "+Inf".to_owned())]);
        let query = Query { tenant: Some("b".to_owned()), since_ms: 101, limit: 3, ..everything() };
        let some = read(&disk, "many", &query)?;
        let found: Vec<u64> = some.letters.iter().map(|letter| letter.sequence).collect();
        assert_eq!(found, [101, 103, 105]);
        Ok(())
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() -> Result<()> {
        let disk = MemoryDisk::new();
        file(&disk, "good", 6)?;
        let bytes = disk.read_all("good")?;
        let seen = |damaged: &[u8], name: &str| {
            disk.write_new(name, damaged)?;
            read(&disk, name, &everything())
        };
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let answer = seen(&damaged, &format!("bit-{bit}"));
            assert!(answer.is_err() || answer.is_ok_and(|a| a.damaged_chunks == 1), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(seen(&bytes[..cut], &format!("cut-{cut}")).is_err(), "cut at {cut}");
        }
        Ok(())
    }
}

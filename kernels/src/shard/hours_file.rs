//! Files of recorded hours (docs/formats/hours.md): written by a seal, read to judge again.
//!
//! Invariant: nothing is allocated by a length whose CRC has not been checked.

use super::hours::ClosedHour;
use crate::disk::Disk;
use crate::error::{KernelError, Result};
use crate::model::SeriesRow;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"SLWHOURS";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 36;
const HOUR_HEADER_BYTES: usize = 32;
const DECODED_BYTES_MAX: usize = 1 << 30;
const ZSTD_LEVEL: i32 = 3;

/// A finished file, as the seal reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoursMeta {
    pub path: String,
    pub bytes: u64,
    pub crc32: u32,
    pub hours: u32,
    /// The lowest and the highest, both inclusive.
    pub first_hour: i64,
    pub last_hour: i64,
}

/// Write the file, durable but for its directory entry. There is at least one hour.
pub fn write(
    hours: &[ClosedHour],
    disk: &dyn Disk,
    path: &str,
    (first_sequence, next_sequence): (u64, u64),
) -> Result<HoursMeta> {
    let mut bytes = Vec::with_capacity(4096);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&(hours.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&first_sequence.to_le_bytes());
    bytes.extend_from_slice(&next_sequence.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    for hour in hours {
        let stored = zstd::bulk::compress(&hour.body, ZSTD_LEVEL)?;
        let start = bytes.len();
        bytes.extend_from_slice(&hour.hour.to_le_bytes());
        bytes.extend_from_slice(&hour.first_row.to_le_bytes());
        bytes.extend_from_slice(&u32::from(hour.flags).to_le_bytes());
        bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(hour.body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&stored).to_le_bytes());
        let crc = crc32fast::hash(&bytes[start..]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&stored);
    }
    let file = disk.create(path)?;
    file.write_at(0, &bytes)?;
    file.sync_data()?;
    Ok(HoursMeta {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        crc32: crc32fast::hash(&bytes),
        hours: hours.len() as u32,
        first_hour: hours.iter().map(|hour| hour.hour).min().unwrap_or_default(),
        last_hour: hours.iter().map(|hour| hour.hour).max().unwrap_or_default(),
    })
}

/// One hour as it stands in a file.
pub struct StoredHour<'a> {
    pub hour: i64,
    pub first_row: SeriesRow,
    pub flags: u8,
    decoded: usize,
    stored: &'a [u8],
    crc32: u32,
}

fn corrupt(what: &str) -> KernelError {
    KernelError::corruption(format!("recorded hours: {what}"))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The hours of a file, in the order in which they closed.
pub fn open(bytes: &[u8]) -> Result<Vec<StoredHour<'_>>> {
    let (header, mut rest) =
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
    let mut hours = Vec::new();
    for _ in 0..u32::from_le_bytes(array(header, 12)) {
        let cut = || corrupt("an hour is cut short");
        let (head, behind) = rest.split_at_checked(HOUR_HEADER_BYTES).ok_or_else(cut)?;
        if u32::from_le_bytes(array(head, 28)) != crc32fast::hash(&head[..28]) {
            return Err(corrupt("an hour's header"));
        }
        let stored = u32::from_le_bytes(array(head, 16)) as usize;
        let (stored, behind) = behind.split_at_checked(stored).ok_or_else(cut)?;
        hours.push(StoredHour {
            hour: i64::from_le_bytes(array(head, 0)),
            first_row: SeriesRow::from_le_bytes(array(head, 8)),
            flags: head[12],
            decoded: u32::from_le_bytes(array(head, 20)) as usize,
            stored,
            crc32: u32::from_le_bytes(array(head, 24)),
        });
        rest = behind;
    }
    if rest.is_empty() { Ok(hours) } else { Err(corrupt("bytes after the last hour")) }
}

impl StoredHour<'_> {
    pub fn body(&self) -> Result<Vec<u8>> {
        if self.decoded > DECODED_BYTES_MAX || crc32fast::hash(self.stored) != self.crc32 {
            return Err(corrupt("an hour's checksum"));
        }
        let body = zstd::bulk::decompress(self.stored, self.decoded)?;
        if body.len() == self.decoded { Ok(body) } else { Err(corrupt("an hour's size")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() -> Result<()> {
        let disk = MemoryDisk::new();
        let hours: Vec<ClosedHour> = (0..2)
            .map(|n| ClosedHour { hour: 9 - n, first_row: 4, flags: 3, body: vec![n as u8; 50] })
            .collect();
        let meta = write(&hours, &disk, "good", (3, 9))?;
        assert_eq!((meta.hours, meta.first_hour, meta.last_hour), (2, 8, 9));
        let bytes = disk.read_all("good")?;
        let read = |bytes: &[u8]| -> Result<Vec<ClosedHour>> {
            let closed = |hour: &StoredHour| {
                let (first_row, flags) = (hour.first_row, hour.flags);
                Ok(ClosedHour { hour: hour.hour, first_row, flags, body: hour.body()? })
            };
            open(bytes)?.iter().map(closed).collect()
        };
        assert_eq!(read(&bytes)?, hours);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        Ok(())
    }
}

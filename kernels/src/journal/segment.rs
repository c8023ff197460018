//! A segment's name and header (docs/formats/record.md).
//!
//! Invariant: a segment is complete and its name durable before a record is written to it; the
//! name repeats the header, so that a rotten header loses no record.

use super::record::array;
use crate::disk::{Disk, DiskFile, read_full, sync_parent};
use crate::error::{KernelError, Result};
use std::fmt;
use std::io;
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"SLUICEWJ";
const VERSION: u32 = 1;
pub const HEADER_BYTES: u64 = 64;
const DURABLE_BEFORE_AT: usize = 40;
const CRC_AT: usize = 60;
const SUFFIX: &str = ".segment";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Rises with every segment made in this directory.
    pub number: u32,
    pub first_sequence: u64,
    /// Starts the CRC of every record header, so that no payload can pose as a record.
    pub salt: u32,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}-{:08x}{SUFFIX}", self.number, self.first_sequence, self.salt)
    }
}

impl SegmentName {
    pub fn parse(name: &str) -> Option<SegmentName> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-');
        let mut part = |width| parts.next().filter(|part| part.len() == width);
        let parsed = SegmentName {
            number: u32::from_str_radix(part(8)?, 16).ok()?,
            first_sequence: u64::from_str_radix(part(16)?, 16).ok()?,
            salt: u32::from_str_radix(part(8)?, 16).ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }

    pub fn path(&self, directory: &str) -> String {
        format!("{directory}/{self}")
    }
}

/// A segment nobody reads any more, to be written again: its blocks need no change of the file
/// system's own journal at each fdatasync, as freshly reserved ones do.
pub struct Spare {
    pub path: String,
    pub file: Arc<dyn DiskFile>,
}

/// What a segment's header says beside its name.
pub struct SegmentHeader {
    pub fence: u64,
    /// Every sequence below was durable when the segment was made: it is the first sequence, or
    /// that of a group which the open before found with holes. 0: the writer did not say.
    pub durable_before: u64,
}

/// Make a segment of `bytes`, all reserved, durable with its name; out of `spare` where there is
/// one. What a failure leaves is removed as well as can be; a leftover holds no record of its salt.
pub fn create(
    disk: &dyn Disk,
    path: &str,
    name: SegmentName,
    said: &SegmentHeader,
    bytes: u64,
    spare: Option<Spare>,
) -> io::Result<Arc<dyn DiskFile>> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend(name.salt.to_le_bytes());
    header.extend(name.first_sequence.to_le_bytes());
    header.extend(said.fence.to_le_bytes());
    header.extend(u32::from(spare.is_some()).to_le_bytes());
    header.resize(DURABLE_BEFORE_AT, 0);
    header.extend(said.durable_before.to_le_bytes());
    header.resize(CRC_AT, 0);
    header.extend(crc32fast::hash(&header).to_le_bytes());
    let file = match spare {
        Some(spare) => {
            disk.rename(&spare.path, path)?;
            spare.file
        }
        None => disk.create(path)?,
    };
    let made = file
        .allocate(bytes)
        .and_then(|()| file.write_at(0, &header))
        .and_then(|()| file.sync_data())
        .and_then(|()| sync_parent(disk, path));
    if let Err(error) = made {
        let _ = disk.remove(path);
        return Err(error);
    }
    Ok(file)
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What lies behind the records is of an earlier use.
    pub used_before: bool,
    /// `SegmentHeader::durable_before`, where the header can be read and says it.
    pub durable_before: Option<u64>,
}

/// Refuses what a newer build or a newer writer made. A header that is rotten, or still of the
/// earlier use, is no reason to refuse.
pub fn check(file: &dyn DiskFile, name: &SegmentName, fence: u64) -> Result<Checked> {
    let mut header = [0; HEADER_BYTES as usize];
    if read_full(file, 0, &mut header)? < header.len()
        || header[..8] != MAGIC
        || crc32fast::hash(&header[..CRC_AT]) != u32::from_le_bytes(array(&header, CRC_AT))
    {
        return Ok(Checked::default());
    }
    let (version, writer) =
        (u32::from_le_bytes(array(&header, 8)), u64::from_le_bytes(array(&header, 24)));
    if version > VERSION {
        return Err(KernelError::corruption(format!(
            "journal segment {name} has format {version}; this build reads up to {VERSION}"
        )));
    }
    if writer > fence {
        return Err(KernelError::Backend(format!(
            "journal segment {name} belongs to writer {writer}; this one is {fence}"
        )));
    }
    if header[12..16] != name.salt.to_le_bytes() {
        return Ok(Checked { used_before: true, durable_before: None });
    }
    let durable_before = u64::from_le_bytes(array(&header, DURABLE_BEFORE_AT));
    let durable_before =
        (1..=name.first_sequence).contains(&durable_before).then_some(durable_before);
    Ok(Checked { used_before: header[32] != 0, durable_before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn names_come_back_and_newer_formats_are_refused() -> Result<()> {
        let name = SegmentName { number: 7, first_sequence: 1 << 40, salt: 0xabcd };
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for wrong in ["", "x.segment", "7-8-9.segment", &format!("{name}.quarantined")] {
            assert_eq!(SegmentName::parse(wrong), None);
        }
        let disk = MemoryDisk::new();
        disk.create_directory("j")?;
        let said = SegmentHeader { fence: 5, durable_before: 1 << 39 };
        let file = create(&disk, &name.path("j"), name, &said, 4096, None)?;
        assert_eq!(file.byte_size()?, 4096);
        let read = Checked { used_before: false, durable_before: Some(1 << 39) };
        assert_eq!(check(&*file, &name, 5)?, read);
        assert!(matches!(check(&*file, &name, 4), Err(KernelError::Backend(_))));
        let mut header = [0; CRC_AT];
        read_full(&*file, 0, &mut header)?;
        header[8] = 2;
        file.write_at(0, &header)?;
        assert_eq!(check(&*file, &name, 0)?, Checked::default());
        file.write_at(CRC_AT as u64, &crc32fast::hash(&header).to_le_bytes())?;
        assert!(matches!(check(&*file, &name, 5), Err(KernelError::Corruption(_))));
        Ok(())
    }
}

//! What a block writer and a block reader share: the frame of the file and its page directory.
//! The layout is docs/formats/block.md.
//!
//! The trailer's checksum covers header and directory, the directory holds every page's: it
//! stands for the whole file.

use crate::codec::Codec;
use crate::codec::bytes::{Cursor, put_varint, put_zigzag};
use crate::codec::column::{put_column, read_column};
use crate::codec::page::PAGE_POINTS_MAX;
use crate::error::{KernelError, Result};
use crate::model::SeriesKey;
use serde::{Deserialize, Serialize};

pub const HEADER_BYTES: usize = 16;
pub const TRAILER_BYTES: usize = 16;
pub const VERSION: u16 = 1;
const HEADER_MAGIC: &[u8; 8] = b"SLWBLOCK";
const TRAILER_MAGIC: &[u8; 8] = b"SLWBLEND";
const ENTRY_COLUMNS: usize = 11;
/// A page is never smaller; bounds what a directory may claim.
const PAGE_BYTES_MIN: usize = 8;

#[derive(Clone, Copy, Debug)]
pub struct BlockOptions {
    pub codec: Codec,
    /// A page is closed before it would hold more.
    pub page_points_max: usize,
}

impl BlockOptions {
    pub fn new(codec: Codec) -> BlockOptions {
        BlockOptions { codec, page_points_max: 8 * 1024 }
    }
    pub(super) fn points_max(&self) -> usize {
        self.page_points_max.clamp(1, PAGE_POINTS_MAX)
    }
}

/// A finished block, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockMeta {
    pub path: String,
    pub bytes: u64,
    /// The trailer's checksum; it covers every byte of the file (through the pages' own).
    pub crc32: u32,
    pub series: u64,
    pub points: u64,
    pub histogram_points: u64,
    pub min_ms: i64,
    pub max_ms: i64,
}

/// A page's place and what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEntry {
    pub offset: u64,
    pub length: u32,
    pub crc32: u32,
    pub points: u32,
    pub first: SeriesKey,
    pub last: SeriesKey,
    pub min_ms: i64,
    pub max_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub codec: u8,
    pub floats: Vec<PageEntry>,
    pub histograms: Vec<PageEntry>,
    pub series: u64,
    pub points: u64,
    pub histogram_points: u64,
    pub min_ms: i64,
    pub max_ms: i64,
}

impl Directory {
    pub fn new(codec: Codec) -> Directory {
        Directory {
            codec: codec as u8,
            floats: Vec::new(),
            histograms: Vec::new(),
            series: 0,
            points: 0,
            histogram_points: 0,
            min_ms: 0,
            max_ms: -1,
        }
    }

    pub fn meta(&self, path: String, bytes: u64, crc32: u32) -> BlockMeta {
        BlockMeta {
            path,
            bytes,
            crc32,
            series: self.series,
            points: self.points,
            histogram_points: self.histogram_points,
            min_ms: self.min_ms,
            max_ms: self.max_ms,
        }
    }

    /// Append directory and trailer; returns the checksum.
    pub fn put(&self, out: &mut Vec<u8>, codec: Codec) -> u32 {
        let start = out.len();
        for value in [
            u64::from(self.codec),
            self.floats.len() as u64,
            self.histograms.len() as u64,
            self.series,
            self.points,
            self.histogram_points,
        ] {
            put_varint(out, value);
        }
        put_zigzag(out, self.min_ms);
        put_zigzag(out, self.max_ms);
        let pages: Vec<&PageEntry> = self.floats.iter().chain(&self.histograms).collect();
        let columns: [fn(&PageEntry) -> i64; ENTRY_COLUMNS] = [
            |page| page.offset as i64,
            |page| i64::from(page.length),
            |page| i64::from(page.crc32),
            |page| i64::from(page.points),
            |page| i64::from(page.first.tenant),
            |page| i64::from(page.first.metric),
            |page| i64::from(page.first.row),
            |page| i64::from(page.last.metric),
            |page| i64::from(page.last.row),
            |page| page.min_ms,
            |page| page.max_ms.wrapping_sub(page.min_ms),
        ];
        for column in columns {
            let values: Vec<i64> = pages.iter().map(|page| column(page)).collect();
            put_column(out, &values, codec);
        }
        let length = ((out.len() - start) as u32).to_le_bytes();
        let crc32 = checksum(&header(), &out[start..], &length);
        out.extend_from_slice(&length);
        out.extend_from_slice(&crc32.to_le_bytes());
        out.extend_from_slice(TRAILER_MAGIC);
        crc32
    }

    /// Read the directory of a file of so many bytes. `bytes` are checked already.
    pub fn read(bytes: &[u8], file_bytes: u64) -> Result<Directory> {
        let broken = || KernelError::corruption("block: directory does not fit the file");
        let pages_max = usize::try_from(file_bytes).map_err(|_| broken())? / PAGE_BYTES_MIN;
        let mut cursor = Cursor::new(bytes);
        let codec = cursor.varint()? as u8;
        let float_pages = cursor.count(pages_max)?;
        let histogram_pages = cursor.count(pages_max)?;
        let (series, points) = (cursor.varint()?, cursor.varint()?);
        let histogram_points = cursor.varint()?;
        let (min_ms, max_ms) = (cursor.zigzag()?, cursor.zigzag()?);
        let count = float_pages + histogram_pages;
        let mut columns: [Vec<i64>; ENTRY_COLUMNS] = Default::default();
        for column in &mut columns {
            read_column(&mut cursor, count, column)?;
        }
        let number =
            |column: usize, page: usize| u32::try_from(columns[column][page]).map_err(|_| broken());
        let entry = |page: usize| {
            let tenant = number(4, page)?;
            Ok(PageEntry {
                offset: columns[0][page] as u64,
                length: number(1, page)?,
                crc32: number(2, page)?,
                points: number(3, page)?,
                first: SeriesKey { tenant, metric: number(5, page)?, row: number(6, page)? },
                last: SeriesKey { tenant, metric: number(7, page)?, row: number(8, page)? },
                min_ms: columns[9][page],
                max_ms: columns[9][page].wrapping_add(columns[10][page]),
            })
        };
        let mut floats = (0..count).map(entry).collect::<Result<Vec<PageEntry>>>()?;
        let page_bytes: u64 = floats.iter().map(|page| u64::from(page.length)).sum();
        let framed = page_bytes + (HEADER_BYTES + bytes.len() + TRAILER_BYTES) as u64;
        let inside = |page: &PageEntry| {
            page.offset.checked_add(u64::from(page.length)).is_some_and(|end| end <= file_bytes)
        };
        if framed != file_bytes || !cursor.is_empty() || !floats.iter().all(inside) {
            return Err(broken());
        }
        let histograms = floats.split_off(float_pages);
        Ok(Directory {
            codec,
            floats,
            histograms,
            series,
            points,
            histogram_points,
            min_ms,
            max_ms,
        })
    }
}

/// The first bytes of every block.
pub fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(HEADER_MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header
}

pub fn checksum(header: &[u8], directory: &[u8], length: &[u8; 4]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(directory);
    hasher.update(length);
    hasher.finalize()
}

/// The directory's length and the checksum, from a trailer.
pub fn read_trailer(trailer: &[u8; TRAILER_BYTES]) -> Result<(u32, u32)> {
    if &trailer[8..] != TRAILER_MAGIC {
        return Err(KernelError::corruption("block: no trailer, the file was cut"));
    }
    let word = |at: usize| {
        u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]])
    };
    Ok((word(0), word(4)))
}

/// Is this the header of a block we can read?
pub fn check_header(bytes: &[u8; HEADER_BYTES]) -> Result<()> {
    if &bytes[..8] != HEADER_MAGIC {
        return Err(KernelError::corruption("block: not a block"));
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version != VERSION {
        return Err(KernelError::corruption(format!(
            "block: format version {version}, this build reads {VERSION}"
        )));
    }
    Ok(())
}

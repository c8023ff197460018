//! The frame of a warm file: places, page directory, root, trailer.

use super::columns::{
    broken, put, put_differences, read, read_differences, read_u32, read_u32_differences,
};
use super::page::{PAGE_WINDOWS_MAX, SECTIONS};
use crate::codec::bytes::{Cursor, put_varint, put_zigzag};
use crate::downsample::dictionary::Places;
use crate::downsample::dictionary::place::{
    Place, column, put_names, put_places, read_names, read_places,
};
use crate::downsample::dictionary::text::{Texts, put_texts};
use crate::downsample::mark::{DIGITS_MAX, Marked};
use crate::error::{KernelError, Result};
use serde::{Deserialize, Serialize};

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const TRAILER_BYTES: usize = 16;
const VERSION: u16 = 1;
const HEADER_MAGIC: &[u8; 8] = b"SLWWARMF";
const TRAILER_MAGIC: &[u8; 8] = b"SLWWARME";
pub(super) const DIRECTORY_PAGE_ENTRIES: usize = 256;
/// A piece is never smaller on average; bounds what a root may claim.
const PLACE_BYTES_MIN: u64 = 4;
/// Names of labels that a file's series lost; bounds what a root may claim.
pub(super) const TAKEN_MAX: usize = 1 << 16;

/// A finished file, as the catalog names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmReport {
    pub path: String,
    pub bytes: u64,
    /// The trailer's checksum; through the places it covers every byte.
    pub crc32: u32,
    pub tenant: String,
    pub window_ms: i64,
    /// The fewest significant digits that values were rounded to; 0: none were.
    pub digits: u8,
    /// Series that lost labels.
    #[serde(default)]
    pub folded: u64,
    pub series: u64,
    pub windows: u64,
    /// Raw points in the windows.
    pub points: u64,
    /// Windows that have a sketch.
    #[serde(default)]
    pub sketches: u64,
    /// (0, -1) in a file without windows.
    pub min_end_ms: i64,
    pub max_end_ms: i64,
}

/// A window page: its place, section by section, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub first_series: u32,
    pub series: u32,
    pub windows: u32,
    pub min_end_ms: i64,
    pub max_end_ms: i64,
    pub sections: [Place; SECTIONS],
}

pub(super) fn put_entries(out: &mut Vec<u8>, entries: &[PageEntry]) {
    put_varint(out, entries.len() as u64);
    put_differences(out, &column(entries, |page| page.sections[0].offset as i64));
    put_differences(out, &column(entries, |page| i64::from(page.first_series)));
    put(out, &column(entries, |page| i64::from(page.series)));
    put(out, &column(entries, |page| i64::from(page.windows)));
    put(out, &column(entries, |page| page.min_end_ms));
    put(out, &column(entries, |page| page.max_end_ms.wrapping_sub(page.min_end_ms)));
    for section in 0..SECTIONS {
        put(out, &column(entries, |page| i64::from(page.sections[section].length)));
        put(out, &column(entries, |page| i64::from(page.sections[section].crc32)));
    }
}

pub(super) fn read_entries(bytes: &[u8], file_bytes: u64) -> Result<Vec<PageEntry>> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.count(DIRECTORY_PAGE_ENTRIES)?;
    let offsets = read_differences(&mut cursor, count)?;
    let first_series = read_u32_differences(&mut cursor, count)?;
    let series = read_u32(&mut cursor, count)?;
    let windows = read_u32(&mut cursor, count)?;
    let min_end_ms = read(&mut cursor, count)?;
    let span_ms = read(&mut cursor, count)?;
    let mut entries = vec![PageEntry::default(); count];
    for (at, entry) in entries.iter_mut().enumerate() {
        entry.first_series = first_series[at];
        entry.series = series[at];
        entry.windows = windows[at];
        entry.min_end_ms = min_end_ms[at];
        entry.max_end_ms = min_end_ms[at].wrapping_add(span_ms[at]);
        if entry.windows as usize > PAGE_WINDOWS_MAX || entry.series > entry.windows {
            return Err(broken("size of a page"));
        }
    }
    let mut ends: Vec<u64> = offsets.iter().map(|&offset| offset as u64).collect();
    for section in 0..SECTIONS {
        let lengths = read_u32(&mut cursor, count)?;
        let checksums = read_u32(&mut cursor, count)?;
        for (at, entry) in entries.iter_mut().enumerate() {
            let place = Place { offset: ends[at], length: lengths[at], crc32: checksums[at] };
            if !place.is_inside(file_bytes) {
                return Err(broken("page outside the file"));
            }
            ends[at] += u64::from(lengths[at]);
            entry.sections[section] = place;
        }
    }
    if cursor.is_empty() { Ok(entries) } else { Err(broken("end of a directory page")) }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Root {
    pub window_ms: i64,
    pub marked: Marked,
    /// Labels that series lost, ascending.
    pub taken: Vec<String>,
    pub tenant: String,
    pub series: u64,
    pub windows: u64,
    pub points: u64,
    pub min_end_ms: i64,
    pub max_end_ms: i64,
    pub directory_pages: Vec<Place>,
    /// First series of each directory page.
    pub directory_series: Vec<u32>,
    pub sketches: u64,
    /// Sketches of window pages, by the page's number, ascending.
    pub sketch_pages: Vec<(u32, Place)>,
}

impl Root {
    pub fn report(&self, path: &str, bytes: u64, crc32: u32) -> WarmReport {
        WarmReport {
            path: path.to_owned(),
            bytes,
            crc32,
            tenant: self.tenant.clone(),
            window_ms: self.window_ms,
            digits: self.marked.digits,
            folded: self.marked.folded_series,
            series: self.series,
            windows: self.windows,
            points: self.points,
            sketches: self.sketches,
            min_end_ms: self.min_end_ms,
            max_end_ms: self.max_end_ms,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.directory_pages.capacity() * size_of::<Place>()
            + self.directory_series.capacity() * size_of::<u32>()
            + self.sketch_pages.capacity() * size_of::<(u32, Place)>()
    }

    /// The sketches of a window page, where it has any.
    pub fn sketch_page(&self, number: usize) -> Option<Place> {
        let found = self.sketch_pages.binary_search_by_key(&number, |(page, _)| *page as usize);
        found.ok().map(|at| self.sketch_pages[at].1)
    }

    /// Append root and trailer; answers the checksum.
    pub fn put(&self, places: &Places, out: &mut Vec<u8>) -> Result<u32> {
        let start = out.len();
        for value in [
            self.window_ms as u64,
            u64::from(self.marked.digits),
            self.series,
            self.windows,
            self.points,
            self.tenant.len() as u64,
        ] {
            put_varint(out, value);
        }
        out.extend_from_slice(self.tenant.as_bytes());
        put_zigzag(out, self.min_end_ms);
        put_zigzag(out, self.max_end_ms);
        put_varint(out, places.label_pages.len() as u64);
        put_varint(out, self.directory_pages.len() as u64);
        put_varint(out, places.names.len() as u64);
        put_places(out, &places.label_pages);
        put_places(out, &self.directory_pages);
        put_differences(out, &column(&self.directory_series, |&series| i64::from(series)));
        put_names(out, &places.names)?;
        if self.marked.folded_series > 0 || self.sketches > 0 {
            put_varint(out, self.marked.folded_series);
            put_varint(out, self.taken.len() as u64);
            put_texts(out, self.taken.iter().map(String::as_bytes))?;
        }
        if self.sketches > 0 {
            put_varint(out, self.sketches);
            put_varint(out, self.sketch_pages.len() as u64);
            put_differences(out, &column(&self.sketch_pages, |(page, _)| i64::from(*page)));
            put_places(out, &self.sketch_pages.iter().map(|(_, place)| *place).collect::<Vec<_>>());
        }
        let too_long = |_| KernelError::Backend("warm: root over 4 GiB".into());
        let length = u32::try_from(out.len() - start).map_err(too_long)?.to_le_bytes();
        let crc32 = checksum(&out[start..], &length);
        out.extend_from_slice(&length);
        out.extend_from_slice(&crc32.to_le_bytes());
        out.extend_from_slice(TRAILER_MAGIC);
        Ok(crc32)
    }

    /// Read the root of a file of so many bytes. `bytes` are checked already.
    pub fn read(bytes: &[u8], file_bytes: u64) -> Result<(Root, Places)> {
        let mut cursor = Cursor::new(bytes);
        let pieces_max = usize::try_from(file_bytes / PLACE_BYTES_MIN).unwrap_or(usize::MAX);
        let window_ms = i64::try_from(cursor.varint()?).map_err(|_| broken("window length"))?;
        let digits = u8::try_from(cursor.varint()?).map_err(|_| broken("digits"))?;
        let (series, windows) = (cursor.varint()?, cursor.varint()?);
        let points = cursor.varint()?;
        let length = cursor.count(bytes.len())?;
        let tenant = std::str::from_utf8(cursor.take(length)?).map_err(|_| broken("tenant"))?;
        let tenant = tenant.to_owned();
        let (min_end_ms, max_end_ms) = (cursor.zigzag()?, cursor.zigzag()?);
        let label_pages = cursor.count(pieces_max)?;
        let directory_pages = cursor.count(pieces_max)?;
        let names = cursor.count(pieces_max)?;
        let label_pages = read_places(&mut cursor, label_pages, file_bytes)?;
        let directory_pages = read_places(&mut cursor, directory_pages, file_bytes)?;
        let directory_series = read_u32_differences(&mut cursor, directory_pages.len())?;
        let names = read_names(&mut cursor, names, file_bytes)?;
        let (mut marked, mut taken) = (Marked { folded_series: 0, digits }, Vec::new());
        if !cursor.is_empty() {
            marked.folded_series = cursor.varint()?;
            let count = cursor.count(TAKEN_MAX)?;
            let texts = Texts::read(&mut cursor, count)?;
            let text = |at| texts.string(at).map(str::to_owned);
            taken = (0..count).map(text).collect::<Result<_>>()?;
        }
        let (sketches, sketch_pages) = read_sketch_pages(&mut cursor, pieces_max, file_bytes)?;
        if sketches > windows {
            return Err(broken("sketches of a file"));
        }
        if digits > DIGITS_MAX || marked.folded_series > series {
            return Err(broken("marks of a file"));
        }
        if window_ms < 1 || series > u64::from(u32::MAX) || !cursor.is_empty() {
            return Err(broken("root"));
        }
        let root = Root {
            window_ms,
            marked,
            taken,
            tenant,
            series,
            windows,
            points,
            min_end_ms,
            max_end_ms,
            directory_pages,
            directory_series,
            sketches,
            sketch_pages,
        };
        Ok((root, Places { label_pages, names }))
    }
}

type SketchPages = (u64, Vec<(u32, Place)>);

fn read_sketch_pages(
    cursor: &mut Cursor,
    pieces_max: usize,
    file_bytes: u64,
) -> Result<SketchPages> {
    if cursor.is_empty() {
        return Ok((0, Vec::new()));
    }
    let sketches = cursor.varint()?;
    let count = cursor.count(pieces_max)?;
    let pages = read_u32_differences(cursor, count)?;
    let places = read_places(cursor, count, file_bytes)?;
    if sketches == 0 || !pages.is_sorted_by(|a, b| a < b) {
        return Err(broken("sketches of a file"));
    }
    Ok((sketches, pages.into_iter().zip(places).collect()))
}

/// The first bytes of every warm file.
pub(super) fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(HEADER_MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header
}

pub(super) fn checksum(root: &[u8], length: &[u8; 4]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header());
    hasher.update(root);
    hasher.update(length);
    hasher.finalize()
}

/// The root's length and the checksum, from a trailer.
pub(super) fn read_trailer(trailer: &[u8; TRAILER_BYTES]) -> Result<(u32, u32)> {
    if &trailer[8..] != TRAILER_MAGIC {
        return Err(broken("no trailer, the file was cut"));
    }
    let word = |at: usize| {
        u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]])
    };
    Ok((word(0), word(4)))
}

/// Is this the header of a file we can read?
pub(super) fn check_header(bytes: &[u8; HEADER_BYTES]) -> Result<()> {
    if &bytes[..8] != HEADER_MAGIC {
        return Err(broken("not a warm file"));
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version != VERSION {
        return Err(broken(&format!("format version {version}, this build reads {VERSION}")));
    }
    if bytes != &header() {
        return Err(broken("header"));
    }
    Ok(())
}

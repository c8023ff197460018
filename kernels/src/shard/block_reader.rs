//! Reads a block: the directory at open, pages on demand through a shared cache.
//!
//! A page's checksum is compared before it is decoded: damage is `Corruption`, never a wrong
//! value. An open reader keeps its file readable after an unlink.

use super::block::{
    BlockMeta, Directory, HEADER_BYTES, PageEntry, TRAILER_BYTES, check_header, checksum,
    read_trailer,
};
use super::page_cache::PageCache;
use crate::codec::page::{Extent, Page, read_extents, read_page};
use crate::disk::{Disk, DiskFile};
use crate::error::{KernelError, Result};
use crate::model::{SeriesKey, TenantNumber};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

pub struct BlockReader {
    file: Arc<dyn DiskFile>,
    directory: Directory,
    meta: BlockMeta,
    cache: Arc<PageCache>,
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Floats,
    Histograms,
}

/// Is handed (index into the asked keys, times, values); in key order, times ascending, a long
/// series in several calls.
pub type FloatSink<'a> = dyn FnMut(usize, &[i64], &[f64]) -> Result<()> + 'a;
/// Is handed (index into the asked keys, time, canonical bytes).
pub type HistogramSink<'a> = dyn FnMut(usize, i64, &[u8]) -> Result<()> + 'a;

/// Is handed (key, times, values) of a whole block.
pub type FloatScanSink<'a> = dyn FnMut(SeriesKey, &[i64], &[f64]) -> Result<()> + 'a;
/// Is handed (key, time, canonical bytes) of a whole block.
pub type HistogramScanSink<'a> = dyn FnMut(SeriesKey, i64, &[u8]) -> Result<()> + 'a;
/// Is handed (index into the asked keys, page, series in it, part of the series' points).
type PartSink<'a> = dyn FnMut(usize, &Page, usize, Range<usize>) -> Result<()> + 'a;
/// Is handed (page, series in it, part of the series' points).
type SeriesSink<'a> = dyn FnMut(&Page, usize, Range<usize>) -> Result<()> + 'a;

fn read_exact(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let mut at = 0;
    while at < buffer.len() {
        match file.read_at(offset + at as u64, &mut buffer[at..])? {
            0 => return Err(KernelError::corruption("block: file ends early")),
            count => at += count,
        }
    }
    Ok(())
}

/// What reading all pages of a block found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct BlockCheck {
    pub pages: u64,
    pub damaged_pages: u64,
    /// Points and native histograms that stand in them.
    pub damaged_points: u64,
    /// Of the first damaged page.
    pub words: String,
}

impl BlockReader {
    /// Open a block and check its directory; a page is checked when it is read.
    pub fn open(disk: &dyn Disk, path: &str, cache: &Arc<PageCache>) -> Result<BlockReader> {
        let file = disk.open(path, false)?;
        let (directory, bytes, crc32) = open_directory(&*file).map_err(|e| at(path, e))?;
        let meta = directory.meta(path.to_owned(), bytes, crc32);
        Ok(BlockReader { file, directory, meta, cache: cache.clone(), number: cache.new_reader() })
    }

    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Whose points it holds: a page is of one tenant.
    pub(super) fn tenants(&self) -> BTreeSet<TenantNumber> {
        let pages = self.directory.floats.iter().chain(&self.directory.histograms);
        pages.map(|page| page.first.tenant).collect()
    }

    pub(super) fn pages(&self, kind: Kind) -> &[PageEntry] {
        match kind {
            Kind::Floats => &self.directory.floats,
            Kind::Histograms => &self.directory.histograms,
        }
    }

    /// Read, check and decode a page, past the cache.
    pub(super) fn fill(&self, kind: Kind, index: usize, buffer: &mut Vec<u8>) -> Result<Page> {
        self.checked(kind, index, buffer, |entry, bytes| {
            let histograms = kind == Kind::Histograms;
            let page = read_page(bytes, entry.first.tenant, entry.points as usize, histograms)?;
            let last = page.series_count() - 1;
            if page.key(0) != entry.first || page.key(last) != entry.last {
                return Err(KernelError::corruption("keys"));
            }
            Ok(page)
        })
    }

    /// Read every page, one at a time, past the cache. Errors: only the disk's.
    pub fn check(&self) -> Result<BlockCheck> {
        let (mut found, mut buffer) = (BlockCheck::default(), Vec::new());
        for kind in [Kind::Floats, Kind::Histograms] {
            for (index, entry) in self.pages(kind).iter().enumerate() {
                found.pages += 1;
                match self.fill(kind, index, &mut buffer) {
                    Ok(_) => {}
                    Err(KernelError::Corruption(words)) => {
                        found.damaged_pages += 1;
                        found.damaged_points += u64::from(entry.points);
                        if found.words.is_empty() {
                            found.words = words;
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(found)
    }

    /// The series of a page and their points' numbers: read and checked, no point decoded.
    pub(super) fn extents(
        &self,
        kind: Kind,
        index: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<Extent>> {
        self.checked(kind, index, buffer, |entry, bytes| read_extents(bytes, entry.points as usize))
    }

    /// Read a page's bytes into `buffer`, compare their checksum, and `decode` them.
    fn checked<T>(
        &self,
        kind: Kind,
        index: usize,
        buffer: &mut Vec<u8>,
        decode: impl FnOnce(&PageEntry, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let entry = &self.pages(kind)[index];
        buffer.resize(entry.length as usize, 0);
        let read = || {
            read_exact(&*self.file, entry.offset, buffer)?;
            if crc32fast::hash(buffer) != entry.crc32 {
                return Err(KernelError::corruption("checksum"));
            }
            decode(entry, buffer)
        };
        read().map_err(|error| {
            if matches!(error, KernelError::Corruption(_)) {
                self.cache.note_damaged();
            }
            at(&format!("{} page {index} ({kind:?})", self.meta.path), error)
        })
    }

    fn page(&self, kind: Kind, index: usize, buffer: &mut Vec<u8>) -> Result<Arc<Page>> {
        let of_kind = if kind == Kind::Floats { 0 } else { self.directory.floats.len() };
        let id = (self.number, (of_kind + index) as u32);
        if let Some(page) = self.cache.get(id) {
            return Ok(page);
        }
        let page = Arc::new(self.fill(kind, index, buffer)?);
        self.cache.put(id, page.clone());
        Ok(page)
    }

    /// Hand the floats of `keys` (ascending) in [from_ms, until_ms) to `sink`.
    pub fn read(
        &self,
        keys: &[SeriesKey],
        from_ms: i64,
        until_ms: i64,
        sink: &mut FloatSink,
    ) -> Result<()> {
        self.visit(Kind::Floats, keys, from_ms, until_ms, &mut |key, page, series, part| {
            sink(key, &page.times(series)[part.clone()], &page.values(series)[part])
        })
    }

    /// Hand the native histograms of `keys` (ascending) in [from_ms, until_ms) to `sink`.
    pub fn read_histograms(
        &self,
        keys: &[SeriesKey],
        from_ms: i64,
        until_ms: i64,
        sink: &mut HistogramSink,
    ) -> Result<()> {
        self.visit(Kind::Histograms, keys, from_ms, until_ms, &mut |key, page, series, part| {
            let start = page.range(series).start;
            let times = page.times(series);
            part.into_iter().try_for_each(|at| sink(key, times[at], page.histogram(start + at)))
        })
    }

    /// Find `keys` and, of each, the parts in the range of times.
    fn visit(
        &self,
        kind: Kind,
        keys: &[SeriesKey],
        from_ms: i64,
        until_ms: i64,
        sink: &mut PartSink,
    ) -> Result<()> {
        let mut cursor = self.cursor(kind);
        keys.iter().enumerate().try_for_each(|(index, key)| {
            cursor.series(*key, from_ms, until_ms, &mut |page, series, part| {
                sink(index, page, series, part)
            })
        })
    }

    pub(super) fn cursor(&self, kind: Kind) -> PageCursor<'_> {
        PageCursor {
            reader: self,
            kind,
            index: 0,
            page: None,
            series: 0,
            buffer: Vec::new(),
            lost: None,
            skipped: None,
        }
    }

    /// A cursor that goes past damaged pages and notes them.
    pub(super) fn cursor_past<'a>(&'a self, kind: Kind, lost: &'a LostPages) -> PageCursor<'a> {
        PageCursor { lost: Some(lost), ..self.cursor(kind) }
    }

    /// Hand every float of the block to `sink`, in key order, past the cache.
    pub fn scan(&self, sink: &mut FloatScanSink) -> Result<()> {
        self.scan_pages(Kind::Floats, &mut |page| {
            (0..page.series_count())
                .try_for_each(|s| sink(page.key(s), page.times(s), page.values(s)))
        })
    }

    /// Hand every histogram of the block to `sink`, in key order, past the cache.
    pub fn scan_histograms(&self, sink: &mut HistogramScanSink) -> Result<()> {
        self.scan_pages(Kind::Histograms, &mut |page| {
            (0..page.series_count()).try_for_each(|series| {
                let points = page.range(series).zip(page.times(series));
                points.into_iter().try_for_each(|(point, time)| {
                    sink(page.key(series), *time, page.histogram(point))
                })
            })
        })
    }

    fn scan_pages(&self, kind: Kind, sink: &mut dyn FnMut(&Page) -> Result<()>) -> Result<()> {
        let mut buffer = Vec::new();
        (0..self.pages(kind).len())
            .try_for_each(|index| sink(&self.fill(kind, index, &mut buffer)?))
    }
}

/// Walks a block along ascending keys and holds one page at a time, so that several blocks can be
/// laid over each other without a copy of what they hold.
pub(super) struct PageCursor<'a> {
    reader: &'a BlockReader,
    kind: Kind,
    index: usize,
    /// The page at `index`, once it was needed; the last series looked at in it.
    page: Option<Arc<Page>>,
    series: usize,
    buffer: Vec<u8>,
    /// Where damaged pages are noted instead of told as an error, and the last one that was.
    lost: Option<&'a LostPages>,
    skipped: Option<usize>,
}

/// Damaged pages that were passed over: by block and page, how many points each held.
#[derive(Default)]
pub(super) struct LostPages {
    pages: Mutex<BTreeMap<(String, usize), u64>>,
}

impl LostPages {
    /// Points in all of them, and what they are called.
    pub(super) fn told(self) -> (u64, Vec<String>) {
        let pages = self.pages.into_inner();
        let names = pages.keys().map(|(path, page)| format!("{path} page {page}")).collect();
        (pages.values().sum(), names)
    }
}

impl PageCursor<'_> {
    /// The page at `index`; None where it is damaged and that is noted.
    fn open_page(&mut self, points: u64) -> Result<bool> {
        if self.page.is_some() {
            return Ok(true);
        }
        if self.skipped == Some(self.index) {
            return Ok(false);
        }
        match (self.reader.page(self.kind, self.index, &mut self.buffer), self.lost) {
            (Ok(page), _) => {
                self.page = Some(page);
                Ok(true)
            }
            (Err(KernelError::Corruption(_)), Some(lost)) => {
                let key = (self.reader.meta.path.clone(), self.index);
                lost.pages.lock().insert(key, points);
                self.skipped = Some(self.index);
                Ok(false)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Hand (page, series in it, part of its points) to `sink`: all that the block holds of `key`
    /// in [from_ms, until_ms), times ascending. No key may be below the one before.
    pub(super) fn series(
        &mut self,
        key: SeriesKey,
        from_ms: i64,
        until_ms: i64,
        sink: &mut SeriesSink,
    ) -> Result<()> {
        let pages = self.reader.pages(self.kind);
        if pages.get(self.index).is_some_and(|page| page.last < key) {
            let skipped = pages[self.index..].partition_point(|page| page.last < key);
            self.turn_to(self.index + skipped);
        }
        while let Some(entry) = pages.get(self.index).filter(|entry| entry.first <= key) {
            let wanted = entry.max_ms >= from_ms && entry.min_ms < until_ms;
            if wanted
                && self.open_page(u64::from(entry.points))?
                && let Some(page) = &self.page
            {
                self.series = page.seek(self.series, key);
                if self.series < page.series_count() && page.key(self.series) == key {
                    let times = page.times(self.series);
                    let part = if entry.min_ms >= from_ms && entry.max_ms < until_ms {
                        0..times.len()
                    } else {
                        times.partition_point(|time| *time < from_ms)
                            ..times.partition_point(|time| *time < until_ms)
                    };
                    if !part.is_empty() {
                        sink(page, self.series, part)?;
                    }
                }
            }
            if entry.last > key {
                break;
            }
            // The last key of a page may go on in the next.
            self.turn_to(self.index + 1);
        }
        Ok(())
    }

    fn turn_to(&mut self, index: usize) {
        (self.index, self.page, self.series) = (index, None, 0);
    }
}

impl Drop for BlockReader {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

/// Say where the damage is.
fn at(place: &str, error: KernelError) -> KernelError {
    match error {
        KernelError::Corruption(what) => KernelError::Corruption(format!("block {place}: {what}")),
        other => other,
    }
}

fn open_directory(file: &dyn DiskFile) -> Result<(Directory, u64, u32)> {
    let bytes = file.byte_size()?;
    let frame = (HEADER_BYTES + TRAILER_BYTES) as u64;
    if bytes < frame {
        return Err(KernelError::corruption("file ends early"));
    }
    let mut header = [0; HEADER_BYTES];
    read_exact(file, 0, &mut header)?;
    check_header(&header)?;
    let mut trailer = [0; TRAILER_BYTES];
    read_exact(file, bytes - TRAILER_BYTES as u64, &mut trailer)?;
    let (length, crc32) = read_trailer(&trailer)?;
    if u64::from(length) > bytes - frame {
        return Err(KernelError::corruption("directory length"));
    }
    let mut directory = vec![0; length as usize];
    read_exact(file, bytes - TRAILER_BYTES as u64 - u64::from(length), &mut directory)?;
    if checksum(&header, &directory, &length.to_le_bytes()) != crc32 {
        return Err(KernelError::corruption("directory checksum"));
    }
    Ok((Directory::read(&directory, bytes)?, bytes, crc32))
}

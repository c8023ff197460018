//! Writes one block: series in key order into pages, pages into the file, the directory at the end.
//!
//! Until `finish` returns the file is nothing: a reader refuses it. `finish` syncs the file; the
//! directory entry is the committer's to sync.

use super::block::{BlockMeta, BlockOptions, Directory, PageEntry, header};
use crate::codec::page::{PAGE_HISTOGRAM_BYTES_MAX, PageBuilder};
use crate::disk::{Disk, DiskFile};
use crate::error::{KernelError, Result};
use crate::model::SeriesKey;
use std::sync::Arc;

/// Bytes collected before they go to the file.
const WRITE_BYTES: usize = 1 << 20;
/// A page with this share of its points is closed where a metric ends; a smaller one goes on, so
/// that many small metrics do not mean many small pages.
const METRIC_PAGE_SHARE: usize = 8;
/// A page of histograms is closed at so many bytes.
const HISTOGRAM_PAGE_BYTES: usize = 1 << 20;

/// A page being filled and the keys and times it spans.
struct OpenPage {
    builder: PageBuilder,
    first: SeriesKey,
    last: SeriesKey,
    min_ms: i64,
    max_ms: i64,
}

impl OpenPage {
    fn new(builder: PageBuilder) -> OpenPage {
        let key = SeriesKey { tenant: 0, metric: 0, row: 0 };
        OpenPage { builder, first: key, last: key, min_ms: i64::MAX, max_ms: i64::MIN }
    }

    fn must_close(&self, key: SeriesKey, points: usize, points_max: usize) -> bool {
        let held = self.builder.point_count;
        held > 0
            && (key.tenant != self.last.tenant
                || held + points > points_max
                || (key.metric != self.last.metric && held >= points_max / METRIC_PAGE_SHARE))
    }

    fn span(&mut self, key: SeriesKey, times: &[i64]) {
        if self.builder.point_count == 0 {
            (self.first, self.min_ms, self.max_ms) = (key, i64::MAX, i64::MIN);
        }
        self.last = key;
        self.min_ms = self.min_ms.min(times[0]);
        self.max_ms = self.max_ms.max(times[times.len() - 1]);
    }
}

/// The file end of a writer: buffered bytes and where they go.
struct Sink {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
    options: BlockOptions,
}

impl Sink {
    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }
    fn flush(&mut self) -> Result<()> {
        self.file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
    fn close_page(&mut self, page: &mut OpenPage, entries: &mut Vec<PageEntry>) -> Result<()> {
        if page.builder.point_count == 0 {
            return Ok(());
        }
        let (offset, start) = (self.position(), self.buffer.len());
        let points = page.builder.point_count as u32;
        page.builder.encode(&mut self.buffer, self.options.codec)?;
        let bytes = &self.buffer[start..];
        entries.push(PageEntry {
            offset,
            length: bytes.len() as u32,
            crc32: crc32fast::hash(bytes),
            points,
            first: page.first,
            last: page.last,
            min_ms: page.min_ms,
            max_ms: page.max_ms,
        });
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }
}

pub struct BlockWriter {
    path: String,
    sink: Sink,
    floats: OpenPage,
    histograms: OpenPage,
    directory: Directory,
    last_key: Option<SeriesKey>,
}

impl BlockWriter {
    /// Create the file; it must not exist.
    pub fn create(disk: &dyn Disk, path: &str, options: BlockOptions) -> Result<BlockWriter> {
        let sink =
            Sink { file: disk.create(path)?, buffer: header().to_vec(), written: 0, options };
        Ok(BlockWriter {
            path: path.to_owned(),
            sink,
            floats: OpenPage::new(PageBuilder::floats()),
            histograms: OpenPage::new(PageBuilder::histograms()),
            directory: Directory::new(options.codec),
            last_key: None,
        })
    }

    /// Add a series' floats. Keys ascend over both kinds of points (a series may have both, once
    /// each); times ascend strictly. Nothing to add is nothing done.
    pub fn push_series(&mut self, key: SeriesKey, times: &[i64], values: &[f64]) -> Result<()> {
        if !self.enter(key, times, values.len(), self.floats.last, self.directory.points)? {
            return Ok(());
        }
        self.directory.points += times.len() as u64;
        let points_max = self.sink.options.points_max();
        if self.floats.must_close(key, times.len(), points_max) {
            self.sink.close_page(&mut self.floats, &mut self.directory.floats)?;
        }
        for (times, values) in times.chunks(points_max).zip(values.chunks(points_max)) {
            if self.floats.must_close(key, times.len(), points_max) {
                self.sink.close_page(&mut self.floats, &mut self.directory.floats)?;
            }
            self.floats.span(key, times);
            self.floats.builder.push_floats(key, times, values);
        }
        Ok(())
    }

    /// Add a series' native histograms, as `push_series` adds floats.
    pub fn push_histograms(
        &mut self,
        key: SeriesKey,
        times: &[i64],
        histograms: &[&[u8]],
    ) -> Result<()> {
        let count = self.directory.histogram_points;
        if !self.enter(key, times, histograms.len(), self.histograms.last, count)? {
            return Ok(());
        }
        self.directory.histogram_points += times.len() as u64;
        let points_max = self.sink.options.points_max();
        let (mut start, mut bytes) = (0, self.histograms.builder.histogram_bytes());
        for end in 1..=times.len() {
            bytes += histograms[end - 1].len();
            if histograms[end - 1].len() > PAGE_HISTOGRAM_BYTES_MAX - HISTOGRAM_PAGE_BYTES {
                return Err(KernelError::Backend("block: histogram too large".into()));
            }
            if end < times.len() && bytes < HISTOGRAM_PAGE_BYTES && end - start < points_max {
                continue;
            }
            if self.histograms.must_close(key, end - start, points_max) {
                self.sink.close_page(&mut self.histograms, &mut self.directory.histograms)?;
            }
            self.histograms.span(key, &times[start..end]);
            let builder = &mut self.histograms.builder;
            builder.push_histograms(key, &times[start..end], &histograms[start..end]);
            if builder.histogram_bytes() >= HISTOGRAM_PAGE_BYTES {
                self.sink.close_page(&mut self.histograms, &mut self.directory.histograms)?;
            }
            (start, bytes) = (end, self.histograms.builder.histogram_bytes());
        }
        Ok(())
    }

    /// Check order and count a series. False: no points, nothing to do.
    fn enter(
        &mut self,
        key: SeriesKey,
        times: &[i64],
        values: usize,
        last_of_kind: SeriesKey,
        points_of_kind: u64,
    ) -> Result<bool> {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(false) };
        let repeated = points_of_kind > 0 && key <= last_of_kind;
        let sorted = times.windows(2).all(|pair| pair[0] < pair[1]);
        if repeated || self.last_key > Some(key) || !sorted || times.len() != values {
            return Err(KernelError::Backend(format!(
                "block {}: series {key:?} out of order, times not ascending or columns unequal",
                self.path
            )));
        }
        self.directory.series += u64::from(self.last_key != Some(key));
        self.last_key = Some(key);
        let empty = self.directory.points + self.directory.histogram_points == 0;
        let directory = &mut self.directory;
        directory.min_ms = if empty { *first } else { directory.min_ms.min(*first) };
        directory.max_ms = if empty { *last } else { directory.max_ms.max(*last) };
        Ok(true)
    }

    pub fn points(&self) -> u64 {
        self.directory.points + self.directory.histogram_points
    }

    /// Write what is left and make the file's bytes durable.
    pub fn finish(mut self) -> Result<BlockMeta> {
        self.sink.close_page(&mut self.floats, &mut self.directory.floats)?;
        self.sink.close_page(&mut self.histograms, &mut self.directory.histograms)?;
        let crc32 = self.directory.put(&mut self.sink.buffer, self.sink.options.codec);
        self.sink.flush()?;
        self.sink.file.sync_data()?;
        Ok(self.directory.meta(self.path, self.sink.written, crc32))
    }
}

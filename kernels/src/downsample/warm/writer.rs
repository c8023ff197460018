//! Writes one warm file: series in order into pages, then the index, the directory and the root.
//!
//! Until `finish` returns the file is nothing: a reader refuses it. `finish` syncs the file; the
//! directory entry is the committer's to sync. Memory: one page of windows, one of labels, the
//! strings and postings of the file's series.

use super::format::{
    DIRECTORY_PAGE_ENTRIES, PageEntry, Root, TAKEN_MAX, WarmReport, header, put_entries,
};
use super::page::{PAGE_WINDOWS_MAX, PageEncoder, SECTIONS};
use super::sketch_page;
use crate::disk::{Disk, DiskFile};
use crate::downsample::columns::{Kind, WindowColumns};
use crate::downsample::dictionary::DictionaryWriter;
use crate::downsample::dictionary::place::Place;
use crate::downsample::mark::Mark;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, METRIC_NAME};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Bytes collected before they go to the file.
const WRITE_BYTES: usize = 1 << 20;
/// A page with this share of its windows is closed where a metric ends.
const METRIC_PAGE_SHARE: usize = 8;

/// Settings of a file.
#[derive(Clone, Debug)]
pub struct WarmOptions {
    pub tenant: String,
    pub window_ms: i64,
    /// Labels that series lost on the way here, ascending.
    pub taken: Vec<String>,
    /// A page is closed before it would hold more.
    pub page_windows_max: usize,
}

impl WarmOptions {
    pub fn new(tenant: &str, window_ms: i64) -> WarmOptions {
        let tenant = tenant.to_owned();
        WarmOptions { tenant, window_ms, taken: Vec::new(), page_windows_max: 16 * 1024 }
    }
}

/// The file end of a writer: buffered bytes and where they go.
struct Sink {
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
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

    /// The place of what was appended from `start` on.
    fn place(&self, start: usize) -> Result<Place> {
        let bytes = &self.buffer[start..];
        let length = u32::try_from(bytes.len())
            .map_err(|_| KernelError::Backend("warm: piece over 4 GiB".into()))?;
        let offset = self.written + start as u64;
        Ok(Place { offset, length, crc32: crc32fast::hash(bytes) })
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<Place> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let place = self.place(start)?;
        self.flush_if_full()?;
        Ok(place)
    }
}

pub struct WarmWriter {
    path: String,
    sink: Sink,
    page_windows_max: usize,
    encoder: PageEncoder,
    page: WindowColumns,
    /// Number of the first series of the open page, and the metric of the last.
    page_first: u32,
    metric: u32,
    entries: Vec<PageEntry>,
    dictionary: DictionaryWriter,
    metric_name: u32,
    /// Labels of the series before, as symbols, and its kind.
    before: Option<(Vec<(u32, u32)>, Kind)>,
    root: Root,
}

impl WarmWriter {
    /// Create the file; it must not exist.
    pub fn create(disk: &dyn Disk, path: &str, options: &WarmOptions) -> Result<WarmWriter> {
        if options.window_ms < 1 {
            return Err(KernelError::Backend("warm: a window has a length".into()));
        }
        let sink = Sink { file: disk.create(path)?, buffer: header().to_vec(), written: 0 };
        let mut dictionary = DictionaryWriter::default();
        let metric_name = dictionary.strings.intern(METRIC_NAME);
        Ok(WarmWriter {
            path: path.to_owned(),
            sink,
            page_windows_max: options.page_windows_max.clamp(1, PAGE_WINDOWS_MAX),
            encoder: PageEncoder::default(),
            page: WindowColumns::default(),
            page_first: 0,
            metric: 0,
            entries: Vec::new(),
            dictionary,
            metric_name,
            before: None,
            root: Root {
                window_ms: options.window_ms,
                taken: options.taken.clone(),
                tenant: options.tenant.clone(),
                min_end_ms: 0,
                max_end_ms: -1,
                ..Root::default()
            },
        })
    }

    /// Add series, ascending by `compare_labels`, then kind, over all calls. One without windows
    /// is left out.
    pub fn push(&mut self, labels: &LabelTable, windows: &WindowColumns) -> Result<()> {
        self.push_marked(labels, windows, &[])
    }

    /// As `push`; `marks` says what was done to each series, nothing where it is empty.
    pub fn push_marked(
        &mut self,
        labels: &LabelTable,
        windows: &WindowColumns,
        marks: &[Mark],
    ) -> Result<()> {
        if labels.len() != windows.series_count()
            || !(marks.is_empty() || marks.len() == labels.len())
        {
            return Err(self.refusal("labels and windows of unequal number"));
        }
        let mut symbols = vec![0; labels.symbol_count()];
        let mut own: Vec<(u32, u32)> = Vec::new();
        for series in (0..labels.len()).filter(|&series| !windows.series(series).is_empty()) {
            own.clear();
            let (names, values) = labels.symbols(series);
            for (&name, &value) in names.iter().zip(values) {
                let mut symbol = |theirs: u32| {
                    let ours: &mut u32 = &mut symbols[theirs as usize];
                    if *ours == 0 {
                        *ours = self.dictionary.strings.intern(labels.string(theirs));
                    }
                    *ours
                };
                own.push((symbol(name), symbol(value)));
            }
            let kind = windows.kinds[series];
            self.enter(&own, kind, marks.get(series).copied().unwrap_or_default())?;
            self.push_windows(windows, windows.series(series), kind)?;
            match &mut self.before {
                Some((before, before_kind)) => {
                    before.clear();
                    before.extend_from_slice(&own);
                    *before_kind = kind;
                }
                None => self.before = Some((own.clone(), kind)),
            }
        }
        Ok(())
    }

    fn refusal(&self, what: &str) -> KernelError {
        KernelError::Backend(format!("warm file {}: {what}", self.path))
    }

    /// Check the order of a series and give it its number.
    fn enter(&mut self, labels: &[(u32, u32)], kind: Kind, mark: Mark) -> Result<()> {
        if let Some((before, before_kind)) = &self.before {
            let order = self.compare(before, labels).then_with(|| before_kind.cmp(&kind));
            if order != Ordering::Less {
                return Err(self.refusal("series out of order"));
            }
        }
        let number =
            u32::try_from(self.root.series).map_err(|_| self.refusal("more than 4 G series"))?;
        self.dictionary.push(number, labels, mark);
        self.root.marked.add(mark);
        self.root.series += 1;
        let metric = self.metric_of(labels);
        let held = self.page.window_count();
        if metric != self.metric && held >= self.page_windows_max / METRIC_PAGE_SHARE {
            self.close_page()?;
        }
        self.metric = metric;
        if self.dictionary.is_full() {
            let sink = &mut self.sink;
            self.dictionary.close_page(&mut |bytes| sink.write(bytes))?;
        }
        Ok(())
    }

    fn metric_of(&self, labels: &[(u32, u32)]) -> u32 {
        labels.iter().find(|(name, _)| *name == self.metric_name).map_or(0, |&(_, value)| value)
    }

    fn compare(&self, a: &[(u32, u32)], b: &[(u32, u32)]) -> Ordering {
        let text = |symbol: u32| self.dictionary.strings.bytes(symbol);
        let order = |a: u32, b: u32| if a == b { Ordering::Equal } else { text(a).cmp(text(b)) };
        let metrics = order(self.metric_of(a), self.metric_of(b));
        let labels = a
            .iter()
            .zip(b)
            .map(|(a, b)| order(a.0, b.0).then_with(|| order(a.1, b.1)))
            .find(|order| order.is_ne());
        metrics.then(labels.unwrap_or(a.len().cmp(&b.len())))
    }

    fn push_windows(
        &mut self,
        windows: &WindowColumns,
        range: Range<usize>,
        kind: Kind,
    ) -> Result<()> {
        let ends = &windows.end_ms[range.clone()];
        let single_twice =
            |at: usize| windows.count[at] == 1 && windows.first_ms[at] != windows.last_ms[at];
        if !ends.is_sorted_by(|a, b| a < b) || range.clone().any(single_twice) {
            return Err(self.refusal("ends not ascending, or one point with two times"));
        }
        let empty = self.root.windows == 0;
        let (first, last) = (ends[0], ends[ends.len() - 1]);
        self.root.min_end_ms = if empty { first } else { self.root.min_end_ms.min(first) };
        self.root.max_end_ms = if empty { last } else { self.root.max_end_ms.max(last) };
        self.root.windows += range.len() as u64;
        let points = windows.count[range.clone()].iter().map(|&count| u64::from(count));
        self.root.points += points.sum::<u64>();
        let held = self.page.window_count();
        if held > 0 && held + range.len() > self.page_windows_max {
            self.close_page()?;
        }
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + self.page_windows_max);
            if self.page.window_count() > 0 && start > range.start {
                self.close_page()?;
            }
            if self.page.window_count() == 0 {
                self.page_first = (self.root.series - 1) as u32;
            }
            self.page.append(windows, start..end);
            self.page.end_series(kind);
            start = end;
        }
        Ok(())
    }

    fn close_page(&mut self) -> Result<()> {
        if self.page.window_count() == 0 {
            return Ok(());
        }
        let mut start = self.sink.buffer.len();
        let mut offset = self.sink.position();
        let window_ms = self.root.window_ms;
        let lengths = self.encoder.encode(&mut self.sink.buffer, &self.page, window_ms);
        let mut sections = [Place::default(); SECTIONS];
        for (section, length) in sections.iter_mut().zip(lengths) {
            let crc32 = crc32fast::hash(&self.sink.buffer[start..start + length]);
            *section = Place { offset, length: length as u32, crc32 };
            start += length;
            offset += length as u64;
        }
        self.put_sketches()?;
        let ends = self.page.end_ms.iter().copied();
        self.entries.push(PageEntry {
            first_series: self.page_first,
            series: self.page.series_count() as u32,
            windows: self.page.window_count() as u32,
            min_end_ms: ends.clone().min().unwrap_or(0),
            max_end_ms: ends.max().unwrap_or(-1),
            sections,
        });
        if self.entries.len() == DIRECTORY_PAGE_ENTRIES {
            self.close_directory_page()?;
        }
        self.page.clear();
        self.sink.flush_if_full()
    }

    /// Write the sketches of the page that is being closed.
    fn put_sketches(&mut self) -> Result<()> {
        if self.page.sketches.is_empty() {
            return Ok(());
        }
        let start = self.sink.buffer.len();
        sketch_page::encode(&mut self.sink.buffer, &self.page)?;
        let directory = self.root.directory_pages.len() * DIRECTORY_PAGE_ENTRIES;
        let number = (directory + self.entries.len()) as u32;
        self.root.sketch_pages.push((number, self.sink.place(start)?));
        self.root.sketches += self.page.sketches.len() as u64;
        Ok(())
    }

    fn close_directory_page(&mut self) -> Result<()> {
        let Some(first) = self.entries.first() else { return Ok(()) };
        self.root.directory_series.push(first.first_series);
        let mut bytes = Vec::new();
        put_entries(&mut bytes, &self.entries);
        self.root.directory_pages.push(self.sink.write(&bytes)?);
        self.entries.clear();
        Ok(())
    }

    /// Name labels that series lost, which is known once all are pushed.
    pub fn note_taken(&mut self, taken: impl IntoIterator<Item = String>) {
        let mut all: BTreeSet<String> = std::mem::take(&mut self.root.taken).into_iter().collect();
        all.extend(taken);
        self.root.taken = all.into_iter().collect();
    }

    /// Write what is left and make the file's bytes durable.
    pub fn finish(mut self) -> Result<WarmReport> {
        if self.root.marked.folded_series == 0 {
            self.root.taken.clear();
        }
        if self.root.taken.len() > TAKEN_MAX {
            return Err(self.refusal("too many labels taken"));
        }
        self.close_page()?;
        let sink = &mut self.sink;
        self.dictionary.close_page(&mut |bytes| sink.write(bytes))?;
        self.close_directory_page()?;
        let sink = &mut self.sink;
        let places = self.dictionary.finish(&mut |bytes| sink.write(bytes))?;
        let crc32 = self.root.put(&places, &mut self.sink.buffer)?;
        self.sink.flush()?;
        self.sink.file.sync_data()?;
        Ok(self.root.report(&self.path, self.sink.written, crc32))
    }
}

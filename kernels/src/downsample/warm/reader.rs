//! Reads a warm file: the root at open, everything else when asked for and nothing kept.
//!
//! A piece's checksum is compared before it is decoded: damage is `Corruption`, never a wrong
//! value. An open reader keeps its file readable after an unlink.

use super::columns::broken;
use super::format::{
    HEADER_BYTES, PageEntry, Place, Root, TRAILER_BYTES, WarmReport, check_header, checksum,
    read_entries, read_trailer,
};
use super::label_page::{LABEL_PAGE_SERIES, LabelPage};
use super::page::{Asked, SECTIONS, Sections, decode, sections_of};
use crate::disk::{Disk, DiskFile, read_full};
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::file::unknown_series;
use crate::downsample::read_buffers::ReadBuffers;
use crate::downsample::view::Piece;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, LabelTableBuilder};
use std::ops::Range;
use std::sync::Arc;

/// Sections with fewer bytes between them are read at once.
const GAP_BYTES_MAX: u64 = 8 << 10;

pub struct WarmFile {
    path: String,
    file: Arc<dyn DiskFile>,
    pub(super) root: Root,
    pub(super) bytes: u64,
    pub(super) root_bytes: u64,
    crc32: u32,
}

impl WarmFile {
    /// Open a file and check its root; a piece is checked when it is read.
    pub fn open(disk: &dyn Disk, path: &str) -> Result<WarmFile> {
        let file = disk.open(path, false)?;
        let opened = open_root(&*file).map_err(|error| at(path, error))?;
        let (root, root_bytes, bytes, crc32) = opened;
        Ok(WarmFile { path: path.to_owned(), file, root, bytes, root_bytes, crc32 })
    }

    /// What the file says of itself.
    pub fn report(&self) -> WarmReport {
        self.root.report(&self.path, self.bytes, self.crc32)
    }

    /// An error with the file's name.
    pub(super) fn named(&self, error: KernelError) -> KernelError {
        at(&self.path, error)
    }

    /// Read and check a piece.
    pub(super) fn piece(&self, place: Place) -> Result<Vec<u8>> {
        let mut bytes = vec![0; place.length as usize];
        let read = read_exact(&*self.file, place.offset, &mut bytes).and_then(|()| {
            if crc32fast::hash(&bytes) == place.crc32 { Ok(()) } else { Err(broken("checksum")) }
        });
        read.map_err(|error| self.named(error))?;
        Ok(bytes)
    }

    pub(super) fn label_page(&self, number: usize) -> Result<LabelPage> {
        let place = *self.root.label_pages.get(number).ok_or_else(|| broken("label page"))?;
        let page = LabelPage::read(&self.piece(place)?).map_err(|error| self.named(error))?;
        let start = number * LABEL_PAGE_SERIES;
        let length = (self.root.series as usize).saturating_sub(start).min(LABEL_PAGE_SERIES);
        if page.len() == length {
            Ok(page)
        } else {
            Err(self.named(broken("size of a label page")))
        }
    }

    /// Hand each of the series its label page and its place there.
    pub(super) fn visit_labels(
        &self,
        series: &[u32],
        visit: &mut dyn FnMut(&LabelPage, usize, bool),
    ) -> Result<()> {
        let mut open: Option<(usize, LabelPage)> = None;
        for &number in series {
            if u64::from(number) >= self.root.series {
                return Err(unknown_series(number, self.root.series as usize));
            }
            let at = number as usize / LABEL_PAGE_SERIES;
            let is_new = open.as_ref().is_none_or(|(known, _)| *known != at);
            if is_new {
                open = Some((at, self.label_page(at)?));
            }
            if let Some((_, page)) = &open {
                visit(page, number as usize % LABEL_PAGE_SERIES, is_new);
            }
        }
        Ok(())
    }

    pub(super) fn label_table(&self, series: &[u32]) -> Result<LabelTable> {
        let mut builder = LabelTableBuilder::default();
        let mut symbols = Vec::new();
        self.visit_labels(series, &mut |page, index, is_new| {
            if is_new {
                symbols.clear();
            }
            page.copy(index, &mut symbols, &mut builder);
        })?;
        Ok(builder.finish())
    }

    pub(super) fn directory_page(&self, number: usize) -> Result<Vec<PageEntry>> {
        let bytes = self.piece(self.root.directory_pages[number])?;
        let entries = read_entries(&bytes, self.bytes).map_err(|error| self.named(error))?;
        let fits = |entry: &PageEntry| {
            u64::from(entry.first_series) + u64::from(entry.series) <= self.root.series
        };
        if entries.iter().all(fits) {
            Ok(entries)
        } else {
            Err(self.named(broken("series of a page")))
        }
    }

    /// Read and decode a page's columns; answers bytes read.
    pub(super) fn page(
        &self,
        entry: &PageEntry,
        fields: Fields,
        wanted: &[bool],
        buffers: &mut ReadBuffers,
    ) -> Result<u64> {
        let needed = sections_of(fields);
        let runs = runs(&entry.sections, &needed);
        let mut pieces = Vec::with_capacity(runs.len());
        let mut read = 0;
        for run in &runs {
            let mut buffer = vec![0; (run.end - run.start) as usize];
            read_exact(&*self.file, run.start, &mut buffer).map_err(|error| self.named(error))?;
            read += buffer.len() as u64;
            pieces.push(buffer);
        }
        let mut sections: Sections = [None; SECTIONS];
        for (number, place) in entry.sections.iter().enumerate().filter(|(n, _)| needed[*n]) {
            let run = runs.iter().zip(&pieces).find(|(run, _)| run.contains(&place.offset));
            let bytes = run.map_or(&[][..], |(run, buffer)| {
                let start = (place.offset - run.start) as usize;
                buffer.get(start..start + place.length as usize).unwrap_or(&[])
            });
            if crc32fast::hash(bytes) != place.crc32 || bytes.len() != place.length as usize {
                return Err(self.named(broken("checksum of a window page")));
            }
            sections[number] = Some(bytes);
        }
        let asked = Asked {
            series: entry.series as usize,
            windows: entry.windows as usize,
            window_ms: self.root.window_ms,
            fields,
            wanted,
        };
        let ReadBuffers { columns, numbers } = buffers;
        decode(&sections, &asked, columns, numbers).map_err(|error| self.named(error))?;
        Ok(read)
    }

    pub(super) fn read_windows(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64> {
        let asked = WalkAsked { series, range_ms, fields, stand_ins: false };
        self.walk(asked, &mut ReadBuffers::default(), &mut |met| {
            match met {
                Met::Windows(_, piece) => out.append_fields(piece.columns, piece.range, fields),
                Met::End(kind) => out.end_series(kind),
            }
            Ok(())
        })
    }

    pub(super) fn visit_windows(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        buffers: &mut ReadBuffers,
        visit: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
    ) -> Result<u64> {
        let asked = WalkAsked { series, range_ms, fields, stand_ins: true };
        self.walk(asked, buffers, &mut |met| match met {
            Met::Windows(i, piece) => visit(i, piece),
            Met::End(_) => Ok(()),
        })
    }

    /// Through the pages that hold windows of the asked series. Returns bytes read.
    fn walk(&self, asked: WalkAsked<'_>, buffers: &mut ReadBuffers, take: Take<'_>) -> Result<u64> {
        let series = asked.series;
        if let Some(&number) = series.iter().find(|&&n| u64::from(n) >= self.root.series) {
            return Err(unknown_series(number, self.root.series as usize));
        }
        if !series.is_sorted_by(|a, b| a < b) {
            return Err(KernelError::Backend("warm: series asked for out of order".into()));
        }
        let mut walk = Walk { asked, done: 0, kind: None };
        let mut read = 0;
        let last = series.last().copied().unwrap_or(0);
        for (number, &first) in self.root.directory_series.iter().enumerate() {
            let Some(&next) = series.get(walk.done).filter(|_| first <= last) else { break };
            // A page's last series may go on in the next one, so its first bounds nothing above.
            let after = self.root.directory_series.get(number + 1).copied();
            if after.is_some_and(|after| after < next) {
                continue;
            }
            read += u64::from(self.root.directory_pages[number].length);
            for entry in self.directory_page(number)? {
                read += walk.page(self, &entry, buffers, take)?;
            }
        }
        walk.close_before(u32::MAX, take)?;
        if walk.done < series.len() {
            return Err(self.named(broken("series without a page")));
        }
        Ok(read)
    }
}

struct WalkAsked<'a> {
    series: &'a [u32],
    range_ms: Range<i64>,
    fields: Fields,
    /// Read what stands in for columns that a kind does not keep as well.
    stand_ins: bool,
}

/// What a walk comes by: windows of the asked series of this place, then its end.
enum Met<'a> {
    Windows(usize, Piece<'a>),
    End(Kind),
}

type Take<'a> = &'a mut dyn FnMut(Met<'_>) -> Result<()>;

/// The way through the pages.
struct Walk<'a> {
    asked: WalkAsked<'a>,
    /// Series closed so far, and the kind of the open one if a page of it was seen.
    done: usize,
    kind: Option<Kind>,
}

impl Walk<'_> {
    /// Close the open series if it is below `number`: no page holds more of it.
    fn close_before(&mut self, number: u32, take: Take<'_>) -> Result<()> {
        if self.asked.series.get(self.done).is_some_and(|&open| open < number)
            && let Some(kind) = self.kind.take()
        {
            take(Met::End(kind))?;
            self.done += 1;
        }
        Ok(())
    }

    fn page(
        &mut self,
        file: &WarmFile,
        entry: &PageEntry,
        buffers: &mut ReadBuffers,
        take: Take<'_>,
    ) -> Result<u64> {
        self.close_before(entry.first_series, take)?;
        let after = entry.first_series + entry.series;
        let own = &self.asked.series[self.done..];
        let own = &own[..own.partition_point(|&number| number < after)];
        let Some(&first) = own.first() else { return Ok(0) };
        if first < entry.first_series {
            return Err(file.named(broken("series without a page")));
        }
        let index = |number: u32| (number - entry.first_series) as usize;
        let mut wanted = vec![false; entry.series as usize];
        own.iter().for_each(|&number| wanted[index(number)] = true);
        let range_ms = self.asked.range_ms.clone();
        let meets = entry.min_end_ms < range_ms.end && entry.max_end_ms >= range_ms.start;
        // Out of range the kinds are still wanted.
        let mut fields = if meets { self.asked.fields } else { Fields::NONE };
        let mut read = file.page(entry, fields, &wanted, buffers)?;
        let satisfied = |&number: &u32| {
            buffers.columns.kinds[index(number)].satisfied(self.asked.fields, self.asked.fields)
        };
        if meets && self.asked.stand_ins && !own.iter().all(satisfied) {
            // Counters asked for sums or extremes: seldom enough to read them twice.
            fields = fields.with(Fields::STAND_INS);
            read += file.page(entry, fields, &wanted, buffers)?;
        }
        buffers.columns.complete();
        let page = &buffers.columns;
        for &number in own {
            self.close_before(number, take)?;
            let mut piece = Piece::of(page, index(number), fields);
            let ends = &page.end_ms[piece.range.clone()];
            let (start, end) = (range_ms.start, range_ms.end);
            let from = piece.range.start + ends.partition_point(|&at| at < start);
            let until = piece.range.start + ends.partition_point(|&at| at < end);
            if from < until {
                piece.range = from..until;
                take(Met::Windows(self.done, piece))?;
            }
            self.kind = Some(page.kinds[index(number)]);
        }
        Ok(read)
    }
}

/// Ranges of the file that hold the needed sections, near ones together.
fn runs(sections: &[Place; SECTIONS], needed: &[bool; SECTIONS]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (place, _) in sections.iter().zip(needed).filter(|(p, needed)| **needed && p.length > 0) {
        let end = place.offset + u64::from(place.length);
        match runs.last_mut() {
            Some(run) if place.offset - run.end <= GAP_BYTES_MAX => run.end = end,
            _ => runs.push(place.offset..end),
        }
    }
    runs
}

fn at(path: &str, error: KernelError) -> KernelError {
    match error {
        KernelError::Corruption(what) => KernelError::Corruption(format!("{path}: {what}")),
        other => other,
    }
}

fn read_exact(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let read = read_full(file, offset, buffer)?;
    if read == buffer.len() { Ok(()) } else { Err(broken("file ends early")) }
}

fn open_root(file: &dyn DiskFile) -> Result<(Root, u64, u64, u32)> {
    let bytes = file.byte_size()?;
    let frame = (HEADER_BYTES + TRAILER_BYTES) as u64;
    if bytes < frame {
        return Err(broken("file shorter than its frame"));
    }
    let mut head = [0; HEADER_BYTES];
    read_exact(file, 0, &mut head)?;
    check_header(&head)?;
    let mut trailer = [0; TRAILER_BYTES];
    read_exact(file, bytes - TRAILER_BYTES as u64, &mut trailer)?;
    let (length, crc32) = read_trailer(&trailer)?;
    if u64::from(length) > bytes - frame {
        return Err(broken("root longer than the file"));
    }
    let mut root = vec![0; length as usize];
    read_exact(file, bytes - TRAILER_BYTES as u64 - u64::from(length), &mut root)?;
    if checksum(&root, &length.to_le_bytes()) != crc32 {
        return Err(broken("checksum of the root"));
    }
    let root = Root::read(&root, bytes)?;
    let pages = root.series.div_ceil(LABEL_PAGE_SERIES as u64);
    if root.label_pages.len() as u64 != pages {
        return Err(broken("label pages of the root"));
    }
    Ok((root, u64::from(length), bytes, crc32))
}

//! Reads a warm file: the root at open, everything else when asked for and nothing kept.
//!
//! A piece's checksum is compared before it is decoded: damage is `Corruption`, never a wrong
//! value. An open reader keeps its file readable after an unlink.

use super::columns::broken;
use super::format::{
    DIRECTORY_PAGE_ENTRIES, HEADER_BYTES, PageEntry, Root, TRAILER_BYTES, WarmReport, check_header,
    checksum, read_entries, read_trailer,
};
use super::page::{Asked, SECTIONS, Sections, decode, sections_of};
use super::sketch_page;
use crate::disk::Disk;
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::dictionary::place::{Pieces, Place, read_exact};
use crate::downsample::dictionary::{Dictionary, Places};
use crate::downsample::file::unknown_series;
use crate::downsample::read_buffers::ReadBuffers;
use crate::downsample::view::Piece;
use crate::error::{KernelError, Result};
use std::ops::Range;

/// Sections with fewer bytes between them are read at once.
const GAP_BYTES_MAX: u64 = 8 << 10;

pub struct WarmFile {
    pub(super) dictionary: Dictionary,
    pub(super) root: Root,
    pub(super) root_bytes: u64,
    crc32: u32,
}

impl WarmFile {
    /// Open a file and check its root; a piece is checked when it is read.
    pub fn open(disk: &dyn Disk, path: &str) -> Result<WarmFile> {
        let file = disk.open(path, false)?;
        let bytes = file.byte_size()?;
        let pieces = Pieces { path: path.to_owned(), file, offset: 0, bytes };
        let opened = open_root(&pieces).map_err(|error| pieces.named(error))?;
        let (root, places, root_bytes, crc32) = opened;
        let dictionary = Dictionary::new(pieces, root.series, places)?;
        Ok(WarmFile { dictionary, root, root_bytes, crc32 })
    }

    /// What the file says of itself.
    pub fn report(&self) -> WarmReport {
        self.root.report(&self.dictionary.pieces.path, self.bytes(), self.crc32)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.dictionary.pieces.bytes
    }

    /// An error with the file's name.
    pub(super) fn named(&self, error: KernelError) -> KernelError {
        self.dictionary.pieces.named(error)
    }

    pub(super) fn directory_page(&self, number: usize) -> Result<Vec<PageEntry>> {
        let bytes = self.dictionary.pieces.read(self.root.directory_pages[number])?;
        let entries = read_entries(&bytes, self.bytes()).map_err(|error| self.named(error))?;
        let fits = |entry: &PageEntry| {
            u64::from(entry.first_series) + u64::from(entry.series) <= self.root.series
        };
        if entries.iter().all(fits) {
            Ok(entries)
        } else {
            Err(self.named(broken("series of a page")))
        }
    }

    /// Read and decode the columns of page `number`; answers bytes read.
    pub(super) fn page(
        &self,
        number: usize,
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
            read_exact(&*self.dictionary.pieces.file, run.start, &mut buffer)
                .map_err(|error| self.named(error))?;
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
        if fields.has(Fields::SKETCH) {
            read += self.read_sketches(number, columns, false)?;
        }
        Ok(read)
    }

    /// The sketches of page `number`, whose windows are in `page`; answers bytes read.
    pub(super) fn read_sketches(
        &self,
        number: usize,
        page: &mut WindowColumns,
        verify: bool,
    ) -> Result<u64> {
        page.sketches.clear();
        let Some(place) = self.root.sketch_page(number) else { return Ok(0) };
        let bytes = self.dictionary.pieces.read(place)?;
        sketch_page::decode(&bytes, page, verify).map_err(|error| self.named(error))?;
        Ok(bytes.len() as u64)
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
            for (place, entry) in self.directory_page(number)?.iter().enumerate() {
                let page = number * DIRECTORY_PAGE_ENTRIES + place;
                read += walk.page((self, page), entry, buffers, take)?;
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
        (file, number): (&WarmFile, usize),
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
        let index = |series: u32| (series - entry.first_series) as usize;
        let mut wanted = vec![false; entry.series as usize];
        own.iter().for_each(|&number| wanted[index(number)] = true);
        let range_ms = self.asked.range_ms.clone();
        let meets = entry.min_end_ms < range_ms.end && entry.max_end_ms >= range_ms.start;
        // Out of range the kinds are still wanted.
        let mut fields = if meets { self.asked.fields } else { Fields::NONE };
        let mut read = file.page(number, entry, fields, &wanted, buffers)?;
        let satisfied = |&number: &u32| {
            buffers.columns.kinds[index(number)].satisfied(self.asked.fields, self.asked.fields)
        };
        if meets && self.asked.stand_ins && !own.iter().all(satisfied) {
            // Counters asked for sums or extremes: seldom enough to read them twice.
            fields = fields.with(Fields::STAND_INS);
            read += file.page(number, entry, fields, &wanted, buffers)?;
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

fn open_root(pieces: &Pieces) -> Result<(Root, Places, u64, u32)> {
    let (file, bytes) = (&*pieces.file, pieces.bytes);
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
    let (root, places) = Root::read(&root, bytes)?;
    Ok((root, places, u64::from(length), crc32))
}

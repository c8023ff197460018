//! Which series an object holds, and in which rows: between the last row group and Parquet's footer,
//! where no other engine looks. Label pages and index are a `dictionary`'s; beside them stand row
//! pages. The layout is docs/formats/cold.md.

use super::schema::IndexPlace;
use crate::codec::bytes::{Cursor, put_varint};
use crate::disk::DiskFile;
use crate::downsample::columns::Kind;
use crate::downsample::dictionary::columns::{
    broken, put, put_differences, read, read_differences, read_u32,
};
use crate::downsample::dictionary::place::{
    Pieces, Place, put_names, put_places, read_exact, read_names, read_places,
};
use crate::downsample::dictionary::{Dictionary, DictionaryWriter, LABEL_PAGE_SERIES, Places};
use crate::downsample::file::unknown_series;
use crate::downsample::mark::Mark;
use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use std::ops::Range;
use std::sync::Arc;

/// A root says its size before it is read; no object of ours comes near.
const ROOT_BYTES_MAX: usize = 256 << 20;

/// A series of an object: its kind, and its rows over all row groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub number: u32,
    pub kind: Kind,
    pub rows: Range<u64>,
}

pub struct SeriesIndex {
    pub dictionary: Dictionary,
    row_pages: Vec<Place>,
    /// First row of each row page, and the object's rows.
    page_rows: Vec<u64>,
}

impl SeriesIndex {
    /// Read the root of an object of so many series and rows.
    pub fn open(
        file: Arc<dyn DiskFile>,
        place: &IndexPlace,
        series: usize,
        rows: u64,
    ) -> Result<SeriesIndex> {
        let file_bytes = file.byte_size()?;
        let end = place.offset.checked_add(place.bytes).filter(|&end| end <= file_bytes);
        let end = end.ok_or_else(|| broken("its index is not in it"))?;
        if place.root_bytes as u64 > place.bytes || place.root_bytes > ROOT_BYTES_MAX {
            return Err(broken("root longer than the index"));
        }
        let mut root = vec![0; place.root_bytes];
        read_exact(&*file, end - place.root_bytes as u64, &mut root)?;
        if crc32fast::hash(&root) != place.crc32 {
            return Err(broken("checksum of the root"));
        }
        let pieces = Pieces { path: String::new(), file, offset: place.offset, bytes: place.bytes };
        let mut cursor = Cursor::new(&root);
        let pages = cursor.count(series.div_ceil(LABEL_PAGE_SERIES))?;
        let names = cursor.count(root.len())?;
        let label_pages = read_places(&mut cursor, pages, pieces.bytes)?;
        let mut row_pages = read_places(&mut cursor, pages, pieces.bytes)?;
        row_pages.shrink_to_fit();
        let firsts = read_differences(&mut cursor, pages)?;
        let firsts = firsts.into_iter().map(|row| row as u64);
        let page_rows: Vec<u64> = firsts.chain([rows]).collect();
        let names = read_names(&mut cursor, names, pieces.bytes)?;
        if !cursor.is_empty() || page_rows[0] != 0 || !page_rows.is_sorted() {
            return Err(broken("root"));
        }
        let dictionary = Dictionary::new(pieces, series as u64, Places { label_pages, names })?;
        Ok(SeriesIndex { dictionary, row_pages, page_rows })
    }

    /// Kinds and rows of these series, ascending.
    pub fn placed(&self, series: &[u32]) -> Result<Vec<Placed>> {
        let count = self.dictionary.series;
        if let Some(&unknown) = series.iter().find(|&&number| number >= count) {
            return Err(unknown_series(unknown, count as usize));
        }
        if !series.is_sorted() {
            return Err(KernelError::Backend("cold object: series not ascending".to_owned()));
        }
        let page_of = |number: &u32| *number as usize / LABEL_PAGE_SERIES;
        let mut placed = Vec::with_capacity(series.len());
        for wanted in series.chunk_by(|a, b| page_of(a) == page_of(b)) {
            let page = self.row_page(page_of(&wanted[0]))?;
            placed.extend(wanted.iter().map(|&number| {
                let (kind, rows) = page[number as usize % LABEL_PAGE_SERIES].clone();
                Placed { number, kind, rows }
            }));
        }
        Ok(placed)
    }

    fn row_page(&self, number: usize) -> Result<Vec<(Kind, Range<u64>)>> {
        let first = number * LABEL_PAGE_SERIES;
        let count = (self.dictionary.series as usize - first).min(LABEL_PAGE_SERIES);
        let bytes = self.dictionary.pieces.read(self.row_pages[number])?;
        let mut cursor = Cursor::new(&bytes);
        let (kinds, rows) = (read(&mut cursor, count)?, read_u32(&mut cursor, count)?);
        let mut row = self.page_rows[number];
        let mut page = Vec::with_capacity(count);
        for (kind, rows) in kinds.into_iter().zip(rows) {
            let kind = u8::try_from(kind).ok().and_then(Kind::from_u8);
            let until = row.saturating_add(u64::from(rows));
            page.push((kind.ok_or_else(|| broken("kind of a series"))?, row..until));
            row = until;
        }
        if cursor.is_empty() && row == self.page_rows[number + 1] {
            Ok(page)
        } else {
            Err(broken("rows of a page"))
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.dictionary.memory_bytes()
            + self.row_pages.capacity() * size_of::<Place>()
            + self.page_rows.capacity() * size_of::<u64>()
    }
}

/// Gathers an object's index while its rows are written.
#[derive(Default)]
pub struct IndexWriter {
    dictionary: DictionaryWriter,
    kinds: Vec<i64>,
    rows: Vec<i64>,
    /// What stands before the root, so far.
    bytes: Vec<u8>,
}

/// The place of what is appended.
fn append(bytes: &mut Vec<u8>, piece: &[u8]) -> Result<Place> {
    let length = u32::try_from(piece.len())
        .map_err(|_| KernelError::Backend("cold object: a piece over 4 GiB".to_owned()))?;
    let place = Place { offset: bytes.len() as u64, length, crc32: crc32fast::hash(piece) };
    bytes.extend_from_slice(piece);
    Ok(place)
}

impl IndexWriter {
    /// The next series: of row `i` of the table.
    pub fn push(
        &mut self,
        (labels, i): (&LabelTable, usize),
        kind: Kind,
        mark: Mark,
        rows: usize,
    ) -> Result<()> {
        let strings = &mut self.dictionary.strings;
        let own =
            labels.labels(i).map(|(name, value)| (strings.intern(name), strings.intern(value)));
        let own: Vec<(u32, u32)> = own.collect();
        let number = u32::try_from(self.kinds.len())
            .map_err(|_| KernelError::Backend("cold object: too many series for one".to_owned()))?;
        self.dictionary.push(number, &own, mark);
        self.kinds.push(kind as i64);
        self.rows.push(rows as i64);
        if self.dictionary.is_full() {
            let bytes = &mut self.bytes;
            self.dictionary.close_page(&mut |piece| append(bytes, piece))?;
        }
        Ok(())
    }

    pub fn series_count(&self) -> usize {
        self.kinds.len()
    }

    pub fn last_kind(&self) -> Option<Kind> {
        self.kinds.last().and_then(|&kind| Kind::from_u8(kind as u8))
    }

    /// The index, to stand at `offset`.
    pub fn finish(self, offset: u64) -> Result<(Vec<u8>, IndexPlace)> {
        let mut bytes = self.bytes;
        let places = self.dictionary.finish(&mut |piece| append(&mut bytes, piece))?;
        let (mut row_pages, mut firsts, mut row) = (Vec::new(), Vec::new(), 0);
        let pages = self.kinds.chunks(LABEL_PAGE_SERIES).zip(self.rows.chunks(LABEL_PAGE_SERIES));
        for (kinds, rows) in pages {
            let mut piece = Vec::new();
            put(&mut piece, kinds);
            put(&mut piece, rows);
            row_pages.push(append(&mut bytes, &piece)?);
            firsts.push(row);
            row += rows.iter().sum::<i64>();
        }
        let root = bytes.len();
        put_varint(&mut bytes, row_pages.len() as u64);
        put_varint(&mut bytes, places.names.len() as u64);
        put_places(&mut bytes, &places.label_pages);
        put_places(&mut bytes, &row_pages);
        put_differences(&mut bytes, &firsts);
        put_names(&mut bytes, &places.names)?;
        let (root_bytes, crc32) = (bytes.len() - root, crc32fast::hash(&bytes[root..]));
        let place = IndexPlace { offset, bytes: bytes.len() as u64, root_bytes, crc32 };
        Ok((bytes, place))
    }
}

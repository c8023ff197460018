//! The index of a file of windows: for each label name its values, for each value the series that have
//! it. Written at the end of a file, read a value page at a time.

use super::columns::{broken, put, read_u32};
use super::place::{NameEntry, Place, put_places, read_places};
use super::text::{Texts, put_texts};
use crate::codec::bytes::{Cursor, put_varint};
use crate::error::{KernelError, Result};
use crate::labels::{Interner, Shapes};
use crate::shard::postings::{Posting, TenantIndex};
use roaring::RoaringBitmap;

const VALUE_PAGE_VALUES: usize = 512;
/// Fewer series stand in the value page itself.
const INLINE_SERIES_MAX: u64 = 16;
const VALUE_PAGES_MAX: usize = 1 << 24;

/// Collects label pairs of series that come in order; names and values are symbols.
#[derive(Default)]
pub struct IndexBuilder {
    pairs: TenantIndex,
    shapes: Shapes,
    names: Vec<u32>,
    /// (name, value) and its pair at each position of the series before: mostly the same again.
    recent: Vec<((u32, u32), u32)>,
}

impl IndexBuilder {
    pub fn push(&mut self, series: u32, labels: &[(u32, u32)]) {
        self.recent.resize(self.recent.len().max(labels.len()), ((0, 0), 0));
        self.names.clear();
        for (at, &(name, value)) in labels.iter().enumerate() {
            self.names.push(name);
            let (known, pair) = self.recent[at];
            if known == (name, value) {
                self.pairs.add_known(pair, series);
            } else {
                let pair = self.pairs.add(name, value, series);
                self.recent[at] = ((name, value), pair);
            }
        }
        self.pairs.add_row(self.shapes.intern(&self.names), series);
    }

    /// Write all of it with `write`, which answers where bytes went.
    pub fn finish(
        self,
        strings: &Interner,
        write: &mut dyn FnMut(&[u8]) -> Result<Place>,
    ) -> Result<Vec<NameEntry>> {
        let mut names: Vec<u32> = self.pairs.names().map(|(name, _)| name).collect();
        names.sort_unstable_by_key(|&name| strings.bytes(name));
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let mut all = RoaringBitmap::new();
            for (shape, series) in self.pairs.shapes() {
                if self.shapes.get(shape).contains(&name) {
                    all |= series.to_bitmap();
                }
            }
            let mut values: Vec<(&[u8], &Posting)> =
                self.pairs.values(name).map(|(v, series)| (strings.bytes(v), series)).collect();
            values.sort_unstable_by_key(|(value, _)| *value);
            let list = write_values(&values, write)?;
            let all = write(&posting_bytes(all)?)?;
            let name = strings.get(name).to_owned();
            entries.push(NameEntry { name, values: values.len() as u64, list, all });
        }
        Ok(entries)
    }
}

fn posting_bytes(mut series: RoaringBitmap) -> Result<Vec<u8>> {
    series.optimize();
    let mut bytes = Vec::with_capacity(series.serialized_size());
    series.serialize_into(&mut bytes)?;
    Ok(bytes)
}

/// Write value pages and their postings, then the list.
fn write_values(
    values: &[(&[u8], &Posting)],
    write: &mut dyn FnMut(&[u8]) -> Result<Place>,
) -> Result<Place> {
    let mut pages = Vec::new();
    for page in values.chunks(VALUE_PAGE_VALUES) {
        let mut before: &[u8] = &[];
        let (mut shared, mut rests) = (Vec::new(), Vec::new());
        let (mut counts, mut numbers, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for &(value, series) in page {
            let same = before.iter().zip(value).take_while(|(a, b)| a == b).count();
            before = value;
            shared.push(same as i64);
            rests.push(&value[same..]);
            counts.push(series.count() as i64);
            if series.count() > INLINE_SERIES_MAX {
                places.push(write(&posting_bytes(series.to_bitmap())?)?);
            } else {
                let mut number_before = 0;
                numbers.extend(series.to_bitmap().iter().map(|number| {
                    i64::from(number - std::mem::replace(&mut number_before, number))
                }));
            }
        }
        let mut bytes = Vec::new();
        put_varint(&mut bytes, page.len() as u64);
        put(&mut bytes, &shared);
        put_texts(&mut bytes, rests.into_iter())?;
        put(&mut bytes, &counts);
        put(&mut bytes, &numbers);
        put_places(&mut bytes, &places);
        pages.push(write(&bytes)?);
    }
    let mut bytes = Vec::new();
    put_varint(&mut bytes, pages.len() as u64);
    put_texts(&mut bytes, values.chunks(VALUE_PAGE_VALUES).map(|page| page[0].0))?;
    put_places(&mut bytes, &pages);
    write(&bytes)
}

/// A name's value pages.
pub struct ValueList {
    firsts: Texts,
    pub pages: Vec<Place>,
}

impl ValueList {
    pub fn read(bytes: &[u8], file_bytes: u64) -> Result<ValueList> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.count(VALUE_PAGES_MAX)?;
        let firsts = Texts::read(&mut cursor, count)?;
        let pages = read_places(&mut cursor, count, file_bytes)?;
        if cursor.is_empty() { Ok(ValueList { firsts, pages }) } else { Err(broken("value list")) }
    }

    /// The page in which a value would stand.
    pub fn page_of(&self, value: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.firsts.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.firsts.get(middle) <= value {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }
}

/// Where the series of a value are.
#[derive(Clone, Copy, Debug)]
enum Stored {
    Inline { start: usize, end: usize },
    Placed(Place),
}

/// Up to 512 values of a name, ascending, and their series.
pub struct ValuePage {
    texts: Vec<String>,
    counts: Vec<u64>,
    stored: Vec<Stored>,
    numbers: Vec<u32>,
}

impl ValuePage {
    pub fn read(bytes: &[u8], file_bytes: u64) -> Result<ValuePage> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.count(VALUE_PAGE_VALUES)?;
        let shared = read_u32(&mut cursor, count)?;
        let rests = Texts::read(&mut cursor, count)?;
        let mut texts: Vec<String> = Vec::with_capacity(count);
        let mut text: Vec<u8> = Vec::new();
        for (at, &shared) in shared.iter().enumerate() {
            if shared as usize > text.len() {
                return Err(broken("shared bytes of a value"));
            }
            text.truncate(shared as usize);
            text.extend_from_slice(rests.get(at));
            let string = std::str::from_utf8(&text).map_err(|_| broken("text is not UTF-8"))?;
            if texts.last().is_some_and(|before| before.as_str() >= string) {
                return Err(broken("order of values"));
            }
            texts.push(string.to_owned());
        }
        let counts: Vec<u64> = read_u32(&mut cursor, count)?.into_iter().map(u64::from).collect();
        let is_inline = |count: &&u64| **count <= INLINE_SERIES_MAX;
        let inline: u64 = counts.iter().filter(is_inline).sum();
        let steps = read_u32(&mut cursor, inline as usize)?;
        let placed = counts.len() - counts.iter().filter(is_inline).count();
        let mut places = read_places(&mut cursor, placed, file_bytes)?.into_iter();
        let (mut stored, mut numbers) =
            (Vec::with_capacity(count), Vec::with_capacity(steps.len()));
        for &count in &counts {
            if count > INLINE_SERIES_MAX {
                stored.push(Stored::Placed(places.next().unwrap_or_default()));
                continue;
            }
            let (start, mut number) = (numbers.len(), 0u32);
            for &step in &steps[start..start + count as usize] {
                number = number.checked_add(step).ok_or_else(|| broken("series of a value"))?;
                numbers.push(number);
            }
            stored.push(Stored::Inline { start, end: numbers.len() });
        }
        if !cursor.is_empty() {
            return Err(broken("end of a value page"));
        }
        Ok(ValuePage { texts, counts, stored, numbers })
    }

    pub fn find(&self, value: &str) -> Option<usize> {
        self.texts.binary_search_by(|known| known.as_str().cmp(value)).ok()
    }

    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    pub fn series_count(&self, at: usize) -> u64 {
        self.counts[at]
    }

    /// Add the series of a value to `found`. `read` fetches and checks a piece.
    pub fn series(
        &self,
        at: usize,
        read: &mut dyn FnMut(Place) -> Result<Vec<u8>>,
        found: &mut RoaringBitmap,
    ) -> Result<()> {
        match self.stored[at] {
            Stored::Inline { start, end } => found.extend(&self.numbers[start..end]),
            Stored::Placed(place) => {
                let series = read_posting(&read(place)?)?;
                if series.len() != self.counts[at] {
                    return Err(broken("count of a posting"));
                }
                if found.is_empty() {
                    *found = series;
                } else {
                    *found |= series;
                }
            }
        }
        Ok(())
    }
}

pub fn read_posting(bytes: &[u8]) -> Result<RoaringBitmap> {
    let mut rest = bytes;
    let series = RoaringBitmap::deserialize_from(&mut rest);
    let series =
        series.map_err(|error| KernelError::corruption(format!("window file: {error}")))?;
    if rest.is_empty() { Ok(series) } else { Err(broken("end of a posting")) }
}

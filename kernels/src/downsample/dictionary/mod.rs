//! Which series a file of windows holds, at rest: labels by number, numbers by label. Of both
//! kinds of file, docs/formats/warm.md (Label page, Index).
//!
//! Invariant: what stays in memory is a place for each 1,024 series and each label name; the rest is
//! read when it is asked for, and not kept. So memory does not follow the series that a file holds.
//!
//! `columns`, `text`, `place` pieces and what is in them · `label_page`, `index` the two halves ·
//! `select` finding series · `writer` both halves written, `verify` read back whole.

pub mod columns;
pub mod index;
mod label_page;
pub mod place;
mod select;
pub mod text;
mod verify;
mod writer;

pub use label_page::LABEL_PAGE_SERIES;
pub use writer::DictionaryWriter;

use crate::downsample::file::unknown_series;
use crate::downsample::mark::Mark;
use crate::error::Result;
use crate::labels::{LabelTable, LabelTableBuilder};
use columns::broken;
use label_page::LabelPage;
use place::{NameEntry, Pieces, Place};

/// Where the dictionary's pieces stand, as a file's root holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Of `LABEL_PAGE_SERIES` series each, the last of fewer.
    pub label_pages: Vec<Place>,
    /// Ascending.
    pub names: Vec<NameEntry>,
}

/// A file's dictionary, open for reading.
pub struct Dictionary {
    pub pieces: Pieces,
    pub series: u32,
    places: Places,
}

impl Dictionary {
    /// Errors: Corruption where the label pages are not those of so many series.
    pub fn new(pieces: Pieces, series: u64, mut places: Places) -> Result<Dictionary> {
        let series = u32::try_from(series).map_err(|_| pieces.named(broken("series")))?;
        if places.label_pages.len() != (series as usize).div_ceil(LABEL_PAGE_SERIES) {
            return Err(pieces.named(broken("label pages of the root")));
        }
        places.label_pages.shrink_to_fit();
        Ok(Dictionary { pieces, series, places })
    }

    /// The labels of a run of series.
    pub fn label_page(&self, number: usize) -> Result<LabelPage> {
        let place = *self.places.label_pages.get(number).ok_or_else(|| broken("label page"))?;
        let page =
            LabelPage::read(&self.pieces.read(place)?).map_err(|error| self.pieces.named(error))?;
        let start = number * LABEL_PAGE_SERIES;
        let length = (self.series as usize).saturating_sub(start).min(LABEL_PAGE_SERIES);
        if page.len() == length {
            Ok(page)
        } else {
            Err(self.pieces.named(broken("size of a label page")))
        }
    }

    /// Hand each of the series its label page and its place there.
    pub fn visit_labels(
        &self,
        series: &[u32],
        visit: &mut dyn FnMut(&LabelPage, usize, bool),
    ) -> Result<()> {
        let mut open: Option<(usize, LabelPage)> = None;
        for &number in series {
            if number >= self.series {
                return Err(unknown_series(number, self.series as usize));
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

    /// Labels of series, in the order asked for.
    pub fn labels(&self, series: &[u32]) -> Result<LabelTable> {
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

    /// What was done to each of these series.
    pub fn marks(&self, series: &[u32]) -> Result<Vec<Mark>> {
        let mut marks = Vec::with_capacity(series.len());
        self.visit_labels(series, &mut |page, index, _| marks.push(page.mark(index)))?;
        Ok(marks)
    }

    pub fn memory_bytes(&self) -> usize {
        let names = self.places.names.iter().map(|name| size_of::<NameEntry>() + name.name.len());
        self.places.label_pages.capacity() * size_of::<Place>() + names.sum::<usize>()
    }
}

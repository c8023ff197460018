//! Writes a dictionary, series by series. Memory: a page of labels, the strings and postings of all
//! series.

use super::Places;
use super::index::IndexBuilder;
use super::label_page::{LABEL_PAGE_SERIES, LabelPageBuilder};
use super::place::Place;
use crate::downsample::mark::Mark;
use crate::error::Result;
use crate::labels::Interner;

/// Takes bytes, answers where they went.
pub type Write<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Place>;

#[derive(Default)]
pub struct DictionaryWriter {
    pub strings: Interner,
    index: IndexBuilder,
    page: LabelPageBuilder,
    label_pages: Vec<Place>,
}

impl DictionaryWriter {
    /// The next series, the `number`-th: symbols of `strings`, ascending by name. Close the page
    /// once it `is_full`.
    pub fn push(&mut self, number: u32, labels: &[(u32, u32)], mark: Mark) {
        self.index.push(number, labels);
        self.page.push(labels, mark);
    }

    /// Is a page of labels to be closed?
    pub fn is_full(&self) -> bool {
        self.page.len() == LABEL_PAGE_SERIES
    }

    pub fn close_page(&mut self, write: Write<'_>) -> Result<()> {
        if self.page.len() > 0 {
            let mut bytes = Vec::new();
            self.page.encode(&mut bytes, &self.strings)?;
            self.label_pages.push(write(&bytes)?);
        }
        Ok(())
    }

    /// Write what is left: the last label page, then the index.
    pub fn finish(mut self, write: Write<'_>) -> Result<Places> {
        self.close_page(write)?;
        let names = self.index.finish(&self.strings, write)?;
        Ok(Places { label_pages: self.label_pages, names })
    }
}

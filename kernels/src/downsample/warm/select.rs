//! A warm file as the query engine asks it.

use super::reader::WarmFile;
use crate::downsample::columns::{Fields, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::mark::{Mark, Marked};
use crate::downsample::read_buffers::ReadBuffers;
use crate::downsample::view::Piece;
use crate::error::Result;
use crate::labels::LabelTable;
use crate::shard::matcher::Matcher;
use std::ops::Range;

impl WindowFile for WarmFile {
    fn window_ms(&self) -> i64 {
        self.root.window_ms
    }

    fn series_count(&self) -> usize {
        self.root.series as usize
    }

    fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>> {
        self.dictionary.select(matchers, series_max)
    }

    fn labels(&self, series: &[u32]) -> Result<LabelTable> {
        self.dictionary.labels(series)
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        self.dictionary.label_names(matchers)
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        self.dictionary.label_values(name, matchers)
    }

    fn read(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64> {
        self.read_windows(series, range_ms, fields, out)
    }

    fn visit(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        asked: Fields,
        buffers: &mut ReadBuffers,
        visit: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.visit_windows(series, range_ms, asked, buffers, visit)
    }

    fn memory_bytes(&self) -> usize {
        self.dictionary.memory_bytes() + self.root.memory_bytes()
    }

    fn marked(&self) -> Marked {
        self.root.marked
    }

    fn marks(&self, series: &[u32]) -> Result<Vec<Mark>> {
        if !self.root.marked.is_any() {
            return Ok(vec![Mark::NONE; series.len()]);
        }
        self.dictionary.marks(series)
    }

    fn taken(&self) -> &[String] {
        &self.root.taken
    }
}

//! A file of windows whose damage is noted: who asks learns which of its files it was.
//!
//! Invariant: an error goes on as it came; a path is noted before whoever met the damage hears of it.

use super::columns::{Fields, WindowColumns};
use super::file::WindowFile;
use super::mark::{Mark, Marked};
use super::read_buffers::ReadBuffers;
use super::view::Piece;
use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use crate::shard::matcher::Matcher;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Paths that are remembered, the last ones met.
const DAMAGED_MAX: usize = 1_024;

/// Damaged files by path, each with what was found last.
#[derive(Default)]
pub struct Damaged {
    met: Mutex<BTreeMap<String, String>>,
}

impl Damaged {
    /// Note the path where `found` is damage.
    pub fn watch<T>(&self, path: &str, found: Result<T>) -> Result<T> {
        if let Err(KernelError::Corruption(what)) = &found {
            let mut met = self.met.lock();
            if met.len() >= DAMAGED_MAX && !met.contains_key(path) {
                met.pop_first();
            }
            met.insert(path.to_owned(), what.clone());
        }
        found
    }

    pub fn met(&self) -> Vec<(String, String)> {
        self.met.lock().iter().map(|(path, what)| (path.clone(), what.clone())).collect()
    }

    /// Forget what `named` does not name.
    pub fn keep_only(&self, named: impl Fn(&str) -> bool) {
        self.met.lock().retain(|path, _| named(path));
    }
}

pub struct WatchedFile {
    pub inner: Arc<dyn WindowFile>,
    pub path: String,
    pub damaged: Arc<Damaged>,
}

impl WatchedFile {
    fn note<T>(&self, found: Result<T>) -> Result<T> {
        self.damaged.watch(&self.path, found)
    }
}

impl WindowFile for WatchedFile {
    fn window_ms(&self) -> i64 {
        self.inner.window_ms()
    }

    fn series_count(&self) -> usize {
        self.inner.series_count()
    }

    fn select(&self, matchers: &[Matcher], series_max: usize) -> Result<Vec<u32>> {
        self.note(self.inner.select(matchers, series_max))
    }

    fn within(&self, series: Vec<u32>, range_ms: Range<i64>) -> Result<Vec<u32>> {
        self.note(self.inner.within(series, range_ms))
    }

    fn labels(&self, series: &[u32]) -> Result<LabelTable> {
        self.note(self.inner.labels(series))
    }

    fn label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>> {
        self.note(self.inner.label_names(matchers))
    }

    fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>> {
        self.note(self.inner.label_values(name, matchers))
    }

    fn read(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        fields: Fields,
        out: &mut WindowColumns,
    ) -> Result<u64> {
        self.note(self.inner.read(series, range_ms, fields, out))
    }

    fn visit(
        &self,
        series: &[u32],
        range_ms: Range<i64>,
        asked: Fields,
        buffers: &mut ReadBuffers,
        visit: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
    ) -> Result<u64> {
        self.note(self.inner.visit(series, range_ms, asked, buffers, visit))
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes()
    }

    fn marked(&self) -> Marked {
        self.inner.marked()
    }

    fn marks(&self, series: &[u32]) -> Result<Vec<Mark>> {
        self.note(self.inner.marks(series))
    }

    fn taken(&self) -> &[String] {
        self.inner.taken()
    }
}

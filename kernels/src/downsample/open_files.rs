//! Files of windows that stay open between queries.
//!
//! Invariant: at most `files_max` are kept, and no more than hold `bytes_max` in memory; what a query
//! holds lives until it is done, kept or not.
//! Files never change and their paths are never used again, so a kept one is never stale.

use super::file::WindowFile;
use crate::error::Result;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

type File = Arc<dyn WindowFile>;

pub struct OpenFiles {
    files_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Each with the time of its last use, in uses.
    files: HashMap<String, (File, u64)>,
    uses: u64,
    bytes: usize,
}

impl Kept {
    fn retain(&mut self, keep: impl Fn(&str, u64) -> bool) {
        self.files.retain(|path, (_, used)| keep(path, *used));
        self.bytes = self.files.values().map(|(file, _)| file.memory_bytes()).sum();
    }
}

impl OpenFiles {
    pub fn new(files_max: usize, bytes_max: usize) -> OpenFiles {
        OpenFiles { files_max, bytes_max, kept: Mutex::default() }
    }

    /// Bytes that the kept files hold.
    pub fn memory_bytes(&self) -> usize {
        self.kept.lock().bytes
    }

    /// Files that are kept open.
    pub fn len(&self) -> usize {
        self.kept.lock().files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file at `path`; `open` is called where it is not kept.
    pub fn get(&self, path: &str, open: impl FnOnce() -> Result<File>) -> Result<File> {
        if let Some(file) = self.find(path) {
            return Ok(file);
        }
        let file = open()?;
        let mut kept = self.kept.lock();
        kept.uses += 1;
        let used = kept.uses;
        let bytes = file.memory_bytes();
        let full =
            |kept: &Kept| kept.files.len() >= self.files_max || kept.bytes + bytes > self.bytes_max;
        while !kept.files.is_empty() && full(&kept) {
            // Several at once, so that a query over more files does not look for each anew.
            let mut times: Vec<u64> = kept.files.values().map(|(_, used)| *used).collect();
            times.sort_unstable();
            let oldest = times[times.len() / 8];
            kept.retain(|_, used| used > oldest);
        }
        if bytes > self.bytes_max {
            return Ok(file);
        }
        if kept.files.insert(path.to_owned(), (Arc::clone(&file), used)).is_none() {
            kept.bytes += bytes;
        }
        Ok(file)
    }

    fn find(&self, path: &str) -> Option<File> {
        let mut kept = self.kept.lock();
        kept.uses += 1;
        let now = kept.uses;
        let (file, used) = kept.files.get_mut(path)?;
        *used = now;
        Some(Arc::clone(file))
    }

    /// Close those that `names` does not name; queries that hold them go on.
    pub fn keep_only(&self, named: impl Fn(&str) -> bool) {
        self.kept.lock().retain(|path, _| named(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::downsample::columns::{Kind, Window, WindowColumns};
    use crate::downsample::memory_file::MemoryFile;
    use crate::downsample::warm::{WarmFile, WarmOptions, WarmWriter};
    use crate::labels::LabelTable;

    #[test]
    fn the_longest_unused_file_is_closed() {
        let files = OpenFiles::new(2, usize::MAX);
        let mut opened = Vec::new();
        let mut get = |name: &str| {
            let open = || {
                opened.push(name.to_owned());
                let (labels, windows) = (LabelTable::default(), WindowColumns::default());
                Ok(Arc::new(MemoryFile::new(60_000, &labels, &windows)?) as File)
            };
            assert!(files.get(name, open).is_ok());
        };
        ["a", "b", "a", "c", "a", "b"].into_iter().for_each(&mut get);
        assert_eq!(opened, ["a", "b", "c", "b"]);
        assert_eq!(files.len(), 2);
        files.keep_only(|path| path == "b");
        assert_eq!(files.len(), 1);
    }

    #[test]
    fn no_more_is_kept_than_its_bytes_allow() {
        let warm_file = |series: usize| -> File {
            let lists: Vec<Vec<(String, String)>> =
                (0..series).map(|i| vec![("__name__".to_owned(), format!("m{i:06}"))]).collect();
            let mut windows = WindowColumns::default();
            for _ in 0..series {
                let window = Window { end_ms: 60_000, count: 1, ..Window::default() };
                windows.push(&window);
                windows.end_series(Kind::Gauge);
            }
            let disk = MemoryDisk::new();
            let options = WarmOptions::new("t", 60_000);
            let mut writer = WarmWriter::create(&disk, "w", &options).expect("created");
            writer.push(&LabelTable::from_lists(&lists), &windows).expect("pushed");
            writer.finish().expect("finished");
            Arc::new(WarmFile::open(&disk, "w").expect("opens"))
        };
        let (small, large) = (warm_file(10), warm_file(40_000));
        let one = small.memory_bytes();
        assert!(one > 0 && large.memory_bytes() > 4 * one);
        let files = OpenFiles::new(1_000, 3 * one);
        for name in ["a", "b", "c", "d", "b", "e"] {
            files.get(name, || Ok(Arc::clone(&small))).expect("kept");
            assert!(files.memory_bytes() <= 3 * one, "{name}");
        }
        assert_eq!((files.len(), files.memory_bytes()), (3, 3 * one));
        let given = files.get("large", || Ok(Arc::clone(&large))).expect("given");
        assert_eq!(given.series_count(), 40_000);
        assert!(files.memory_bytes() <= 3 * one, "what does not fit is not kept");
    }
}

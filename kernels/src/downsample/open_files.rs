//! Files of windows that stay open between queries.
//!
//! Invariant: at most `files_max` are kept; what a query holds lives until it is done, kept or not.
//! Files never change and their paths are never used again, so a kept one is never stale.

use super::file::WindowFile;
use crate::error::Result;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

type File = Arc<dyn WindowFile>;

pub struct OpenFiles {
    files_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Each with the time of its last use, in uses.
    files: HashMap<String, (File, u64)>,
    uses: u64,
}

impl OpenFiles {
    pub fn new(files_max: usize) -> OpenFiles {
        OpenFiles { files_max, kept: Mutex::default() }
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
        if kept.files.len() >= self.files_max {
            // Several at once, so that a query over more files does not look for each anew.
            let mut times: Vec<u64> = kept.files.values().map(|(_, used)| *used).collect();
            times.sort_unstable();
            let oldest = times[times.len() / 8];
            kept.files.retain(|_, (_, used)| *used > oldest);
        }
        kept.files.insert(path.to_owned(), (Arc::clone(&file), used));
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
        self.kept.lock().files.retain(|path, _| named(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downsample::columns::WindowColumns;
    use crate::downsample::memory_file::MemoryFile;
    use crate::labels::LabelTable;

    #[test]
    fn the_longest_unused_file_is_closed() {
        let files = OpenFiles::new(2);
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
}

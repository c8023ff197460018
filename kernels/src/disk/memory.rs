//! The in-memory disk: a model of what a power cut may leave behind.
//!
//! Invariant: only `sync_data` makes a file's pages and size durable and only `sync_directory` a
//! name. Every change is recorded, so that `crash_image(k, seed)` can build the disk as a power
//! cut after the k-th operation may leave it: of what was not synced, a subset drawn from the seed
//! survives, torn at 512 bytes. Same operations, same seed: same image.

use super::volatile::{FileNumber, Operation, Random, State};
use super::{Disk, DiskFile, check_path, check_rename, parent};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

#[derive(Default)]
struct Core {
    state: State,
    operations: Vec<Operation>,
    /// The state a crash starts from: so that a walk over all operations replays each but once.
    base: State,
    replayed: Option<(usize, State)>,
}

impl Core {
    fn record(&mut self, operation: Operation) {
        self.state.apply(&operation);
        self.operations.push(operation);
    }
    fn file(&self, path: &str) -> io::Result<FileNumber> {
        self.state.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Clone, Default)]
pub struct MemoryDisk {
    core: Arc<Mutex<Core>>,
}

impl MemoryDisk {
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn from_state(state: State) -> MemoryDisk {
        let core = Core { base: state.clone(), state, ..Core::default() };
        MemoryDisk { core: Arc::new(Mutex::new(core)) }
    }

    /// Changes and syncs so far; reads are not counted.
    pub fn operation_count(&self) -> usize {
        self.core.lock().operations.len()
    }

    /// The disk as a power cut right after the first `after_operation` operations may leave it.
    pub fn crash_image(&self, after_operation: usize, seed: u64) -> MemoryDisk {
        let core = &mut *self.core.lock();
        let end = after_operation.min(core.operations.len());
        let (mut at, mut state) = match core.replayed.take() {
            Some((at, state)) if at <= end => (at, state),
            _ => (0, core.base.clone()),
        };
        for operation in &core.operations[at..end] {
            state.apply(operation);
            at += 1;
        }
        let image = state.after_crash(&mut Random::new(seed));
        core.replayed = Some((at, state));
        MemoryDisk::from_state(image)
    }

    /// What the recorded operations were, in words; for a failing test's report.
    pub fn operation_text(&self, number: usize) -> String {
        let core = self.core.lock();
        match core.operations.get(number) {
            Some(Operation::Write(file, offset, data)) => {
                format!("Write(file {file}, offset {offset}, {} bytes)", data.len())
            }
            Some(operation) => format!("{operation:?}"),
            None => "end".to_owned(),
        }
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_path(path)?;
        let mut core = self.core.lock();
        if core.state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let directory = parent(path);
        if !directory.is_empty() && !core.state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        core.record(Operation::Create(path.to_owned()));
        let number = core.file(path)?;
        Ok(Arc::new(MemoryFile { core: self.core.clone(), number, writable: true }))
    }

    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        check_path(path)?;
        let number = self.core.lock().file(path)?;
        Ok(Arc::new(MemoryFile { core: self.core.clone(), number, writable: write }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_rename(from, to)?;
        let mut core = self.core.lock();
        core.file(from)?;
        core.record(Operation::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut core = self.core.lock();
        core.file(path)?;
        core.record(Operation::Remove(path.to_owned()));
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let core = self.core.lock();
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let inside = |path: &String| {
            let name = path.strip_prefix(&prefix)?;
            (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
        };
        let state = &core.state;
        let names: BTreeSet<String> =
            state.names.keys().chain(&state.directories).filter_map(inside).collect();
        Ok(names.into_iter().collect())
    }

    fn create_directory(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        self.core.lock().record(Operation::CreateDirectory(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.core.lock().record(Operation::SyncDirectory(path.to_owned()));
        Ok(())
    }

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn used_bytes(&self) -> io::Result<u64> {
        let core = self.core.lock();
        let files = core.state.names.values().collect::<BTreeSet<_>>();
        Ok(files.into_iter().map(|file| core.state.files[*file].byte_size.current).sum())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

struct MemoryFile {
    core: Arc<Mutex<Core>>,
    number: FileNumber,
    writable: bool,
}

impl MemoryFile {
    fn change(&self, operation: Operation) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.core.lock().record(operation);
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write(self.number, offset, data.into()))
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.core.lock().state.files[self.number].read(offset, buffer))
    }
    fn byte_size(&self) -> io::Result<u64> {
        Ok(self.core.lock().state.files[self.number].byte_size.current)
    }
    fn set_byte_size(&self, bytes: u64) -> io::Result<()> {
        self.change(Operation::SetByteSize(self.number, bytes))
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.max(self.byte_size()?);
        self.change(Operation::SetByteSize(self.number, bytes))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.core.lock().record(Operation::Sync(self.number));
        Ok(())
    }
    fn lose_unsynced(&self) {
        self.core.lock().record(Operation::Lose(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_is_sure_to_survive() -> io::Result<()> {
        let disk = MemoryDisk::new();
        disk.create_directory("d")?;
        disk.write_new("d/sure", &[7; 2000])?;
        let file = disk.open("d/sure", true)?;
        file.write_at(600, &[9; 1000])?;
        disk.create("d/maybe")?.write_at(0, b"x")?;
        let (mut torn, mut lost, mut kept) = (0, 0, 0);
        for seed in 0..600 {
            let image = disk.crash_image(disk.operation_count(), seed);
            let bytes = image.read_all("d/sure")?;
            assert_eq!(
                (bytes.len(), &bytes[..600], &bytes[1600..]),
                (2000, &[7; 600][..], &[7; 400][..])
            );
            let new = bytes.iter().filter(|byte| **byte == 9).count();
            match new {
                0 => lost += 1,
                1000 => kept += 1,
                n => {
                    assert!([424, 512, 64, 936, 576, 488].contains(&n), "torn at a page: {n}");
                    torn += 1;
                }
            }
            assert_eq!(bytes, disk.crash_image(disk.operation_count(), seed).read_all("d/sure")?);
        }
        assert!(torn > 50 && lost > 50 && kept > 50, "{torn} {lost} {kept}");
        assert!(disk.crash_image(1, 5).list("d")?.is_empty());
        Ok(())
    }

    #[test]
    fn a_name_needs_its_directory_synced() -> io::Result<()> {
        let disk = MemoryDisk::new();
        disk.create("a")?.sync_data()?;
        let survivors = |disk: &MemoryDisk| -> io::Result<BTreeSet<Vec<String>>> {
            (0..100).map(|seed| disk.crash_image(disk.operation_count(), seed).list("")).collect()
        };
        assert_eq!(survivors(&disk)?, BTreeSet::from([vec![], vec!["a".to_owned()]]));
        disk.sync_directory("")?;
        assert_eq!(survivors(&disk)?, BTreeSet::from([vec!["a".to_owned()]]));
        disk.rename("a", "b")?;
        let one = |name: &str| vec![name.to_owned()];
        assert_eq!(survivors(&disk)?, BTreeSet::from([one("a"), one("b")]));
        Ok(())
    }

    #[test]
    fn a_failed_sync_loses_what_it_held() -> io::Result<()> {
        let disk = MemoryDisk::new();
        let file = disk.create("a")?;
        file.sync_data()?;
        disk.sync_directory("")?;
        file.write_at(0, b"lost")?;
        file.lose_unsynced();
        file.sync_data()?;
        let images =
            (0..100).map(|seed| disk.crash_image(disk.operation_count(), seed).read_all("a"));
        assert!(images.collect::<io::Result<BTreeSet<_>>>()?.contains(&Vec::new()));
        assert_eq!(disk.read_all("a")?, b"lost");
        Ok(())
    }
}

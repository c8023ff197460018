//! A disk that fails on purpose: wraps any disk and follows a plan that can be changed while it runs.
//!
//! Invariant: a fault is an error of the outer call; what it leaves in the inner disk is what the
//! kernel would leave: a failed sync loses the unsynced pages, a short write its tail.

use super::{Disk, DiskFile};
use parking_lot::Mutex;
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultOperation {
    Create,
    Open,
    Read,
    Write,
    Allocate,
    Sync,
    SyncDirectory,
    Rename,
    Remove,
}

/// Fail, or delay, `times` operations of a kind whose path starts with `path`, after `after` good
/// ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    pub operation: FaultOperation,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub after: u64,
    /// Absent: for ever.
    #[serde(default = "for_ever")]
    pub times: u64,
    /// `EIO`, `ENOSPC`, `EMFILE` or `EINTR`.
    #[serde(default = "input_output")]
    pub error: String,
    /// A failing write still writes this many bytes.
    #[serde(default)]
    pub short_bytes: usize,
    /// A slow operation rather than a failing one.
    #[serde(default)]
    pub delay_ms: u64,
}

fn for_ever() -> u64 {
    u64::MAX
}
fn input_output() -> String {
    "EIO".to_owned()
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultPlan {
    pub rules: Vec<FaultRule>,
    /// A full disk: files together never grow past it.
    pub bytes_max: Option<u64>,
}

impl FaultPlan {
    pub fn from_json(json: &str) -> io::Result<FaultPlan> {
        let plan: FaultPlan = serde_json::from_str(json).map_err(invalid)?;
        for rule in &plan.rules {
            error_number(&rule.error)?;
        }
        Ok(plan)
    }
    pub fn one(operation: FaultOperation, after: u64, times: u64, error: &str) -> FaultPlan {
        let path = String::new();
        let error = error.to_owned();
        let rule = FaultRule { operation, path, after, times, error, short_bytes: 0, delay_ms: 0 };
        FaultPlan { rules: vec![rule], bytes_max: None }
    }
    pub fn full(bytes_max: u64) -> FaultPlan {
        FaultPlan { rules: Vec::new(), bytes_max: Some(bytes_max) }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn error_number(name: &str) -> io::Result<i32> {
    use rustix::io::Errno;
    match name {
        "EIO" => Ok(Errno::IO.raw_os_error()),
        "ENOSPC" => Ok(Errno::NOSPC.raw_os_error()),
        "EMFILE" => Ok(Errno::MFILE.raw_os_error()),
        "EINTR" => Ok(Errno::INTR.raw_os_error()),
        _ => Err(invalid(format!("no such fault: {name}"))),
    }
}

struct Control {
    plan: FaultPlan,
    seen: Vec<u64>,
    faults: u64,
    used_bytes: u64,
}

struct Fault {
    error: io::Error,
    short_bytes: usize,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        fault.error
    }
}

impl Control {
    /// The delay to take, or the fault to give.
    fn check(&mut self, operation: FaultOperation, path: &str) -> Result<Duration, Fault> {
        let mut delay = Duration::ZERO;
        for (rule, seen) in self.plan.rules.iter().zip(&mut self.seen) {
            if rule.operation != operation || !path.starts_with(&rule.path) {
                continue;
            }
            *seen += 1;
            if *seen > rule.after && *seen - rule.after <= rule.times {
                if rule.delay_ms > 0 {
                    delay += Duration::from_millis(rule.delay_ms);
                    continue;
                }
                self.faults += 1;
                let number = error_number(&rule.error).unwrap_or(0);
                let error = io::Error::from_raw_os_error(number);
                return Err(Fault { error, short_bytes: rule.short_bytes });
            }
        }
        Ok(delay)
    }

    fn resize(&mut self, from: u64, to: u64) -> Result<(), Fault> {
        let used = self.used_bytes.saturating_sub(from) + to;
        if to > from && self.plan.bytes_max.is_some_and(|max| used > max) {
            self.faults += 1;
            let room = self.plan.bytes_max.unwrap_or(0).saturating_sub(self.used_bytes);
            let error = io::Error::from_raw_os_error(error_number("ENOSPC").unwrap_or(0));
            return Err(Fault { error, short_bytes: usize::try_from(room).unwrap_or(0) });
        }
        self.used_bytes = used;
        Ok(())
    }
}

/// Sleeps without the lock, so that one slow file does not stop the others.
fn obey(control: &Mutex<Control>, operation: FaultOperation, path: &str) -> Result<(), Fault> {
    let delay = control.lock().check(operation, path)?;
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
    Ok(())
}

pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    control: Arc<Mutex<Control>>,
}

impl FaultyDisk {
    pub fn new(inner: Arc<dyn Disk>, plan: FaultPlan) -> io::Result<FaultyDisk> {
        let control = Control {
            seen: vec![0; plan.rules.len()],
            plan,
            faults: 0,
            used_bytes: inner.used_bytes()?,
        };
        Ok(FaultyDisk { inner, control: Arc::new(Mutex::new(control)) })
    }

    /// Follow another plan from now on; the counts of its rules start at zero.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut control = self.control.lock();
        control.seen = vec![0; plan.rules.len()];
        control.plan = plan;
    }

    /// Faults given so far.
    pub fn fault_count(&self) -> u64 {
        self.control.lock().faults
    }

    fn check(&self, operation: FaultOperation, path: &str) -> io::Result<()> {
        Ok(obey(&self.control, operation, path)?)
    }

    fn wrap(&self, path: &str, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { path: path.to_owned(), inner, control: self.control.clone() })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.check(FaultOperation::Create, path)?;
        Ok(self.wrap(path, self.inner.create(path)?))
    }
    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.check(FaultOperation::Open, path)?;
        Ok(self.wrap(path, self.inner.open(path, write)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check(FaultOperation::Rename, from)?;
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.check(FaultOperation::Remove, path)?;
        let bytes = self.inner.open(path, false)?.byte_size()?;
        self.inner.remove(path)?;
        Ok(self.control.lock().resize(bytes, 0)?)
    }
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.inner.list(directory)
    }
    fn create_directory(&self, path: &str) -> io::Result<()> {
        self.inner.create_directory(path)
    }
    fn sync_directory(&self, path: &str) -> io::Result<()> {
        self.check(FaultOperation::SyncDirectory, path)?;
        self.inner.sync_directory(path)
    }
    fn lock(&self) -> io::Result<()> {
        self.inner.lock()
    }
    fn used_bytes(&self) -> io::Result<u64> {
        self.inner.used_bytes()
    }
    fn free_bytes(&self) -> io::Result<u64> {
        let control = self.control.lock();
        match control.plan.bytes_max {
            Some(max) => Ok(max.saturating_sub(control.used_bytes)),
            None => self.inner.free_bytes(),
        }
    }
}

struct FaultyFile {
    path: String,
    inner: Arc<dyn DiskFile>,
    control: Arc<Mutex<Control>>,
}

impl FaultyFile {
    fn grow_to(&self, bytes: u64) -> Result<(), Fault> {
        let now = self.inner.byte_size().map_err(|error| Fault { error, short_bytes: 0 })?;
        self.control.lock().resize(now, bytes.max(now))
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let checked = obey(&self.control, FaultOperation::Write, &self.path);
        if let Err(fault) = checked.and_then(|()| self.grow_to(offset + data.len() as u64)) {
            let short = &data[..fault.short_bytes.min(data.len())];
            if !short.is_empty() && self.grow_to(offset + short.len() as u64).is_ok() {
                self.inner.write_at(offset, short)?;
            }
            return Err(fault.error);
        }
        self.inner.write_at(offset, data)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        obey(&self.control, FaultOperation::Read, &self.path)?;
        self.inner.read_at(offset, buffer)
    }
    fn byte_size(&self) -> io::Result<u64> {
        self.inner.byte_size()
    }
    fn set_byte_size(&self, bytes: u64) -> io::Result<()> {
        self.control.lock().resize(self.inner.byte_size()?, bytes)?;
        self.inner.set_byte_size(bytes)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        obey(&self.control, FaultOperation::Allocate, &self.path)?;
        self.grow_to(bytes)?;
        self.inner.allocate(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        let checked = obey(&self.control, FaultOperation::Sync, &self.path);
        if let Err(fault) = checked {
            self.inner.lose_unsynced();
            return Err(fault.error);
        }
        self.inner.sync_data()
    }
    fn lose_unsynced(&self) {
        self.inner.lose_unsynced();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn fails_as_planned() -> io::Result<()> {
        let plan = r#"{"rules": [
            {"operation": "sync", "after": 1, "times": 1, "path": "j"},
            {"operation": "write", "after": 1, "times": 1, "error": "ENOSPC", "short_bytes": 3}]}"#;
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), FaultPlan::from_json(plan)?)?;
        let (file, other) = (disk.create("j")?, disk.create("other")?);
        file.sync_data()?;
        other.sync_data()?;
        assert_eq!(file.sync_data().map_err(|e| e.raw_os_error()), Err(Some(5)));
        file.sync_data()?;
        file.write_at(0, b"good")?;
        assert_eq!(file.write_at(4, b"12345").map_err(|e| e.raw_os_error()), Err(Some(28)));
        assert_eq!((disk.read_all("j")?, disk.fault_count()), (b"good123".to_vec(), 2));
        assert!(
            FaultPlan::from_json(r#"{"rules": [{"operation": "sync", "error": "E"}]}"#).is_err()
        );
        Ok(())
    }

    #[test]
    fn is_full_until_space_returns() -> io::Result<()> {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()), FaultPlan::full(1000))?;
        let (a, b) = (disk.create("a")?, disk.create("b")?);
        a.allocate(900)?;
        assert_eq!(b.allocate(200).map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
        assert!(b.write_at(0, &[1; 101]).is_err());
        assert_eq!((b.byte_size()?, disk.free_bytes()?), (100, 0));
        disk.remove("a")?;
        b.write_at(100, &[1; 800])?;
        disk.set_plan(FaultPlan::default());
        b.allocate(5000)
    }
}

//! Objects against windows in memory: what is written is read, merged days are the month, and
//! damage is told.

use super::writer::ColdReport;
use super::{ColdFile, ColdPart, ColdUnit, merge_cold, verify_cold, write_cold};
use crate::disk::{Disk, DiskFile, MemoryDisk};
use crate::downsample::columns::{Fields, Kind, Window, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::memory_file::MemoryFile;
use crate::error::KernelError;
use crate::labels::LabelTable;
use crate::shard::matcher::{MatchOp, Matcher};
use crate::sketch::quantiles::Sketch;
use proptest::prelude::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const METRICS: [&str; 4] = ["", "cpu", "job:rate5m", "up"];

/// A series as drawn: its metric, a label, what else says its kind, and hours with values.
#[derive(Clone, Debug)]
struct Drawn {
    metric: usize,
    instance: u8,
    kind: Kind,
    windows: Vec<(u16, u32, f64, bool)>,
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-50i32..50).prop_map(f64::from),
        any::<f64>(),
        Just(f64::NAN),
        Just(-0.0),
        Just(0.0),
        Just(f64::INFINITY),
    ]
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let window = (0u16..72, 0u32..4, value(), any::<bool>());
    let kind = prop_oneof![Just(Kind::Counter), Just(Kind::Gauge), Just(Kind::Unknown)];
    (0..METRICS.len(), 0u8..12, kind, prop::collection::vec(window, 0..40)).prop_map(
        |(metric, instance, kind, mut windows)| {
            windows.sort_by_key(|window| window.0);
            windows.dedup_by_key(|window| window.0);
            Drawn { metric, instance, kind, windows }
        },
    )
}

fn window(hour: u16, count: u32, value: f64, stale: bool, kind: Kind) -> Window {
    let end_ms = i64::from(hour + 1) * HOUR_MS;
    if count == 0 {
        return Window { end_ms, ends_stale: true, ..Window::default() };
    }
    let mut window = Window { end_ms, count, ends_stale: stale, ..Window::default() };
    (window.first_ms, window.first) = (end_ms - HOUR_MS + 1, value);
    (window.last_ms, window.last) = (end_ms - i64::from(hour % 7), value * 2.0);
    if kind.fields().has(Fields::DROPPED) {
        window.dropped = value / 3.0;
    }
    if kind.fields().has(Fields::FOLDS) {
        (window.sum, window.minimum, window.maximum) = (value + 1.0, value - 1.0, value * 3.0);
    }
    window
}

/// One a label set and kind, windows apart where labels stand twice.
fn series(mut all: Vec<Drawn>) -> (LabelTable, WindowColumns) {
    all.sort_by_key(|drawn| (drawn.metric, drawn.instance, drawn.kind));
    all.dedup_by_key(|drawn| (drawn.metric, drawn.instance));
    let (mut lists, mut windows) = (Vec::new(), WindowColumns::default());
    for drawn in all.iter().rev().filter(|drawn| !drawn.windows.is_empty()) {
        let mut labels = vec![("instance".to_owned(), format!("h-\"{}\u{e9}", drawn.instance))];
        if drawn.metric > 0 {
            labels.push(("__name__".to_owned(), METRICS[drawn.metric].to_owned()));
        }
        if drawn.instance % 3 == 0 {
            labels.push(("zone".to_owned(), "z!".to_owned()));
        }
        lists.push(labels);
        for &(hour, count, value, stale) in &drawn.windows {
            windows.push(&window(hour, count, value, stale, drawn.kind));
            if count > 2 && drawn.instance % 2 == 0 {
                let place = windows.window_count() - 1;
                windows.sketches.push(place, &sketch(&[value, value * 2.0, f64::from(hour)]));
            }
        }
        windows.end_series(drawn.kind);
    }
    (LabelTable::from_lists(&lists), windows)
}

fn sketch(values: &[f64]) -> Vec<u8> {
    let (mut sketch, mut bytes) = (Sketch::default(), Vec::new());
    values.iter().for_each(|&value| sketch.add(value));
    sketch.encode(&mut bytes);
    bytes
}

fn unit(range_ms: (i64, i64), number: u64) -> ColdUnit {
    ColdUnit { own_rows_min: 60, ..ColdUnit::new("cold", "tenant a", range_ms, number) }
}

fn bits(windows: &WindowColumns) -> Vec<Vec<u64>> {
    let values = |column: &[f64]| column.iter().map(|value| value.to_bits()).collect();
    let times = |column: &[i64]| column.iter().map(|&time| time as u64).collect();
    vec![
        windows.offsets.iter().map(|&offset| offset as u64).collect(),
        windows.kinds.iter().map(|&kind| kind as u64).collect(),
        times(&windows.end_ms),
        windows.count.iter().map(|&count| u64::from(count)).collect(),
        times(&windows.first_ms),
        values(&windows.first),
        times(&windows.last_ms),
        values(&windows.last),
        windows.ends_stale.iter().map(|&stale| u64::from(stale)).collect(),
        values(&windows.dropped),
        values(&windows.sum),
        values(&windows.minimum),
        values(&windows.maximum),
        windows.sketches.iter().map(|(place, _)| place as u64).collect(),
        windows.sketches.bytes().iter().map(|&byte| u64::from(byte)).collect(),
    ]
}

fn read_all(files: &[ColdFile], matchers: &[Matcher], range: (i64, i64)) -> Vec<Vec<u64>> {
    let mut out = WindowColumns::default();
    for file in files {
        let found = file.select(matchers, 1_000).expect("selected");
        file.read(&found, range.0..range.1, Fields::ALL, &mut out).expect("read");
    }
    bits(&out)
}

fn open(disk: &MemoryDisk, reports: &[ColdReport]) -> Vec<ColdFile> {
    let open = |report: &ColdReport| {
        let path = format!("cold/{}", report.path);
        let bytes = disk.read_all(&path).expect("the object");
        assert_eq!((bytes.len() as u64, crc32fast::hash(&bytes)), (report.bytes, report.crc32));
        ColdFile::open(disk, &path).expect("opens")
    };
    reports.iter().map(open).collect()
}

/// The file in memory that holds the series of one object.
fn beside(report: &ColdReport, labels: &LabelTable, windows: &WindowColumns) -> MemoryFile {
    let own = |i: &usize| {
        let name = labels.value(*i, "__name__");
        report.first_metric.as_str() <= name && name <= report.last_metric.as_str()
    };
    let pooled = |i: &usize| report.metric.is_some() || !large(labels, windows, *i);
    let kept: Vec<usize> = (0..labels.len()).filter(own).filter(pooled).collect();
    let mut subset = WindowColumns::default();
    for &i in &kept {
        subset.append(windows, windows.series(i));
        subset.end_series(windows.kinds[i]);
    }
    let labels = labels.take(&kept).expect("labels");
    MemoryFile::new(HOUR_MS, &labels, &subset).expect("in memory")
}

fn large(labels: &LabelTable, windows: &WindowColumns, i: usize) -> bool {
    let name = labels.value(i, "__name__");
    let same = (0..labels.len()).filter(|&j| labels.value(j, "__name__") == name);
    same.map(|j| windows.series(j).len()).sum::<usize>() >= 60
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(
        all in prop::collection::vec(drawn(), 0..30),
        from in -2i64..74, hours in 0i64..80, cut in 0u8..12,
    ) {
        let (labels, windows) = series(all);
        let disk = MemoryDisk::new();
        let reports = write_cold(&disk, &unit((0, 3 * DAY_MS), 1), &labels, &windows).expect("written");
        let files = open(&disk, &reports);
        let total: u64 = reports.iter().map(|report| report.windows).sum();
        prop_assert_eq!(total, windows.window_count() as u64);
        let range = (from * HOUR_MS + 1, (from + hours) * HOUR_MS + 1);
        let matchers = [
            Matcher::new("instance", MatchOp::NotEqual, &format!("h-\"{cut}\u{e9}")),
            Matcher::new("zone", MatchOp::Regex, "z.|"),
        ];
        for (file, report) in files.iter().zip(&reports) {
            verify_cold(file).expect("verified");
            let oracle = beside(report, &labels, &windows);
            prop_assert_eq!(file.series_count(), oracle.series_count());
            let found = file.select(&matchers, 100).expect("selected");
            prop_assert_eq!(&found, &oracle.select(&matchers, 100).expect("selected"));
            prop_assert_eq!(
                file.labels(&found).expect("labels").to_list(),
                oracle.labels(&found).expect("labels").to_list()
            );
            prop_assert_eq!(
                file.label_values("instance", &matchers).expect("values"),
                oracle.label_values("instance", &matchers).expect("values")
            );
            prop_assert_eq!(
                file.label_names(&matchers).expect("names"),
                oracle.label_names(&matchers).expect("names")
            );
            let (mut ours, mut theirs) = (WindowColumns::default(), WindowColumns::default());
            file.read(&found, range.0..range.1, Fields::ALL, &mut ours).expect("read");
            oracle.read(&found, range.0..range.1, Fields::ALL, &mut theirs).expect("read");
            prop_assert_eq!(bits(&ours), bits(&theirs));
            // So few of one page that those without a window in the range are left out.
            let alive = (0..found.len()).filter(|&i| theirs.offsets[i] < theirs.offsets[i + 1]);
            let alive: Vec<u32> = alive.map(|i| found[i]).collect();
            prop_assert_eq!(file.within(found, range.0..range.1).expect("within"), alive);
        }
    }

    #[test]
    fn merged_days_are_the_month_byte_for_byte(all in prop::collection::vec(drawn(), 1..30)) {
        let (labels, windows) = series(all);
        let disk = MemoryDisk::new();
        let mut parts = Vec::new();
        for day in 0..3 {
            let range_ms = (day * DAY_MS, (day + 1) * DAY_MS);
            let mut cut = WindowColumns::default();
            for i in 0..labels.len() {
                let inside = |at: &usize| (range_ms.0 + 1..range_ms.1 + 1).contains(&windows.end_ms[*at]);
                windows.series(i).filter(inside).for_each(|at| cut.append(&windows, at..at + 1));
                cut.end_series(windows.kinds[i]);
            }
            let reports = write_cold(&disk, &unit(range_ms, 1), &labels, &cut).expect("a day");
            parts.extend(reports.into_iter().map(|report| {
                ColdPart { path: report.path, owned_ms: vec![(range_ms.0, range_ms.0 + 5 * HOUR_MS),
                    (range_ms.0 + 5 * HOUR_MS, range_ms.1)] }
            }));
        }
        let month = (0, 3 * DAY_MS);
        let direct = write_cold(&disk, &unit(month, 2), &labels, &windows).expect("at once");
        let bytes = |reports: &[ColdReport]| -> Vec<Vec<u8>> {
            reports.iter().map(|r| disk.read_all(&format!("cold/{}", r.path)).expect("there")).collect()
        };
        let expected = bytes(&direct);
        for report in &direct {
            disk.remove(&format!("cold/{}", report.path)).expect("removed");
        }
        let merged = merge_cold(&disk, &unit(month, 2), &parts).expect("merged");
        prop_assert_eq!(&merged, &direct);
        prop_assert_eq!(bytes(&merged), expected);
    }

    #[test]
    fn damage_is_told_and_never_answered(
        all in prop::collection::vec(drawn(), 3..12), place in 0.0f64..1.0, bit in 0u8..8,
    ) {
        let (labels, windows) = series(all);
        let disk = MemoryDisk::new();
        let range_ms = (0, 3 * DAY_MS);
        let unit = ColdUnit { own_rows_min: 1_000_000, ..unit(range_ms, 1) };
        let reports = write_cold(&disk, &unit, &labels, &windows).expect("written");
        let Some(report) = reports.first() else { return Ok(()) };
        let path = format!("cold/{}", report.path);
        let mut bytes = disk.read_all(&path).expect("there");
        let at = (bytes.len() as f64 * place) as usize;
        bytes[at] ^= 1 << bit;
        disk.remove(&path).expect("removed");
        disk.write_new(&path, &bytes).expect("put back");
        match ColdFile::open(&disk, &path).and_then(|file| verify_cold(&file).map(|()| file)) {
            Err(KernelError::Corruption(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            // A statistic, a name that we do not read: the windows are what they were.
            Ok(file) => {
                let oracle = MemoryFile::new(HOUR_MS, &labels, &windows).expect("in memory");
                let numbers: Vec<u32> = (0..oracle.series_count() as u32).collect();
                let mut theirs = WindowColumns::default();
                oracle.read(&numbers, i64::MIN..i64::MAX, Fields::ALL, &mut theirs).expect("read");
                let ours = read_all(&[file], &[], (i64::MIN, i64::MAX));
                prop_assert_eq!(ours, bits(&theirs));
            }
        }
    }
}

#[test]
fn two_owners_of_a_window_are_refused() {
    let labels = LabelTable::from_lists(&[vec![("__name__", "up")]]);
    let mut windows = WindowColumns::default();
    windows.push(&window(3, 2, 1.0, false, Kind::Gauge));
    windows.end_series(Kind::Gauge);
    let disk = MemoryDisk::new();
    let day = (0, DAY_MS);
    let parts = [1, 2].map(|number| {
        let reports = write_cold(&disk, &unit(day, number), &labels, &windows).expect("written");
        ColdPart { path: reports[0].path.clone(), owned_ms: vec![day] }
    });
    assert!(merge_cold(&disk, &unit((0, 3 * DAY_MS), 3), &parts).is_err());
    assert!(merge_cold(&disk, &unit((0, 3 * DAY_MS), 3), &parts[1..]).is_ok());
    let late = write_cold(&disk, &unit((0, 2 * HOUR_MS), 4), &labels, &windows);
    assert!(late.is_err(), "a window outside of its unit");
}

/// Three row groups and many pages: single series out of the middle.
#[test]
fn single_series_are_read_out_of_large_objects() {
    let lists: Vec<Vec<(String, String)>> = (0..1_000)
        .map(|i| {
            vec![
                ("__name__".to_owned(), "load".to_owned()),
                ("host".to_owned(), format!("h{i:04}")),
            ]
        })
        .collect();
    let labels = LabelTable::from_lists(&lists);
    let mut windows = WindowColumns::default();
    for i in 0..1_000u32 {
        for hour in 0..600u16 {
            let value = f64::from(i * 1_000 + u32::from(hour));
            windows.push(&window(hour, 1 + i % 3, value, false, Kind::Gauge));
        }
        windows.end_series(Kind::Gauge);
    }
    let disk = MemoryDisk::new();
    let unit = ColdUnit::new("cold", "t", (0, 25 * DAY_MS), 1);
    let reports = write_cold(&disk, &unit, &labels, &windows).expect("written");
    let files = open(&disk, &reports);
    assert_eq!(files[0].group_rows().len(), 3);
    let wanted = [0u32, 1, 436, 437, 438, 700, 999];
    let mut out = WindowColumns::default();
    let range = 100 * HOUR_MS..103 * HOUR_MS;
    let fields = Fields::LAST.with(Fields::MAXIMUM);
    let read = files[0].read(&wanted, range, fields, &mut out).expect("read");
    let expected: Vec<f64> = wanted
        .iter()
        .flat_map(|i| (99..102).map(move |hour| f64::from(i * 1_000 + hour) * 2.0))
        .collect();
    assert_eq!(out.last, expected);
    assert!(out.sum.iter().all(|&sum| sum == 0.0) && out.maximum.iter().all(|&most| most > 0.0));
    assert!(read < reports[0].bytes / 3, "{read} of {} bytes", reports[0].bytes);
}

/// A file that counts what is read of it.
struct Counted {
    file: Arc<dyn DiskFile>,
    read: Arc<AtomicU64>,
}

impl DiskFile for Counted {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(offset, buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn byte_size(&self) -> io::Result<u64> {
        self.file.byte_size()
    }

    fn set_byte_size(&self, bytes: u64) -> io::Result<()> {
        self.file.set_byte_size(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// An object of one metric's few series and, where `past` says so, many of another's.
fn counted(past: usize) -> (ColdFile, Arc<AtomicU64>) {
    let mut lists: Vec<Vec<(String, String)>> = Vec::new();
    let mut windows = WindowColumns::default();
    let mut add = |metric: &str, pod: String| {
        lists.push(vec![("__name__".to_owned(), metric.to_owned()), ("pod".to_owned(), pod)]);
        windows.push(&window(3, 2, 1.0, false, Kind::Gauge));
        windows.end_series(Kind::Gauge);
    };
    (0..past).for_each(|i| add("job_runs", format!("job-{i:06}")));
    (0..20).for_each(|i| add("up", format!("pod-{i}")));
    let disk = MemoryDisk::new();
    let labels = LabelTable::from_lists(&lists);
    let unit = ColdUnit { own_rows_min: 1 << 30, ..unit((0, DAY_MS), 1) };
    let reports = write_cold(&disk, &unit, &labels, &windows).expect("written");
    let file = disk.open(&format!("cold/{}", reports[0].path), false).expect("there");
    let read = Arc::default();
    (ColdFile::of(Arc::new(Counted { file, read: Arc::clone(&read) })).expect("opens"), read)
}

/// Neither memory nor what a query reads follows the series of other metrics.
#[test]
fn series_of_other_metrics_are_not_loaded() {
    let ask = |past: usize| {
        let (file, read) = counted(past);
        read.store(0, Ordering::Relaxed);
        let metric = [Matcher::new("__name__", MatchOp::Equal, "up")];
        let found = file.select(&metric, 100).expect("selected");
        assert_eq!(file.labels(&found).expect("labels").len(), 20);
        assert_eq!(file.marks(&found).expect("marks").len(), 20);
        assert_eq!(file.index().placed(&found).expect("rows").len(), 20);
        let index_read = read.load(Ordering::Relaxed);
        let none = [Matcher::new("__name__", MatchOp::Equal, "nothing")];
        assert_eq!(file.select(&none, 100).expect("none").len(), 0);
        (index_read, file.index().memory_bytes())
    };
    let (alone, beside) = (ask(0), ask(100_000));
    assert!(alone.0 < 2_000 && beside.0 < 30_000, "bytes read: {alone:?}, {beside:?}");
    assert!(beside.1 - alone.1 < 100 * 48, "bytes held: {alone:?}, {beside:?}");
}

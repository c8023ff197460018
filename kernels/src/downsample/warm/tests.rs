//! Warm files against the same windows in memory, whole, damaged and cut.

use super::page::{Asked, PageEncoder, SECTIONS, Sections, Tally, decode, sections_of};
use super::*;
use crate::disk::{Disk, MemoryDisk};
use crate::downsample::columns::{Fields, Kind, Window, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::join::{Part, join};
use crate::downsample::memory_file::MemoryFile;
use crate::downsample::read_buffers::Numbers;
use crate::error::KernelError;
use crate::labels::LabelTable;
use crate::shard::matcher::{MatchOp, Matcher};
use crate::sketch::quantiles::Sketch;
use proptest::prelude::*;

const WINDOW_MS: i64 = 60_000;

/// SplitMix64: one number of the test's seed makes a file.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}

const ODD: [u64; 8] = [
    0x7ff8_0000_0000_1234, // NaN with a payload
    0x7ff0_0000_0000_0002, // the stale marker, a signalling NaN
    0xfff8_0000_0000_0001,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x8000_0000_0000_0000, // -0.0
    1,
    0x7fef_ffff_ffff_ffff,
];

fn value(style: u64, x: &mut i64, random: &mut Random) -> f64 {
    *x += random.below(21) as i64 - 10;
    if random.one_in(60) && style > 0 {
        return f64::from_bits(ODD[random.below(8) as usize]);
    }
    match style {
        0 | 1 => *x as f64,
        2 => *x as f64 / 100.0,
        3 => (*x as f64 / 10.0) + 0.1 + 0.2,
        4 => f64::from_bits(random.next()),
        5 => (*x as f64) * 4096.0,
        6 => 7.25,
        _ => (*x as f64).sqrt(),
    }
}

/// A window of values that belong together, or of any values at all.
fn window(style: u64, x: &mut i64, end_ms: i64, random: &mut Random) -> Window {
    let count = [0, 1, 1, 2, 3, 6, 6, 6, 60][random.below(9) as usize];
    let ends_stale = count == 0 || random.one_in(10);
    if count == 0 {
        return Window { end_ms, ends_stale, ..Window::default() };
    }
    let values: Vec<f64> = (0..count).map(|_| value(style, x, random)).collect();
    let first_ms = end_ms - WINDOW_MS + 1 + random.below(3) as i64;
    let last_ms = if count == 1 { first_ms } else { end_ms - random.below(3) as i64 };
    let mut window = Window {
        end_ms,
        count: count as u32,
        first_ms,
        first: values[0],
        last_ms,
        last: values[values.len() - 1],
        ends_stale,
        dropped: if random.one_in(5) { value(style, x, random) } else { 0.0 },
        sum: values.iter().sum(),
        minimum: values.iter().copied().fold(f64::INFINITY, f64::min),
        maximum: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    };
    if random.one_in(30) {
        window.sum = value(style, x, random);
        window.minimum = value(style, x, random);
        window.maximum = value(4, x, random);
    }
    window
}

fn windows(seed: u64, series: usize, windows_max: u64) -> WindowColumns {
    let random = &mut Random(seed);
    let mut columns = WindowColumns::default();
    for _ in 0..series {
        let kind = [Kind::Counter, Kind::Gauge, Kind::Unknown][random.below(3) as usize];
        let (style, mut x) = (random.below(8), random.below(1_000) as i64);
        let mut end_ms = WINDOW_MS * random.below(3) as i64;
        for _ in 0..=random.below(windows_max) {
            end_ms += WINDOW_MS * if random.one_in(8) { 5 } else { 1 };
            let made = window(style, &mut x, end_ms, random);
            columns.push(&kept(&made, kind.fields()));
            if made.count > 2 && style > 3 {
                let place = columns.window_count() - 1;
                columns.sketches.push(place, &sketch(made.count, &mut x, random));
            }
        }
        columns.end_series(kind);
    }
    columns
}

fn sketch(count: u32, x: &mut i64, random: &mut Random) -> Vec<u8> {
    let (mut sketch, mut bytes) = (Sketch::default(), Vec::new());
    let style = random.below(8);
    (0..count).for_each(|_| sketch.add(value(style, x, random)));
    sketch.encode(&mut bytes);
    bytes
}

/// A window with zeros in the columns that are not `fields`.
fn kept(window: &Window, fields: Fields) -> Window {
    let keep = |field: Fields, value: f64| if fields.has(field) { value } else { 0.0 };
    let keep_ms = |field: Fields, value: i64| if fields.has(field) { value } else { 0 };
    Window {
        first_ms: keep_ms(Fields::FIRST_MS, window.first_ms),
        first: keep(Fields::FIRST, window.first),
        last_ms: keep_ms(Fields::LAST_MS, window.last_ms),
        last: keep(Fields::LAST, window.last),
        dropped: keep(Fields::DROPPED, window.dropped),
        sum: keep(Fields::SUM, window.sum),
        minimum: keep(Fields::MINIMUM, window.minimum),
        maximum: keep(Fields::MAXIMUM, window.maximum),
        ..*window
    }
}

/// Windows as bits, for NaN to compare.
fn bits(columns: &WindowColumns, fields: Fields) -> Vec<String> {
    (0..columns.series_count())
        .map(|series| {
            let mut text = format!("{:?}", columns.kinds[series]);
            for at in columns.series(series) {
                let window = kept(&columns.window(at), fields);
                let values = [
                    window.first,
                    window.last,
                    window.dropped,
                    window.sum,
                    window.minimum,
                    window.maximum,
                ];
                let values = values.map(f64::to_bits);
                let times = (window.end_ms, window.first_ms, window.last_ms);
                text += &format!("|{times:?} {} {} {values:x?}", window.count, window.ends_stale);
                if fields.has(Fields::SKETCH) {
                    text += &format!(" {:?}", columns.sketches.get(at));
                }
            }
            text
        })
        .collect()
}

fn labels(seed: u64, series: usize) -> LabelTable {
    let random = &mut Random(seed);
    let lists: Vec<Vec<(String, String)>> = (0..series)
        .map(|i| {
            let mut list = vec![("host".to_owned(), format!("h{i:04}"))];
            for (name, values) in [("__name__", 4), ("env", 2), ("zone", 3), ("id", 1_000)] {
                if !random.one_in(5) {
                    list.push((name.to_owned(), format!("v{}", random.below(values))));
                }
            }
            list
        })
        .collect();
    LabelTable::from_lists(&lists)
}

/// The same windows in a file of this disk and in memory.
fn both(
    disk: &MemoryDisk,
    seed: u64,
    series: usize,
    page: usize,
) -> (WarmFile, MemoryFile, WarmReport) {
    let (labels, windows) = (labels(seed, series), windows(seed, series, 40));
    let memory = MemoryFile::new(WINDOW_MS, &labels, &windows).expect("in memory");
    let all: Vec<u32> = (0..series as u32).collect();
    let mut sorted = WindowColumns::default();
    memory.read(&all, i64::MIN..i64::MAX, Fields::ALL, &mut sorted).expect("read");
    let options = WarmOptions { page_windows_max: page, ..WarmOptions::new("tenant", WINDOW_MS) };
    let mut writer = WarmWriter::create(disk, "file", &options).expect("create");
    writer.push(&memory.labels(&all).expect("labels"), &sorted).expect("push");
    let report = writer.finish().expect("finish");
    let file = WarmFile::open(disk, "file").expect("open");
    (file, memory, report)
}

fn disk_with(bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.write_new("file", bytes).expect("write");
    disk
}

fn matchers(random: &mut Random) -> Vec<Matcher> {
    let values = ["v0", "v1", "v1|v2", "v.*", ".*", ".+", "", "v7|", "h00.*", "v[0-9]", "absent"];
    (0..random.below(4))
        .map(|_| {
            let name = ["__name__", "env", "zone", "id", "host", "nowhere"];
            let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
            Matcher::new(
                name[random.below(6) as usize],
                ops[random.below(4) as usize],
                values[random.below(values.len() as u64) as usize],
            )
        })
        .collect()
}

fn fields(random: &mut Random) -> Fields {
    [
        Fields::ALL,
        Fields::LAST,
        Fields::LAST.with(Fields::LAST_MS),
        Fields::COUNT,
        Fields::FIRST_MS,
        Fields::DROPPED,
        Fields::MINIMUM,
        Fields::MAXIMUM,
        Fields::SUM,
        Fields::COMMON,
    ][random.below(10) as usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_file_says_what_was_written(
        seed in any::<u64>(), series in 1usize..90, page in 1usize..400,
    ) {
        let disk = MemoryDisk::new();
        let (file, memory, report) = both(&disk, seed, series, page);
        prop_assert_eq!(&file.report(), &report);
        prop_assert_eq!(&file.verify().expect("sound"), &report);
        let random = &mut Random(seed ^ 1);
        let all: Vec<u32> = (0..series as u32).collect();
        let usage = file.usage().expect("usage");
        let parts = usage.iter().map(|metric| metric.data_bytes + metric.index_bytes);
        prop_assert_eq!(parts.sum::<u64>(), report.bytes);
        let mut counted: std::collections::BTreeMap<String, u64> = Default::default();
        for labels in memory.labels(&all).expect("labels").to_list() {
            let name = labels.iter().find(|(name, _)| name == "__name__");
            *counted.entry(name.map(|(_, v)| v.clone()).unwrap_or_default()).or_default() += 1;
        }
        let told: Vec<(String, u64)> = usage.into_iter().map(|m| (m.metric, m.series)).collect();
        prop_assert_eq!(told, counted.into_iter().collect::<Vec<_>>());
        let (mut ours, mut theirs) = (WindowColumns::default(), WindowColumns::default());
        file.read(&all, i64::MIN..i64::MAX, Fields::ALL, &mut ours).expect("read");
        memory.read(&all, i64::MIN..i64::MAX, Fields::ALL, &mut theirs).expect("read");
        prop_assert_eq!(bits(&ours, Fields::ALL), bits(&theirs, Fields::ALL));
        prop_assert_eq!(
            file.labels(&all).expect("labels").to_list(),
            memory.labels(&all).expect("labels").to_list()
        );
        for _ in 0..8 {
            let matchers = matchers(random);
            let found = file.select(&matchers, 1_000).expect("select");
            prop_assert_eq!(&found, &memory.select(&matchers, 1_000).expect("select"));
            prop_assert_eq!(
                file.label_names(&matchers).expect("names"),
                memory.label_names(&matchers).expect("names")
            );
            for name in ["id", "env", "nowhere"] {
                prop_assert_eq!(
                    file.label_values(name, &matchers).expect("values"),
                    memory.label_values(name, &matchers).expect("values")
                );
            }
            let from_ms = WINDOW_MS * random.below(60) as i64 + random.below(2) as i64;
            let range = from_ms..from_ms + WINDOW_MS * random.below(40) as i64;
            let fields = fields(random);
            let (mut ours, mut theirs) = (WindowColumns::default(), WindowColumns::default());
            file.read(&found, range.clone(), fields, &mut ours).expect("read");
            memory.read(&found, range, fields, &mut theirs).expect("read");
            prop_assert_eq!(bits(&ours, fields), bits(&theirs, fields));
        }
    }

    #[test]
    fn one_wrong_bit_is_never_a_wrong_answer(seed in any::<u64>()) {
        let disk = MemoryDisk::new();
        let (file, _, report) = both(&disk, seed, 12, 100);
        let all: Vec<u32> = (0..file.series_count() as u32).collect();
        let mut sound = WindowColumns::default();
        file.read(&all, i64::MIN..i64::MAX, Fields::ALL, &mut sound).expect("read");
        let bytes = disk.read_all("file").expect("bytes");
        let random = &mut Random(seed ^ 2);
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
            let disk = disk_with(&damaged);
            let verified = WarmFile::open(&disk, "file").and_then(|file| file.verify());
            prop_assert!(matches!(verified, Err(KernelError::Corruption(_))), "byte {}", at);
            let Ok(file) = WarmFile::open(&disk, "file") else { continue };
            let mut read = WindowColumns::default();
            match file.read(&all, i64::MIN..i64::MAX, Fields::ALL, &mut read) {
                Ok(_) => prop_assert_eq!(bits(&read, Fields::ALL), bits(&sound, Fields::ALL)),
                Err(error) => prop_assert!(matches!(error, KernelError::Corruption(_))),
            }
            if let Ok(found) = file.select(&matchers(random), 1_000) {
                let _ = file.labels(&found);
            }
        }
        prop_assert_eq!(report.bytes, bytes.len() as u64);
    }

    /// Past the checksums: whatever a page says, decoding it ends in an answer or an error.
    #[test]
    fn a_page_of_nonsense_is_refused_or_read(seed in any::<u64>()) {
        let random = &mut Random(seed);
        let columns = windows(seed, 6, 30);
        let mut bytes = Vec::new();
        let lengths = PageEncoder::default().encode(&mut bytes, &columns, WINDOW_MS);
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                damaged[at] = random.next() as u8;
            }
            let mut sections: Sections = [None; SECTIONS];
            let mut start = 0;
            for (section, length) in sections.iter_mut().zip(lengths) {
                let end = start + length - (length.min(1) * random.below(2) as usize);
                *section = Some(&damaged[start..end]);
                start += length;
            }
            let wanted = vec![true; 6];
            let asked = Asked {
                series: 6,
                windows: columns.window_count(),
                window_ms: WINDOW_MS,
                fields: Fields::ALL,
                wanted: &wanted,
            };
            let _ = decode(
                &sections,
                &asked,
                &mut WindowColumns::default(),
                &mut Numbers::default(),
            );
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let disk = MemoryDisk::new();
    both(&disk, 5, 6, 50);
    let bytes = disk.read_all("file").expect("bytes");
    for length in 0..bytes.len() {
        let disk = disk_with(&bytes[..length]);
        let opened = WarmFile::open(&disk, "file").map(drop);
        assert!(matches!(opened, Err(KernelError::Corruption(_))), "{length} bytes");
    }
}

#[test]
fn the_same_windows_give_the_same_bytes() {
    let disks = [MemoryDisk::new(), MemoryDisk::new()];
    let [one, two] = disks.each_ref().map(|disk| {
        both(disk, 11, 50, 300);
        disk.read_all("file").expect("bytes")
    });
    assert!(one == two);
}

#[test]
fn a_window_of_one_point_costs_one_value() {
    let mut columns = WindowColumns::default();
    for series in 0..8 {
        for at in 0..500 {
            let value = f64::from((at * 37 + series * 11) % 101);
            let end_ms = i64::from(at) * WINDOW_MS;
            let time_ms = end_ms - 7;
            columns.push(&Window {
                end_ms,
                count: 1,
                first_ms: time_ms,
                first: value,
                last_ms: time_ms,
                last: value,
                sum: value,
                minimum: value,
                maximum: value,
                ..Window::default()
            });
        }
        columns.end_series(Kind::Unknown);
    }
    let mut bytes = Vec::new();
    let lengths = PageEncoder::default().encode(&mut bytes, &columns, WINDOW_MS);
    let others: usize = lengths.iter().sum::<usize>() - lengths[super::page::VALUES];
    assert!(others < 160, "{lengths:?}");
}

#[test]
fn order_is_the_writers_to_check() {
    let disk = MemoryDisk::new();
    let mut writer =
        WarmWriter::create(&disk, "file", &WarmOptions::new("t", WINDOW_MS)).expect("create");
    let labels = LabelTable::from_lists(&[vec![("__name__", "b")], vec![("__name__", "a")]]);
    let mut columns = WindowColumns::default();
    for _ in 0..2 {
        columns.push(&Window { count: 1, ..Window::default() });
        columns.end_series(Kind::Gauge);
    }
    assert!(writer.push(&labels, &columns).is_err());
}

#[test]
fn sections_follow_the_fields() {
    assert_eq!(Tally::of(&[0, 1, 2, 3]), Tally { valued: 3, multi: 2, deep: 1 });
    assert_eq!(sections_of(Fields::NONE), [true, false, false, false, false, false, false]);
    assert_eq!(sections_of(Fields::SUM), [true, true, false, false, true, true, true]);
}

fn rule(name: &str, value: &str, labels: &[&str]) -> StripRule {
    StripRule {
        matchers: vec![Matcher::new(name, MatchOp::Regex, value)],
        labels: labels.iter().map(|&label| label.to_owned()).collect(),
        ..StripRule::default()
    }
}

/// Labels, kind, windows' bits, and whether it is a fold.
type Told = (Vec<(String, String)>, Kind, String, bool);

/// All series of a file.
fn told(file: &WarmFile) -> Vec<Told> {
    let all: Vec<u32> = (0..file.series_count() as u32).collect();
    let mut columns = WindowColumns::default();
    file.read(&all, i64::MIN..i64::MAX, Fields::ALL, &mut columns).expect("read");
    let labels = file.labels(&all).expect("labels").to_list();
    let bits = bits(&columns, Fields::ALL);
    labels
        .into_iter()
        .zip(bits)
        .enumerate()
        .map(|(at, (labels, bits))| {
            let mark = file.marks(&[at as u32]).expect("marks")[0];
            (labels, columns.kinds[at], bits, mark.folded)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn stripping_touches_what_a_rule_names_and_nothing_else(
        seed in any::<u64>(), series in 1usize..80,
    ) {
        let disk = MemoryDisk::new();
        let (file, _, report) = both(&disk, seed, series, 16 * 1024);
        let rules = vec![rule("env", "v0", &["host", "id"]), rule("zone", "v[12]", &["host"])];
        let request = StripRequest { rules, before: None };
        let done = strip(&file, &disk, "stripped", &request).expect("stripped");
        let stripped = WarmFile::open(&disk, "stripped").expect("open");
        prop_assert_eq!(&stripped.verify().expect("sound"), &done.file);
        prop_assert_eq!(done.points_before, report.points);
        let mut expected: Vec<(Vec<(String, String)>, Kind)> = Vec::new();
        let mut kept = Vec::new();
        for (labels, kind, bits, _) in told(&file) {
            let has = |name: &str, values: &[&str]| {
                labels.iter().any(|(n, v)| n == name && values.contains(&v.as_str()))
            };
            let taken: &[&str] = match (kind, has("env", &["v0"]), has("zone", &["v1", "v2"])) {
                (Kind::Unknown, _, _) | (_, false, false) => &[],
                (_, true, _) => &["host", "id"],
                _ => &["host"],
            };
            let left: Vec<(String, String)> =
                labels.iter().filter(|(n, _)| !taken.contains(&n.as_str())).cloned().collect();
            if taken.is_empty() {
                kept.push((left.clone(), kind, bits));
            }
            expected.push((left, kind));
        }
        expected.sort();
        expected.dedup();
        let out = told(&stripped);
        let mut found: Vec<_> = out.iter().map(|(l, k, ..)| (l.clone(), *k)).collect();
        found.sort();
        prop_assert_eq!(found, expected);
        for (labels, kind, bits) in kept {
            let same = |o: &&Told| o.0 == labels && o.1 == kind;
            let own = out.iter().find(same).expect("still there");
            prop_assert!(own.3 || own.2 == bits);
        }
        // Twice is once: what is folded keeps its labels and its mark.
        let again = strip(&stripped, &disk, "again", &request).expect("stripped again");
        prop_assert_eq!(again.file.series, done.file.series);
    }
}

#[test]
fn a_file_without_rules_is_written_byte_for_byte() {
    let disk = MemoryDisk::new();
    let (file, _, _) = both(&disk, 17, 70, 16 * 1024);
    strip(&file, &disk, "copy", &StripRequest::default()).expect("copied");
    assert!(disk.read_all("file").expect("bytes") == disk.read_all("copy").expect("bytes"));
    let request =
        StripRequest { rules: vec![StripRule { digits: 3, ..StripRule::default() }], before: None };
    let rounded = strip(&file, &disk, "rounded", &request).expect("rounded");
    assert_eq!((rounded.file.digits, rounded.file.points), (3, file.report().points));
    let name = StripRequest { rules: vec![rule("env", "v0", &["__name__"])], before: None };
    assert!(strip(&file, &disk, "bad", &name).is_err());
}

#[test]
fn files_joined_to_one_keep_what_is_folded() {
    let disk = MemoryDisk::new();
    let (file, _, _) = both(&disk, 23, 60, 16 * 1024);
    let request = StripRequest { rules: vec![rule("env", "v0", &["host", "id"])], before: None };
    let done = strip(&file, &disk, "stripped", &request).expect("stripped");
    let stripped = WarmFile::open(&disk, "stripped").expect("open");
    let before = told(&stripped);
    let part = Part {
        file: Box::new(stripped),
        owned_ms: vec![(-1, 1 << 40)],
        windows: done.file.windows,
        replaces: false,
    };
    let mut writer = WarmWriter::create(&disk, "joined", &WarmOptions::new("tenant", WINDOW_MS))
        .expect("create");
    join(&[part], &mut |labels, windows, marks| writer.push_marked(labels, windows, marks))
        .expect("joined");
    writer.finish().expect("finish");
    let joined = told(&WarmFile::open(&disk, "joined").expect("open"));
    assert!(before.iter().any(|series| series.3) && before.iter().any(|series| !series.3));
    assert_eq!(joined, before);
}

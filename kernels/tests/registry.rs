//! The registry against an oracle that keeps label sets in maps and tries every matcher on each.

#![allow(clippy::unwrap_used)]

use _kernels::error::KernelError;
use _kernels::labels::canonical::push_label;
use _kernels::model::{FamilyMetadata, SeriesRow, SeriesType};
use _kernels::shard::alive::DAY_MS;
use _kernels::shard::matcher::{MatchOp, Matcher};
use _kernels::shard::registry::{Registry, series_id};
use _kernels::shard::registry_state::Mark;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

fn canonical(labels: &Labels) -> Vec<u8> {
    let mut bytes = Vec::new();
    labels.iter().for_each(|(n, v)| push_label(&mut bytes, n.as_bytes(), v.as_bytes()));
    bytes
}

fn labels_of(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
}

fn register(registry: &mut Registry, tenant: &str, labels: &Labels) -> SeriesRow {
    let tenant = registry.tenant(tenant);
    registry.register(tenant, &canonical(labels), SeriesType::Unknown, 0).unwrap()
}

fn some_labels() -> impl Strategy<Value = Labels> {
    let name = prop::sample::select(vec!["__name__", "a", "b", "job", "zone"]);
    let value = prop::sample::select(vec!["1", "2", "10", "up", "node_cpu", "x-y", "\u{e9}"]);
    prop::collection::btree_map(name.prop_map(String::from), value.prop_map(String::from), 0..5)
}

fn some_matcher() -> impl Strategy<Value = Matcher> {
    let name = prop::sample::select(vec!["__name__", "a", "b", "job", "zone", "never"]);
    let op = prop::sample::select(vec![
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::Regex,
        MatchOp::NotRegex,
    ]);
    let value = prop::sample::select(vec![
        "", "1", "2", "1|2|none", "1.*", ".*1", ".*d.*", ".+", ".*", "[0-9]+", "|1", "u?p?", "x.y",
    ]);
    (name, op, value).prop_map(|(name, op, value)| Matcher::new(name, op, value))
}

/// The definition, by the regex crate's own idea of the pattern.
fn passes(matcher: &Matcher, labels: &Labels) -> bool {
    let value = labels.get(&matcher.name).map_or("", String::as_str);
    let regex = || {
        let pattern = format!("^(?s:{})$", matcher.value);
        regex_automata::meta::Regex::new(&pattern).unwrap().is_match(value)
    };
    match matcher.op {
        MatchOp::Equal => value == matcher.value,
        MatchOp::NotEqual => value != matcher.value,
        MatchOp::Regex => regex(),
        MatchOp::NotRegex => !regex(),
    }
}

fn shown(registry: &Registry, row: SeriesRow) -> Labels {
    registry.labels(row).into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// Everything a reader can ask, as text: two registries that answer alike are alike.
fn answers(registry: &Registry, tenants: &[&str], matchers: &[Matcher]) -> String {
    let mut out = String::new();
    for name in tenants {
        let Some(tenant) = registry.tenant_number(name) else { continue };
        let rows = registry.select(tenant, matchers, None, usize::MAX).unwrap();
        let alive = registry.select(tenant, &[], Some((0, DAY_MS)), usize::MAX).unwrap();
        for &row in &rows {
            let (labels, kind) = (shown(registry, row), registry.series_type(row));
            let found = registry.find(tenant, &canonical(&labels));
            let (key, turn) = (registry.key(row), registry.generation(row));
            out += &format!("{key:?} {labels:?} {kind:?} {turn} {found:?}\n");
        }
        out += &format!("{alive:?} {:?}\n", registry.label_names(tenant, matchers, None));
        out += &format!("{:?}\n", registry.label_values(tenant, "a", matchers, None));
        out += &format!("{:?}\n", registry.label_values(tenant, "job", &[], None));
        out += &format!(
            "{:?} {:?}\n",
            registry.metadata(tenant, None, 100),
            registry.largest(tenant, 3)
        );
        out += &format!("{}\n", registry.series_count(tenant));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn selects_what_the_definition_says(
        sets in prop::collection::vec((some_labels(), 0..2usize, 0i64..3), 0..60),
        matchers in prop::collection::vec(some_matcher(), 0..4),
        by in prop::collection::vec(prop::sample::select(vec!["a", "job", "__name__", "no"]), 0..3),
        without: bool,
    ) {
        let tenants = ["one", "two"];
        let mut registry = Registry::new(7);
        let mut known: Vec<(usize, Labels, BTreeSet<i64>)> = Vec::new();
        for (labels, owner, day) in &sets {
            let row = register(&mut registry, tenants[*owner], labels);
            registry.note_alive(*day as i32, &[row]);
            match known.iter_mut().find(|(o, l, _)| (o, l) == (owner, labels)) {
                Some((_, _, days)) => { days.insert(*day); }
                None => known.push((*owner, labels.clone(), BTreeSet::from([*day]))),
            }
        }
        for (row, (owner, labels, _)) in known.iter().enumerate() {
            prop_assert_eq!(&shown(&registry, row as u32), labels);
            let tenant = registry.tenant_number(tenants[*owner]).unwrap();
            prop_assert_eq!(registry.find(tenant, &canonical(labels)), Some(row as u32));
        }
        for (owner, name) in tenants.iter().enumerate() {
            let tenant = registry.tenant(name);
            for range in [None, Some((0, DAY_MS)), Some((DAY_MS, 3 * DAY_MS)), Some((-9, 0))] {
                let alive = |days: &BTreeSet<i64>| range.is_none_or(|(from, until)| {
                    days.iter().any(|day| day * DAY_MS < until && (day + 1) * DAY_MS > from)
                });
                let expected: BTreeSet<u32> = (0u32..).zip(&known)
                    .filter(|(_, (o, l, days))| {
                        *o == owner && alive(days) && matchers.iter().all(|m| passes(m, l))
                    })
                    .map(|(row, _)| row).collect();
                let rows = registry.select(tenant, &matchers, range, usize::MAX).unwrap();
                prop_assert!(rows.is_sorted_by_key(|&row| registry.key(row)));
                prop_assert_eq!(rows.iter().copied().collect::<BTreeSet<_>>(), expected.clone());
                prop_assert_eq!(rows.len(), expected.len());
                let of = |row: &u32| &known[*row as usize].1;
                let names: BTreeSet<String> = rows.iter().flat_map(|r| of(r).keys().cloned()).collect();
                let found = registry.label_names(tenant, &matchers, range).unwrap();
                prop_assert_eq!(found, names.into_iter().collect::<Vec<_>>());
                let values: BTreeSet<String> =
                    rows.iter().filter_map(|r| of(r).get("a").cloned()).collect();
                let found = registry.label_values(tenant, "a", &matchers, range).unwrap();
                prop_assert_eq!(found, values.into_iter().collect::<Vec<_>>());
                // Tables and groups agree with the table's own grouping, tested in Python.
                let table = registry.label_table(&rows);
                let lists: Vec<Labels> =
                    table.to_list().into_iter().map(|l| l.into_iter().collect()).collect();
                prop_assert_eq!(lists, rows.iter().map(|r| of(r).clone()).collect::<Vec<_>>());
                let by: Vec<String> = by.iter().map(|n| n.to_string()).collect();
                let (groups, labels) = registry.group_rows(&rows, &by, without);
                let (expected, expected_labels) = table.group(&by, without);
                prop_assert_eq!(groups, expected);
                prop_assert_eq!(labels.to_list(), expected_labels.to_list());
            }
        }
    }

    #[test]
    fn deltas_carry_everything(
        steps in prop::collection::vec((some_labels(), 0..2usize, 0..8u8, 0..3i32, any::<bool>()), 0..60),
        matchers in prop::collection::vec(some_matcher(), 0..3),
    ) {
        let tenants = ["one", "two"];
        let (mut writer, mut reader) = (Registry::new(1), Registry::new(2));
        let mut mark = Mark::default();
        for (labels, owner, code, day, seal) in &steps {
            let tenant = writer.tenant(tenants[*owner]);
            let now_ms = i64::from(*day) * DAY_MS;
            let row = writer.register(tenant, &canonical(labels), SeriesType::Unknown, now_ms).unwrap();
            writer.note_alive(*day, &[row]);
            writer.declare_type(row, SeriesType::from_u8(code / 2));
            let help = format!("help {code}");
            let name = labels.get("__name__").cloned().unwrap_or_default();
            let series_type = SeriesType::from_u8(*code);
            writer.note_metadata(tenant, &FamilyMetadata { name, series_type, help, unit: String::new() });
            if *seal {
                reader.apply_delta(&writer.encode_delta(&mark)).unwrap();
                mark = writer.mark();
                prop_assert_eq!(answers(&reader, &tenants, &matchers), answers(&writer, &tenants, &matchers));
            }
        }
        reader.apply_delta(&writer.encode_delta(&mark)).unwrap();
        let expected = answers(&writer, &tenants, &matchers);
        prop_assert_eq!(answers(&reader, &tenants, &matchers), expected.clone());
        prop_assert_eq!(reader.first_row_since(DAY_MS), writer.first_row_since(DAY_MS));
        let mut other = Registry::new(3);
        other.apply_delta(&writer.encode_delta(&Mark::default())).unwrap();
        prop_assert_eq!(answers(&other, &tenants, &matchers), expected);
        // What was read goes on as what was written would.
        let labels = labels_of(&[("__name__", "later_total"), ("a", "1")]);
        let rows = [&mut writer, &mut reader, &mut other].map(|r| register(r, "one", &labels));
        prop_assert_eq!(rows, [rows[0]; 3]);
        prop_assert!(reader.apply_delta(&writer.encode_delta(&Mark::default())).is_err());
    }

    #[test]
    fn damaged_deltas_are_refused_or_harmless(
        sets in prop::collection::vec(some_labels(), 1..20), at: prop::sample::Index, flip in 1..=255u8,
        cut: bool,
    ) {
        let mut writer = Registry::new(1);
        sets.iter().for_each(|labels| { register(&mut writer, "one", labels); });
        let rows: Vec<u32> = (0..writer.row_count() as u32).collect();
        writer.note_alive(3, &rows);
        let mut bytes = writer.encode_delta(&Mark::default());
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        // The state file's checksum stands before this; here it may only not panic.
        let outcome = Registry::new(1).apply_delta(&bytes);
        prop_assert!(!cut || matches!(outcome, Err(KernelError::Corruption(_))));
    }
}

#[test]
fn series_ids_are_golden() {
    // (tenant, labels, id): docs/decisions/0003-series-id.md. Never change a line.
    let golden = include_str!("golden/series_ids.txt");
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split('\t');
        let (id, tenant) = (fields.next().unwrap(), fields.next().unwrap());
        let pairs: Vec<(&str, &str)> = fields.map(|f| f.split_once('=').unwrap()).collect();
        let bytes = canonical(&labels_of(&pairs));
        assert_eq!(format!("{:032x}", series_id(tenant, &bytes)), id, "{line}");
    }
}

#[test]
fn types_declared_beat_metadata_beat_suffix() {
    let mut registry = Registry::new(0);
    let tenant = registry.tenant("t");
    let add = |registry: &mut Registry, name: &str, declared| {
        let bytes = canonical(&labels_of(&[("__name__", name)]));
        registry.register(tenant, &bytes, declared, 0).unwrap()
    };
    let total = add(&mut registry, "x_total", SeriesType::Unknown);
    let plain = add(&mut registry, "heat", SeriesType::Unknown);
    let declared = add(&mut registry, "y_total", SeriesType::Gauge);
    let types = |registry: &Registry| [total, plain, declared].map(|row| registry.series_type(row));
    assert_eq!(types(&registry), [SeriesType::Counter, SeriesType::Unknown, SeriesType::Gauge]);
    let family = |name: &str, series_type| FamilyMetadata {
        name: name.into(),
        series_type,
        help: "h".into(),
        unit: String::new(),
    };
    registry.note_metadata(tenant, &family("x", SeriesType::Counter));
    assert_eq!(registry.generation(total), 0);
    registry.note_metadata(tenant, &family("heat", SeriesType::Gauge));
    assert_eq!((registry.series_type(plain), registry.generation(plain)), (SeriesType::Gauge, 1));
    let later = add(&mut registry, "x_created", SeriesType::Unknown);
    assert_eq!(registry.series_type(later), SeriesType::Counter);
    assert_eq!(registry.metadata(tenant, Some("x"), 10), [family("x", SeriesType::Counter)]);
}

#[test]
fn aliases_keep_tenants_apart() {
    let mut registry = Registry::new(0);
    let (one, two) = (registry.tenant("one"), registry.tenant("two"));
    let row = register(&mut registry, "one", &labels_of(&[("a", "1")]));
    registry.remember_alias(one, 77, row);
    assert_eq!(registry.resolve(one, 77), Some(row));
    assert_eq!(registry.resolve(two, 77), None);
    assert_ne!(register(&mut registry, "two", &labels_of(&[("a", "1")])), row);
}

#[test]
fn a_selection_past_the_limit_is_refused_by_name() {
    let mut registry = Registry::new(0);
    for value in ["1", "2", "3"] {
        register(&mut registry, "t", &labels_of(&[("a", value)]));
    }
    let error = registry.select(0, &[], None, 2).unwrap_err();
    assert!(matches!(
        error,
        KernelError::Client { status: 422, id: "sluiceway-query-series-limit", .. }
    ));
    for bad in [
        &b"\x01a\x011\x01a\x012"[..],
        b"\x01b\x011\x01a\x012",
        b"\x01a\x00",
        b"\x05a",
        b"\x01\xff\x011",
    ] {
        assert!(registry.register(0, bad, SeriesType::Unknown, 0).is_err());
    }
    assert_eq!(registry.row_count(), 3);
}

//! A warm file written anew with labels taken away, values rounded, or both: what a policy may do
//! to data that leaves the raw tier.
//!
//! Invariant: a series that no rule names comes out as it went in, to the bit if nothing is
//! rounded. Memory: the label sets that come out of one metric, a batch of windows, and the
//! postings of the file that is written.

use super::earlier::EarlierFile;
use super::fold::Fold;
use super::format::WarmReport;
use super::reader::WarmFile;
use super::round::round_windows;
use super::writer::{WarmOptions, WarmWriter};
use crate::disk::Disk;
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::downsample::mark::{DIGITS_MAX, Mark, fewer_digits};
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, LabelTableBuilder, METRIC_NAME};
use crate::shard::matcher::Matcher;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Windows that are held at once, about.
const BATCH_WINDOWS_MAX: u64 = 1 << 19;
const BATCH_SERIES_MAX: u64 = 4_096;

/// What happens to the series that pass the matchers: they lose `labels`, or all but `keep` and
/// those in `KEPT`; gauges are rounded to `digits` significant digits, unless they were before.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StripRule {
    pub matchers: Vec<Matcher>,
    pub labels: Vec<String>,
    pub keep: Option<Vec<String>>,
    /// 0: all.
    pub digits: u8,
}

/// Labels without which what differs in meaning would be added up.
const KEPT: [&str; 3] = [METRIC_NAME, "le", "quantile"];

impl StripRule {
    fn takes_labels(&self) -> bool {
        self.keep.is_some() || !self.labels.is_empty()
    }

    fn takes(&self, name: &str) -> bool {
        let kept = self.keep.as_ref().is_some_and(|keep| !keep.iter().any(|one| one == name));
        !KEPT.contains(&name) && (kept || self.labels.iter().any(|one| one == name))
    }
}

/// What is to be done to a file. Of the rules that name a series the first that takes labels says
/// which, and the first that rounds how far.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StripRequest {
    pub rules: Vec<StripRule>,
    /// A warm file of the time right before: folded counters grow from where its own ended.
    pub before: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct StripReport {
    pub file: WarmReport,
    pub series_before: u64,
    /// Raw points of the source; a fold's own count is of its counters' windows, not theirs.
    pub points_before: u64,
    /// Series of which a rule took labels away.
    pub stripped: u64,
}

/// Series that become one.
struct Group {
    kind: Kind,
    /// Numbers, and those that counters had in the file before.
    members: Vec<(u32, Option<u32>)>,
    /// What it is marked by in the end.
    mark: Mark,
    /// Digits that it is to be rounded to now; 0: it stays.
    digits: u8,
}

type Labels = Vec<(String, String)>;

/// Write `source` to a new file at `path` of `disk`.
///
/// Errors: 400 for a rule that takes a label of `KEPT` or keeps too many digits.
pub fn strip(
    source: &WarmFile,
    disk: &dyn Disk,
    path: &str,
    request: &StripRequest,
) -> Result<StripReport> {
    let unsound = |rule: &StripRule| {
        rule.digits > DIGITS_MAX || rule.labels.iter().any(|name| KEPT.contains(&name.as_str()))
    };
    if request.rules.iter().any(unsound) {
        let message = format!("a rule may not take {KEPT:?}, nor keep over {DIGITS_MAX} digits");
        return Err(KernelError::client(400, "sluiceway-strip-rule", message));
    }
    let report = source.report();
    let stripping = Claims::of(source, &request.rules, StripRule::takes_labels)?;
    let rounding = Claims::of(source, &request.rules, |rule| rule.digits > 0)?;
    let mut options = WarmOptions::new(&report.tenant, report.window_ms);
    options.taken = source.taken().to_vec();
    let before = request.before.as_deref().map(|path| EarlierFile::open(disk, path)).transpose()?;
    let mut strip = Strip {
        source,
        before,
        rules: &request.rules,
        stripping,
        rounding,
        writer: WarmWriter::create(disk, path, &options)?,
        series_max: (BATCH_WINDOWS_MAX / (report.windows / report.series.max(1) + 1))
            .clamp(1, BATCH_SERIES_MAX) as u32,
        stripped: 0,
        taken: BTreeSet::new(),
    };
    for (metric, range) in source.dictionary.metric_ranges()? {
        if strip.stripping.all.range_cardinality(range.clone()) == 0 {
            strip.copy(range)?;
        } else {
            strip.rewrite(&metric, range)?;
        }
    }
    let stripped = strip.stripped;
    strip.writer.note_taken(strip.taken);
    let file = strip.writer.finish()?;
    let (series_before, points_before) = (report.series, report.points);
    Ok(StripReport { file, series_before, points_before, stripped })
}

/// Which rule of some kind is a series' own: the first that names it.
struct Claims {
    /// By rule.
    own: Vec<RoaringBitmap>,
    all: RoaringBitmap,
}

impl Claims {
    fn of(
        source: &WarmFile,
        rules: &[StripRule],
        counts: impl Fn(&StripRule) -> bool,
    ) -> Result<Claims> {
        let mut claims = Claims { own: Vec::with_capacity(rules.len()), all: RoaringBitmap::new() };
        for rule in rules {
            let mut own = RoaringBitmap::new();
            if counts(rule) {
                own = source.dictionary.matching(&rule.matchers)? - &claims.all;
            }
            claims.all |= &own;
            claims.own.push(own);
        }
        Ok(claims)
    }

    fn rule<'a>(&self, rules: &'a [StripRule], series: u32) -> Option<&'a StripRule> {
        if !self.all.contains(series) {
            return None;
        }
        self.own.iter().position(|own| own.contains(series)).map(|number| &rules[number])
    }
}

struct Strip<'a> {
    source: &'a WarmFile,
    before: Option<EarlierFile>,
    rules: &'a [StripRule],
    stripping: Claims,
    rounding: Claims,
    writer: WarmWriter,
    /// Series read at once.
    series_max: u32,
    stripped: u64,
    taken: BTreeSet<String>,
}

impl Strip<'_> {
    fn batches(&self, range: Range<u32>) -> impl Iterator<Item = Vec<u32>> + use<> {
        let size = self.series_max;
        let starts = range.clone().step_by(size as usize);
        starts.map(move |start| (start..range.end.min(start.saturating_add(size))).collect())
    }

    /// Digits that a series is to be rounded to; 0: it stays as it is.
    fn digits(&self, series: u32, kind: Kind, mark: Mark) -> u8 {
        if kind != Kind::Gauge || mark.digits > 0 {
            return 0;
        }
        self.rounding.rule(self.rules, series).map_or(0, |rule| rule.digits)
    }

    fn read(&self, series: &[u32], fields: Fields) -> Result<WindowColumns> {
        let mut windows = WindowColumns::default();
        self.source.read(series, i64::MIN..i64::MAX, fields, &mut windows)?;
        Ok(windows)
    }

    /// Series that keep their labels.
    fn copy(&mut self, range: Range<u32>) -> Result<()> {
        for series in self.batches(range) {
            let (labels, mut marks) = (self.source.labels(&series)?, self.source.marks(&series)?);
            let mut windows = self.read(&series, Fields::ALL)?;
            let digits: Vec<u8> = (0..series.len())
                .map(|at| self.digits(series[at], windows.kinds[at], marks[at]))
                .collect();
            round_windows(&mut windows, |at| digits[at]);
            for (mark, &digits) in marks.iter_mut().zip(&digits) {
                mark.digits = fewer_digits(mark.digits, digits);
            }
            self.writer.push_marked(&labels, &windows, &marks)?;
        }
        Ok(())
    }

    /// A metric of which some series lose labels.
    fn rewrite(&mut self, metric: &str, range: Range<u32>) -> Result<()> {
        let before = self.before.take();
        let mut search = before.as_ref().map(|file| file.search(metric));
        let mut groups: HashMap<(Labels, Kind), Group> = HashMap::new();
        for series in self.batches(range) {
            let (labels, marks) = (self.source.labels(&series)?, self.source.marks(&series)?);
            let kinds = self.read(&series, Fields::NONE)?.kinds;
            for (at, &number) in series.iter().enumerate() {
                let (own, is_stripped) = self.left(&labels, at, number, kinds[at]);
                let digits = self.digits(number, kinds[at], marks[at]);
                self.stripped += u64::from(is_stripped);
                let group = groups.entry((own, kinds[at])).or_insert_with(|| Group {
                    kind: kinds[at],
                    members: Vec::new(),
                    mark: Mark::NONE,
                    digits: 0,
                });
                let earlier = match &mut search {
                    Some(search) if is_stripped && kinds[at] == Kind::Counter => {
                        search.counter(&labels, at)?
                    }
                    _ => None,
                };
                group.members.push((number, earlier));
                group.mark.merge(marks[at]);
                group.mark.folded |= is_stripped;
                group.digits = fewer_digits(group.digits, digits);
            }
        }
        let mut groups: Vec<(Labels, Group)> =
            groups.into_iter().map(|((labels, _), group)| (labels, group)).collect();
        groups.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.kind.cmp(&b.1.kind)));
        for (_, group) in &mut groups {
            if group.mark.digits > 0 {
                group.digits = 0; // Rounded once is rounded.
            }
            group.mark.digits = fewer_digits(group.mark.digits, group.digits);
        }
        drop(search);
        self.before = before;
        let mut rest = groups.as_slice();
        while !rest.is_empty() {
            let mut members = 0;
            let size = rest.iter().take_while(|(_, group)| {
                members += group.members.len();
                members <= self.series_max as usize
            });
            let (batch, others) = rest.split_at(size.count().max(1));
            rest = others;
            self.write_groups(batch)?;
        }
        Ok(())
    }

    /// The labels that a series keeps, and whether it lost any.
    fn left(&mut self, labels: &LabelTable, at: usize, number: u32, kind: Kind) -> (Labels, bool) {
        let rule = self.stripping.rule(self.rules, number).filter(|_| kind != Kind::Unknown);
        let mut is_stripped = false;
        let mut own = Labels::new();
        for (name, value) in labels.labels(at) {
            if rule.is_some_and(|rule| rule.takes(name)) {
                is_stripped = true;
                if !self.taken.contains(name) {
                    self.taken.insert(name.to_owned());
                }
            } else {
                own.push((name.to_owned(), value.to_owned()));
            }
        }
        (own, is_stripped)
    }

    fn write_groups(&mut self, groups: &[(Labels, Group)]) -> Result<()> {
        let mut builder = LabelTableBuilder::default();
        let mut out = WindowColumns::default();
        let mut members: Vec<(u32, Option<u32>)> =
            groups.iter().flat_map(|(_, group)| group.members.iter().copied()).collect();
        members.sort_unstable();
        // More than a batch only where one group alone is: it is added up batch by batch.
        let mut folds: Vec<Option<Fold>> = groups
            .iter()
            .map(|(_, group)| group.mark.folded.then(|| Fold::new(group.kind)))
            .collect();
        for batch in members.chunks(self.series_max as usize) {
            let (numbers, earlier_numbers) = numbers_of(batch);
            let windows = self.read(&numbers, Fields::ALL)?;
            let earlier = match &self.before {
                Some(before) => before.read(&earlier_numbers)?,
                None => WindowColumns::default(),
            };
            let earlier_of = |number: Option<u32>| {
                let place = earlier_numbers.binary_search(&number?).ok()?;
                Some((&earlier, place))
            };
            for ((labels, group), fold) in groups.iter().zip(&mut folds) {
                let own = group.members.iter().filter_map(|&(number, before)| {
                    Some((numbers.binary_search(&number).ok()?, before))
                });
                match fold {
                    Some(fold) => own.for_each(|(place, before)| {
                        fold.add(&windows, place, earlier_of(before));
                    }),
                    None => own.for_each(|(place, _)| {
                        out.append(&windows, windows.series(place));
                        out.end_series(group.kind);
                        push_labels(&mut builder, labels);
                    }),
                }
                if members.len() <= batch.len()
                    && let Some(fold) = fold.take()
                {
                    fold.finish(&mut out);
                    push_labels(&mut builder, labels);
                }
            }
        }
        for ((labels, _), fold) in groups.iter().zip(folds) {
            if let Some(fold) = fold {
                fold.finish(&mut out);
                push_labels(&mut builder, labels);
            }
        }
        round_windows(&mut out, |at| groups[at].1.digits);
        let marks: Vec<Mark> = groups.iter().map(|(_, group)| group.mark).collect();
        self.writer.push_marked(&builder.finish(), &out, &marks)
    }
}

/// Numbers of a batch's members, and those that they have in the file before: both ascend.
fn numbers_of(batch: &[(u32, Option<u32>)]) -> (Vec<u32>, Vec<u32>) {
    let earlier = batch.iter().filter_map(|&(_, earlier)| earlier);
    (batch.iter().map(|&(number, _)| number).collect(), earlier.collect())
}

fn push_labels(builder: &mut LabelTableBuilder, labels: &Labels) {
    for (name, value) in labels {
        let (name, value) = (builder.intern(name), builder.intern(value));
        builder.label(name, value);
    }
    builder.end_series();
}

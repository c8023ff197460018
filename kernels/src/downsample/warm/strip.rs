//! A warm file written anew with labels taken away, values rounded, or both: what a policy may do
//! to data that leaves the raw tier.
//!
//! Invariant: a series that no rule names comes out as it went in, to the bit if nothing is
//! rounded. Memory: the label sets that come out of one metric, a batch of windows, and the
//! postings of the file that is written.

use super::fold::Fold;
use super::format::WarmReport;
use super::reader::WarmFile;
use super::round::{DIGITS_MAX, round_windows};
use super::writer::{WarmOptions, WarmWriter};
use crate::disk::Disk;
use crate::downsample::columns::{Fields, Kind, WindowColumns};
use crate::downsample::file::WindowFile;
use crate::error::{KernelError, Result};
use crate::labels::{LabelTable, LabelTableBuilder, METRIC_NAME};
use crate::shard::matcher::Matcher;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;

/// Windows that are held at once, about.
const BATCH_WINDOWS_MAX: u64 = 1 << 19;
const BATCH_SERIES_MAX: u64 = 4_096;

/// Series that pass the matchers lose these labels.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripRule {
    pub matchers: Vec<Matcher>,
    pub labels: Vec<String>,
}

/// What is to be done to a file. Of several rules that name a series the first counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StripRequest {
    pub rules: Vec<StripRule>,
    /// Significant digits of gauges; 0: all.
    pub digits: u8,
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
    members: Vec<u32>,
    folded: bool,
}

type Labels = Vec<(String, String)>;

/// Write `source` to a new file at `path` of `disk`.
///
/// Errors: 400 for a rule that takes the metric's name or too many digits.
pub fn strip(
    source: &WarmFile,
    disk: &dyn Disk,
    path: &str,
    request: &StripRequest,
) -> Result<StripReport> {
    let takes_name = |rule: &StripRule| rule.labels.iter().any(|name| name == METRIC_NAME);
    if request.rules.iter().any(takes_name) || request.digits > DIGITS_MAX {
        let message =
            format!("a rule may not take {METRIC_NAME}, nor keep over {DIGITS_MAX} digits");
        return Err(KernelError::client(400, "sluiceway-strip-rule", message));
    }
    let report = source.report();
    let mut claimed: Vec<RoaringBitmap> = Vec::with_capacity(request.rules.len());
    let mut all = RoaringBitmap::new();
    for rule in &request.rules {
        let own = source.matching(&rule.matchers)? - &all;
        all |= &own;
        claimed.push(own);
    }
    let rounded_before = if report.digits == 0 { DIGITS_MAX + 1 } else { report.digits };
    let rounded = if request.digits == 0 { DIGITS_MAX + 1 } else { request.digits };
    let digits = rounded_before.min(rounded);
    let mut options = WarmOptions::new(&report.tenant, report.window_ms);
    options.digits = if digits > DIGITS_MAX { 0 } else { digits };
    let mut strip = Strip {
        source,
        request,
        claimed,
        writer: WarmWriter::create(disk, path, &options)?,
        series_max: (BATCH_WINDOWS_MAX / (report.windows / report.series.max(1) + 1))
            .clamp(1, BATCH_SERIES_MAX) as u32,
        stripped: 0,
    };
    for range in source.metric_ranges()? {
        if all.range_cardinality(range.clone()) == 0 {
            strip.copy(range)?;
        } else {
            strip.rewrite(range)?;
        }
    }
    let stripped = strip.stripped;
    let file = strip.writer.finish()?;
    let (series_before, points_before) = (report.series, report.points);
    Ok(StripReport { file, series_before, points_before, stripped })
}

struct Strip<'a> {
    source: &'a WarmFile,
    request: &'a StripRequest,
    /// The series of each rule.
    claimed: Vec<RoaringBitmap>,
    writer: WarmWriter,
    /// Series read at once.
    series_max: u32,
    stripped: u64,
}

impl Strip<'_> {
    fn batches(&self, range: Range<u32>) -> impl Iterator<Item = Vec<u32>> + use<> {
        let size = self.series_max;
        let starts = range.clone().step_by(size as usize);
        starts.map(move |start| (start..range.end.min(start.saturating_add(size))).collect())
    }

    fn push(
        &mut self,
        labels: &LabelTable,
        mut windows: WindowColumns,
        folded: &[bool],
    ) -> Result<()> {
        if self.request.digits > 0 {
            round_windows(&mut windows, self.request.digits);
        }
        self.writer.push_folded(labels, &windows, folded)
    }

    fn read(&self, series: &[u32], fields: Fields) -> Result<WindowColumns> {
        let mut windows = WindowColumns::default();
        self.source.read(series, i64::MIN..i64::MAX, fields, &mut windows)?;
        Ok(windows)
    }

    /// Series that no rule names.
    fn copy(&mut self, range: Range<u32>) -> Result<()> {
        for series in self.batches(range) {
            let (labels, folded) = (self.source.labels(&series)?, self.source.folds(&series)?);
            let windows = self.read(&series, Fields::ALL)?;
            self.push(&labels, windows, &folded)?;
        }
        Ok(())
    }

    /// A metric of which some series lose labels.
    fn rewrite(&mut self, range: Range<u32>) -> Result<()> {
        let mut groups: HashMap<(Labels, Kind), Group> = HashMap::new();
        for series in self.batches(range) {
            let (labels, folded) = (self.source.labels(&series)?, self.source.folds(&series)?);
            let kinds = self.read(&series, Fields::NONE)?.kinds;
            for (at, &number) in series.iter().enumerate() {
                let rule = self.claimed.iter().position(|own| own.contains(number));
                let rule = rule.filter(|_| kinds[at] != Kind::Unknown);
                let taken = rule.map_or(&[][..], |rule| &self.request.rules[rule].labels);
                let own =
                    labels.labels(at).map(|(name, value)| (name.to_owned(), value.to_owned()));
                let mut own: Labels = own.collect();
                let before = own.len();
                own.retain(|(name, _)| !taken.contains(name));
                let is_stripped = own.len() < before;
                self.stripped += u64::from(is_stripped);
                let group = groups.entry((own, kinds[at])).or_insert_with(|| Group {
                    kind: kinds[at],
                    members: Vec::new(),
                    folded: false,
                });
                group.members.push(number);
                group.folded |= is_stripped || folded[at];
            }
        }
        let mut groups: Vec<(Labels, Group)> =
            groups.into_iter().map(|((labels, _), group)| (labels, group)).collect();
        groups.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.kind.cmp(&b.1.kind)));
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

    fn write_groups(&mut self, groups: &[(Labels, Group)]) -> Result<()> {
        let mut builder = LabelTableBuilder::default();
        let mut out = WindowColumns::default();
        let mut members: Vec<u32> =
            groups.iter().flat_map(|(_, group)| group.members.iter().copied()).collect();
        members.sort_unstable();
        // More than a batch only where one group alone is: it is added up batch by batch.
        let mut folds: Vec<Option<Fold>> =
            groups.iter().map(|(_, group)| group.folded.then(|| Fold::new(group.kind))).collect();
        for batch in members.chunks(self.series_max as usize) {
            let windows = self.read(batch, Fields::ALL)?;
            for ((labels, group), fold) in groups.iter().zip(&mut folds) {
                let own = group.members.iter().filter_map(|n| batch.binary_search(n).ok());
                match fold {
                    Some(fold) => own.for_each(|place| fold.add(&windows, place)),
                    None => own.for_each(|place| {
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
        let folded: Vec<bool> = groups.iter().map(|(_, group)| group.folded).collect();
        self.push(&builder.finish(), out, &folded)
    }
}

fn push_labels(builder: &mut LabelTableBuilder, labels: &Labels) {
    for (name, value) in labels {
        let (name, value) = (builder.intern(name), builder.intern(value));
        builder.label(name, value);
    }
    builder.end_series();
}

//! What evaluation asks of a shard, and nothing more.
//!
//! Invariant: a `PointSource` is a pinned version. What it reads does not change while it lives,
//! and reads of disjoint ranges may run in parallel. Storage ranges are half-open [from, until) ms.

use crate::error::{KernelError, Result};
use crate::labels::LabelTable;
use crate::model::{FamilyMetadata, PointColumns, SeriesKey};
use crate::shard::coverage::CoverageAnswer;
use crate::shard::matcher::Matcher;
use crate::shard::usage::Usage;
use crate::shard::usage_tags::{self, TagsUsage};
use crate::shard::whatif;
use crate::shard::whatif_report::Report;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How far the shard's answers stand behind what was durable when the query arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Durable records not yet applied; 0 = every earlier acked point is in the answer.
    pub records: u64,
}

/// Cardinality figures of a tenant, each list longest first.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct CardinalityStats {
    pub series_count: u64,
    pub label_name_count: u64,
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    /// (metric name, series).
    pub series_by_metric: Vec<(String, u64)>,
    /// (label name, distinct values).
    pub values_by_label: Vec<(String, u64)>,
    /// (`name=value`, series).
    pub series_by_pair: Vec<(String, u64)>,
}

/// A shard as the evaluator sees it. Every method may take short locks; none may wait for a query.
pub trait ShardAccess: Send + Sync {
    /// Wait until what was durable at the call is applied, at most `wait_max`; say what is missing.
    fn wait_visible(&self, wait_max: Duration) -> Lag;

    /// Series of `tenant` that match and may hold points in [from_ms, until_ms), sorted by key.
    ///
    /// Errors: `sluiceway-query-series-limit` (422) when more than `series_max` match.
    fn select(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
        series_max: usize,
    ) -> Result<Vec<SeriesKey>>;

    /// Label sets of `keys`, in their order.
    fn labels(&self, keys: &[SeriesKey]) -> LabelTable;

    /// Group number of each key, in order of first appearance, and the groups' labels.
    /// `without` groups by all labels but `names` and `__name__`.
    fn group(&self, keys: &[SeriesKey], names: &[String], without: bool) -> (Vec<u32>, LabelTable);

    /// Pin the points of `keys` (sorted) in [from_ms, until_ms).
    fn snapshot(&self, keys: &[SeriesKey], range_ms: Range<i64>) -> Result<Arc<dyn PointSource>>;

    /// Sorted label names of the matching series; all series where `matchers` is empty.
    fn label_names(
        &self,
        tenant: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
    ) -> Result<Vec<String>>;

    /// Sorted values of one label over the matching series.
    fn label_values(
        &self,
        tenant: &str,
        name: &str,
        matchers: &[Matcher],
        range_ms: Range<i64>,
    ) -> Result<Vec<String>>;

    /// Metadata of at most `limit` families, of one metric where `metric` is given.
    fn metadata(&self, tenant: &str, metric: Option<&str>, limit: usize) -> Vec<FamilyMetadata>;

    /// Figures of the `top` largest metrics, labels and pairs.
    fn cardinality(&self, tenant: &str, top: usize) -> CardinalityStats;

    /// What a tenant's active series are made of, as a JSON object, its budgets beside it; more of
    /// one metric where it is named, and what stood in the hour of `since_ms`. `check` is called between slices; its error ends the walk. `{}` where
    /// the shard keeps no hours.
    fn explain(
        &self,
        tenant: &str,
        metric: Option<&str>,
        top: usize,
        since_ms: Option<i64>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<String> {
        let _ = (tenant, metric, top, since_ms, check);
        Ok("{}".to_owned())
    }

    /// Flow and stock of the ledger as a JSON object, for all tenants; `raw_scan` also counts
    /// every row at rest. `{}` where the shard keeps none.
    fn ledger(&self, raw_scan: bool) -> Result<String>;

    /// What each metric of every tenant takes in the blocks.
    fn usage(&self, rows_max: usize, check: &dyn Fn() -> Result<()>) -> Result<Usage> {
        let _ = (rows_max, check);
        Err(KernelError::Backend("no blocks are kept here".to_owned()))
    }

    /// What a tenant's tags take.
    fn usage_tags(
        &self,
        request: &usage_tags::Request,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<TagsUsage> {
        let _ = (request, check);
        Err(KernelError::Backend("no blocks are kept here".to_owned()))
    }

    /// The hours of a tenant that got points after they were rolled up. Asked before the catalog is
    /// looked at, so that no window is taken that lacks one of them.
    fn coverage(&self, tenant: &str) -> CoverageAnswer {
        let _ = tenant;
        CoverageAnswer { dirty_hours: Vec::new(), applied: 0, deletions: Vec::new() }
    }

    /// Bytes that `whatif` holds at most, about.
    fn whatif_bytes(&self) -> usize {
        0
    }

    /// Judge recorded hours by another policy; `check` says when to stop.
    fn whatif(&self, request: &whatif::Request, check: &dyn Fn() -> Result<()>) -> Result<Report> {
        let _ = (request, check);
        Err(KernelError::Backend("no hours are recorded here".to_owned()))
    }
}

/// Points of pinned series.
pub trait PointSource: Send + Sync {
    /// Append the float points of the series `range` (indexes into the snapshot's keys), each
    /// sorted by time without duplicates, calling `out.end_series()` once per series.
    /// Returns the points scanned. Appends: the caller clears `out`.
    fn read(&self, range: Range<usize>, out: &mut PointColumns) -> Result<u64>;

    /// Points that reading all of it is expected to scan, without reading any.
    fn estimate(&self) -> u64;

    /// How many of the series `range` hold native histograms in the snapshot's time range.
    fn histogram_series_count(&self, range: Range<usize>) -> Result<u64> {
        let _ = range;
        Ok(0)
    }
}

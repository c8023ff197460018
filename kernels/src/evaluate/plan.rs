//! What the read side asks: requests as they cross the socket (docs/formats/evaluate.md), checked
//! and turned into the numbers that evaluation works on.

use super::aggregate::Aggregation;
use super::functions::{Call, Extension, Function};
use super::window::Steps;
use crate::error::{KernelError, Result};
use crate::shard::matcher::Matcher;
use crate::shard::{usage_tags, whatif};
use serde::Deserialize;
use std::ops::Range;

/// Times and durations past this are refused, so that no sum of two of them overflows.
const TIME_MAX_MS: i64 = i64::MAX / 8;
/// Steps of one plan.
const STEPS_MAX: i64 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    Evaluate(Plan),
    States(Plan),
    Points(PointsPlan),
    LabelNames(LabelsPlan),
    LabelValues(LabelsPlan),
    Series(LabelsPlan),
    Metadata(MetadataPlan),
    Stats(StatsPlan),
    Cardinality(CardinalityPlan),
    Ledger(LedgerPlan),
    Usage(UsagePlan),
    UsageTags(usage_tags::Request),
    Coverage(CoveragePlan),
    #[serde(rename = "whatif")]
    WhatIf(whatif::Request),
}

#[derive(Debug, Deserialize)]
pub struct Plan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    pub matchers: Vec<Matcher>,
    pub start_ms: i64,
    pub end_ms: i64,
    #[serde(default)]
    pub step_ms: i64,
    #[serde(default)]
    pub offset_ms: i64,
    pub at_ms: Option<i64>,
    pub function: Option<String>,
    pub range_ms: Option<i64>,
    #[serde(default = "default_lookback_ms")]
    pub lookback_ms: i64,
    #[serde(default)]
    pub args: Vec<Argument>,
    pub extension: Option<Extension>,
    pub aggregate: Option<Grouping>,
    /// Of `states`: only what is later.
    pub from_ms: Option<i64>,
    #[serde(default)]
    pub limits: LimitRequest,
}

#[derive(Debug, Deserialize)]
pub struct Grouping {
    pub op: Aggregation,
    pub by: Option<Vec<String>>,
    pub without: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub struct PointsPlan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    pub matchers: Vec<Matcher>,
    pub start_ms: i64,
    pub end_ms: i64,
    #[serde(default)]
    pub keep_stale: bool,
    #[serde(default)]
    pub limits: LimitRequest,
}

#[derive(Debug, Deserialize)]
pub struct LabelsPlan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub matchers: Vec<Matcher>,
    pub start_ms: Option<i64>,
    pub end_ms: Option<i64>,
    #[serde(default)]
    pub limits: LimitRequest,
}

#[derive(Debug, Deserialize)]
pub struct MetadataPlan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    pub metric: Option<String>,
    pub limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub struct StatsPlan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    #[serde(default = "default_top")]
    pub top: usize,
}

#[derive(Debug, Deserialize)]
pub struct CardinalityPlan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
    pub metric: Option<String>,
    #[serde(default = "default_top")]
    pub top: usize,
    pub since_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub struct CoveragePlan {
    #[serde(default = "default_tenant")]
    pub tenant: String,
}

#[derive(Debug, Deserialize)]
pub struct LedgerPlan {
    #[serde(default)]
    pub raw_scan: bool,
}

#[derive(Debug, Deserialize)]
pub struct UsagePlan {
    #[serde(default = "default_usage_rows")]
    pub rows_max: usize,
}

fn default_usage_rows() -> usize {
    1_000
}
fn default_tenant() -> String {
    "default".to_owned()
}
fn default_lookback_ms() -> i64 {
    300_000
}
fn default_top() -> usize {
    10
}

/// A scalar argument: one for all steps or one each. JSON has no NaN, so text is taken as well.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    One(Scalar),
    Many(Vec<Scalar>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Number(f64),
    Text(String),
}

impl Scalar {
    fn value(&self) -> Result<f64> {
        match self {
            Scalar::Number(value) => Ok(*value),
            Scalar::Text(text) => {
                text.parse().map_err(|_| bad_plan(format!("no number: {text:?}")))
            }
        }
    }
}

impl Argument {
    fn values(&self) -> Result<Vec<f64>> {
        match self {
            Argument::One(scalar) => Ok(vec![scalar.value()?]),
            Argument::Many(scalars) => scalars.iter().map(Scalar::value).collect(),
        }
    }
}

/// Limits a request asks for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct LimitRequest {
    pub series_max: Option<usize>,
    pub points_max: Option<u64>,
    pub bytes_max: Option<usize>,
    pub cost_max: Option<u64>,
}

/// Limits a query runs under.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub series_max: usize,
    pub points_max: u64,
    pub bytes_max: usize,
    /// Of the estimate, in points and cells (`cost.rs`).
    pub cost_max: u64,
}

impl Limits {
    /// A request may lower the shard's limits, never raise them.
    pub fn lowered(self, request: &LimitRequest) -> Limits {
        Limits {
            series_max: request.series_max.map_or(self.series_max, |n| n.min(self.series_max)),
            points_max: request.points_max.map_or(self.points_max, |n| n.min(self.points_max)),
            bytes_max: request.bytes_max.map_or(self.bytes_max, |n| n.min(self.bytes_max)),
            cost_max: request.cost_max.map_or(self.cost_max, |n| n.min(self.cost_max)),
        }
    }
}

pub fn bad_plan(message: impl Into<String>) -> KernelError {
    KernelError::client(400, "sluiceway-query-bad-plan", message)
}

/// A checked plan: what to run at which times, and what to read for it.
pub struct Evaluation {
    pub call: Call,
    pub eval_ms: Vec<i64>,
    pub end_ms: Vec<i64>,
    pub range_ms: i64,
    /// Half-open, what storage is asked for.
    pub read_ms: Range<i64>,
}

impl Evaluation {
    pub fn of(plan: &Plan) -> Result<Evaluation> {
        let (at_ms, from_ms) = (plan.at_ms.unwrap_or(0), plan.from_ms.unwrap_or(0));
        let times = [plan.start_ms, plan.end_ms, plan.offset_ms, at_ms, from_ms];
        let lengths = [plan.step_ms, plan.range_ms.unwrap_or(0), plan.lookback_ms];
        if times.iter().any(|t| t.abs() > TIME_MAX_MS)
            || lengths.iter().any(|&d| !(0..=TIME_MAX_MS).contains(&d))
            || plan.end_ms < plan.start_ms
            || (plan.step_ms == 0 && plan.end_ms != plan.start_ms)
        {
            return Err(bad_plan("times out of bounds"));
        }
        let count = (plan.end_ms - plan.start_ms).checked_div(plan.step_ms).unwrap_or(0) + 1;
        if count > STEPS_MAX {
            return Err(bad_plan(format!("{count} steps, at most {STEPS_MAX}")));
        }
        let function = Function::parse(plan.function.as_deref().unwrap_or("last"))?;
        let instant = matches!(function, Function::Last | Function::Timestamp);
        let range_ms = match plan.range_ms {
            Some(range_ms) if !instant => range_ms,
            None if instant => plan.lookback_ms,
            _ => return Err(bad_plan(format!("{} and its range do not fit", function.name()))),
        };
        let arguments = plan.args.iter().map(Argument::values).collect::<Result<Vec<_>>>()?;
        let mut call = Call::new(function, arguments, count as usize)?;
        let extensible = match plan.extension {
            None => true,
            Some(Extension::Anchored) => function.anchors(),
            Some(Extension::Smoothed) => function.smooths(),
        };
        if !extensible {
            return Err(bad_plan(format!("{} has no extended form", function.name())));
        }
        call.extension = plan.extension;
        call.lookback_ms = plan.lookback_ms;
        let eval_ms: Vec<i64> = (0..count).map(|k| plan.start_ms + k * plan.step_ms).collect();
        let end_of = |t: i64| plan.at_ms.unwrap_or(t) - plan.offset_ms;
        let end_ms: Vec<i64> = eval_ms.iter().map(|&t| end_of(t)).collect();
        let (behind, ahead) = match (plan.extension, instant) {
            (None, _) => (0, 0),
            (Some(Extension::Anchored), _) => (plan.lookback_ms, 0),
            (Some(Extension::Smoothed), true) => (0, plan.lookback_ms),
            (Some(Extension::Smoothed), false) => (plan.lookback_ms, plan.lookback_ms),
        };
        let last = end_ms.last().copied().unwrap_or(plan.start_ms);
        let read_ms = end_of(plan.start_ms) - range_ms - behind + 1..last + ahead + 1;
        Ok(Evaluation { call, eval_ms, end_ms, range_ms, read_ms })
    }

    pub fn steps(&self) -> Steps<'_> {
        Steps { eval_ms: &self.eval_ms, end_ms: &self.end_ms, range_ms: self.range_ms }
    }
}

/// The half-open range of two inclusive bounds, each optional.
pub fn inclusive_range(start_ms: Option<i64>, end_ms: Option<i64>) -> Range<i64> {
    start_ms.unwrap_or(i64::MIN)..end_ms.map_or(i64::MAX, |end| end.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Evaluation> {
        let plan: Plan = serde_json::from_str(text).map_err(|error| bad_plan(error.to_string()))?;
        Evaluation::of(&plan)
    }

    #[test]
    fn storage_is_asked_for_half_open_ranges() -> Result<()> {
        let rate = plan(
            r#"{"matchers": [], "start_ms": 0, "end_ms": 150, "step_ms": 60, "range_ms": 100,
                "function": "rate", "offset_ms": 7}"#,
        )?;
        assert_eq!(rate.read_ms, -106..114);
        assert_eq!(rate.end_ms, [-7, 53, 113]);
        let instant = plan(r#"{"matchers": [], "start_ms": 5, "end_ms": 5, "at_ms": 1000000}"#)?;
        assert_eq!(instant.read_ms, 700_001..1_000_001);
        Ok(())
    }

    #[test]
    fn arguments_come_as_numbers_text_and_lists() -> Result<()> {
        let plan = plan(
            r#"{"matchers": [], "start_ms": 0, "end_ms": 1, "step_ms": 1, "range_ms": 9,
                "function": "quantile_over_time", "args": [[0.5, "+Inf"]]}"#,
        )?;
        assert_eq!(plan.call.arguments, [[0.5, f64::INFINITY]]);
        Ok(())
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            r#""start_ms": 9, "end_ms": 8, "step_ms": 1"#,
            r#""start_ms": 0, "end_ms": 9223372036854775807, "step_ms": 1"#,
            r#""start_ms": 0, "end_ms": 10000000, "step_ms": 1"#,
            r#""start_ms": 0, "end_ms": 0, "function": "rate""#,
            r#""start_ms": 0, "end_ms": 0, "function": "rate", "range_ms": -5"#,
            r#""start_ms": 0, "end_ms": 0, "function": "deriv", "range_ms": 5, "args": [1]"#,
            r#""start_ms": 0, "end_ms": 0, "function": "nonsense", "range_ms": 5"#,
        ] {
            assert!(plan(&format!(r#"{{"matchers": [], {bad}}}"#)).is_err(), "{bad}");
        }
    }
}

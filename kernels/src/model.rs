//! The nouns every kernel shares: signal, series type, batch, point columns.

/// Dense number of a series in a shard's registry; persistent, never reused.
pub type SeriesRow = u32;
/// Dense number of a string in a shard's symbol table; persistent, never reused.
pub type Symbol = u32;
/// Dense number of a tenant in a shard; persistent, never reused.
pub type TenantNumber = u32;

/// The stale marker of Prometheus: a NaN with this very payload ends a series' look-back.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Signal {
    Metrics = 1,
    Logs = 2,
}

/// What a series measures. Declared (RW 2.0, OTLP, metadata) beats the suffix, which beats unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SeriesType {
    #[default]
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

impl SeriesType {
    pub fn from_u8(code: u8) -> SeriesType {
        match code {
            1 => SeriesType::Counter,
            2 => SeriesType::Gauge,
            3 => SeriesType::Histogram,
            4 => SeriesType::GaugeHistogram,
            5 => SeriesType::Summary,
            6 => SeriesType::Info,
            7 => SeriesType::StateSet,
            _ => SeriesType::Unknown,
        }
    }
}

impl SeriesType {
    /// Prometheus' word for it.
    pub fn name(self) -> &'static str {
        match self {
            SeriesType::Unknown => "unknown",
            SeriesType::Counter => "counter",
            SeriesType::Gauge => "gauge",
            SeriesType::Histogram => "histogram",
            SeriesType::GaugeHistogram => "gaugehistogram",
            SeriesType::Summary => "summary",
            SeriesType::Info => "info",
            SeriesType::StateSet => "stateset",
        }
    }
}

/// How a request's payload is laid out (its door) ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PayloadFormat {
    RemoteWrite1 = 1,
    RemoteWrite2 = 2,
    OtlpProtobuf = 3,
    OtlpJson = 4,
    /// A partition slice (docs/formats/kafka.md): ours, no door takes it.
    Columns = 5,
}

impl PayloadFormat {
    pub fn from_u8(code: u8) -> Option<PayloadFormat> {
        use PayloadFormat::{Columns, OtlpJson, OtlpProtobuf, RemoteWrite1, RemoteWrite2};
        let all = [RemoteWrite1, RemoteWrite2, OtlpProtobuf, OtlpJson, Columns];
        all.into_iter().find(|format| *format as u8 == code)
    }
}

/// ... and how it is compressed. The journal keeps the client's bytes as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PayloadEncoding {
    Identity = 0,
    Snappy = 1,
    Gzip = 2,
    Zstd = 3,
}

impl PayloadEncoding {
    pub fn from_u8(code: u8) -> Option<PayloadEncoding> {
        use PayloadEncoding::{Gzip, Identity, Snappy, Zstd};
        [Identity, Snappy, Gzip, Zstd].into_iter().find(|e| *e as u8 == code)
    }
}

/// Why the gateway refused a row. The order is part of the record format: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    InvalidLabels = 0,
    DuplicateLabel = 1,
    MissingName = 2,
    TooManyLabels = 3,
    LabelTooLong = 4,
    TooFarInFuture = 5,
    InvalidHistogram = 6,
    UnsupportedTemporality = 7,
    InvalidReference = 8,
    InvalidUtf8 = 9,
    Unsupported = 10,
    TooOld = 11,
}
pub const REJECT_REASON_COUNT: usize = 12;
/// The reasons' names in answers and the ledger, by their number.
pub const REJECT_REASON_NAMES: [&str; REJECT_REASON_COUNT] = [
    "invalid_labels",
    "duplicate_label",
    "missing_name",
    "too_many_labels",
    "label_too_long",
    "too_far_in_future",
    "invalid_histogram",
    "unsupported_temporality",
    "invalid_reference",
    "invalid_utf8",
    "unsupported",
    "too_old",
];

/// One series of a batch: where its labels stand in `Batch::label_bytes` and their hash.
///
/// Labels are canonical there: for each label, sorted by name,
/// `varint(name length) name varint(value length) value`; `__name__` included.
/// While `canonical` is false the range holds the labels as the client sent them (RW 1.0's
/// protobuf `repeated Label` bytes, already validated), to be parsed only when the registry
/// does not know `label_hash`.
#[derive(Clone, Copy, Debug)]
pub struct BatchSeries {
    /// XXH3-128, seeded per process and door, of the bytes as sent. Never persisted.
    pub label_hash: u128,
    pub label_start: u32,
    pub label_end: u32,
    pub canonical: bool,
    /// Declared type, or Unknown.
    pub series_type: SeriesType,
}

/// A native histogram sample: its canonical bytes (docs/formats/histogram.md).
#[derive(Clone, Debug)]
pub struct HistogramPoint {
    pub series_index: u32,
    pub time_ms: i64,
    pub start: u32,
    pub end: u32,
}

/// Help, unit and type of a metric family, as declared by the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMetadata {
    pub name: String,
    pub series_type: SeriesType,
    pub help: String,
    pub unit: String,
}

/// Rows of one tenant and one signal in columns: a decoded request. Good rows only; what was
/// refused is counted. `point_*` are parallel, in the order sent.
#[derive(Default, Debug)]
pub struct Batch {
    /// The decoded body (or labels built from it); `BatchSeries` ranges point into it.
    pub label_bytes: Vec<u8>,
    /// Histograms' canonical bytes.
    pub histogram_bytes: Vec<u8>,
    pub series: Vec<BatchSeries>,
    pub point_series_index: Vec<u32>,
    pub point_time_ms: Vec<i64>,
    pub point_value: Vec<f64>,
    pub histograms: Vec<HistogramPoint>,
    pub metadata: Vec<FamilyMetadata>,
    /// Samples and histograms in the request, good and bad.
    pub points_received: u32,
    pub points_rejected: [u32; REJECT_REASON_COUNT],
    pub exemplars_received: u32,
    /// The first refusal in words, for the answer.
    pub first_error: Option<String>,
}

impl Batch {
    pub fn points_good(&self) -> usize {
        self.point_value.len() + self.histograms.len()
    }
    pub fn memory_bytes(&self) -> usize {
        self.label_bytes.len()
            + self.histogram_bytes.len()
            + self.series.len() * size_of::<BatchSeries>()
            + self.point_value.len() * 20
            + self.histograms.len() * size_of::<HistogramPoint>()
            + 256
    }
}

/// Order of series in seals and blocks: (tenant, metric, row). `metric` is the symbol of `__name__`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    pub tenant: TenantNumber,
    pub metric: Symbol,
    pub row: SeriesRow,
}

/// Float points of several series, series after series, each sorted by time without duplicates.
/// Series `i` owns `times[offsets[i]..offsets[i+1]]`.
#[derive(Default, Debug, Clone)]
pub struct PointColumns {
    pub offsets: Vec<usize>,
    pub times_ms: Vec<i64>,
    pub values: Vec<f64>,
}

impl PointColumns {
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.offsets.push(0);
        self.times_ms.clear();
        self.values.clear();
    }
    pub fn series_count(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }
    pub fn series(&self, i: usize) -> (&[i64], &[f64]) {
        let (a, b) = (self.offsets[i], self.offsets[i + 1]);
        (&self.times_ms[a..b], &self.values[a..b])
    }
    /// Close the series being appended.
    pub fn end_series(&mut self) {
        self.offsets.push(self.times_ms.len());
    }
}

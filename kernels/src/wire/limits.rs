//! Every cap of the decoders, in one table. A limit that refuses a request (413) or a row
//! (`RejectReason`) is named in the answer.

/// Decompressed size of a request.
pub const DECODED_BYTES_MAX: usize = 32 << 20;
/// Decompressed over compressed size: label text compresses 20-fold, bombs a thousandfold.
pub const EXPANSION_RATIO_MAX: usize = 100;
/// A body that is decoded at once, on the thread that read it: 1.5 ms for new series of remote
/// write 1.0, whose labels are kept as they came; the other formats build theirs.
pub const QUICK_REMOTE_WRITE_1_BYTES_MAX: usize = 512 << 10;
pub const QUICK_BYTES_MAX: usize = 128 << 10;
/// Below this decompressed size the ratio says nothing.
pub const EXPANSION_FREE_BYTES: usize = 64 << 10;
/// zstd's window: what the decompressor must hold besides the output (2^23 = 8 MiB).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Samples and histograms of one request: bounds the columns, which an empty sample (2 bytes on
/// the wire, 20 in memory) would else blow up tenfold.
pub const POINTS_MAX: usize = 500_000;
/// Canonical labels built for one request: a reference to a symbol has 1 byte on the wire, the
/// label it stands for up to 5,120.
pub const LABEL_BYTES_MAX: usize = 32 << 20;
/// Symbols of a remote write 2.0 request.
pub const SYMBOLS_MAX: usize = 1 << 20;
/// Metadata entries of one request.
pub const METADATA_MAX: usize = 50_000;
/// Bytes of help text kept; longer help is cut, not refused.
pub const HELP_BYTES_MAX: usize = 1024;

/// Labels of one series, `__name__` included.
pub const LABELS_MAX: usize = 64;
pub const LABEL_NAME_BYTES_MAX: usize = 1024;
pub const LABEL_VALUE_BYTES_MAX: usize = 4096;
/// Labels that only the server sets.
pub const RESERVED_LABELS: [&[u8]; 2] = [b"__tenant__", b"__cost__"];

/// A sample may be this far ahead of the time its request was received: clocks differ.
pub const FUTURE_MAX_MS: i64 = 10 * 60 * 1000;
/// No sample is earlier: 100 million days before 1970, so that time arithmetic cannot overflow.
pub const TIME_MIN_MS: i64 = -8_640_000_000_000_000;

/// Buckets of one native histogram, each sign.
pub const HISTOGRAM_BUCKETS_MAX: usize = 16_384;

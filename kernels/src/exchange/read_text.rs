//! OpenMetrics text with times -> remote write bodies: a flat walk over whole lines.
//!
//! Invariant: a line is understood or named in the error; nothing is skipped but comments, exemplars
//! and what stands behind `# EOF`. Consecutive lines of one series become one series of a body.

use super::bodies::{Bodies, Body, BodyLimits};
use crate::error::{KernelError, Result};
use crate::model::SeriesType;

/// Prometheus' NaN that is not a stale marker.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0001;
/// Bytes of a line that an error shows.
const SHOWN_BYTES: usize = 200;

/// What a text came to.
#[derive(Debug, Default)]
pub struct TextRead {
    pub bodies: Vec<Body>,
    pub points: u64,
    pub lines: u64,
    /// `# EOF` was read: what is behind it is not looked at.
    pub ended: bool,
}

/// Read whole lines; the first of them has number `first_line`.
///
/// Errors: Client 400 `sluiceway-openmetrics-line`, which names the line.
pub fn read_text(text: &[u8], first_line: u64, limits: BodyLimits) -> Result<TextRead> {
    let mut read = TextRead::default();
    let mut bodies = Bodies::new(limits);
    let mut open: &[u8] = &[];
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        read.lines += 1;
        if line.is_empty() {
            continue;
        }
        let said = |what: &str| bad_line(first_line + read.lines - 1, line, what);
        if line[0] == b'#' {
            if line == b"# EOF" {
                read.ended = true;
                break;
            }
            comment(line, &mut bodies).map_err(said)?;
            open = &[];
            continue;
        }
        let end = series_end(line).map_err(said)?;
        if &line[..end] != open {
            begin(&line[..end], &mut bodies).map_err(said)?;
            open = &line[..end];
        }
        let (time_ms, value) = sample(&line[end..]).map_err(said)?;
        bodies.sample(time_ms, value);
        read.points += 1;
    }
    read.bodies = bodies.finish();
    Ok(read)
}

type Said<T> = std::result::Result<T, &'static str>;

#[cold]
fn bad_line(number: u64, line: &[u8], what: &str) -> KernelError {
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES)]);
    let message = format!("line {number}: {what}: {shown}");
    KernelError::client(400, "sluiceway-openmetrics-line", message)
}

/// `# TYPE`, `# HELP` and `# UNIT`; any other comment says nothing.
fn comment(line: &[u8], bodies: &mut Bodies) -> Said<()> {
    let Ok(text) = std::str::from_utf8(line) else { return Err("not UTF-8") };
    let mut words = text.splitn(4, ' ');
    let (Some("#"), Some(keyword)) = (words.next(), words.next()) else { return Ok(()) };
    if !matches!(keyword, "TYPE" | "HELP" | "UNIT") {
        return Ok(());
    }
    let family = words.next().unwrap_or_default();
    let family = family.strip_prefix('"').and_then(|f| f.strip_suffix('"')).unwrap_or(family);
    let rest = words.next().unwrap_or_default();
    if family.is_empty() {
        return Err("no metric family");
    }
    match keyword {
        "TYPE" => bodies.metadata(family, type_of(rest)?, "", ""),
        "HELP" => bodies.metadata(family, SeriesType::Unknown, &plain(rest.as_bytes())?, ""),
        _ => bodies.metadata(family, SeriesType::Unknown, "", rest),
    }
    Ok(())
}

fn type_of(word: &str) -> Said<SeriesType> {
    Ok(match word.trim() {
        "counter" => SeriesType::Counter,
        "gauge" => SeriesType::Gauge,
        "histogram" => SeriesType::Histogram,
        "gaugehistogram" => SeriesType::GaugeHistogram,
        "summary" => SeriesType::Summary,
        "info" => SeriesType::Info,
        "stateset" => SeriesType::StateSet,
        "unknown" | "untyped" => SeriesType::Unknown,
        _ => return Err("no such type"),
    })
}

/// Where the name and the labels end.
fn series_end(line: &[u8]) -> Said<usize> {
    let brace = line.iter().position(|&byte| matches!(byte, b'{' | b' ' | b'\t'));
    let start = brace.ok_or("no value")?;
    if line[start] != b'{' {
        return Ok(start);
    }
    let mut at = start + 1;
    let mut quoted = false;
    while at < line.len() {
        match line[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(at + 1),
            _ => {}
        }
        at += 1;
    }
    Err("labels without an end")
}

/// Begin the series of `name{labels}`.
fn begin(series: &[u8], bodies: &mut Bodies) -> Said<()> {
    let brace = series.iter().position(|&byte| byte == b'{').unwrap_or(series.len());
    let mut name = text_of(&series[..brace])?.trim().to_owned();
    let mut pairs: Vec<(String, String)> = Vec::new();
    if brace < series.len() {
        let mut rest = &series[brace + 1..series.len() - 1];
        while let Some(first) = trimmed(rest) {
            let (key, behind) = if first[0] == b'"' {
                quoted(first)?
            } else {
                let end = first.iter().position(|&byte| byte == b'=').ok_or("a label without =")?;
                (text_of(&first[..end])?.trim_end().to_owned(), &first[end..])
            };
            let behind = trimmed(behind).unwrap_or(&[]);
            if behind.first() == Some(&b'=') {
                let value = trimmed(&behind[1..]).ok_or("a label without a value")?;
                let (value, behind) = quoted(value)?;
                pairs.push((key, value));
                rest = after_comma(behind)?;
            } else if name.is_empty() {
                // A name in quotes stands among the labels.
                name = key;
                rest = after_comma(behind)?;
            } else {
                return Err("a label without =");
            }
        }
    }
    if name.is_empty() {
        return Err("no metric name");
    }
    pairs.push(("__name__".to_owned(), name));
    pairs.sort();
    if pairs.windows(2).any(|two| two[0].0 == two[1].0) {
        return Err("a label given twice");
    }
    bodies.begin();
    pairs.iter().for_each(|(name, value)| bodies.label(name, value));
    Ok(())
}

fn text_of(bytes: &[u8]) -> Said<&str> {
    std::str::from_utf8(bytes).map_err(|_| "not UTF-8")
}

fn trimmed(bytes: &[u8]) -> Option<&[u8]> {
    let start = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    Some(&bytes[start..])
}

fn after_comma(bytes: &[u8]) -> Said<&[u8]> {
    match trimmed(bytes) {
        None => Ok(&[]),
        Some(rest) if rest[0] == b',' => Ok(&rest[1..]),
        Some(_) => Err("labels without a comma between them"),
    }
}

/// The text in quotes at the start, and what is behind it.
fn quoted(bytes: &[u8]) -> Said<(String, &[u8])> {
    if bytes.first() != Some(&b'"') {
        return Err("no quotes");
    }
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    if at >= bytes.len() {
        return Err("quotes without an end");
    }
    Ok((plain(&bytes[1..at])?, &bytes[at + 1..]))
}

/// Text without its escapes.
fn plain(bytes: &[u8]) -> Said<String> {
    if !bytes.contains(&b'\\') {
        return Ok(text_of(bytes)?.to_owned());
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (byte, next) = (bytes[at], bytes.get(at + 1));
        match (byte, next) {
            (b'\\', Some(b'n')) => out.push(b'\n'),
            (b'\\', Some(&escaped @ (b'"' | b'\\'))) => out.push(escaped),
            (b'\\', _) => {
                out.push(byte);
                at += 1;
                continue;
            }
            _ => {
                out.push(byte);
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    String::from_utf8(out).map_err(|_| "not UTF-8")
}

/// Value and time behind the series; an exemplar behind them is left out.
fn sample(rest: &[u8]) -> Said<(i64, f64)> {
    let text = text_of(rest)?;
    let text = text.split_once(" #").map_or(text, |(sample, _)| sample);
    let mut words = text.split_ascii_whitespace();
    let value = number(words.next().ok_or("no value")?)?;
    let seconds = words.next().ok_or("a sample without a time")?;
    if words.next().is_some() {
        return Err("more than a value and a time");
    }
    Ok((time_ms(seconds)?, value))
}

fn number(word: &str) -> Said<f64> {
    let value: f64 = word.parse().map_err(|_| "not a number")?;
    Ok(if value.is_nan() { f64::from_bits(NAN_BITS) } else { value })
}

/// Milliseconds of seconds.
fn time_ms(word: &str) -> Said<i64> {
    if let Ok(seconds) = word.parse::<i64>() {
        return seconds.checked_mul(1_000).ok_or("a time out of range");
    }
    let seconds: f64 = word.parse().map_err(|_| "not a time")?;
    let ms = (seconds * 1_000.0).round();
    if ms.abs() < 9e15 { Ok(ms as i64) } else { Err("a time out of range") }
}

#[cfg(test)]
mod tests {
    use super::super::bodies::Series;
    use super::super::write_text::write_text;
    use super::*;
    use crate::labels::LabelTable;
    use crate::model::{PayloadEncoding, PayloadFormat};
    use crate::wire::{Decoder, canonical_labels, decode};
    use proptest::prelude::*;

    const LIMITS: BodyLimits = BodyLimits { points_max: 1 << 20, bytes_max: 1 << 20 };

    type Told = Vec<(Vec<(String, String)>, i64, u64)>;

    fn told(bodies: &[Body]) -> Told {
        let decoder = Decoder::new(1);
        let mut found = Vec::new();
        for body in bodies {
            let (format, plain) = (PayloadFormat::RemoteWrite1, PayloadEncoding::Identity);
            let Ok(batch) = decode(&body.bytes, format, plain, 1 << 50, &decoder) else {
                panic!("a body that decodes");
            };
            assert_eq!(batch.points_good(), body.points as usize);
            for (at, &series) in batch.point_series_index.iter().enumerate() {
                let own = batch.series[series as usize];
                let raw = &batch.label_bytes[own.label_start as usize..own.label_end as usize];
                let mut canonical = Vec::new();
                assert!(canonical_labels(raw, &mut canonical).is_ok());
                let pairs = crate::labels::canonical::labels(&canonical)
                    .filter_map(Result::ok)
                    .map(|(name, value, _)| {
                        let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                        (own(name), own(value))
                    })
                    .collect();
                found.push((pairs, batch.point_time_ms[at], batch.point_value[at].to_bits()));
            }
        }
        found
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn lines_as_prometheus_writes_them() {
        let text = b"# HELP a it counts\n# TYPE a counter\n# a comment\n\
            a_total{x=\"1\",y=\"q\\\"\\\\\\n}\"} 3 1600000000.25\n\
            a_total{x=\"1\",y=\"q\\\"\\\\\\n}\"} 4.5e3 1600000001 # {t=\"z\"} 1 2\r\n\
            {\"my.name\", \"a b\"=\"c\"} NaN -1.5\n\nup -Inf 7\n# EOF\nnonsense";
        let read = read_text(text, 1, LIMITS).unwrap_or_default();
        assert!(read.ended);
        assert_eq!((read.points, read.lines), (4, 9));
        let awkward = pairs(&[("__name__", "a_total"), ("x", "1"), ("y", "q\"\\\n}")]);
        let expected: Told = vec![
            (awkward.clone(), 1_600_000_000_250, 3f64.to_bits()),
            (awkward, 1_600_000_001_000, 4_500f64.to_bits()),
            (pairs(&[("__name__", "my.name"), ("a b", "c")]), -1_500, NAN_BITS),
            (pairs(&[("__name__", "up")]), 7_000, f64::NEG_INFINITY.to_bits()),
        ];
        assert_eq!(told(&read.bodies), expected);
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, word) in [
            ("a 1 2\nb 1\n", "without a time"),
            ("a 1 2\nb{x=1} 1 2\n", "no quotes"),
            ("a 1 2\nb{x=\"1\" 1 2\n", "without an end"),
            ("a 1 2\nb{x=\"1\",x=\"2\"} 1 2\n", "twice"),
            ("a 1 2\nb one 2\n", "not a number"),
            ("a 1 2\nb 1 2 3\n", "more than"),
            ("a 1 2\nb 1 1e300\n", "out of range"),
            ("a 1 2\n# TYPE b bucket\n", "no such type"),
        ] {
            let Err(KernelError::Client { status: 400, message, .. }) =
                read_text(text.as_bytes(), 10, LIMITS)
            else {
                panic!("taken: {text}");
            };
            assert!(message.contains("line 11") && message.contains(word), "{message}");
        }
    }

    proptest! {
        /// What is written reads back: labels, times, and values to the bit.
        #[test]
        fn written_text_reads_back(
            series in prop::collection::vec(
                (prop::collection::btree_map("[a-c\"\\\\{},= é.]{1,3}", "[a-c\"\\\\\n{},= é#]{1,4}", 0..3),
                 "[a-c:.é]{1,3}",
                 prop::collection::vec((-4_000_000_000_000i64..4_000_000_000_000, any::<f64>()), 0..4)),
                0..5),
        ) {
            let mut lists = Vec::new();
            let (mut offsets, mut times_ms, mut values) = (vec![0i64], Vec::new(), Vec::new());
            let mut expected: Told = Vec::new();
            for (labels, name, points) in series {
                let mut own: Vec<(String, String)> = labels.into_iter().collect();
                own.push(("__name__".to_owned(), name));
                own.sort();
                for (time_ms, value) in points {
                    let value = if value.is_nan() { f64::from_bits(NAN_BITS) } else { value };
                    times_ms.push(time_ms);
                    values.push(value);
                    expected.push((own.clone(), time_ms, value.to_bits()));
                }
                offsets.push(values.len() as i64);
                lists.push(own);
            }
            let labels = LabelTable::from_lists(&lists);
            let points = Series { labels: &labels, offsets: &offsets, times_ms: &times_ms, values: &values };
            let (text, lines) = write_text(&points).unwrap_or_default();
            prop_assert_eq!(lines as usize, expected.len());
            let read = read_text(&text, 1, LIMITS);
            prop_assert!(read.is_ok(), "{:?} of {}", read, String::from_utf8_lossy(&text));
            prop_assert_eq!(told(&read.unwrap_or_default().bodies), expected);
        }
    }
}

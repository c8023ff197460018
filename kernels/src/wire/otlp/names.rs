//! OTLP names to Prometheus names: strategy UnderscoreEscapingWithSuffixes of Prometheus'
//! otlptranslator, the default of its own OTLP door. Pure functions of text.

use std::borrow::Cow;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// A sum that may fall.
    Sum,
    /// A monotonic sum.
    Counter,
    Histogram,
    ExponentialHistogram,
    Summary,
}

const UNITS: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// Words of a unit: (main, per), each empty where the unit says nothing, cleaned for a name.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |text: &str, table: &[(&str, &str)]| {
        let text = text.trim();
        if text.contains(['{', '}']) {
            return String::new();
        }
        let known = table.iter().find(|(short, _)| *short == text);
        tokens(known.map_or(text, |(_, long)| long)).collect::<Vec<_>>().join("_")
    };
    (word(main, &UNITS), word(per, &PER_UNITS))
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).filter(|part| !part.is_empty())
}

/// The unit as metadata shows it: `seconds`, `bytes_per_second`.
pub fn unit_name(unit: &str) -> String {
    match unit_words(unit) {
        (main, per) if per.is_empty() => main,
        (main, per) if main.is_empty() => format!("per_{per}"),
        (main, per) => format!("{main}_per_{per}"),
    }
}

/// The Prometheus name of a metric, empty where nothing of it can be kept.
pub fn metric_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut parts: Vec<&str> = tokens(name).collect();
    let (main, per) = unit_words(unit);
    let (add_main, add_per) = (!parts.contains(&&*main), !parts.contains(&&*per));
    if add_main && !main.is_empty() {
        parts.push(&main);
    }
    if add_per && !per.is_empty() {
        parts.extend(["per", &per]);
    }
    let suffix = match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(suffix) = suffix {
        parts.retain(|part| *part != suffix);
        parts.push(suffix);
    }
    let joined = parts.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

/// The Prometheus name of an attribute; runs of underscores are kept.
pub fn label_name(key: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let first = key.chars().next().unwrap_or('_');
    if key.chars().all(plain) && !first.is_ascii_digit() && first != '_' {
        return Cow::Borrowed(key);
    }
    let clean: String = key.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if first.is_ascii_digit() {
        return Cow::Owned(format!("key_{clean}"));
    }
    if clean.starts_with('_') && !clean.starts_with("__") {
        return Cow::Owned(format!("key{clean}"));
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_otlptranslator() {
        for (name, unit, kind, want) in [
            ("system.io", "By", Kind::Counter, "system_io_bytes_total"),
            ("system.io.total", "By", Kind::Counter, "system_io_bytes_total"),
            ("http.server.duration", "ms", Kind::Histogram, "http_server_duration_milliseconds"),
            ("duration.seconds", "s", Kind::Gauge, "duration_seconds"),
            ("fan.speed", "{rpm}/s", Kind::Gauge, "fan_speed_per_second"),
            ("disk.io", "By/s", Kind::Gauge, "disk_io_bytes_per_second"),
            ("cpu.utilization", "1", Kind::Gauge, "cpu_utilization_ratio"),
            ("requests", "1", Kind::Counter, "requests_total"),
            ("queue", "1", Kind::Sum, "queue"),
            ("2xx..codes", "", Kind::Sum, "_2xx_codes"),
            ("temp", "°C", Kind::Gauge, "temp_C"),
            ("ok:rule", "%", Kind::Gauge, "ok:rule_percent"),
            ("\u{e9}", "", Kind::Gauge, ""),
        ] {
            assert_eq!(metric_name(name, unit, kind), want);
        }
        for (key, want) in [
            ("http.method", "http_method"),
            ("a..b", "a__b"),
            ("1st", "key_1st"),
            ("_x", "key_x"),
            ("__x__", "__x__"),
            (".x", "key_x"),
            ("\u{e9}t\u{e9}", "key_t_"),
        ] {
            assert_eq!(label_name(key), want);
        }
        assert_eq!(unit_name("By/s"), "bytes_per_second");
    }
}

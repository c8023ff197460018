//! Where a cold object lies: `tenant=T/metric=M/year=YYYY/month=MM/UNIT-NUMBER.parquet`.
//!
//! Names of tenants and metrics are encoded so that every store and every engine takes them; what
//! they really are stands in the object's columns. No encoded name begins with `~`.

use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_128;

/// The `metric=` of objects that pool the metrics too small for one of their own.
pub const POOL: &str = "~small";
/// The `metric=` of series without a name.
const NONE: &str = "~none";
/// A longer encoded name is cut and ends in its hash: file systems stop at 255 bytes a part.
const NAME_BYTES_MAX: usize = 200;
/// What is left of a cut name before its hash.
const CUT_BYTES: usize = 150;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// A name as a part of a path: what is not a letter, digit, `_`, `-` or `.` becomes `%XX`.
pub fn path_name(name: &str) -> String {
    if name.is_empty() {
        return NONE.to_owned();
    }
    let mut encoded = String::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if encoded.len() > NAME_BYTES_MAX {
            break;
        }
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        // A name that begins with a dot is hidden from engines that list a directory.
        if plain && !(byte == b'.' && encoded.is_empty()) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    if encoded.len() > NAME_BYTES_MAX {
        encoded.truncate(CUT_BYTES);
        // Not inside of a `%XX`.
        if let Some(at) = encoded[CUT_BYTES - 2..].find('%') {
            encoded.truncate(CUT_BYTES - 2 + at);
        }
        let _ = write!(encoded, "~{:032x}", xxh3_128(name.as_bytes()));
    }
    encoded
}

/// The path of an object below the cold directory. `metric` None is the pool; `part` counts the
/// objects that a pool was split into.
pub fn object_path(
    tenant: &str,
    metric: Option<&str>,
    (from_ms, until_ms): (i64, i64),
    number: u64,
    part: usize,
) -> String {
    let (year, month, _) = civil(from_ms.div_euclid(DAY_MS));
    let metric = metric.map_or_else(|| POOL.to_owned(), path_name);
    let unit = unit_name(from_ms, until_ms);
    let part = if part == 0 { String::new() } else { format!("-{part}") };
    let tenant = path_name(tenant);
    format!(
        "tenant={tenant}/metric={metric}/year={year:04}/month={month:02}/{unit}-{number:012}{part}.parquet"
    )
}

/// `2026-11-22T05-08` for hours, `2026-11-22` for a whole day, `2026-11` for more.
fn unit_name(from_ms: i64, until_ms: i64) -> String {
    let (day, hour) = (from_ms.div_euclid(DAY_MS), from_ms.rem_euclid(DAY_MS) / HOUR_MS);
    let (year, month, date) = civil(day);
    let length_ms = until_ms - from_ms;
    if length_ms > DAY_MS {
        return format!("{year:04}-{month:02}");
    }
    if length_ms == DAY_MS && hour == 0 {
        return format!("{year:04}-{month:02}-{date:02}");
    }
    let hours = (length_ms + HOUR_MS - 1) / HOUR_MS;
    format!("{year:04}-{month:02}-{date:02}T{hour:02}-{:02}", hour + hours)
}

/// Year, month and day of a day since 1970 (Gregorian, UTC), by Hinnant's algorithm.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_paths_cannot_bear_are_encoded() {
        assert_eq!(path_name("http_requests_total"), "http_requests_total");
        assert_eq!(path_name("job:rate5m"), "job%3Arate5m");
        assert_eq!(path_name("a/../b=c"), "a%2F..%2Fb%3Dc");
        assert_eq!(path_name("~small"), "%7Esmall");
        assert_eq!((path_name(""), path_name(".a.")), ("~none".to_owned(), "%2Ea.".to_owned()));
        assert_eq!(path_name("größe"), "gr%C3%B6%C3%9Fe");
        let long = [path_name(&"x".repeat(300)), path_name(&"x".repeat(301))];
        assert!(long[0] != long[1] && long.iter().all(|name| name.len() == CUT_BYTES + 33));
        let umlauts = path_name(&format!("x{}", "ö".repeat(200)));
        let whole = umlauts.contains("%C3~") || umlauts.contains("%B6~");
        assert!(whole && umlauts.len() <= CUT_BYTES + 33, "{umlauts}");
    }

    #[test]
    fn dates_are_the_calendars() {
        let days = [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_779, (2026, 11, 22))];
        for (day, date) in days.into_iter().chain([(-1, (1969, 12, 31)), (47_540, (2100, 2, 28))]) {
            assert_eq!(civil(day), date);
        }
    }

    #[test]
    fn paths_say_what_they_cover() {
        let day_ms = 20_779 * DAY_MS;
        let path = |metric, until_ms, part| object_path("a b", metric, (day_ms, until_ms), 7, part);
        assert_eq!(
            path(Some("up"), day_ms + DAY_MS, 0),
            "tenant=a%20b/metric=up/year=2026/month=11/2026-11-22-000000000007.parquet"
        );
        let pool = path(None, day_ms + 3 * HOUR_MS, 2);
        assert!(
            pool.ends_with(
                "metric=~small/year=2026/month=11/2026-11-22T00-03-000000000007-2.parquet"
            )
        );
        assert!(path(None, day_ms + 30 * DAY_MS, 0).ends_with("/2026-11-000000000007.parquet"));
    }
}

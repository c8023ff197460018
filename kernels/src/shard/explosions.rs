//! Explosions: metrics that make new series past a soft limit, which record began it, and which tag.
//!
//! They explain and judge nothing: a verdict never looks here. Invariant: bounded, whatever comes:
//! `EXPLOSIONS_MAX` in all and `TENANT_MAX` of a tenant, `TAGS_MAX` tags each, a sketch of 1 KiB a tag; so at
//! most 3.2 MiB. Series that were refused count as well as those that were let in: they left no trace
//! elsewhere.

use crate::labels::{METRIC_NAME, canonical};
use crate::sketch::HyperLogLog;
use serde::Serialize;
use std::collections::VecDeque;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const EXPLOSIONS_MAX: usize = 128;
const TENANT_MAX: usize = 16;
const TAGS_MAX: usize = 24;
/// Tags that are told of one explosion.
const TAGS_TOLD: usize = 5;
/// Standard error 3.3 %.
const PRECISION: u8 = 10;
/// Series whose labels are looked at; further ones are only counted.
const SKETCHED_MAX: u64 = 1 << 17;
/// One that made nothing for so long is over; what comes then is another one.
const OVER_MS: i64 = 3_600_000;
/// Bytes of what a writer says of itself.
const WRITER_BYTES_MAX: usize = 1_024;

/// Where a new series past a limit stands.
pub struct Past<'a> {
    pub tenant: &'a str,
    pub budget: &'a str,
    /// Canonical.
    pub labels: &'a [u8],
    pub refused: bool,
}

struct Explosion {
    number: u64,
    key: u64,
    tenant: String,
    budget: String,
    metric: String,
    first_sequence: u64,
    first_ms: i64,
    last_ms: i64,
    /// Series past the limit; one that is sent again after it was refused counts again.
    noted: u64,
    /// Those whose labels were looked at.
    examined: u64,
    refused: u64,
    series: HyperLogLog,
    tags: Vec<(Box<[u8]>, HyperLogLog)>,
    tags_left_off: bool,
    writer: Option<String>,
}

/// One explosion, for people.
#[derive(Serialize)]
pub struct Told {
    pub number: u64,
    pub tenant: String,
    pub budget: String,
    pub metric: String,
    pub first_sequence: u64,
    pub first_ms: i64,
    pub last_ms: i64,
    pub noted: u64,
    pub refused: u64,
    /// Distinct ones, estimated.
    pub series: u64,
    /// (tag, distinct values, estimated), most first.
    pub tags: Vec<(String, u64)>,
    /// What the gateway knows of who sent the first record, as JSON.
    pub writer: Option<serde_json::Value>,
}

#[derive(Default)]
pub struct Explosions {
    list: VecDeque<Explosion>,
    next_number: u64,
    /// Explosions that found no room: their tenant has enough others.
    pub left_off: u64,
    /// The record that is being applied.
    sequence: u64,
    received_ms: i64,
    /// The last record whose tenant found no room.
    denied: Option<u64>,
}

impl Explosions {
    /// A record begins.
    #[inline]
    pub fn begin(&mut self, sequence: u64, received_ms: i64) {
        (self.sequence, self.received_ms) = (sequence, received_ms);
    }

    /// A series that was noted under this key is refused again: true where that is all there is to
    /// say; else its labels are wanted.
    #[inline]
    pub fn again(&mut self, key: u64) -> bool {
        let (received_ms, over_ms) = (self.received_ms, OVER_MS);
        let Some(at) = self.list.iter().position(|explosion| explosion.key == key) else {
            let denied = self.denied == Some(self.sequence);
            self.left_off += u64::from(denied);
            return denied;
        };
        let explosion = &mut self.list[at];
        if received_ms - explosion.last_ms > over_ms {
            return false;
        }
        explosion.last_ms = received_ms.max(explosion.last_ms);
        explosion.noted += 1;
        explosion.refused += 1;
        if at > 0 {
            self.list.swap(0, at);
        }
        true
    }

    /// A new series past a limit; answers the explosion's key.
    #[cold]
    pub fn note(&mut self, past: &Past) -> u64 {
        let labels = || canonical::labels(past.labels).filter_map(std::result::Result::ok);
        let metric = labels().find(|(name, ..)| *name == METRIC_NAME.as_bytes());
        let metric = metric.map_or(&[][..], |(_, value, _)| value);
        let seed = xxh3_64_with_seed(past.tenant.as_bytes(), xxh3_64(past.budget.as_bytes()));
        let key = xxh3_64_with_seed(metric, seed);
        // The one that grows now is mostly the last that was looked at: it stands in front.
        let mut found = self.list.iter().position(|explosion| explosion.key == key);
        if let Some(at) = found {
            if self.received_ms - self.list[at].last_ms > OVER_MS {
                self.list.remove(at);
                found = None;
            } else if at > 0 {
                self.list.swap(0, at);
            }
        }
        if found.is_none() && !self.open(key, past, metric) {
            return key;
        }
        let (received_ms, front) = (self.received_ms, self.list.front_mut());
        let Some(explosion) = front else { return key };
        explosion.last_ms = received_ms.max(explosion.last_ms);
        explosion.noted += 1;
        explosion.refused += u64::from(past.refused);
        if explosion.examined >= SKETCHED_MAX {
            return key;
        }
        explosion.examined += 1;
        explosion.series.add(past.labels);
        // Series of a metric mostly have the same tags, in the same order.
        let mut expected = 0;
        for (name, value, _) in labels() {
            if name == METRIC_NAME.as_bytes() {
                continue;
            }
            let tags = &mut explosion.tags;
            let same = tags.get(expected).is_some_and(|(known, _)| &**known == name);
            let found = match same {
                true => Some(expected),
                false => tags.iter().position(|(known, _)| &**known == name),
            };
            expected = found.map_or(expected, |at| at + 1);
            match found {
                Some(at) => tags[at].1.add(value),
                None if tags.len() < TAGS_MAX => {
                    let mut sketch = HyperLogLog::new(PRECISION);
                    sketch.add(value);
                    tags.push((name.into(), sketch));
                }
                None => explosion.tags_left_off = true,
            }
        }
        key
    }

    /// Make room and put a new one in front; false where its tenant has enough.
    fn open(&mut self, key: u64, past: &Past, metric: &[u8]) -> bool {
        if self.denied == Some(self.sequence) {
            self.left_off += 1;
            return false;
        }
        let own = self.list.iter().filter(|explosion| explosion.tenant == past.tenant).count();
        if own >= TENANT_MAX {
            let oldest = self.oldest(|explosion| explosion.tenant == past.tenant);
            match oldest.filter(|&at| self.received_ms - self.list[at].last_ms > OVER_MS) {
                Some(at) => drop(self.list.remove(at)),
                None => {
                    self.denied = Some(self.sequence);
                    self.left_off += 1;
                    return false;
                }
            }
        } else if self.list.len() >= EXPLOSIONS_MAX
            && let Some(at) = self.oldest(|_| true)
        {
            self.list.remove(at);
        }
        self.next_number += 1;
        self.list.push_front(Explosion {
            number: self.next_number,
            key,
            tenant: past.tenant.to_owned(),
            budget: past.budget.to_owned(),
            metric: String::from_utf8_lossy(metric).into_owned(),
            first_sequence: self.sequence,
            first_ms: self.received_ms,
            last_ms: self.received_ms,
            noted: 0,
            examined: 0,
            refused: 0,
            series: HyperLogLog::new(PRECISION),
            tags: Vec::new(),
            tags_left_off: false,
            writer: None,
        });
        true
    }

    fn oldest(&self, wanted: impl Fn(&Explosion) -> bool) -> Option<usize> {
        let some = self.list.iter().enumerate().filter(|(_, explosion)| wanted(explosion));
        some.min_by_key(|(_, explosion)| explosion.last_ms).map(|(at, _)| at)
    }

    /// Who sent the first record of an explosion: JSON that goes out as it came in.
    pub fn name_writer(&mut self, number: u64, writer: &str) -> bool {
        let found = self.list.iter_mut().find(|explosion| explosion.number == number);
        match found.filter(|_| writer.len() <= WRITER_BYTES_MAX) {
            Some(explosion) => {
                explosion.writer = Some(writer.to_owned());
                true
            }
            None => false,
        }
    }

    /// (number, received last) of those that have a writer.
    pub fn named(&self) -> Vec<(u64, i64)> {
        let named = self.list.iter().filter(|explosion| explosion.writer.is_some());
        named.map(|explosion| (explosion.number, explosion.last_ms)).collect()
    }

    /// A tenant is deleted: one that comes to its name sees nothing of it.
    pub fn forget(&mut self, tenant: &str) {
        self.list.retain(|explosion| explosion.tenant != tenant);
    }

    /// Of one tenant, or of all; the newest first.
    pub fn told(&self, tenant: Option<&str>) -> Vec<Told> {
        let wanted =
            |explosion: &&Explosion| tenant.is_none_or(|tenant| explosion.tenant == tenant);
        let mut told: Vec<Told> = self.list.iter().filter(wanted).map(Explosion::told).collect();
        told.sort_by_key(|explosion| std::cmp::Reverse(explosion.number));
        told
    }

    pub fn memory_bytes(&self) -> usize {
        let tags: usize = self.list.iter().map(|explosion| explosion.tags.len() + 1).sum();
        tags * ((1 << PRECISION) + 64) + self.list.capacity() * size_of::<Explosion>()
    }
}

impl Explosion {
    fn told(&self) -> Told {
        let estimate = |sketch: &HyperLogLog| sketch.estimate().round() as u64;
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let mut tags: Vec<(String, u64)> =
            self.tags.iter().map(|(name, sketch)| (text(name), estimate(sketch))).collect();
        tags.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        tags.truncate(TAGS_TOLD);
        Told {
            number: self.number,
            tenant: self.tenant.clone(),
            budget: self.budget.clone(),
            metric: self.metric.clone(),
            first_sequence: self.first_sequence,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            noted: self.noted,
            refused: self.refused,
            series: estimate(&self.series),
            tags,
            writer: self.writer.as_deref().and_then(|json| serde_json::from_str(json).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::canonical::push_label;

    fn labels(metric: &str, id: &str) -> Vec<u8> {
        let mut out = Vec::new();
        push_label(&mut out, METRIC_NAME.as_bytes(), metric.as_bytes());
        push_label(&mut out, b"id", id.as_bytes());
        push_label(&mut out, b"job", b"j");
        out
    }

    fn note(explosions: &mut Explosions, tenant: &str, metric: &str, id: usize) {
        let labels = labels(metric, &id.to_string());
        explosions.note(&Past { tenant, budget: "b", labels: &labels, refused: false });
    }

    #[test]
    fn the_first_record_and_the_worst_tag_are_kept() {
        let mut explosions = Explosions::default();
        for sequence in 7..9 {
            explosions.begin(sequence, 1_000 + sequence as i64);
            (0..500).for_each(|id| note(&mut explosions, "a", "m", id));
        }
        let told = explosions.told(Some("a"));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].first_sequence, told[0].first_ms, told[0].last_ms), (7, 1_007, 1_008));
        assert_eq!((told[0].noted, told[0].tags[0].0.as_str()), (1_000, "id"));
        assert!((450..550).contains(&told[0].tags[0].1));
        assert_eq!(told[0].tags[1], ("job".to_owned(), 1));
        assert!(explosions.told(Some("b")).is_empty());
        assert!(explosions.name_writer(told[0].number, r#"{"key":"k"}"#));
        assert_eq!(explosions.told(None)[0].writer.as_ref().map(|w| w["key"] == "k"), Some(true));
        assert_eq!(explosions.named(), [(told[0].number, 1_008)]);
    }

    #[test]
    fn one_tenant_takes_no_room_from_another() {
        let mut explosions = Explosions::default();
        explosions.begin(1, 0);
        (0..100).for_each(|metric| note(&mut explosions, "a", &format!("m{metric}"), 0));
        assert_eq!((explosions.told(None).len(), explosions.left_off), (TENANT_MAX, 100 - 16));
        for tenant in 0..200 {
            explosions.begin(2 + tenant, tenant as i64);
            note(&mut explosions, &tenant.to_string(), "m", 0);
        }
        assert_eq!(explosions.told(None).len(), EXPLOSIONS_MAX);
        assert_eq!(explosions.told(Some("199")).len(), 1);
        assert!(explosions.memory_bytes() < 4 << 20);
    }

    #[test]
    fn after_an_hour_of_quiet_it_is_another_one() {
        let mut explosions = Explosions::default();
        for (sequence, received_ms) in [(1, 0), (2, OVER_MS), (3, 2 * OVER_MS + 1)] {
            explosions.begin(sequence, received_ms);
            note(&mut explosions, "a", "m", 0);
        }
        let told = explosions.told(None);
        assert_eq!((told.len(), told[0].first_sequence, told[0].number), (1, 3, 2));
    }
}

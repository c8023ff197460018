//! The window against an oracle of a few lines, also across state files; and what it costs.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const TENANTS: [&str; 4] = ["quiet", "steady", "noisy", "new"];

/// Keys in the order applied, whole rules on one screen.
struct Oracle {
    held: Vec<(u64, u128, i64)>,
    keys_max: usize,
}

impl Oracle {
    fn remember(&mut self, tenant: &str, key: u128, now_ms: i64) {
        let old = |entry: &&(u64, u128, i64)| now_ms - entry.2 > DEDUP_AGE_MS;
        let expired = self.held.iter().take_while(old).count();
        self.held.drain(..expired);
        if self.held.len() == self.keys_max {
            let mut counts: HashMap<u64, usize> = HashMap::new();
            for entry in &self.held {
                *counts.entry(entry.0).or_default() += 1;
            }
            let largest = counts.iter().map(|(&id, &keys)| (keys, id)).max();
            let at = self.held.iter().position(|entry| Some(entry.0) == largest.map(|l| l.1));
            self.held.remove(at.unwrap_or(0));
        }
        self.held.push((share_id(tenant), key, now_ms));
    }

    fn seen(&self, key: u128, now_ms: i64) -> bool {
        self.held.iter().any(|entry| entry.1 == key && now_ms - entry.2 <= DEDUP_AGE_MS)
    }
}

proptest! {
    #[test]
    fn is_the_oracle_s_also_across_state_files(
        keys_max in 1_usize..24,
        acts in prop::collection::vec((0_usize..4, 0_usize..40, 0_i64..400_000, 0_u8..12), 1..250),
    ) {
        let mut window = DedupWindow::new(keys_max);
        let mut oracle = Oracle { held: Vec::new(), keys_max };
        let (mut files, mut now_ms): (Vec<Vec<u8>>, i64) = (Vec::new(), 0);
        for (tenant, number, passed_ms, event) in acts {
            now_ms += passed_ms;
            // The noisy tenant sends most.
            let name = TENANTS[if number > 12 { 2 } else { tenant }];
            let key = u128::from(share_id(name)) << 64 | (number as u128 + 1);
            prop_assert_eq!(window.seen(key, now_ms), oracle.seen(key, now_ms));
            if !oracle.seen(key, now_ms) {
                window.remember(name, key, now_ms);
                oracle.remember(name, key, now_ms);
            }
            match event {
                0 => files = vec![window.encode(true)],
                1 | 2 => files.push(window.encode(false)),
                3 => {
                    // A crash right after a seal.
                    files.push(window.encode(false));
                    window = DedupWindow::new(keys_max);
                    for file in &files {
                        prop_assert!(window.apply(file));
                    }
                }
                _ => {}
            }
            prop_assert_eq!(window.len(), oracle.held.len());
            for entry in &oracle.held {
                prop_assert!(window.seen(entry.1, entry.2));
            }
        }
    }

    #[test]
    fn no_bytes_of_a_section_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        DedupWindow::new(5).apply(&bytes);
        DedupWindow::new(5).apply_nameless(&bytes);
    }
}

#[test]
fn drops_a_retry_within_the_window_only() {
    let mut window = DedupWindow::new(10);
    window.remember("a", 7, 1_000);
    assert!(window.seen(7, 1_000 + DEDUP_AGE_MS));
    assert!(!window.seen(7, 1_001 + DEDUP_AGE_MS));
    assert!(!window.seen(8, 1_000));
    window.remember("a", 0, 1_000);
    assert!(!window.seen(0, 1_000));
}

#[test]
fn a_million_keys_of_one_tenant_evict_none_of_another() {
    let mut window = DedupWindow::new(DEDUP_KEYS_MAX);
    for key in 1..=1_000_u128 {
        window.remember("quiet", key, 0);
    }
    for key in 1..=(2 * DEDUP_KEYS_MAX as u128) {
        window.remember("noisy", key << 64, 1);
    }
    assert_eq!(window.len(), DEDUP_KEYS_MAX);
    assert!((1..=1_000_u128).all(|key| window.seen(key, 1)));
    let noisy = DEDUP_KEYS_MAX as u128 + 1_001;
    assert!(!window.seen((noisy - 1) << 64, 1) && window.seen(noisy << 64, 1));
}

#[test]
fn a_window_from_before_shares_is_read_and_carried_on() {
    let nameless: Vec<u8> = (1..=30_u128)
        .flat_map(|key| [&5_i64.to_le_bytes()[..], &key.to_le_bytes()[..]].concat())
        .collect();
    let mut window = DedupWindow::new(100);
    assert!(window.apply_nameless(&nameless) && !window.apply_nameless(&[1, 2]));
    for key in 31..=120_u128 {
        window.remember("a", key, 6);
    }
    let delta = window.encode(false);
    let mut loaded = DedupWindow::new(100);
    assert!(loaded.apply_nameless(&nameless) && loaded.apply(&delta));
    for key in 1..=120_u128 {
        assert_eq!(loaded.seen(key, 6), window.seen(key, 6), "{key}");
    }
    assert_eq!((window.len(), loaded.len()), (100, 100));
    assert!(window.seen(30, 6) && !window.seen(31, 6));
}

/// `cargo test --release --no-default-features --lib dedup -- --ignored --nocapture`
#[test]
#[ignore = "prints what a request pays"]
fn costs() {
    let mut window = DedupWindow::new(DEDUP_KEYS_MAX);
    let names: Vec<String> = (0..1_000).map(|number| format!("tenant-{number}")).collect();
    let key_of = |number: u128| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    for (label, range) in [("filling", 1..1_000_001), ("full", 1_000_001..3_000_001_u128)] {
        let (start, requests) = (std::time::Instant::now(), range.end - range.start);
        for number in range {
            let key = key_of(number).max(1);
            if !window.seen(key, 0) {
                window.remember(&names[number as usize % names.len()], key, 0);
            }
        }
        println!("{label}: {} ns a request", start.elapsed().as_nanos() / requests);
    }
}

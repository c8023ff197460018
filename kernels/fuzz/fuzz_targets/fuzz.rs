//! One binary for all targets: SLUICEWAY_FUZZ names the one that runs, and its first argument is
//! the folder of its corpus, to which sound inputs are added.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluiceway_fuzz::{TARGETS, Target, seeds};
use std::path::PathBuf;
use std::sync::OnceLock;

static TARGET: OnceLock<Target> = OnceLock::new();

fn begin() {
    let name = std::env::var("SLUICEWAY_FUZZ").unwrap_or_default();
    let Some((_, target)) = TARGETS.iter().find(|(known, _)| *known == name) else {
        println!("{}", TARGETS.map(|(name, _)| name).join(" "));
        std::process::exit(if name == "list" { 0 } else { 2 });
    };
    let corpus = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    if corpus.is_dir() {
        for (number, seed) in seeds::of(&name).iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{number}")), seed).expect("a seed");
        }
    }
    TARGET.get_or_init(|| *target);
}

fuzz_target!(init: begin(), |input: &[u8]| TARGET.get().expect("begun")(input));

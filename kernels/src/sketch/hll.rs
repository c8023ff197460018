//! HyperLogLog: distinct hashes counted in 2^precision registers, merged by their greatest.
//!
//! Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog: the analysis of a near-optimal cardinality
//! estimation algorithm" (2007). A hash's first bits choose a register, which keeps the longest run of
//! zeros that the other bits began with, plus one. The estimator is that of Ertl, "New cardinality
//! estimation algorithms for HyperLogLog sketches" (2017, algorithm 6): no table of biases, and no
//! seam between small and large counts. Relative standard error: 1.04 / sqrt(2^precision).
//!
//! Invariant: registers are a function of the *set* of hashes: order and repetition do not show,
//! and merging two sketches gives the sketch of the union.

use crate::error::{KernelError, Result};
use xxhash_rust::xxh3::xxh3_64;

pub const PRECISION_MIN: u8 = 4;
pub const PRECISION_MAX: u8 = 16;
/// 1 / (2 ln 2).
const ALPHA_INFINITY: f64 = 0.721_347_520_444_481_7;
const SPARSE: u8 = 0;
const DENSE: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HyperLogLog {
    precision: u8,
    registers: Box<[u8]>,
}

fn broken(why: &str) -> KernelError {
    KernelError::corruption(format!("hyperloglog: {why}"))
}

impl HyperLogLog {
    /// 2^precision bytes.
    pub fn new(precision: u8) -> HyperLogLog {
        assert!((PRECISION_MIN..=PRECISION_MAX).contains(&precision), "a precision from 4 to 16");
        HyperLogLog { precision, registers: vec![0; 1 << precision].into() }
    }

    /// XXH3-64 of raw bytes: the same in every build that reads what another wrote.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.add_hash(xxh3_64(bytes));
    }

    #[inline]
    pub fn add_hash(&mut self, hash: u64) {
        let place = (hash >> (64 - self.precision)) as usize;
        // The lowest bit set ends the run at the latest.
        let rest = (hash << self.precision) | (1 << (self.precision - 1));
        let rank = rest.leading_zeros() as u8 + 1;
        let register = &mut self.registers[place];
        *register = (*register).max(rank);
    }

    /// Make this the sketch of the union. False, and nothing done, where the precisions differ.
    pub fn merge(&mut self, other: &HyperLogLog) -> bool {
        if self.precision != other.precision {
            return false;
        }
        for (register, &rank) in self.registers.iter_mut().zip(&other.registers) {
            *register = (*register).max(rank);
        }
        true
    }

    pub fn estimate(&self) -> f64 {
        let rank_max = usize::from(64 - self.precision) + 1;
        let mut counts = vec![0_u32; rank_max + 1];
        self.registers.iter().for_each(|&rank| counts[usize::from(rank)] += 1);
        let size = self.registers.len() as f64;
        let mut z = size * tau(1.0 - f64::from(counts[rank_max]) / size);
        for &count in counts[1..rank_max].iter().rev() {
            z = 0.5 * (z + f64::from(count));
        }
        z += size * sigma(f64::from(counts[0]) / size);
        ALPHA_INFINITY * size * size / z
    }

    /// `precision u8, kind u8`, then for kind 0: `count u16` and (`place u16, rank u8`) ascending;
    /// for kind 1: a byte a register. Little-endian; the shorter of the two.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let used = self.registers.iter().filter(|&&rank| rank > 0).count();
        out.push(self.precision);
        if used * 3 + 2 >= self.registers.len() {
            out.push(DENSE);
            out.extend_from_slice(&self.registers);
            return;
        }
        out.push(SPARSE);
        out.extend_from_slice(&(used as u16).to_le_bytes());
        for (place, &rank) in self.registers.iter().enumerate().filter(|&(_, &rank)| rank > 0) {
            out.extend_from_slice(&(place as u16).to_le_bytes());
            out.push(rank);
        }
    }

    /// Exactly what `encode` wrote. Errors: Corruption.
    pub fn decode(bytes: &[u8]) -> Result<HyperLogLog> {
        let Some((&[precision, kind], rest)) = bytes.split_first_chunk::<2>() else {
            return Err(broken("cut short"));
        };
        if !(PRECISION_MIN..=PRECISION_MAX).contains(&precision) {
            return Err(broken("a precision beyond what is built"));
        }
        let mut sketch = HyperLogLog::new(precision);
        let rank_max = 64 - precision + 1;
        match kind {
            DENSE if rest.len() == sketch.registers.len() => sketch.registers.copy_from_slice(rest),
            SPARSE => {
                let Some((count, entries)) = rest.split_first_chunk::<2>() else {
                    return Err(broken("cut short"));
                };
                if entries.len() != usize::from(u16::from_le_bytes(*count)) * 3 {
                    return Err(broken("not as many registers as it says"));
                }
                for entry in entries.chunks_exact(3) {
                    let place = usize::from(u16::from_le_bytes([entry[0], entry[1]]));
                    let register = sketch.registers.get_mut(place);
                    *register.ok_or_else(|| broken("a register beyond the last"))? = entry[2];
                }
            }
            _ => return Err(broken("another kind or length")),
        }
        if sketch.registers.iter().any(|&rank| rank > rank_max) {
            return Err(broken("a rank beyond the hash"));
        }
        Ok(sketch)
    }

    pub fn memory_bytes(&self) -> usize {
        self.registers.len()
    }
}

/// Of the share of registers that are empty.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// Of the share of registers that are not full.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_zero_and_one_is_one() {
        let mut sketch = HyperLogLog::new(12);
        assert_eq!(sketch.estimate(), 0.0);
        sketch.add(b"a");
        sketch.add(b"a");
        assert_eq!(sketch.estimate().round(), 1.0);
    }

    #[test]
    fn sketches_of_other_precisions_stay_apart() {
        let (mut small, mut large) = (HyperLogLog::new(4), HyperLogLog::new(12));
        large.add(b"a");
        assert!(!small.merge(&large));
        assert_eq!(small.estimate(), 0.0);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut sketch = HyperLogLog::new(4);
        sketch.add(b"a");
        let mut bytes = Vec::new();
        sketch.encode(&mut bytes);
        assert!(HyperLogLog::decode(&bytes).is_ok_and(|read| read == sketch));
        for cut in 0..bytes.len() {
            assert!(HyperLogLog::decode(&bytes[..cut]).is_err());
        }
        for (place, value) in [(0, 3), (0, 17), (1, 2), (4, 16), (6, 62)] {
            let mut damaged = bytes.clone();
            damaged[place] = value;
            assert!(HyperLogLog::decode(&damaged).is_err(), "{place} {value}");
        }
    }
}

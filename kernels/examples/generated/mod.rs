//! Series as the generator of the shared bench draws them, for the examples that tell sizes.

pub const METRICS: usize = 10;
/// The kinds of a mixed load, a metric each.
pub const MIX: [&str; METRICS] =
    ["int", "int", "float2", "int", "float2", "counter", "counter", "const", "int", "walk"];

/// CPU time of this thread: other load on the machine does not count.
pub fn cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(f64::NAN)
}

/// SplitMix64, with the draws the generator of the shared bench makes.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
    fn poisson(&mut self, rate: f64) -> f64 {
        if rate > 50.0 {
            return (rate + rate.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-rate).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }
}

pub fn values(kind: &str, steps: usize, random: &mut Random) -> Vec<f64> {
    let mut x = match kind {
        "counter" => (random.uniform() * 1e6).floor(),
        "const" => (random.uniform() * 1000.0).floor(),
        _ => random.uniform() * 100.0,
    };
    let rate = (4.0 + 2.0 * random.normal()).exp();
    let mut one = || {
        match kind {
            "float" => return random.uniform() * 100.0,
            "const" => return x,
            "counter" => x += random.poisson(rate),
            _ => x = (x + random.normal()).clamp(0.0, 100.0),
        }
        match kind {
            "int" => x.floor(),
            "float2" => (x * 100.0).round() / 100.0,
            _ => x,
        }
    };
    (0..steps).map(|_| one()).collect()
}

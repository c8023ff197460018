//! Build switches for the durability mutants. In a shipped build `on` is constant false and the
//! branch is compiled away; with `--features mutants` a test arms one mutant by name.

#[cfg(feature = "mutants")]
static ARMED: parking_lot::RwLock<Option<String>> = parking_lot::RwLock::new(None);

/// Is the mutant `name` armed? Always false without the `mutants` feature.
#[inline(always)]
pub fn on(name: &str) -> bool {
    #[cfg(feature = "mutants")]
    {
        ARMED.read().as_deref() == Some(name)
    }
    #[cfg(not(feature = "mutants"))]
    {
        let _ = name;
        false
    }
}

/// Arm one mutant, or none. Returns false where this build has no mutants.
pub fn arm(name: Option<&str>) -> bool {
    #[cfg(feature = "mutants")]
    {
        *ARMED.write() = name.map(str::to_owned);
        true
    }
    #[cfg(not(feature = "mutants"))]
    {
        let _ = name;
        false
    }
}

//! What an answer from windows says about itself.

/// How an answer stands to the one from raw points. Of two, the greater holds for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exactness {
    #[default]
    Exact,
    /// As of up to a window earlier, over a range up to a window longer.
    Bounded,
    Approximate,
}

impl Exactness {
    pub fn name(self) -> &'static str {
        match self {
            Exactness::Exact => "exact",
            Exactness::Bounded => "bounded",
            Exactness::Approximate => "approximate",
        }
    }
}

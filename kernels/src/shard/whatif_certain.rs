//! What a candidate certainly does to a series that a recorded budget refused, whichever it was.
//!
//! Invariant: pure. An answer holds for every series that the recorded budget counts, and for the
//! rest of the journal hour, as counts do not fall within one.

use super::budget::{Action, Budget, FoldRules, Match, Meters, Stage};

/// The meter of a tenant that judges each of them, if there is one: `mine` are the tenant's.
pub(super) fn certainly(meters: &Meters, mine: &[u32], by: &Budget) -> Option<u32> {
    let enforced = meters.table.stage == Stage::Enforce;
    let touching = |&&meter: &&u32| !disjoint(meters.budget(meter), by);
    let covering = |&meter: &u32| covers(meters.budget(meter), by).then_some(meter);
    if meters.stands {
        // The first rule in the document holds.
        let mut rules = mine.iter().filter(|&&meter| meters.budget(meter).standing);
        if let Some(rule) = rules.find(touching) {
            return covering(rule);
        }
    }
    if by.standing {
        return None; // Known series among them would flow.
    }
    let past = |&&number: &&u32| {
        let (meter, budget) = (&meters.meters[number as usize], meters.budget(number));
        let past = |hard: Option<u64>, count: u64| hard.is_some_and(|hard| count >= hard);
        (enforced || budget.always)
            && (past(budget.active_hard, meter.active()) || past(budget.new_hard, meter.new))
    };
    let full: Vec<u32> = mine.iter().filter(past).copied().collect();
    let drops = |&&meter: &&u32| meters.budget(meter).action == Action::Drop;
    if let Some(meter) = full.iter().filter(drops).find_map(covering) {
        return Some(meter);
    }
    if full.iter().filter(drops).any(|meter| touching(&meter)) {
        return None;
    }
    let mut folding = full.iter().filter(|&&meter| meters.budget(meter).action.folds());
    folding.find(touching).and_then(covering)
}

/// Does `wide` count each series that `narrow` counts, of a tenant that both have?
fn covers(wide: &Budget, narrow: &Budget) -> bool {
    let metrics = match (wide.kind, narrow.kind) {
        (Match::All, _) => true,
        (Match::Name, Match::Name) => wide.metric == narrow.metric,
        (Match::Prefix, Match::Name | Match::Prefix) => narrow.metric.starts_with(&wide.metric),
        _ => false,
    };
    metrics && wide.labels.iter().all(|label| narrow.labels.contains(label))
}

/// Is there no series that both count?
fn disjoint(one: &Budget, other: &Budget) -> bool {
    let metrics = match (one.kind, other.kind) {
        (Match::All, _) | (_, Match::All) => false,
        (Match::Name, Match::Name) => one.metric != other.metric,
        (Match::Name, Match::Prefix) => !one.metric.starts_with(&other.metric),
        (Match::Prefix, Match::Name) => !other.metric.starts_with(&one.metric),
        (Match::Prefix, Match::Prefix) => {
            !one.metric.starts_with(&other.metric) && !other.metric.starts_with(&one.metric)
        }
    };
    let contradicts = |(name, value): &(String, String)| {
        other.labels.iter().any(|(also, wanted)| also == name && wanted != value)
    };
    metrics || one.labels.iter().any(contradicts)
}

/// Do an output's labels say all of its inputs' labels that another budget's outputs keep? Where
/// that one chooses what overflows, the label must be known besides.
pub(super) fn refolds(before: (&Budget, &FoldRules), now: (&Budget, &FoldRules)) -> bool {
    let has = |rules: &FoldRules, label: &String| rules.labels.contains(label);
    let dropped = &before.1.labels;
    match (before.0.action, now.0.action) {
        (_, Action::Overflow) => true,
        (Action::Strip, Action::Strip) => dropped.iter().all(|label| has(now.1, label)),
        (Action::Strip, _) => !dropped.iter().any(|label| has(now.1, label)),
        (_, Action::Strip) => false,
        (Action::Aggregate, _) => now.1.labels.iter().all(|label| has(before.1, label)),
        _ => now.1.labels.is_empty(),
    }
}

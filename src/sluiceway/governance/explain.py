"""What the shard tells of a tenant's cardinality, with how near each of its budgets is.

Invariant: pure; the counts are the shard's, exact, of one moment. Only the tenant's own is in it.
"""

from typing import Any

from sluiceway.governance.nearness import share_of
from sluiceway.governance.policy import Limit

Told = dict[str, Any]


LISTS = ("metrics", "metrics_by_new", "tags")


def explained(told: Told, top: int, until: Told | None = None) -> Told:
    """The answer of `/api/v1/cardinality`: lists of `top`, budgets nearest first, each with its
    share; what changed since a past hour, where one is told, up to now or up to the hour `until`
    (as `since` tells one)."""
    budgets = [{**budget, "share": share(budget)} for budget in told.get("budgets", ())]
    budgets.sort(key=lambda budget: (-budget["share"], budget["budget"]))
    answer = {**told, "budgets": budgets}
    if told.get("since") is not None:
        answer["since"] = (
            changed(told, told["since"], top)
            if until is None
            else changed_until(told["since"], until, top)
        )
    return answer | {name: told[name][:top] for name in LISTS if name in told}


def changed(told: Told, since: Told, top: int) -> Told:
    """A past hour beside now: what grew or shrank most comes first."""
    one = told.get("metric")
    now = [one] if one else told["metrics"]
    series = {metric["metric"]: metric["active"] for metric in now}
    values = {tag["tag"]: tag["values"] for tag in (one or told)["tags"]}
    metrics = compared(since["metrics"], "metric", "active", series)
    tags = compared(since["tags"], "tag", "values", values)
    return {**since, "metrics": metrics[:top], "tags": tags[:top]}


def changed_until(since: Told, until: Told, top: int) -> Told:
    """Two past hours: `now` is the later one."""
    series = {metric["metric"]: metric["active"] for metric in until["metrics"]}
    values = {tag["tag"]: tag["values"] for tag in until["tags"]}
    metrics = compared(since["metrics"], "metric", "active", series)
    tags = compared(since["tags"], "tag", "values", values)
    later = {name: until[name] for name in ("hour_ms", "active", "new", "gone")}
    return {**since, "until": later, "metrics": metrics[:top], "tags": tags[:top]}


def compared(then: list[Told], name: str, count: str, now: dict[str, int]) -> list[Told]:
    """Entries of then and now with `now` and `change`, the greatest change first."""
    known = {entry[name]: entry for entry in then}
    rows = [
        {name: key, count: 0, **known.get(key, {}), "now": now.get(key, 0)}
        for key in {**known, **now}
    ]
    for row in rows:
        row["change"] = row["now"] - row[count]
    return sorted(rows, key=lambda row: (-abs(row["change"]), row[name]))


def share(budget: Told) -> float:
    """Of the nearer of a budget's two limits; more than 1 is past it."""
    return max(
        share_of(budget["active_series"], Limit(**budget["active_limit"])),
        share_of(budget["new_series"], Limit(**budget["new_limit"])),
    )

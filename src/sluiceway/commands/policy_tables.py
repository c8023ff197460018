"""How versions of the policy, their differences and standings look on a terminal.

Invariant: pure functions from the API's answers to lines; nothing here asks or decides.
"""

from typing import Any

from sluiceway.commands.tables import moment, table
from sluiceway.governance.boundary import told_rule
from sluiceway.governance.nearness import ROWS_MAX, Nearness
from sluiceway.governance.policy import Policy, Stage
from sluiceway.governance.standing import SAID, Standing, told

ABSENT = "absent"


def policy_rows(versions: list[dict[str, Any]]) -> list[str]:
    rows = (
        (
            str(line["version"]),
            line["stage"],
            str(line["budgets"]),
            moment(line["created_ms"]),
            line["author"],
            f"version {line['rolled_back_to']}" if line["rolled_back_to"] else "-",
        )
        for line in versions
    )
    return table(("VERSION", "STAGE", "BUDGETS", "MADE", "BY", "ROLLED BACK TO"), rows)


def policy_lines(kept: dict[str, Any]) -> list[str]:
    """A version as a file that `apply` takes: its head is a comment."""
    author = " ".join(kept["author"].split())
    head = f"# version {kept['version']}, {moment(kept['created_ms'])}, {author}"
    return [head, *kept["document"].rstrip("\n").split("\n")]


def policy_diff_lines(diff: dict[str, Any]) -> list[str]:
    lines = []
    for change in diff["changes"]:
        lines.append(f"{'+' if change['creates'] else '~'} {change['subject']}")
        for field in change["fields"]:
            before, after = (
                shown(field[side]) if side in field else ABSENT for side in ("before", "after")
            )
            lines.append(f"    {field['name']}: {before} -> {after}")
    lines += [f"- {subject}" for subject in diff["removed"]]
    return lines or ["no difference"]


def shown(value: Any) -> str:
    return "none" if value is None else str(value)


def standing_lines(policy: Policy, near: Nearness, found: list[Standing]) -> list[str]:
    limits = {budget.name: budget for budget in policy.budgets}
    rows = (
        (
            one.budget,
            one.tenant,
            "-" if one.active_series is None else f"{one.active_series:,}",
            told(limits[one.budget].active_series),
            "-" if one.new_series is None else f"{one.new_series:,}",
            told(limits[one.budget].new_series_per_hour),
            SAID[one.outcome],
        )
        for one in found
    )
    head = ("BUDGET", "TENANT", "ACTIVE", "SOFT / HARD", "NEW", "SOFT / HARD", "NEXT NEW SERIES")
    lines = [f"sound: stage {policy.stage.value}, {len(policy.budgets)} budgets", ""]
    lines += table(head, rows) if found else ["no budgets: every series is let in"]
    if policy.boundary:
        lines += ["", *boundary_lines(policy)]
    if policy.sketches:
        rows_of = [(r.name, r.tenant, r.metric, r.match.value) for r in policy.sketches]
        lines += ["", *table(("SKETCHES", "TENANT", "METRIC", "MATCH"), rows_of)]
    lines += [
        "",
        f"Counts are exact, of this moment, by the running shard under version {near.version}; new"
        " ones are of this hour. Past traffic: `sluiceway policy whatif`.",
    ]
    if len(near.budgets) >= ROWS_MAX:
        lines.append(f"Only the {ROWS_MAX} budgets nearest to a limit are told.")
    return lines


def boundary_lines(policy: Policy) -> list[str]:
    """What would be lost on the way to warm and cold: the rules, not how much they would save."""
    rows = (
        (rule.name, rule.tenant, rule.tier.value, rule.metric or "all", told_rule(rule))
        for rule in policy.boundary
    )
    lines = table(("BOUNDARY", "TENANT", "TO", "METRIC", "WHAT IT DOES"), rows)
    if policy.stage is not Stage.ENFORCE:
        return [*lines, "These wait: they act in `stage: enforce` only."]
    return [
        *lines,
        "From the next day that closes on; what moved before stays. How many series or bytes that"
        " saves is not worked out.",
    ]

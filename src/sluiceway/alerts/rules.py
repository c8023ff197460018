"""The list of rules: what is an alarm, how long it must last, how bad it is, what to do.

Invariant: names and ids never change their meaning; `expression` is the same rule in PromQL over
our own /metrics, for those who judge from outside (tests parse each).
"""

from dataclasses import dataclass
from typing import Literal

from sluiceway.alerts import conditions as by
from sluiceway.alerts import thresholds as at

Severity = Literal["critical", "warning", "info"]
RUNBOOK = "docs/operations.md#alerts"
GROWN = "in the last 5 min"
POINTS = "sluiceway_tenant_points_total"
PAST = "sluiceway_budget_series_past_limit_total"


@dataclass(frozen=True)
class Rule:
    """One rule; `for_s` seconds must pass between found and firing."""

    name: str
    severity: Severity
    condition: by.Condition
    expression: str
    runbook: str
    for_s: float = 0.0


@dataclass(frozen=True)
class Group:
    """Rules that are listed together."""

    name: str
    rules: tuple[Rule, ...]


INSTALLATION = Group(
    "sluiceway",
    (
        Rule(
            "SluicewayNotReady",
            "critical",
            by.not_ready,
            "sluiceway_read_side_up == 0",
            "GET /ready says what is missing; a replay takes seconds per million series",
            for_s=120,
        ),
        Rule(
            "SluicewayDiskWritesFail",
            "critical",
            by.grew("journal_sync_errors_total", f"{{0}} group commits failed {GROWN}"),
            "increase(sluiceway_journal_sync_errors_total[5m]) > 0",
            "nothing of these was acked: check dmesg, replace the disk, restart",
        ),
        Rule(
            "SluicewayRecordsDamaged",
            "critical",
            by.grew("journal_quarantined_records_total", f"{{0}} records damaged {GROWN}"),
            "increase(sluiceway_journal_quarantined_records_total[5m]) > 0",
            "bit rot in the journal: the records are set aside; check the disk",
        ),
        Rule(
            "SluicewayFilesSetAside",
            "critical",
            by.over("quarantined_files", 0, "{0} files wait for a person"),
            "sluiceway_quarantined_files > 0",
            "restore manifest and files from a backup, or remove *.quarantined to accept the loss",
        ),
        Rule(
            "SluicewayPagesDamaged",
            "critical",
            by.grew("corrupt_pages_total", f"{{0}} reads of damaged pages {GROWN}"),
            "increase(sluiceway_corrupt_pages_total[5m]) > 0",
            "queries over the block fail rather than lie: restore it from a backup",
        ),
        Rule(
            "SluicewayProcessorErrors",
            "critical",
            by.grew("processor_errors_total", f"{{0}} errors of the processor {GROWN}"),
            "increase(sluiceway_processor_errors_total[5m]) > 0",
            "the log of the write side says which; acks go on while the journal has room",
        ),
        Rule(
            "SluicewayLedgerImbalance",
            "critical",
            by.ledger_gap,
            "sluiceway_ledger_gap_points != 0",
            "points without an outcome: a fault of ours. Keep the data directory, run "
            "sluiceway ledger --raw-scan, report it",
        ),
        Rule(
            "SluicewayProcessorLags",
            "warning",
            by.over("journal_lag_records", at.JOURNAL_LAG_RECORDS, "{0} records not applied yet"),
            f"sluiceway_journal_lag_records > {at.JOURNAL_LAG_RECORDS}",
            "the shard applies slower than the gateway accepts: look for merges or a shared CPU",
            for_s=300,
        ),
        Rule(
            "SluicewayMergesLag",
            "warning",
            by.over("parts", at.PARTS_WARNING, "{0} blocks wait for a merge"),
            f"sluiceway_parts > {at.PARTS_WARNING}",
            "seals come faster than merges: give CPU or disk, or raise seal_points_max",
            for_s=900,
        ),
        Rule(
            "SluicewayRollupLags",
            "warning",
            by.over("rollup_lag_seconds", at.ROLLUP_LAG_S, "hours rolled up {0} s behind"),
            f"sluiceway_rollup_lag_seconds > {at.ROLLUP_LAG_S}",
            "raw points stay until they are rolled, so the disk fills: sluiceway rollup status "
            "says whether it is paused, fails or lacks CPU",
            for_s=900,
        ),
        Rule(
            "SluicewayRollupFails",
            "warning",
            by.grew("rollup_failures_total", f"{{0}} tasks of the rollup failed {GROWN}"),
            "increase(sluiceway_rollup_failures_total[5m]) > 0",
            "nothing is lost, the source stays: sluiceway rollup status has the last error",
            for_s=300,
        ),
        Rule(
            "SluicewayRollupFilesDamaged",
            "critical",
            by.over("tier_files_damaged", 0, "{0} files of rollups cannot be read"),
            "sluiceway_tier_files_damaged > 0",
            "other tiers answer where they can: tiers/damaged names the files, restore them from "
            "a backup",
        ),
        Rule(
            "SluicewayRollupStoreFails",
            "warning",
            by.over("tier_objects_failing", 0, "the object store of the rollups fails"),
            "sluiceway_tier_objects_failing > 0",
            "files wait here and nothing is lost: sluiceway rollup status has the error, mind the "
            "disk",
            for_s=300,
        ),
        Rule(
            "SluicewayOutboxWaits",
            "warning",
            by.over("outbox_records", 0, "{0} acked requests wait here for the brokers"),
            "sluiceway_outbox_records > 0",
            "no broker takes records: acks go on from the local disk and answers lack these points "
            "until Kafka is back; look at the brokers",
            for_s=300,
        ),
        Rule(
            "SluicewayOutboxFills",
            "critical",
            by.share("outbox_bytes", "outbox_bytes_max", at.SHARE_WARNING, "outbox: {0} full"),
            f"sluiceway_outbox_bytes / sluiceway_outbox_bytes_max > {at.SHARE_WARNING}",
            "at its cap writes get 503: bring Kafka back, or raise kafka.outbox_bytes_max",
        ),
        Rule(
            "SluicewayRecordsParked",
            "critical",
            by.grew("parked_records_total", f"{{0}} records of Kafka broke the format {GROWN}"),
            "increase(sluiceway_parked_records_total[5m]) > 0",
            "kept in journal/parked with their offsets: somebody else writes to the topic, or a "
            "gateway of a newer version",
        ),
        Rule(
            "SluicewayRollupsNotOffloaded",
            "warning",
            by.over(
                "tier_objects_stalled_seconds",
                at.OBJECTS_STALLED_S,
                "no file of rollups has gone to the object store for {0} s",
            ),
            f"sluiceway_tier_objects_stalled_seconds > {at.OBJECTS_STALLED_S}",
            "files wait on this disk and fill it: sluiceway rollup status has their bytes and the "
            "store's last error, or says that the rollup is paused or behind",
        ),
        Rule(
            "SluicewayDiskFills",
            "warning",
            by.share("disk_bytes", "disk_bytes_max", at.SHARE_WARNING, "disk: {0} of its limit"),
            f"sluiceway_disk_bytes / sluiceway_disk_bytes_max > {at.SHARE_WARNING}",
            "raise --disk-max or shorten retention; from 90 % on new series are refused",
        ),
        Rule(
            "SluicewayDiskFull",
            "critical",
            by.share("disk_bytes", "disk_bytes_max", at.DISK_ERROR, "disk: {0} of its limit"),
            f"sluiceway_disk_bytes / sluiceway_disk_bytes_max > {at.DISK_ERROR}",
            "new series are refused, from 95 % on writes get 503: raise --disk-max",
        ),
        Rule(
            "SluicewayMemory",
            "warning",
            by.memory(at.MEMORY_WARNING),
            "sum by (side) (sluiceway_memory_bytes) / sum by (side) (sluiceway_memory_bytes_max)"
            f" > {at.MEMORY_WARNING}",
            "too many series or too large queries for --memory-max: see /api/v1/cardinality",
            for_s=60,
        ),
        Rule(
            "SluicewaySeries",
            "warning",
            by.share("series", "series_max", at.SERIES_WARNING, "series: {0} of series_max"),
            f"sluiceway_series / sluiceway_series_max > {at.SERIES_WARNING}",
            "/api/v1/cardinality names the metric and label that grow",
        ),
        Rule(
            "SluicewayPolicyNotInForce",
            "warning",
            by.over("policy_pending", 0, "a published policy is not in force yet"),
            "sluiceway_policy_pending > 0",
            "policy_not_taken in the write side's log says why; the one before goes on judging",
            for_s=60,
        ),
        Rule(
            "SluicewayReadSideRestarts",
            "warning",
            by.grew(
                "read_side_restarts_total",
                f"the read side ended {{0}} times {GROWN}",
                by=at.READ_SIDE_RESTARTS,
            ),
            f"increase(sluiceway_read_side_restarts_total[5m]) > {at.READ_SIDE_RESTARTS}",
            "a query kills it: the log has its end status; lower query.result_bytes_max",
        ),
    ),
)

TENANTS = Group(
    "sluiceway-tenants",
    (
        Rule(
            "SluicewayExplosion",
            "critical",
            by.exploding,
            "sum by (tenant) (increase(sluiceway_tenant_series_created_total[1m])) > 10000",
            "a label with ids in it: /api/v1/cardinality names it. Mend the sender, or set a "
            "budget with sluiceway policy apply; known series flow on",
        ),
        Rule(
            "SluicewayBudgetSoftLimit",
            "warning",
            by.budgets(by.past_soft, "{count} series ({of}) are past its soft limit {soft}"),
            "sluiceway_budget_series > ignoring (level) "
            'sluiceway_budget_series_limit{level="soft"}',
            "all are let in: compare with the tenant's last deploy",
        ),
        Rule(
            "SluicewayBudgetNearlyFull",
            "warning",
            by.budgets(
                by.near_hard(at.SHARE_WARNING), "{count} series ({of}) of its hard limit {hard}"
            ),
            "sluiceway_budget_series / ignoring (level) "
            f'sluiceway_budget_series_limit{{level="hard"}} > {at.SHARE_WARNING}',
            "told before it bites: raise it with sluiceway policy apply, or leave it to stop there",
            for_s=300,
        ),
        Rule(
            "SluicewaySeriesRefused",
            "critical",
            by.tenant_grew("series_refused", f"{{0}} new series refused {GROWN}"),
            f'increase({PAST}{{outcome="refused"}}[5m]) > 0',
            "new series are kept aside, known ones flow. A mistake: mend the sender. Wanted "
            "growth: raise the budget",
        ),
        Rule(
            "SluicewayWouldBeRefused",
            "info",
            by.tenant_grew("series_observed", f"{{0}} new series past a hard limit {GROWN}"),
            f'increase({PAST}{{outcome="observed"}}[5m]) > 0',
            "observed only: this is what enforce with drop would refuse",
        ),
        Rule(
            "SluicewayDeadLettersGrow",
            "warning",
            by.tenant_grew("dead_lettered", f"{{0}} points became dead letters {GROWN}"),
            f'sum by (tenant) (increase({POINTS}{{outcome="dead_lettered"}}[5m])) > 0',
            "sluiceway deadletters count says of what; replay them once the budget has room",
            for_s=60,
        ),
        Rule(
            "SluicewayPointsDiscarded",
            "critical",
            by.tenant_grew("discarded", f"{{0}} refused points found no room {GROWN}"),
            f'sum by (tenant) (increase({POINTS}{{outcome="discarded"}}[5m])) > 0',
            "the tenant's dead letters are full: raise dead_letters.bytes_max_per_tenant, or stop "
            "the sender",
        ),
        Rule(
            "SluicewayPointsRejected",
            "warning",
            by.tenant_grew("rejected", f"{{0}} points rejected {GROWN}"),
            f'sum by (tenant) (increase({POINTS}{{outcome="rejected"}}[5m])) > 0',
            "the sender's log has the reason and the first example",
            for_s=300,
        ),
        Rule(
            "SluicewayTenantRefused",
            "warning",
            by.tenant_grew("refused", f"{{0}} requests answered 429 or 503 {GROWN}"),
            "sum by (tenant, reason) (increase(sluiceway_tenant_refused_total[5m])) > 0",
            "sluiceway-over-rate: faster than its limits, override them for a while or ask the "
            "sender; sluiceway-over-volume: past what its plan includes; sluiceway-overloaded: too "
            "little room for all",
            for_s=300,
        ),
        Rule(
            "SluicewaySpendSoftLimit",
            "warning",
            by.spend("spent", "soft", "{0} of {1} {2}, the month's soft limit, are spent"),
            'sluiceway_tenant_spend{of="spent"} > '
            'ignoring (of, level) sluiceway_tenant_spend_limit{level="soft"}',
            "sluiceway cost --tenant says on what, --by tags what each tag would save",
        ),
        Rule(
            "SluicewaySpendHardLimit",
            "critical",
            by.spend("spent", "hard", "{0} {2} are spent, the month's hard limit is {1}"),
            'sluiceway_tenant_spend{of="spent"} > '
            'ignoring (of, level) sluiceway_tenant_spend_limit{level="hard"}',
            "nothing is refused for money: strip or drop what costs most by policy, or raise the "
            "limit",
        ),
        Rule(
            "SluicewaySpendForecast",
            "info",
            by.spend("forecast", "hard", "the month comes to {0} {2}, its hard limit is {1}"),
            'sluiceway_tenant_spend{of="forecast"} > '
            'ignoring (of, level) sluiceway_tenant_spend_limit{level="hard"}',
            "told before it is spent: a line through the last days, see sluiceway cost",
        ),
    ),
)
GROUPS = (INSTALLATION, TENANTS)
RULES = tuple(rule for group in GROUPS for rule in group.rules)

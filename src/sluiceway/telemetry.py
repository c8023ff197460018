"""Sluiceway's own metrics: the one typed list of them, and the store that counts.

Invariant: a name that is not in DEFINITIONS cannot be counted (mypy refuses it, and so does the
store), and no metric has a label whose values a client chooses. Any thread may count; kernels count
for themselves and are read through `Shard.stats`.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

MetricName = Literal[
    # The door: what came, what was answered.
    "sluiceway_write_requests_total",
    "sluiceway_write_points_total",
    "sluiceway_write_body_bytes_total",
    "sluiceway_write_refused_unread_total",
    "sluiceway_write_refused_unread_bytes_total",
    "sluiceway_write_ack_seconds",
    "sluiceway_write_bytes_in_flight",
    "sluiceway_write_requests_parked",
    # By tenant; a name here comes from a verified key, and TenantLabels bounds their number.
    "sluiceway_tenant_refused_total",
    "sluiceway_tenant_parked_total",
    # The way to the read side.
    "sluiceway_read_requests_total",
    "sluiceway_read_side_up",
    "sluiceway_read_side_restarts_total",
    "sluiceway_shard_links_refused_total",
    "sluiceway_shard_up",
    # A member of the shards' group.
    "sluiceway_partitions_assigned",
    "sluiceway_partitions_answered",
    "sluiceway_partitions_leaving",
    "sluiceway_partition_starts_total",
    "sluiceway_offsite_manifests_behind",
    # The read side itself.
    "sluiceway_query_requests_total",
    "sluiceway_query_seconds",
    "sluiceway_query_running",
    "sluiceway_query_waiting",
    "sluiceway_tenant_queries_total",
    "sluiceway_tenant_queries_refused_total",
    "sluiceway_tenant_query_seconds_total",
    "sluiceway_tenant_query_points_total",
    "sluiceway_query_log_lines_total",
    "sluiceway_query_log_dropped_total",
    "sluiceway_query_log_bytes",
    # The shard, from its own figures.
    "sluiceway_journal_bytes",
    "sluiceway_journal_segments",
    "sluiceway_journal_sync_errors_total",
    "sluiceway_journal_sync_seconds",
    "sluiceway_journal_records_total",
    "sluiceway_journal_groups_total",
    "sluiceway_journal_lag_records",
    "sluiceway_journal_quarantined_records_total",
    "sluiceway_journal_undecided_records_total",
    "sluiceway_journal_lost_records_total",
    "sluiceway_parked_records_total",
    "sluiceway_outbox_records",
    "sluiceway_outbox_bytes",
    "sluiceway_outbox_bytes_max",
    "sluiceway_quarantined_files",
    "sluiceway_series",
    "sluiceway_series_max",
    "sluiceway_buffer_points",
    "sluiceway_parts",
    "sluiceway_seals_total",
    "sluiceway_merges_total",
    "sluiceway_points_total",
    "sluiceway_tenant_points_total",
    "sluiceway_tenant_series_created_total",
    "sluiceway_points_moved_total",
    "sluiceway_ledger_gap_points",
    "sluiceway_dead_letters",
    "sluiceway_dead_letter_bytes",
    "sluiceway_disk_bytes",
    "sluiceway_disk_bytes_max",
    "sluiceway_disk_free_bytes",
    "sluiceway_corrupt_pages_total",
    "sluiceway_processor_errors_total",
    # The tiers.
    "sluiceway_rollup_lag_seconds",
    "sluiceway_rollup_paused",
    "sluiceway_rollup_units_total",
    "sluiceway_rollup_points_total",
    "sluiceway_rollup_windows_total",
    "sluiceway_rollup_failures_total",
    "sluiceway_rollup_lost_points_total",
    "sluiceway_tier_files_damaged",
    "sluiceway_tier_objects_failing",
    "sluiceway_tier_objects_waiting_bytes",
    "sluiceway_tier_objects_stalled_seconds",
    "sluiceway_rollup_busy_seconds_total",
    "sluiceway_warm_bytes",
    "sluiceway_cold_bytes",
    "sluiceway_tier_grace_bytes",
    # Tenants.
    "sluiceway_tenants",
    "sluiceway_tenants_deleting",
    "sluiceway_deletions_pending",
    "sluiceway_policy_version",
    "sluiceway_policy_pending",
    "sluiceway_budget_series",
    "sluiceway_budget_series_limit",
    "sluiceway_budget_series_past_limit_total",
    "sluiceway_budget_points_total",
    "sluiceway_tenant_spend",
    "sluiceway_tenant_spend_limit",
    # Alerts.
    "sluiceway_alerts",
    "sluiceway_alerts_untracked_total",
    "sluiceway_alert_looks_failed_total",
    "sluiceway_alert_deliveries_total",
    # The process.
    "sluiceway_memory_bytes",
    "sluiceway_memory_bytes_max",
    "sluiceway_process_start_seconds",
    "sluiceway_event_loop_lag_seconds",
]


@dataclass(frozen=True)
class Definition:
    """Kind, meaning and label names of one metric."""

    kind: Kind
    meaning: str
    labels: Labels = ()


BUDGET = ("tenant", "budget", "of")
OUTCOME = ("tenant", "budget", "outcome")
DEFINITIONS: dict[MetricName, Definition] = {
    "sluiceway_write_requests_total": Definition(
        "counter", "Write requests by door and status answered", ("door", "status")
    ),
    "sluiceway_write_points_total": Definition(
        "counter", "Points in write requests as the gateway judged them", ("door", "outcome")
    ),
    "sluiceway_write_body_bytes_total": Definition(
        "counter", "Bytes of write bodies that were read, as sent", ("door",)
    ),
    "sluiceway_write_refused_unread_total": Definition(
        "counter", "Write requests refused before their body was read", ("reason",)
    ),
    "sluiceway_write_refused_unread_bytes_total": Definition(
        "counter", "Declared bytes of bodies refused unread", ("reason",)
    ),
    "sluiceway_write_ack_seconds": Definition(
        "histogram", "From a write request's head to its durable ack"
    ),
    "sluiceway_write_bytes_in_flight": Definition("gauge", "Bodies held between head and ack"),
    "sluiceway_write_requests_parked": Definition("gauge", "Requests waiting unread for room"),
    "sluiceway_tenant_refused_total": Definition(
        "counter", "Write requests answered 429 or 503", ("tenant", "reason")
    ),
    "sluiceway_tenant_parked_total": Definition(
        "counter", "Write requests that waited, unread, and were taken", ("tenant",)
    ),
    "sluiceway_read_requests_total": Definition(
        "counter", "Requests handed to the read side by status", ("status",)
    ),
    "sluiceway_read_side_up": Definition("gauge", "1 while the read side answers"),
    "sluiceway_read_side_restarts_total": Definition("counter", "Times the read side ended"),
    "sluiceway_shard_links_refused_total": Definition(
        "counter", "Connections to the shard's gate that did not know the cluster's secret"
    ),
    "sluiceway_offsite_manifests_behind": Definition(
        "gauge", "Manifests of the shard that are not on the object store yet"
    ),
    "sluiceway_shard_up": Definition("gauge", "1 while the shard was reached", ("shard",)),
    "sluiceway_partitions_assigned": Definition("gauge", "Partitions that the group gave us"),
    "sluiceway_partitions_answered": Definition("gauge", "Of these, those that we answer for"),
    "sluiceway_partitions_leaving": Definition("gauge", "Partitions that we hand over right now"),
    "sluiceway_partition_starts_total": Definition("counter", "Processes begun for a partition"),
    "sluiceway_query_requests_total": Definition(
        "counter", "API requests by endpoint and status", ("endpoint", "status")
    ),
    "sluiceway_query_seconds": Definition(
        "histogram", "From an API request's head to its last byte", ("endpoint",)
    ),
    "sluiceway_query_running": Definition("gauge", "Queries being evaluated"),
    "sluiceway_query_waiting": Definition("gauge", "Queries waiting for a turn"),
    "sluiceway_tenant_queries_total": Definition(
        "counter", "API requests by tenant and status", ("tenant", "status")
    ),
    "sluiceway_tenant_queries_refused_total": Definition(
        "counter", "API requests answered 422 or 503, by the limit's id", ("tenant", "reason")
    ),
    "sluiceway_tenant_query_seconds_total": Definition(
        "counter", "Seconds that a tenant's API requests took, waiting included", ("tenant",)
    ),
    "sluiceway_tenant_query_points_total": Definition(
        "counter", "Points that a tenant's queries read", ("tenant",)
    ),
    "sluiceway_query_log_lines_total": Definition("counter", "Lines written to the query log"),
    "sluiceway_query_log_dropped_total": Definition(
        "counter", "Queries that are not in the query log: queue, rate, disk", ("reason",)
    ),
    "sluiceway_query_log_bytes": Definition("gauge", "Bytes of the query log on disk"),
    "sluiceway_journal_bytes": Definition("gauge", "Bytes of journal segments on disk"),
    "sluiceway_journal_segments": Definition("gauge", "Journal segments on disk"),
    "sluiceway_journal_sync_errors_total": Definition("counter", "Group commits that failed"),
    "sluiceway_journal_sync_seconds": Definition("gauge", "Duration of the last fdatasync"),
    "sluiceway_journal_records_total": Definition("counter", "Records made durable"),
    "sluiceway_journal_groups_total": Definition("counter", "Group commits"),
    "sluiceway_journal_lag_records": Definition(
        "gauge", "Durable records that the shard has not applied yet"
    ),
    "sluiceway_journal_quarantined_records_total": Definition(
        "counter", "Damaged records that were set aside since the start"
    ),
    "sluiceway_journal_undecided_records_total": Definition(
        "counter", "Records torn by a crash, or acked and rotten, since the start: nobody can say"
    ),
    "sluiceway_journal_lost_records_total": Definition(
        "counter", "Acked records lost to damage, ever, from the ledger"
    ),
    "sluiceway_parked_records_total": Definition(
        "counter", "Records from Kafka that broke the format, kept aside and passed over"
    ),
    "sluiceway_outbox_records": Definition(
        "gauge", "Acked requests that wait on the local disk for the brokers"
    ),
    "sluiceway_outbox_bytes": Definition("gauge", "Bytes of the outbox's segments"),
    "sluiceway_outbox_bytes_max": Definition("gauge", "Its limit: past it writes get 503"),
    "sluiceway_quarantined_files": Definition(
        "gauge", "Files of the hot tier set aside when the newest manifest was damaged"
    ),
    "sluiceway_series": Definition("gauge", "Series in memory"),
    "sluiceway_series_max": Definition("gauge", "Limit of series in memory"),
    "sluiceway_buffer_points": Definition("gauge", "Points in memory, not sealed yet"),
    "sluiceway_parts": Definition("gauge", "Blocks on disk"),
    "sluiceway_seals_total": Definition("counter", "Checkpoints committed"),
    "sluiceway_merges_total": Definition("counter", "Merges committed"),
    "sluiceway_points_total": Definition(
        "counter", "Points by outcome, from the ledger", ("outcome",)
    ),
    "sluiceway_tenant_points_total": Definition(
        "counter", "Points by tenant and outcome, of those that sent most", ("tenant", "outcome")
    ),
    "sluiceway_tenant_series_created_total": Definition(
        "counter", "Series registered by tenant, of those that sent most", ("tenant",)
    ),
    "sluiceway_points_moved_total": Definition(
        "counter", "Points that left or entered the stock or the dead letters", ("movement",)
    ),
    "sluiceway_ledger_gap_points": Definition(
        "gauge",
        "Points that an equation of the ledger misses; 0 unless something is wrong",
        ("equation",),
    ),
    "sluiceway_dead_letters": Definition("gauge", "Dead letters on disk"),
    "sluiceway_dead_letter_bytes": Definition("gauge", "Bytes of their files"),
    "sluiceway_disk_bytes": Definition("gauge", "Bytes of the data directory"),
    "sluiceway_disk_bytes_max": Definition("gauge", "Budget of the data directory"),
    "sluiceway_disk_free_bytes": Definition("gauge", "Free bytes of its file system"),
    "sluiceway_corrupt_pages_total": Definition(
        "counter", "Reads of a page whose CRC was wrong, by queries and merges"
    ),
    "sluiceway_processor_errors_total": Definition("counter", "Errors of the processor thread"),
    "sluiceway_rollup_lag_seconds": Definition(
        "gauge", "From the newest hour rolled to the newest that is due, of the worst tenant"
    ),
    "sluiceway_rollup_paused": Definition("gauge", "1 while the rollup is paused"),
    "sluiceway_rollup_units_total": Definition("counter", "Ranges of a tenant rolled to minutes"),
    "sluiceway_rollup_points_total": Definition("counter", "Raw points rolled to minutes"),
    "sluiceway_rollup_windows_total": Definition("counter", "Windows of a minute made"),
    "sluiceway_rollup_failures_total": Definition("counter", "Tasks of the rollup that failed"),
    "sluiceway_tier_files_damaged": Definition(
        "gauge", "Warm and cold files in the catalog that could not be read"
    ),
    "sluiceway_tier_objects_failing": Definition(
        "gauge", "1 while the object store of the rollups cannot be used"
    ),
    "sluiceway_tier_objects_waiting_bytes": Definition(
        "gauge", "Bytes of files of rollups that are to go to the object store"
    ),
    "sluiceway_tier_objects_stalled_seconds": Definition(
        "gauge", "For how long files have waited for the object store and none was sent"
    ),
    "sluiceway_rollup_lost_points_total": Definition(
        "counter", "Points of damaged raw pages that windows may lack"
    ),
    "sluiceway_rollup_busy_seconds_total": Definition("counter", "Time spent in its tasks"),
    "sluiceway_warm_bytes": Definition("gauge", "Bytes of files of one-minute windows"),
    "sluiceway_cold_bytes": Definition("gauge", "Bytes of files of one-hour windows"),
    "sluiceway_tier_grace_bytes": Definition("gauge", "Bytes of files that wait for their unlink"),
    "sluiceway_tenants": Definition("gauge", "Tenants that have a record"),
    "sluiceway_deletions_pending": Definition("gauge", "Orders to delete that are not done"),
    "sluiceway_tenants_deleting": Definition("gauge", "Tenants whose data has to go"),
    "sluiceway_policy_version": Definition("gauge", "Policy that new records are judged by"),
    "sluiceway_policy_pending": Definition("gauge", "1 while a published policy is not in force"),
    "sluiceway_budget_series": Definition(
        "gauge", "Series that a budget counts: active, or new in this hour", BUDGET
    ),
    "sluiceway_budget_series_limit": Definition("gauge", "Limit of a budget", (*BUDGET, "level")),
    "sluiceway_budget_series_past_limit_total": Definition(
        "counter", "New series past a limit: over_soft, observed past hard, refused", OUTCOME
    ),
    "sluiceway_budget_points_total": Definition(
        "counter", "Points past a limit: dead_lettered, discarded, folded", OUTCOME
    ),
    "sluiceway_tenant_spend": Definition(
        "gauge", "Money of this month, of tenants with a budget: spent, forecast", ("tenant", "of")
    ),
    "sluiceway_tenant_spend_limit": Definition(
        "gauge", "A tenant's budget of a month's money", ("tenant", "level")
    ),
    "sluiceway_alerts": Definition("gauge", "Alerts by state", ("state",)),
    "sluiceway_alerts_untracked_total": Definition(
        "counter", "Findings that found no place among the alerts"
    ),
    "sluiceway_alert_looks_failed_total": Definition("counter", "Looks that could not be judged"),
    "sluiceway_alert_deliveries_total": Definition(
        "counter",
        "Bodies to receivers of alerts: sent, retried, failed, refused, forbidden, dropped",
        ("receiver", "outcome"),
    ),
    "sluiceway_memory_bytes": Definition("gauge", "Resident anonymous memory", ("side",)),
    "sluiceway_memory_bytes_max": Definition("gauge", "Limit of this side's memory", ("side",)),
    "sluiceway_process_start_seconds": Definition("gauge", "Unix time of the start", ("side",)),
    "sluiceway_event_loop_lag_seconds": Definition(
        "gauge", "Longest stand of the event loop in the last seconds", ("side",)
    ),
}

# Seconds. An ack on a healthy disk takes 1 to 5 ms, a heavy query seconds.
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

TENANT_LABELS_MAX = 200
OTHER_TENANTS = "(other)"
"""No tenant's name: parentheses are not allowed in one."""


class TenantLabels:
    """Tenants' names as label values: the first ones by name, all others together."""

    def __init__(self, labels_max: int = TENANT_LABELS_MAX) -> None:
        self._labels_max = labels_max
        self._named: set[str] = set()

    def of(self, tenant: str) -> str:
        if tenant in self._named:
            return tenant
        if len(self._named) >= self._labels_max:
            return OTHER_TENANTS
        self._named.add(tenant)
        return tenant


class Metrics:
    """Counts by (name, label values). Never blocks for long, never raises on a known name."""

    def __init__(self) -> None:
        self._values: dict[tuple[MetricName, Labels], float] = {}
        self._histograms: dict[tuple[MetricName, Labels], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def count(self, name: MetricName, labels: Labels = (), by: float = 1) -> None:
        """Add to a counter."""
        key = (name, labels)
        with self._lock:
            try:
                self._values[key] += by
            except KeyError:
                _check(name, labels)
                self._values[key] = by

    def count_all(self, counts: Iterable[tuple[MetricName, Labels, float]]) -> None:
        """Add to several counters at once: (name, label values, by) each."""
        values = self._values
        with self._lock:
            for name, labels, by in counts:
                key = (name, labels)
                if key not in values:
                    _check(name, labels)
                    values[key] = 0
                values[key] += by

    def set(self, name: MetricName, value: float, labels: Labels = ()) -> None:
        """Set a gauge, or a counter that somebody else counts."""
        _check(name, labels)
        with self._lock:
            self._values[(name, labels)] = value

    def replace(self, name: MetricName, values: Mapping[Labels, float]) -> None:
        """Set every value of a metric: those not among `values` are gone."""
        for labels in values:
            _check(name, labels)
        with self._lock:
            for key in [key for key in self._values if key[0] == name]:
                del self._values[key]
            self._values.update(((name, labels), value) for labels, value in values.items())

    def observe(self, name: MetricName, seconds: float, labels: Labels = ()) -> None:
        """Add one duration to a histogram."""
        key = (name, labels)
        with self._lock:
            try:
                counts, total = self._histograms[key]
            except KeyError:
                _check(name, labels)
                counts, total = self._histograms[key] = ([0] * (len(BUCKETS_S) + 1), [0.0])
            counts[bisect_left(BUCKETS_S, seconds)] += 1
            total[0] += seconds

    def value(self, name: MetricName, labels: Labels = ()) -> float:
        return self._values.get((name, labels), 0)

    def labelled(self, name: MetricName) -> dict[Labels, float]:
        """Every value of a counter or gauge, by its label values."""
        with self._lock:
            values = list(self._values.items())
        return {labels: value for (other, labels), value in values if other == name}

    def unlabelled(self) -> dict[str, float]:
        """Every counter and gauge that has no labels."""
        with self._lock:
            values = list(self._values.items())
        return {name: value for (name, labels), value in values if not labels}

    def render(self, tenant: str | None = None) -> bytes:
        """Everything in Prometheus' text format, in the order of the list; of what is told by
        tenant only this one's, where it is named."""
        lines: list[str] = []
        with self._lock:
            rows_by_name = {name: list(self._rows(name, tenant)) for name in get_args(MetricName)}
        for name, rows in rows_by_name.items():
            if rows:
                definition = DEFINITIONS[name]
                lines += [
                    f"# HELP {name} {definition.meaning}.",
                    f"# TYPE {name} {definition.kind}",
                    *rows,
                ]
        return ("\n".join(lines) + "\n").encode()

    def _rows(self, name: MetricName, tenant: str | None) -> Iterator[str]:
        names = DEFINITIONS[name].labels
        hidden = tenant is not None and "tenant" in names[:1]
        for (other, labels), value in sorted(self._values.items()):
            if other == name and not (hidden and labels[0] != tenant):
                yield f"{name}{_braces(names, labels)} {value:.17g}"
        for (other, labels), (counts, total) in sorted(self._histograms.items()):
            if other == name:
                running = 0
                for bound, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
                    running += count
                    braces = _braces((*names, "le"), (*labels, str(bound)))
                    yield f"{name}_bucket{braces} {running}"
                yield f"{name}_sum{_braces(names, labels)} {total[0]:.17g}"
                yield f"{name}_count{_braces(names, labels)} {running}"


def _check(name: MetricName, labels: Labels) -> None:
    assert name in DEFINITIONS, f"{name} is not in the list of metrics"
    assert len(DEFINITIONS[name].labels) == len(labels), f"{name} has other labels"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    escaped = (v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for v in values)
    return "{" + ",".join(f'{n}="{v}"' for n, v in zip(names, escaped, strict=True)) + "}"


def memory_bytes() -> int:
    """Resident anonymous memory of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0

"""Prometheus' HTTP API, as Grafana's data source calls it.

Invariant: an endpoint is a function of (request) to the bytes of `data`; envelopes, error types
and statuses are in app.py. Label strings are written by kernels wherever there can be many.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sluiceway import __version__
from sluiceway.clock import Clock
from sluiceway.errors import TenantFault
from sluiceway.kernels import LabelTable, write_series
from sluiceway.ledger.account import account
from sluiceway.query.api.interface import Asker, LabelReader, PartialReader
from sluiceway.query.api.parameters import (
    TIME_MIN_MS,
    Parameters,
    bad,
    invalid,
    unescape_name,
)
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.durations import TIME_MAX_MS
from sluiceway.query.promql.engine import Engine, Result
from sluiceway.query.promql.parser import parse, parse_selector
from sluiceway.query.promql.plan import matchers_of
from sluiceway.query.promql.printer import render
from sluiceway.query.promql.syntax import Matcher
from sluiceway.query.spent import Asked, Spent
from sluiceway.query.stitched import distinct_series

TRUNCATED = "results truncated due to limit"
# What Grafana and other clients take features from: the Prometheus whose API this is.
COMPATIBLE_VERSION = "3.5.0"


@dataclass(frozen=True)
class Request:
    """One call: its path's variable part, its parameters, who asks."""

    name: str
    parameters: Parameters
    asker: Asker
    asked: Asked = field(default_factory=Asked)


@dataclass(frozen=True)
class Data:
    """What goes into the envelope; `json` is the value of `data`. A `document`, (content type,
    bytes), goes without one."""

    json: bytes
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    document: tuple[bytes, bytes] | None = None


Endpoint = Callable[[Request], Data]


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class PrometheusApi:
    """The endpoints. Each is called on a worker thread."""

    def __init__(
        self,
        engine: Engine,
        labels: LabelReader,
        limits: QueryConfig,
        clock: Clock,
        more: Mapping[str, Endpoint] | None = None,
    ) -> None:
        """`more`: endpoints of ours that are in modules of their own."""
        self._engine = engine
        self._labels = labels
        self._limits = limits
        self._clock = clock
        self._started_ms = clock.now_ms()
        self.endpoints: dict[str, Endpoint] = {
            "query": self.query,
            "query_range": self.query_range,
            "format_query": self.format_query,
            "query_exemplars": lambda _: Data(b"[]"),
            "labels": self.label_names,
            "label/*/values": self.label_values,
            "series": self.series,
            "metadata": self.metadata,
            "alertmanagers": lambda _: Data(
                b'{"activeAlertmanagers":[],"droppedAlertmanagers":[]}'
            ),
            "targets": lambda _: Data(b'{"activeTargets":[],"droppedTargets":[]}'),
            "status/buildinfo": self.build_information,
            "status/runtimeinfo": self.runtime_information,
            "status/config": lambda _: Data(b'{"yaml":""}'),
            "status/flags": lambda _: Data(b"{}"),
            "status/tsdb": self.tsdb,
            "ledger": self.ledger,
            **(more or {}),
        }

    def query(self, request: Request) -> Data:
        parameters, asker, asked = request.parameters, request.asker, request.asked
        asked.text = parameters.text("query")
        time_ms = parameters.time_ms("time", self._clock.now_ms())
        asked.start_ms = asked.end_ms = time_ms
        lookback_ms = self._lookback_ms(parameters)
        with _naming("query"):
            result = self._engine.query_instant(
                asker.tenant,
                asked.text,
                time_ms,
                asker.deadline_s,
                asker.cancel,
                lookback_ms,
                asked.spent,
            )
        return self._answer(request, result)

    def query_range(self, request: Request) -> Data:
        parameters, asker, asked = request.parameters, request.asker, request.asked
        asked.text = parameters.text("query")
        start_ms = parameters.time_ms("start")
        end_ms = parameters.time_ms("end")
        if end_ms < start_ms:
            raise invalid("end", "end timestamp must not be before start time")
        step_ms = parameters.duration_ms("step")
        if step_ms <= 0:
            raise invalid(
                "step",
                "zero or negative query resolution step widths are not accepted. "
                "Try a positive integer",
            )
        if (end_ms - start_ms) // step_ms > self._limits.steps_max:
            raise bad(
                f"exceeded maximum resolution of {self._limits.steps_max:,} points per timeseries."
                " Try decreasing the query resolution (?step=XX)"
            )
        asked.start_ms, asked.end_ms, asked.step_ms = start_ms, end_ms, step_ms
        range_ms_max = asker.quota.range_ms_max
        if range_ms_max is not None and end_ms - start_ms > range_ms_max:
            words = f"a range query spans at most query.range_ms_max = {range_ms_max} ms"
            raise TenantFault(422, "sluiceway-query-range-max", words)
        lookback_ms = self._lookback_ms(parameters)
        with _naming("query"):
            result = self._engine.query_range(
                asker.tenant,
                asked.text,
                start_ms,
                end_ms,
                step_ms,
                asker.deadline_s,
                asker.cancel,
                lookback_ms,
                asked.spent,
            )
        return self._answer(request, result)

    def _answer(self, request: Request, result: Result) -> Data:
        warnings = list(result.warnings)
        if result.cut(request.parameters.count("limit", self._limits.series_max)):
            warnings.append(TRUNCATED)
        data = result.data_bytes()
        if request.parameters.text("stats"):
            data = b'%b,"stats":%b}' % (data[:-1], dumps(stats_of(request.asked.spent)))
        return Data(data, warnings, result.infos)

    def format_query(self, request: Request) -> Data:
        with _naming("query"):
            return Data(dumps(render(parse(request.parameters.text("query")))))

    def label_names(self, request: Request) -> Data:
        cancel, warnings = request.asker.cancel, list[str]()
        asked = [
            self._labels.label_names(selection, cancel, warnings)
            for selection in self._selections(request)
        ]
        return self._list(request, asked, warnings)

    def label_values(self, request: Request) -> Data:
        name = unescape_name(request.name)
        if not name:
            raise bad(f'invalid label name: "{request.name}"')
        cancel, warnings = request.asker.cancel, list[str]()
        asked = [
            self._labels.label_values({**selection, "name": name}, cancel, warnings)
            for selection in self._selections(request)
        ]
        return self._list(request, asked, warnings)

    def series(self, request: Request) -> Data:
        if not request.parameters.all("match[]"):
            raise bad("no match[] parameter provided")
        limit = request.parameters.count("limit", self._limits.label_names_limit_max)
        warnings: list[str] = []
        tables = [
            self._labels.series(selection, request.asker.cancel, warnings)
            for selection in self._selections(request)
        ]
        table = tables[0]
        if len(tables) > 1:
            table = distinct_series(LabelTable.concat(tables))
        if len(table) > limit:
            table = table.take(np.arange(limit, dtype=np.int64))
            warnings.append(TRUNCATED)
        return Data(write_series(table), distinct(warnings))

    def metadata(self, request: Request) -> Data:
        parameters = request.parameters
        asked = {
            **self._common(request),
            "metric": parameters.text("metric") or None,
            "limit": parameters.count("limit", self._limits.label_names_limit_max),
        }
        if isinstance(self._labels, PartialReader):
            families, warnings = self._labels.partial_metadata(asked, request.asker.cancel)
            return Data(dumps(families), warnings)
        return Data(dumps(self._labels.metadata(asked, request.asker.cancel)))

    def build_information(self, request: Request) -> Data:
        return Data(
            dumps(
                {
                    "version": COMPATIBLE_VERSION,
                    "revision": f"sluiceway-{__version__}",
                    "branch": "sluiceway",
                    "buildUser": "",
                    "buildDate": "",
                    "goVersion": "",
                }
            )
        )

    def runtime_information(self, request: Request) -> Data:
        return Data(dumps({"startTimeUnixMs": self._started_ms, "reloadConfigSuccess": True}))

    def tsdb(self, request: Request) -> Data:
        stats, warnings = self._stats(request)

        def pairs(key: str) -> list[dict[str, Any]]:
            return [{"name": name, "value": count} for name, count in stats.get(key, [])]

        return Data(
            dumps(
                {
                    "headStats": {
                        "numSeries": stats.get("series_count", 0),
                        "numLabelPairs": stats.get("label_name_count", 0),
                        "chunkCount": 0,
                        "minTime": stats.get("min_time_ms", 0),
                        "maxTime": stats.get("max_time_ms", 0),
                    },
                    "seriesCountByMetricName": pairs("series_by_metric"),
                    "labelValueCountByLabelName": pairs("values_by_label"),
                    "memoryInBytesByLabelName": [],
                    "seriesCountByLabelValuePair": pairs("series_by_pair"),
                }
            ),
            warnings,
        )

    def ledger(self, request: Request) -> Data:
        """A tenant sees its own row; movements and stock are everybody's, so they are an admin's
        to see, and so is the raw scan, which reads all there is."""
        raw_scan = request.parameters.text("raw_scan") in ("1", "true")
        asker = request.asker
        if raw_scan and not asker.sees_all:
            words = "raw_scan needs a key of scope admin"
            raise TenantFault(403, "sluiceway-key-scope", words)
        asked = {**self._common(request), "raw_scan": raw_scan}
        told = self._labels.ledger(asked, asker.cancel)
        return Data(dumps(account(told, None if asker.sees_all else asker.tenant)))

    def _stats(self, request: Request) -> tuple[dict[str, Any], list[str]]:
        top = request.parameters.count("limit", 10_000) if request.parameters.text("limit") else 10
        asked = {**self._common(request), "top": top}
        if isinstance(self._labels, PartialReader):
            return self._labels.partial_stats(asked, request.asker.cancel)
        return self._labels.stats(asked, request.asker.cancel), []

    def _common(self, request: Request) -> dict[str, Any]:
        left_s = request.asker.deadline_s - self._clock.monotonic_s()
        return {
            "tenant": request.asker.tenant,
            "timeout_ms": max(1, int(left_s * 1000)),
        }

    def _selections(self, request: Request) -> list[dict[str, Any]]:
        """One request for each `match[]`; one for everything where there is none."""
        parameters = request.parameters
        start_ms = parameters.time_ms("start", TIME_MIN_MS)
        end_ms = parameters.time_ms("end", TIME_MAX_MS)
        if end_ms < start_ms:
            raise bad("end timestamp must not be before start time")
        common = {**self._common(request), "start_ms": start_ms, "end_ms": end_ms}
        chosen = [matchers_in(text) for text in parameters.all("match[]")] or [[]]
        own_max = request.asker.quota.series_max
        series_max = self._limits.series_max
        limits = {"series_max": series_max if own_max is None else min(series_max, own_max)}
        return [{**common, "matchers": matchers, "limits": limits} for matchers in chosen]

    def _list(self, request: Request, asked: list[list[str]], warnings: list[str]) -> Data:
        limit = request.parameters.count("limit", self._limits.label_names_limit_max)
        values = asked[0] if len(asked) == 1 else sorted(set().union(*asked))
        if len(values) > limit:
            warnings.append(TRUNCATED)
        return Data(dumps(values[:limit]), distinct(warnings))

    def _lookback_ms(self, parameters: Parameters) -> int:
        lookback_ms = parameters.duration_ms("lookback_delta", self._limits.lookback_ms)
        if lookback_ms <= 0:
            raise invalid("lookback_delta", "must be positive")
        return lookback_ms


def matchers_in(text: str) -> list[dict[str, str]]:
    """The matchers of a selector in `match[]`. Raises: TenantFault 400."""
    with _naming("match[]"):
        selector = parse_selector(text)
    if all(matches_empty(matcher) for matcher in selector.matchers):
        raise bad("match[] must contain at least one non-empty matcher")
    return matchers_of(selector)


@contextmanager
def _naming(parameter: str) -> Iterator[None]:
    """Faults of a text name the parameter that it came in, as Prometheus does."""
    try:
        yield
    except TenantFault as fault:
        if fault.status != 400:
            raise
        words = f'invalid parameter "{parameter}": {fault.message}'
        raise TenantFault(400, fault.id, words) from None


def matches_empty(matcher: Matcher) -> bool:
    """Does this matcher match a series without the label? A guard of the API, not of safety."""
    match matcher.operator:
        case "=":
            return not matcher.value
        case "!=":
            return bool(matcher.value)
        case "=~":
            return matcher.value in ("", ".*")
        case _:
            return matcher.value not in ("", ".*")


def stats_of(spent: Spent) -> dict[str, Any]:
    """What `stats` asks for, in Prometheus' shape, and what it cost by our own count."""
    return {
        "samples": {"totalQueryableSamples": spent.points_scanned},
        "sluiceway": {
            "seriesSelected": spent.series_selected,
            "pointsEstimated": spent.points_estimated,
            "costEstimated": spent.cost,
            "pointsRead": spent.points_scanned,
            "tiers": list(spent.tiers),
            "bytesRead": spent.bytes_read,
            "objectsRead": spent.files_read,
        },
    }


def distinct(warnings: list[str]) -> list[str]:
    """Each warning once, in order."""
    return list(dict.fromkeys(warnings))

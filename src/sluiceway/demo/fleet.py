"""A small simulated fleet: services with rates, errors and latencies, and a deploy that goes wrong.

Owns the series of the fleet and the value each of them has at a step. Values are columns over all
series (NumPy), so that an hour of history is made in well under a second. The one invariant:
counters never fall, except where an instance restarts at the deploy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CODES = ("200", "404", "500")
REGIONS = ("eu-west-1", "us-east-1")


@dataclass(frozen=True)
class Service:
    """One service: how busy it is and how fast it answers when all is well."""

    name: str
    instance_count: int
    handlers: tuple[str, ...]
    requests_per_s: float
    latency_s: float
    error_ratio: float


SERVICES = (
    Service("checkout", 8, ("/cart", "/pay", "/confirm"), 42.0, 0.045, 0.002),
    Service("search", 10, ("/query", "/suggest"), 130.0, 0.018, 0.001),
    Service("catalog", 6, ("/item", "/list"), 88.0, 0.009, 0.0005),
    Service("payments", 4, ("/authorize", "/refund"), 17.0, 0.120, 0.004),
    Service("accounts", 4, ("/login", "/profile"), 31.0, 0.030, 0.003),
)
DEPLOYED = "checkout"


@dataclass(frozen=True)
class Deploy:
    """The deploy that goes wrong: slow and failing from `start_s` to `rollback_s`."""

    start_s: float
    rollback_s: float
    slowdown: float = 5.0
    error_ratio: float = 0.12


def _go_float(value: float) -> str:
    return f"{value:g}"


class Fleet:
    """The fleet's series and their values, step by step."""

    def __init__(self, step_s: float, deploy: Deploy, seed: int = 1) -> None:
        self.step_s = step_s
        self.deploy = deploy
        self._random = np.random.default_rng(seed)
        units = [
            (service, instance, handler)
            for service in SERVICES
            for instance in range(service.instance_count)
            for handler in service.handlers
        ]
        self._service = [unit[0] for unit in units]
        self._deployed = np.array([unit[0].name == DEPLOYED for unit in units])
        self._rate = np.array([unit[0].requests_per_s for unit in units])
        self._latency = np.array([unit[0].latency_s for unit in units])
        self._errors = np.array([unit[0].error_ratio for unit in units])
        self._unit_count = len(units)
        instances = sorted({(unit[0].name, unit[1]) for unit in units})
        self._instance_count = len(instances)
        self.labels: list[dict[str, str]] = []
        for service, instance, handler in units:
            base = _target(service.name, instance) | {"handler": handler}
            for code in CODES:
                self.labels.append(base | {"__name__": "http_requests_total", "code": code})
            name = "http_request_duration_seconds"
            for bound in (*map(_go_float, BOUNDS_S), "+Inf"):
                self.labels.append(base | {"__name__": f"{name}_bucket", "le": bound})
            self.labels.append(base | {"__name__": f"{name}_sum"})
            self.labels.append(base | {"__name__": f"{name}_count"})
        for name, instance in instances:
            base = _target(name, instance)
            self.labels.append(base | {"__name__": "process_cpu_seconds_total"})
            self.labels.append(base | {"__name__": "process_resident_memory_bytes"})
            self.labels.append(base | {"__name__": "queue_depth"})
            self.labels.append(base | {"__name__": "up"})
        self._codes = np.zeros((self._unit_count, len(CODES)))
        self._buckets = np.zeros((self._unit_count, len(BOUNDS_S) + 1))
        self._sums = np.zeros(self._unit_count)
        self._cpu = self._random.uniform(0, 1e4, self._instance_count)
        self._memory = self._random.uniform(2e8, 9e8, self._instance_count)

    @property
    def series_count(self) -> int:
        return len(self.labels)

    def steps(self, start_s: float, count: int) -> Iterator[tuple[float, Floats]]:
        """Yield `count` steps from `start_s`: (seconds since the demo's start, values [series])."""
        for index in range(count):
            at_s = start_s + index * self.step_s
            yield at_s, self.step(at_s)

    def step(self, at_s: float) -> Floats:
        """The values of all series, in the order of `labels`, at `at_s`."""
        bad = self._deployed & (self.deploy.start_s <= at_s < self.deploy.rollback_s)
        wave = 1 + 0.35 * np.sin(at_s / 900) + 0.08 * self._random.standard_normal(self._unit_count)
        requests = self._random.poisson(np.clip(self._rate * wave, 0.1, None) * self.step_s)
        error_ratio = np.where(bad, self.deploy.error_ratio, self._errors)
        failed = self._random.binomial(requests, error_ratio)
        missing = self._random.binomial(requests - failed, 0.01)
        self._codes += np.stack([requests - failed - missing, missing, failed], axis=1)
        scale = self._latency * np.where(bad, self.deploy.slowdown, 1.0)
        bounds = np.array([*BOUNDS_S, np.inf])
        share = 1 - np.exp(-((bounds[None, :] / scale[:, None]) ** 1.4))
        self._buckets += np.floor(requests[:, None] * share)
        self._buckets[:, -1] = np.maximum(self._buckets[:, -1], self._buckets[:, -2])
        self._sums += np.round(requests * scale * 0.91, 6)
        self._cpu = np.round(
            self._cpu + self._random.uniform(0.05, 0.9, self._instance_count) * self.step_s, 2
        )
        drift = self._random.normal(2e4, 4e5, self._instance_count)
        self._memory = np.floor(np.clip(self._memory + drift, 1e8, 2e9) / 4096) * 4096
        depth = self._random.poisson(4.0, self._instance_count).astype(float)
        per_unit = np.concatenate(
            [self._codes, self._buckets, self._sums[:, None], self._buckets[:, -1:]], axis=1
        )
        ones = np.ones(self._instance_count)
        per_instance = np.stack([self._cpu, self._memory, depth, ones], axis=1)
        return np.concatenate([per_unit.ravel(), per_instance.ravel()])


def _target(service: str, instance: int) -> dict[str, str]:
    return {
        "job": "shop",
        "service": service,
        "instance": f"{service}-{instance}",
        "region": REGIONS[instance % len(REGIONS)],
    }

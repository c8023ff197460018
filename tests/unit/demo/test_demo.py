"""The demo's own arithmetic: bodies decode to what was put in, counters never fall."""

import itertools

import cramjam
import numpy as np

from sluiceway.demo.fleet import Deploy, Fleet
from sluiceway.demo.push import Template, snappy_literals
from sluiceway.demo.show import sparkline


def test_snappy_literals_decode_to_the_input() -> None:
    data = bytes(range(256)) * 700
    assert bytes(cramjam.snappy.decompress_raw(snappy_literals(data))) == data


def test_template_holds_value_and_time() -> None:
    template = Template([{"__name__": "up", "instance": "a"}])
    body = bytes(cramjam.snappy.decompress_raw(template.fill(1_700_000_000_000, np.array([2.5]))))
    assert np.array([2.5]).tobytes() in body
    assert b"instance" in body and b"up" in body


def test_counters_never_fall_and_buckets_are_cumulative() -> None:
    fleet = Fleet(10.0, Deploy(20.0, 50.0))
    steps = [values for _, values in fleet.steps(0.0, 8)]
    counters = [
        i for i, s in enumerate(fleet.labels) if s["__name__"].endswith(("_total", "_bucket"))
    ]
    for before, after in itertools.pairwise(steps):
        assert np.all(after[counters] >= before[counters])
    buckets = [i for i, s in enumerate(fleet.labels) if s["__name__"].endswith("_bucket")]
    table = steps[-1][buckets].reshape(-1, 12)
    assert np.all(np.diff(table, axis=1) >= 0)


def test_sparkline_spans_the_range() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([float("nan")]) == ""

"""Every shared PromQL case against the engine, in process, over series in memory.

Each case of the tiers that must hold is one test; the others are counted, so that a regression in
what already works is seen."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from fakes.memory_reader import MemoryReader
from fakes.promql_cases import SHARED, difference, load, read_cases
from sluiceway.errors import TenantFault
from sluiceway.kernels import EvaluateServer, MemoryShard, ShardClient
from sluiceway.query.interface import ShardReader
from sluiceway.query.promql.engine import Engine

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not (SHARED / "promql-cases").is_dir(),
        reason=f"THE SHARED PROMQL CASES ARE NOT HERE: {SHARED}/promql-cases is absent",
    ),
]
_PRESENT = (SHARED / "promql-cases").is_dir()


@cache
def corpus(name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return read_cases(name)


@cache
def data(corpus_name: str, dataset: str | None) -> MemoryReader:
    return load(corpus(corpus_name)[1].get(dataset or ""))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Any], ShardClient]]:
    """The evaluate protocol over a Unix socket, a server for each data set, all at the end gone."""
    folder = tmp_path_factory.mktemp("shards")
    servers: dict[tuple[str, Any], tuple[EvaluateServer, ShardClient]] = {}

    def client(corpus_name: str, dataset: str | None) -> ShardClient:
        key = (corpus_name, dataset)
        if key not in servers:
            reader = data(corpus_name, dataset)
            series = [
                (dict(labels), sorted(points), [points[time] for time in sorted(points)])
                for labels, points in reader.series.items()
            ]
            path = folder / str(len(servers))
            server = EvaluateServer(MemoryShard(series), path, {"query_threads": 1})
            server.start()
            servers[key] = (server, ShardClient(path))
        return servers[key][1]

    yield client
    for server, _ in servers.values():
        server.stop()


def ask(reader: ShardReader, case: dict[str, Any]) -> dict[str, Any]:
    """The API's answer to a case."""
    engine = Engine(reader)
    try:
        if case["kind"] == "instant":
            result = engine.query_instant("default", case["expr"], case["at_ms"])
        else:
            result = engine.query_range(
                "default", case["expr"], case["start_ms"], case["end_ms"], case["step_ms"]
            )
    except TenantFault as fault:
        return {"error": fault.message}
    return {
        "data": json.loads(result.data_bytes()),
        "warnings": result.warnings,
        "infos": result.infos,
    }


def required(name: str) -> list[Any]:
    if not _PRESENT:
        return []
    return [
        pytest.param(name, case, id=case["id"])
        for case in corpus(name)[0]
        if case["tier"] == "core"
    ]


@pytest.mark.parametrize(("name", "case"), required("promql-cases") + required("promql-compliance"))
def test_core(name: str, case: dict[str, Any]) -> None:
    found = difference(case, ask(data(name, case["dataset"]), case))
    assert found is None, f"{case['expr']}: {found}"


@pytest.mark.parametrize(("name", "case"), required("promql-cases") + required("promql-compliance"))
def test_core_over_the_protocol(
    served: Callable[[str, Any], ShardClient], name: str, case: dict[str, Any]
) -> None:
    found = difference(case, ask(served(name, case["dataset"]), case))
    assert found is None, f"{case['expr']}: {found}"


# How many cases beyond core hold at the least; raise it with the work that makes more of them hold.
EXPERIMENTAL_MIN = 195


def test_experimental() -> None:
    cases = [case for case in corpus("promql-cases")[0] if case["tier"] == "experimental"]
    failures = [
        f"{case['expr']}: {found}"
        for case in cases
        if (found := difference(case, ask(data("promql-cases", case["dataset"]), case)))
    ]
    print("\n".join(failures))
    assert len(cases) - len(failures) >= EXPERIMENTAL_MIN

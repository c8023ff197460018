"""Mutated queries: whatever the text, the answer is an answer or a fault of the tenant."""

import random
import re
from typing import Any

import pytest

from fakes.memory_reader import MemoryReader
from fakes.promql_cases import SHARED, load, read_cases
from sluiceway.errors import TenantFault
from sluiceway.query.promql.engine import Engine
from sluiceway.query.promql.parser import parse
from sluiceway.query.promql.printer import render

MUTANTS_PER_SEED = 4_000


def mutate(source: random.Random, tokens: list[str], corpus: list[list[str]]) -> str:
    tokens = list(tokens)
    for _ in range(source.randint(1, 3)):
        other = source.choice(corpus)
        at, start = source.randrange(len(tokens) + 1), source.randrange(len(other))
        match source.choice(("replace", "delete", "insert", "splice")):
            case "replace":
                tokens[at : at + 1] = [other[start]]
            case "delete":
                del tokens[at : at + 1]
            case "insert":
                tokens.insert(at, other[start])
            case _:
                tokens[at:at] = other[start : start + source.randint(1, 8)]
    return "".join(tokens)


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "promql-cases").is_dir(),
    reason=f"THE SHARED PROMQL CASES ARE NOT HERE: {SHARED}/promql-cases is absent",
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mutated_queries_are_answered_or_refused(seed: int) -> None:
    source = random.Random(seed)
    cases, datasets = read_cases("promql-cases")
    cases = [case for case in cases if "native_histograms" not in case["requires"]]
    corpus = [re.findall(r'"[^"]*"|\w+|\s+|.', case["expr"]) for case in cases]
    readers: dict[Any, MemoryReader] = {}
    answered = 0
    for _ in range(MUTANTS_PER_SEED):
        number = source.randrange(len(cases))
        dataset = cases[number]["dataset"]
        text = mutate(source, corpus[number], corpus)
        try:
            canonical = render(parse(text))
            assert render(parse(canonical)) == canonical, text
            if dataset not in readers:
                readers[dataset] = load(datasets.get(dataset))
            engine = Engine(readers[dataset])
            if source.random() < 0.5:
                engine.query_instant("default", text, 300_000).data_bytes()
            else:
                engine.query_range("default", text, 0, 600_000, 150_000).data_bytes()
            answered += 1
        except TenantFault:
            continue
    assert answered > 100

"""Scenarios in plain text, in the manner of promqltest: load series, ask, compare.

    load 5m
      requests_total{job="a"} 0+10x3 _ 50 stale

    eval instant at 10m sum(requests_total)
      {} 20

    eval range from 0 to 10m step 5m requests_total
      requests_total{job="a"} 0 10 20

    eval instant at 0 1 +
      expect fail unexpected end of input

`clear` forgets what was loaded. Lines of an answer are `labels value...`, a lone number is a
scalar; `expect ordered`, `expect fail [words]`, `expect warn|info [words]` stand among them.
"""

import math
import re
from dataclasses import dataclass, field

from fakes.memory_reader import STALE, MemoryReader
from fakes.promql_cases import near
from sluiceway.errors import TenantFault
from sluiceway.query.promql.durations import parse_duration
from sluiceway.query.promql.engine import Engine, Result
from sluiceway.query.promql.parser import parse_selector

_ITEM = re.compile(
    r"^(_|stale|[-+]?(?:[0-9.]+(?:e[-+]?\d+)?|inf|nan))(?:([-+][0-9.e]+))?(?:x(\d+))?$"
)


@dataclass
class Question:
    line: int
    text: str
    times_ms: list[int]
    answers: list[str] = field(default_factory=list)
    expectations: list[str] = field(default_factory=list)


def run(text: str) -> int:
    """Run a scenario file; how many questions it asked. Raises: AssertionError with the line."""
    reader, asked = MemoryReader(), 0
    question: Question | None = None
    load_step_ms = 0
    for number, line in enumerate([*text.splitlines(), "end"], start=1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        if line[0].isspace():
            if question is None:
                _load(reader, bare, load_step_ms)
            elif bare.startswith("expect "):
                question.expectations.append(bare.removeprefix("expect "))
            else:
                question.answers.append(bare)
            continue
        if question is not None:
            _ask(reader, question)
            asked += 1
        question = None
        if bare == "clear":
            reader = MemoryReader()
        elif bare.startswith("load "):
            load_step_ms = parse_duration(bare.split()[1])
        elif bare != "end":
            question = _question(number, bare)
    return asked


def _question(number: int, text: str) -> Question:
    instant = re.match(r"eval instant at (\S+) (.*)$", text)
    if instant:
        return Question(number, instant.group(2), [_time_ms(instant.group(1))])
    ranged = re.match(r"eval range from (\S+) to (\S+) step (\S+) (.*)$", text)
    assert ranged, f"line {number}: {text}"
    start_ms, end_ms = _time_ms(ranged.group(1)), _time_ms(ranged.group(2))
    step_ms = _time_ms(ranged.group(3))
    return Question(number, ranged.group(4), list(range(start_ms, end_ms + 1, step_ms)))


def _time_ms(text: str) -> int:
    return int(text) * 1000 if text.isdigit() else parse_duration(text)


def _split(line: str) -> tuple[dict[str, str], str]:
    """Labels and what follows them. The selector's parser reads the labels."""
    end = line.rfind("}") + 1 or len(line.split()[0])
    head = line[:end]
    if head == "{}":
        return {}, line[end:]
    selector = parse_selector(head)
    return {matcher.name: matcher.value for matcher in selector.matchers}, line[end:]


def _items(text: str) -> list[float | None]:
    values: list[float | None] = []
    for word in text.split():
        found = _ITEM.match(word.lower())
        assert found, f"no sample: {word}"
        first, change, times = found.groups()
        count = int(times or 0)
        if first == "_":
            values += [None] * max(count, 1)
            continue
        start = STALE if first == "stale" else float(first)
        # As promqltest: `axN` is N + 1 samples.
        values += [start + float(change or 0) * i if change else start for i in range(count + 1)]
    return values


def _load(reader: MemoryReader, line: str, step_ms: int) -> None:
    labels, rest = _split(line)
    for step, value in enumerate(_items(rest)):
        if value is not None:
            reader.add(labels, step * step_ms, value)


def _ask(reader: MemoryReader, question: Question) -> None:
    where = f"line {question.line}: {question.text}"
    engine, times = Engine(reader), question.times_ms
    failure = [text for text in question.expectations if text.startswith("fail")]
    try:
        if len(times) == 1:
            result = engine.query_instant("default", question.text, times[0])
        else:
            step_ms = times[1] - times[0]
            result = engine.query_range("default", question.text, times[0], times[-1], step_ms)
    except TenantFault as fault:
        assert failure, f"{where}: {fault.message}"
        assert failure[0].removeprefix("fail").strip() in fault.message, f"{where}: {fault.message}"
        return
    assert not failure, f"{where}: answered, failure expected"
    for word, notes in (("warn", result.warnings), ("info", result.infos)):
        for text in question.expectations:
            if text.startswith(word):
                wanted = text.removeprefix(word).strip()
                assert any(wanted in note for note in notes), f"{where}: {notes}"
    _compare(where, question, result)


def _compare(where: str, question: Question, result: Result) -> None:
    if result.type == "scalar":
        assert result.scalar is not None
        assert near(question.answers[0], result.scalar[0]), f"{where}: {result.scalar[0]}"
        return
    assert result.vector is not None, where
    wanted = [_split(line) for line in question.answers]
    labels = result.vector.labels.to_list()
    if "ordered" not in question.expectations:
        wanted.sort(key=lambda pair: sorted(pair[0].items()))
        rows = sorted(range(len(labels)), key=lambda row: sorted(labels[row].items()))
    else:
        rows = list(range(len(labels)))
    assert [labels[row] for row in rows] == [pair[0] for pair in wanted], f"{where}: {labels}"
    for row, (_, text) in zip(rows, wanted, strict=True):
        items = _items(text)
        items += [None] * (len(question.times_ms) - len(items))
        for step, value in enumerate(items):
            found = float(result.vector.values[row, step])
            here = bool(result.vector.present[row, step])
            assert here == (value is not None), f"{where}: {labels[row]} step {step}: {found}"
            if value is not None:
                plain = math.nan if math.isnan(value) else value
                assert near(plain, found), f"{where}: {labels[row]} step {step}: {found}"

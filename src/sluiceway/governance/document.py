"""A policy as people write it: YAML or JSON, read strictly, faults told with line and column.

Invariant: what is read is exactly what was written: no key is ignored, given twice or borrowed by
an alias, and no value is bent into another type.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml

from sluiceway.governance.policy import (
    BoundaryRule,
    Budget,
    Policy,
    SketchRule,
    checked,
    invalid,
)

DOCUMENT_BYTES_MAX = 1 << 20
DEPTH_MAX = 16
FAULT = re.compile(r"(?P<what>.*?) - at `(?P<path>.*)`", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
NUMBER_OF_YAML_1_1 = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?")
"""What YAML 1.1 reads in base 8 or 60, and 1.2 in base 10 or as text."""
STEP = re.compile(r"(\[[^\]]*\]|\.[^.\[]*)$")

Places = dict[str, yaml.Mark]


def parse_policy(text: str) -> Policy:
    """Raises: TenantFault (400, `sluiceway-policy-invalid`) naming line and column."""
    if len(text.encode()) > DOCUMENT_BYTES_MAX:
        raise invalid(f"the document is longer than {DOCUMENT_BYTES_MAX} bytes")
    try:
        refuse_traps(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise invalid(told(error)) from None
    if node is None:
        raise invalid("line 1, column 1: the document is empty")
    places: Places = {}
    value = read(yaml.SafeLoader(""), node, "$", places)
    try:
        policy = msgspec.convert(value, Policy, strict=True)
    except msgspec.ValidationError as error:
        raise invalid(placed(str(error), places)) from None
    refuse_control(policy)
    return checked(policy)


def refuse_control(policy: Policy) -> None:
    """Names stand in tables, alerts and logs: one may not end a line or colour a terminal. Only
    what is written now is held to it; versions of before are as they were."""
    for part, rules in named_parts(policy):
        for place, rule in enumerate(rules):
            if CONTROL.search(rule.name):
                raise invalid(f"{part}[{place}] {rule.name!r}: a name has no control characters")


def named_parts(
    policy: Policy,
) -> Iterator[tuple[str, Iterable[Budget | BoundaryRule | SketchRule]]]:
    yield "budgets", policy.budgets
    yield "boundary", policy.boundary
    yield "sketches", policy.sketches


def refuse_traps(text: str) -> None:
    """An alias can make a small document endless, and depth a small one costly."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise invalid(f"{where(event.start_mark)}: aliases are not taken")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise invalid(f"{where(event.start_mark)}: nested too deeply")


def read(loader: yaml.SafeLoader, node: yaml.Node, path: str, places: Places) -> Any:
    """The value of a node; `places` gets where each part of it stands, by msgspec's path."""
    places[path] = node.start_mark
    if isinstance(node, yaml.SequenceNode):
        return [
            read(loader, item, f"{path}[{place}]", places) for place, item in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return scalar(loader, node)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = scalar(loader, key_node)
        if not isinstance(key, str):
            raise invalid(f"{where(key_node.start_mark)}: a key must be text")
        if key in mapping:
            raise invalid(f"{where(key_node.start_mark)}: {key!r} is given twice")
        places[f"{path}!{key}"] = key_node.start_mark
        mapping[key] = read(loader, value_node, f"{path}.{key}", places)
    return mapping


def scalar(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    trap = trap_of(node)
    if trap is not None:
        raise invalid(f"{where(node.start_mark)}: {trap}")
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error)
        raise invalid(f"{where(node.start_mark)}: {problem}") from None
    if isinstance(value, str) and SURROGATE.search(value):
        raise invalid(f"{where(node.start_mark)}: half of a surrogate pair is no text")
    return value


def trap_of(node: yaml.Node) -> str | None:
    """What is wrong with a number that would not be read as it looks; None: nothing."""
    if not node.tag.endswith((":int", ":float")) or not NUMBER_OF_YAML_1_1.fullmatch(node.value):
        return None
    return f"{node.value} is not read as it looks: no leading 0 and no colon in a number"


def placed(message: str, places: Places) -> str:
    """A fault of msgspec's with the place in the document that it speaks of."""
    match = FAULT.fullmatch(message)
    what, path = (match["what"], match["path"]) if match else (message, "$")
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown and f"{path}!{unknown[1]}" in places:
        return f"{where(places[f'{path}!{unknown[1]}'])}: {what}"
    while path not in places and STEP.search(path):
        path = STEP.sub("", path)
    return f"{where(places.get(path, places['$']))}: {what} ({path.removeprefix('$.')})"


def told(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{where(mark)}: {problem}" if mark is not None else problem


def where(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"

"""What the role `query` cannot answer for all shards, it refuses in words."""

from typing import Any

from sluiceway.serve.alert_paths import AlertPaths
from sluiceway.serve.deletion_paths import DeletionPaths
from sluiceway.serve.import_paths import ImportPaths
from sluiceway.serve.letter_paths import LetterPaths
from sluiceway.serve.own_paths import OwnPaths
from sluiceway.serve.query_paths import SHARDS_OWN, QueryPaths
from sluiceway.serve.rollup_paths import RollupPaths
from sluiceway.telemetry import Metrics


def paths_of(kind: Any) -> set[str]:
    return set(kind.table(kind.__new__(kind)))


def test_every_path_of_a_shard_is_answered_or_refused_in_words() -> None:
    nothing: Any = None
    answered = set(QueryPaths(nothing, nothing, (), Metrics()).table())
    shards = (AlertPaths, DeletionPaths, ImportPaths, LetterPaths, OwnPaths, RollupPaths)
    for kind in shards:
        assert paths_of(kind) <= answered, kind
    assert answered >= set(SHARDS_OWN)

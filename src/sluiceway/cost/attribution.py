"""Whose the bytes on disk are: every file in slices of (tenant, metric, tier, part).

Invariant: the slices of a look sum to the bytes of the directory, to the last one, and those of the
rollups' objects that lie on an object store. What serves
everybody (journal, manifests, state) is `(shared)`; what nobody can be named for (files between two
versions, damaged pages, what deleted tenants left) is `(unassigned)`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from sluiceway.cost.disk import Directory, FileOnDisk, Heads
from sluiceway.cost.split import split
from sluiceway.tiers.catalog import Catalog, TierFile

SHARED, UNASSIGNED, OTHER = "(shared)", "(unassigned)", "(other metrics)"
"""Names that no tenant and no metric can have."""
POINTS, INDEX = "points", "index"
HOT, WARM, COLD = "hot", "warm", "cold"
SERIES_PARTS = (POINTS, INDEX)
FILES_LOOKED_AT = 4
"""Of a tenant's warm files: a day each, once they are merged."""
METRICS_MAX = 2_000
"""Of a tenant's rollups; smaller ones are one."""
SHARED_PARTS = {
    "manifest": "manifests",
    "policies": "policies",
    "hours": "recorded hours",
}
"""Directories of the hot tier that are everybody's."""


class Slice(NamedTuple):
    """Bytes of one owner. `metric` is empty where a part is of no metric."""

    tenant: str
    metric: str
    tier: str
    part: str
    bytes: int
    points: int = 0
    series: int = 0


Group = tuple[str, str, str]
"""Files that have the same owners: (tenant, tier, metric or empty)."""


class Rollups(NamedTuple):
    """Whose warm and cold files are: a group by path, of each group slices whose bytes are weights,
    and the bytes of files by path as the catalog has them."""

    group_of: Mapping[str, Group]
    weights: Mapping[Group, list[Slice]]
    bytes_of: Mapping[str, int]
    remote: frozenset[str] = frozenset()
    """Files that are on the store whether there is a copy in the directory or not."""

    def elsewhere(self, directory: Directory) -> dict[str, int]:
        """Files that are not in the directory, so on an object store, with their bytes. The catalog
        must have been read before the directory: files are there before they are committed."""
        here = {file.path for file in directory.files} - self.remote
        return {path: size for path, size in self.bytes_of.items() if path not in here}


NO_ROLLUPS = Rollups({}, {}, {})


def attribute(
    directory: Directory,
    usage: Mapping[str, Any],
    heads: Heads,
    rollups: Rollups = NO_ROLLUPS,
) -> list[Slice]:
    """Slices of all files, and of the rollups' objects that lie elsewhere. `usage` is the shard's
    answer to the request of that name."""
    blocks = {path for path, _ in usage["blocks"]}
    block_bytes = index_bytes = 0
    grouped: dict[Group, int] = {}
    slices = [
        Slice(SHARED, "", SHARED, "directories", directory.directory_bytes),
        Slice(UNASSIGNED, "", SHARED, "files past the limit", directory.uncounted_bytes),
    ]
    for file in directory.files:
        if file.path in blocks:
            block_bytes += file.bytes
        elif (group := rollups.group_of.get(file.path)) is not None:
            grouped[group] = grouped.get(group, 0) + file.bytes
        else:
            own = list(_of_file(file, heads))
            index_bytes += sum(piece.bytes for piece in own if piece.part == INDEX)
            slices += (piece for piece in own if piece.part != INDEX)
    for path, size in rollups.elsewhere(directory).items():
        group = rollups.group_of[path]
        grouped[group] = grouped.get(group, 0) + size
    for group, whole in grouped.items():
        slices += scaled(whole, rollups.weights[group])
    slices += _of_blocks(usage, block_bytes)
    slices += _of_registry(usage, index_bytes)
    return merged(slices)


MetricBytes = Callable[[str], Iterable[tuple[str, int, int]]]
"""Of a warm file's path: (metric, bytes of pages, bytes of what finds them); empty where it cannot
be read."""


def of_rollups(catalog: Catalog, metric_bytes: MetricBytes) -> Rollups:
    """Owners of the catalog's files. What a tenant's metrics have of its warm files is taken from
    the newest few of them: the others are taken to be alike."""
    groups: dict[str, Group] = {}
    newest: dict[Group, list[TierFile]] = {}
    for file in sorted(catalog.files, key=lambda file: -file.until_ms):
        group = (file.tenant, file.tier, file.metric or "")
        groups[file.path] = group
        looked_at = newest.setdefault(group, [])
        if file.tier == WARM and len(looked_at) < FILES_LOOKED_AT:
            looked_at.append(file)
    weights = {group: _weights(group, files, metric_bytes) for group, files in newest.items()}
    gone = (UNASSIGNED, SHARED, "")
    weights[gone] = [Slice(UNASSIGNED, "", SHARED, "superseded rollups", 1)]
    group_of = {**{file.path: gone for file in catalog.grace}, **groups}
    remote = frozenset(file.path for file in catalog.files if file.remote)
    return Rollups(group_of, weights, {file.path: file.bytes for file in catalog.files}, remote)


def _weights(group: Group, files: list[TierFile], metric_bytes: MetricBytes) -> list[Slice]:
    tenant, tier, metric = group
    sums: dict[str, list[int]] = {}
    for file in files:
        for name, data, index in metric_bytes(file.path):
            found = sums.setdefault(name, [0, 0])
            found[0] += data
            found[1] += index
    ranked = sorted(sums.items(), key=lambda pair: -sum(pair[1]))
    slices = []
    for at, (name, (data, index)) in enumerate(ranked):
        named = (name or OTHER) if at < METRICS_MAX else OTHER
        slices += [
            Slice(tenant, named, tier, POINTS, data),
            Slice(tenant, named, tier, INDEX, index),
        ]
    return merged(slices) or [Slice(tenant, metric or OTHER, tier, POINTS, 1)]


def merged(slices: Iterable[Slice]) -> list[Slice]:
    """One slice an owner, the largest first; those without anything are left out."""
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    for piece in slices:
        found = sums.setdefault(piece[:4], [0, 0, 0])
        for at, amount in enumerate((piece.bytes, piece.points, piece.series)):
            found[at] += amount
    whole = [Slice(*owner, *amounts) for owner, amounts in sums.items() if any(amounts)]
    return sorted(whole, key=lambda piece: (-piece.bytes, piece))


def scaled(whole: int, weighted: list[Slice]) -> list[Slice]:
    """Slices whose bytes are weights, as parts of `whole`."""
    if not weighted:
        return [Slice(UNASSIGNED, "", SHARED, "unknown", whole)]
    parts = split(whole, [piece.bytes for piece in weighted])
    return [piece._replace(bytes=part) for piece, part in zip(weighted, parts, strict=True)]


def rows_of(usage: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, int]]]:
    """(tenant, metric, amounts); a tenant's metrics that were left off are one."""
    for row in usage["metrics"]:
        yield row["tenant"], row["metric"], row
    for row in usage["rest"]:
        yield row["tenant"], OTHER, row


def _of_blocks(usage: Mapping[str, Any], whole: int) -> list[Slice]:
    """The blocks' bytes by metric: pages, and what finds them."""
    weighted = []
    for tenant, metric, row in rows_of(usage):
        weighted += [
            Slice(tenant, metric, HOT, POINTS, row["data_bytes"], row["points"], row["series"]),
            Slice(tenant, metric, HOT, INDEX, row["index_bytes"]),
        ]
    lost = usage["unassigned"]
    left = lost["data_bytes"] + lost["index_bytes"]
    weighted.append(Slice(UNASSIGNED, "", HOT, "blocks", left, lost["points"]))
    if not any(piece.bytes for piece in weighted):  # nobody to give it to
        return [*weighted, Slice(UNASSIGNED, "", HOT, "blocks", whole)]
    return scaled(whole, weighted)


def _of_registry(usage: Mapping[str, Any], whole: int) -> list[Slice]:
    """The registry's bytes by series."""
    weighted = [
        Slice(tenant, metric, HOT, INDEX, row["series"]) for tenant, metric, row in rows_of(usage)
    ]
    if not any(piece.bytes for piece in weighted):
        return [Slice(SHARED, "", SHARED, "state", whole)]
    return scaled(whole, weighted)


def _of_file(file: FileOnDisk, heads: Heads) -> Iterator[Slice]:
    """Slices of a file by its place; of a state file's registry a slice of part `index`."""
    first, *rest = file.path.split("/")
    if first.endswith(".quarantined") or (rest and rest[-1].endswith(".quarantined")):
        yield Slice(UNASSIGNED, "", SHARED, "quarantined", file.bytes)
    elif first == "hot" and len(rest) == 3:
        yield from _of_hot(rest[1], file, heads)
    elif first == "journal":
        yield Slice(SHARED, "", SHARED, "journal", file.bytes)
    elif first == "queries" and len(rest) == 2:
        yield Slice(unquote(rest[0]), "", SHARED, "query log", file.bytes)
    elif first == "cardinality":
        yield Slice(SHARED, "", SHARED, "recorded hours", file.bytes)
    elif first == "cache":
        yield Slice(SHARED, "", SHARED, "cache of objects", file.bytes)
    elif first == "cost":
        yield Slice(SHARED, "", SHARED, "cost", file.bytes)
    elif first == "tiers" and rest[:1] == ["manifest"]:
        yield Slice(SHARED, "", SHARED, "manifests", file.bytes)
    elif first == "tiers":  # in no catalog: being written, or about to go
        yield Slice(UNASSIGNED, "", SHARED, "rollups", file.bytes)
    elif first.startswith("tenants."):
        yield Slice(SHARED, "", SHARED, "tenants", file.bytes)
    elif first in ("run", "lock", "identity", "keys.toml"):
        yield Slice(SHARED, "", SHARED, "settings", file.bytes)
    else:
        yield Slice(UNASSIGNED, "", SHARED, "unknown", file.bytes)


def _of_hot(kind: str, file: FileOnDisk, heads: Heads) -> Iterator[Slice]:
    if kind == "state":
        registry = round(file.bytes * heads.registry_share(file.path))
        yield Slice(SHARED, "", HOT, INDEX, registry)
        yield Slice(SHARED, "", SHARED, "state", file.bytes - registry)
    elif kind == "letters":
        by_tenant = heads.letter_bytes(file.path) or {SHARED: 1}
        weighted = [
            Slice(tenant, "", SHARED, "dead letters", size) for tenant, size in by_tenant.items()
        ]
        yield from scaled(file.bytes, weighted)
    elif kind in SHARED_PARTS:
        yield Slice(SHARED, "", SHARED, SHARED_PARTS[kind], file.bytes)
    else:  # a block that is not of this version: just written, or about to go
        yield Slice(UNASSIGNED, "", SHARED, kind, file.bytes)

"""What a rollup does next: values, made by the planner and carried out by the hand-off.

Invariant: a task names all that it touches; carried out twice it leaves what it leaves once.
"""

from dataclasses import dataclass

from sluiceway.tiers.catalog import Tier


@dataclass(frozen=True, slots=True)
class Roll:
    """Raw points -> windows of (from_ms, until_ms], whole hours of one day."""

    tenant: str
    from_ms: int
    until_ms: int
    again: bool = False
    """Hours that were rolled before and got points since."""
    past_damage: bool = False
    """Raw pages are damaged for good: what is whole is rolled; hours that were rolled before the
    damage keep what they have."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing is held until `until_ms`: the watermark moves there."""

    tenant: str
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Hours that got points and of which raw is not whole any more: they cannot be rolled again."""

    tenant: str
    hours: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """The warm files of a day -> one, which has lost what the policy takes at the boundary."""

    tenant: str
    day_ms: int


@dataclass(frozen=True, slots=True)
class MakeCold:
    """The warm windows of a day -> hours, in the cold tier."""

    tenant: str
    day_ms: int


@dataclass(frozen=True, slots=True)
class Compact:
    """The cold objects of a month, (from_ms, until_ms] -> one a large metric, the small pooled."""

    tenant: str
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Files past their tenant's retention; windows after `kept_from_ms` stay."""

    tenant: str
    tier: Tier
    kept_from_ms: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Files of a tenant that was deleted; `whole` where nothing of it is left."""

    tenant: str
    paths: tuple[str, ...]
    whole: bool
    order: int = 0


@dataclass(frozen=True, slots=True)
class Erase:
    """Files that hold what orders to delete series take, anew without it: one that has to be
    written, and those before it that hold nothing of theirs. `newest`: the last of the orders."""

    tenant: str
    newest: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A settled file -> the object store."""

    tenant: str
    path: str


@dataclass(frozen=True, slots=True)
class Unlink:
    """Files whose grace is over."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LetRawGo:
    """Raw points up to these times may go: said before any does."""

    raw_from_ms: tuple[tuple[str, int], ...]


Task = (
    Roll
    | Skip
    | Forget
    | Merge
    | MakeCold
    | Compact
    | Expire
    | Drop
    | Erase
    | Upload
    | Unlink
    | LetRawGo
)

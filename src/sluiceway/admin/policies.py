"""Versions of the policy: list, show, apply, roll back, compare.

Invariant: a version that was told is never changed; rolling back makes a new one. What is not a
sound policy is refused with its place in the document, and makes none.
"""

from typing import Annotated, Any

import msgspec

from sluiceway.admin.bodies import Change, FieldChange
from sluiceway.admin.desired import leaves
from sluiceway.admin.routes import Asked, Route
from sluiceway.errors import TenantFault
from sluiceway.governance.document import parse_policy
from sluiceway.governance.policy import Policy, checked
from sluiceway.tenants.model import PolicyVersion, TimeMs
from sluiceway.tenants.publisher import Publisher

PAGE_MAX = 100
VERSION_DIGITS_MAX = 9
Version = Annotated[int, msgspec.Meta(ge=1)]


class PolicyLine(msgspec.Struct, frozen=True):
    """One version in a list."""

    version: Version
    stage: str
    budgets: int
    author: str
    created_ms: TimeMs
    rolled_back_to: Version | None


class ShownPolicy(msgspec.Struct, frozen=True):
    """One version whole: as it was written, and as it is read."""

    version: Version
    author: str
    created_ms: TimeMs
    rolled_back_to: Version | None
    document: str
    policy: Policy
    unchanged: bool = False
    """It was in force already: what was applied said the same, and made no version."""


class PolicyDiff(msgspec.Struct, frozen=True):
    """What is different in `after`, budget by budget; absent values of a field are not there."""

    before: Version
    after: Version
    changes: list[Change]
    removed: list[str]


class PolicyRoutes:
    """The handlers. Each blocks; any thread."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/policies",
                self.policies,
                "Versions of the policy, the newest first",
                list[PolicyLine],
                query=("before", "limit"),
            ),
            Route(
                "POST",
                "/policies",
                self.apply_policy,
                "A new version, in YAML or JSON; none where the newest says the same",
                ShownPolicy,
                status=201,
                query=("if_version",),
                text=True,
            ),
            Route("GET", "/policies/{version}", self.policy, "One version", ShownPolicy),
            Route(
                "POST",
                "/policies/{version}/rollback",
                self.roll_back,
                "A new version that says what an older one said",
                ShownPolicy,
                status=201,
                query=("if_version",),
            ),
            Route(
                "GET",
                "/policies/{version}/diff/{after}",
                self.policy_diff,
                "What another version says differently",
                PolicyDiff,
            ),
        ]

    def policies(self, asked: Asked) -> list[PolicyLine]:
        before = asked.count("before", 0, 10**VERSION_DIGITS_MAX) or None
        limit = asked.count("limit", PAGE_MAX, PAGE_MAX)
        with self._publisher.looking() as store:
            versions = [] if store is None else store.policies(before, limit)
        return [
            PolicyLine(
                kept.version,
                kept.stage,
                len(kept.policy["budgets"]),
                kept.author,
                kept.created_ms,
                kept.rolled_back_to,
            )
            for kept in versions
        ]

    def policy(self, asked: Asked) -> ShownPolicy:
        return shown(self._kept(asked.path["version"]))

    def apply_policy(self, asked: Asked) -> ShownPolicy:
        document: str = asked.body
        policy = parse_policy(document)
        said, wanted = msgspec.to_builtins(policy), guard(asked)
        with self._publisher.acting() as (store, _):
            for kept in store.policies(None, 1):
                if wanted in (None, kept.version) and same(kept, document, policy):
                    return msgspec.structs.replace(shown(kept), unchanged=True)
            made = store.add_policy(asked.actor, document, said, if_version=wanted)
        return shown(made)

    def roll_back(self, asked: Asked) -> ShownPolicy:
        version = number_of(asked.path["version"])
        with self._publisher.acting() as (store, _):
            kept = store.policy(version)
            # An action that this build does not have any more is refused, not brought back.
            policy = checked(msgspec.convert(kept.policy, Policy))
            said = msgspec.to_builtins(policy)
            made = store.add_policy(asked.actor, kept.document, said, version, guard(asked))
        return shown(made)

    def policy_diff(self, asked: Asked) -> PolicyDiff:
        before, after = (self._kept(asked.path[name]) for name in ("version", "after"))
        changes, removed = compare(before.policy, after.policy)
        return PolicyDiff(before.version, after.version, changes, removed)

    def _kept(self, text: str) -> PolicyVersion:
        version = number_of(text)
        with self._publisher.looking() as store:
            if store is None:
                raise unknown(text)
            return store.policy(version)


def compare(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[Change], list[str]]:
    """(what is new or changed, what is gone): a pure function of two policies."""
    changes = []
    old, new = parts_of(before), parts_of(after)
    for subject, fields in new.items():
        held = old.get(subject, {})
        different = [
            FieldChange(name, held.get(name, msgspec.UNSET), fields.get(name, msgspec.UNSET))
            for name in sorted({*held, *fields})
            if held.get(name, msgspec.UNSET) != fields.get(name, msgspec.UNSET)
        ]
        if different:
            changes.append(Change(subject, subject not in old, different))
    return changes, [subject for subject in old if subject not in new]


def parts_of(policy: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Fields by what they belong to: the policy itself, a budget, or a rule of the boundary or of
    sketches."""
    lists = {"budgets": "budget", "boundary": "boundary", "sketches": "sketch"}
    whole = dict(leaves({name: value for name, value in policy.items() if name not in lists}))
    parts = {"policy": whole}
    for name, kind in lists.items():
        # A version of an older build has no such rules.
        for entry in policy.get(name, ()):
            said = {field: value for field, value in entry.items() if field != "name"}
            parts[f"{kind}/{entry['name']}"] = dict(leaves(said))
    return parts


def shown(kept: PolicyVersion) -> ShownPolicy:
    policy = msgspec.convert(kept.policy, Policy)
    return ShownPolicy(
        kept.version, kept.author, kept.created_ms, kept.rolled_back_to, kept.document, policy
    )


def same(kept: PolicyVersion, document: str, policy: Policy) -> bool:
    """Whether a version says this word for word, and is still read as it was when it was made."""
    return kept.document == document and msgspec.convert(kept.policy, Policy) == policy


def guard(asked: Asked) -> int | None:
    """The version that must be the newest; 0 where there must be none yet. Raises: TenantFault."""
    if asked.query.get("if_version") == "0":
        return 0
    return asked.count("if_version", 0, 10**VERSION_DIGITS_MAX) or None


def number_of(text: str) -> int:
    """A version out of a path. Raises: TenantFault 404."""
    if not (text.isascii() and text.isdigit() and len(text) <= VERSION_DIGITS_MAX):
        raise unknown(text)
    return int(text)


def unknown(text: str) -> TenantFault:
    words = f"there is no version {text[:100]} of the policy"
    return TenantFault(404, "sluiceway-policy-unknown", words)

"""The nouns of tenancy. Every one is immutable; times are Unix milliseconds.

Invariant: nothing here holds a key that could be shown; a key is kept as its SHA-256 alone.
"""

from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec

Scope = Literal["write", "read", "admin", "read-many"]
SCOPES: tuple[Scope, ...] = ("write", "read", "admin", "read-many")
"""`read-many` reads any one of the tenants that its key names; X-Scope-OrgID says which."""
DEFAULT_TENANT = "default"
UNLIMITED_PLAN = "unlimited"
END = r"$(?!\n)"
"""Of a pattern: `$` alone lets a last line break pass, which would end a header line."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}" + END
LABEL_PATTERN = r"^[^\x00-\x1f\x7f]{1,128}" + END
AMOUNT_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,12})?" + END
Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
Label = Annotated[str, msgspec.Meta(pattern=LABEL_PATTERN)]
Amount = Annotated[str, msgspec.Meta(pattern=AMOUNT_PATTERN)]
Volume = Annotated[int, msgspec.Meta(ge=0, le=9_007_199_254_740_991)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=9_007_199_254_740_991)]
LimitsPatch = dict[str, dict[str, Any]]
Status = Literal["active", "deleting"]


class Principal(msgspec.Struct, frozen=True):
    """Who asks: the tenant that a verified key stands for, and what the key may do.

    `name` is for people and the audit log. `may_read` is of `read-many`.
    """

    tenant: str
    scopes: frozenset[str]
    name: str = "anonymous"
    expires_ms: int | None = None
    may_read: frozenset[str] = frozenset()


class Included(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan's price holds already; None is no end."""

    points_per_month: Volume | None = None
    active_series: Volume | None = None
    stored_bytes: Volume | None = None


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unit prices past what is included: decimal numbers as text."""

    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}" + END)] = "EUR"
    points_million: Amount = "0"
    active_series_thousand_month: Amount = "0"
    stored_gib_month: Amount = "0"
    queried_points_billion: Amount = "0"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="plan", tag_field="kind"):
    """Defaults of limits, volumes included, prices, and what happens past the volumes."""

    name: Name
    limits: LimitsPatch = {}
    included: Included = Included()
    prices: Prices = Prices()
    overage: Literal["charge", "refuse"] = "charge"


class Override(msgspec.Struct, frozen=True):
    """Limits that hold until `until_ms`: set, then scaled ("+50 % for 24 h")."""

    id: int
    until_ms: TimeMs
    set: LimitsPatch = {}
    scale: dict[str, float] = {}
    reason: str = ""
    actor: str = ""
    created_ms: TimeMs = 0


class Key(msgspec.Struct, frozen=True):
    """A key as it is kept. `id` is its look-up prefix, `sha256` its digest in hex."""

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    may_read: tuple[str, ...] = ()
    created_ms: TimeMs = 0
    expires_ms: TimeMs | None = None

    def principal(self) -> Principal:
        return Principal(
            self.tenant,
            frozenset(self.scopes),
            f"{self.name} ({self.id})",
            self.expires_ms,
            frozenset(self.may_read),
        )


class Tenant(msgspec.Struct, frozen=True, tag="tenant", tag_field="kind"):
    """A tenant with all that belongs to it; `limits` is its own patch over its plan's.

    A tenant that is `deleting` is refused everywhere while its data goes.
    """

    name: Name
    plan: Name = UNLIMITED_PLAN
    limits: LimitsPatch = {}
    status: Status = "active"
    created_ms: TimeMs = 0
    changed_ms: TimeMs = 0
    revision: int = 0
    overrides: tuple[Override, ...] = ()
    keys: tuple[Key, ...] = ()


class PolicyInForce(msgspec.Struct, frozen=True, tag="policy", tag_field="kind"):
    """The newest policy: its version and what it says (governance/policy.py), as plain JSON."""

    version: int
    policy: dict[str, Any]


class PolicyVersion(msgspec.Struct, frozen=True):
    """One version of the policy, never changed: `document` is as a person wrote it."""

    version: int
    stage: str
    author: str
    created_ms: TimeMs
    document: str
    policy: dict[str, Any]
    rolled_back_to: int | None = None
    """The version that it repeats."""


class Snapshot(msgspec.Struct, frozen=True):
    """Everything that tenants are, at one revision, and the policy that holds for them."""

    revision: int
    plans: dict[str, Plan]
    tenants: dict[str, Tenant]
    policy: PolicyInForce | None = None


class Act(msgspec.Struct, frozen=True):
    """One row of the audit log: who did what to whom, and the subject before and after."""

    id: int
    at_ms: int
    revision: int
    actor: str
    act: str
    subject: str
    before: Any = None
    after: Any = None


def directory_name(tenant: str) -> str:
    """A name that stays in its directory and is no pattern, whatever the tenant is called."""
    return quote(tenant, safe="").replace(".", "%2E").replace("~", "%7E")

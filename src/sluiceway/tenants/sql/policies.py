"""Versions of the policy as rows: added, read, never changed.

Invariant: versions are dense from 1 on and grow with time; a row is never updated or deleted.
"""

from typing import Any

from sqlalchemy import Connection, func, insert, select

from sluiceway.errors import TenantFault
from sluiceway.tenants.model import PolicyInForce, PolicyVersion
from sluiceway.tenants.sql.acting import Acting
from sluiceway.tenants.sql.lookups import check_room
from sluiceway.tenants.sql.rows import policy_of
from sluiceway.tenants.sql.tables import policies

VERSIONS_MAX = 10_000


def add_policy(
    acting: Acting,
    document: str,
    policy: dict[str, Any],
    rolled_back_to: int | None,
    if_version: int | None,
) -> PolicyVersion:
    """The next version. Raises: TenantFault 409."""
    connection = acting.connection
    check_room(connection, policies, VERSIONS_MAX)
    newest = connection.execute(select(func.max(policies.c.version))).scalar() or 0
    if if_version is not None and if_version != newest:
        words = f"the newest version of the policy is {newest}, not {if_version}: look again"
        raise TenantFault(409, "sluiceway-policy-changed", words)
    row = connection.execute(
        insert(policies)
        .values(
            version=newest + 1,
            stage=policy["stage"],
            author=acting.actor,
            created_ms=acting.now_ms,
            document=document,
            policy=policy,
            rolled_back_to=rolled_back_to,
            revision=acting.revision,
        )
        .returning(policies)
    ).one()
    act = "policy.apply" if rolled_back_to is None else "policy.rollback"
    told = {"version": newest + 1, "stage": policy["stage"], "rolled_back_to": rolled_back_to}
    acting.note(act, f"policy/{newest + 1}", {"version": newest} if newest else None, told)
    return policy_of(row)


def find_policy(connection: Connection, version: int) -> PolicyVersion:
    """Raises: TenantFault 404."""
    row = connection.execute(select(policies).where(policies.c.version == version)).first()
    if row is None:
        words = f"there is no version {version} of the policy"
        raise TenantFault(404, "sluiceway-policy-unknown", words)
    return policy_of(row)


def list_policies(connection: Connection, before: int | None, limit: int) -> list[PolicyVersion]:
    """The newest first."""
    query = select(policies).order_by(policies.c.version.desc()).limit(limit)
    if before is not None:
        query = query.where(policies.c.version < before)
    return [policy_of(row) for row in connection.execute(query)]


def policy_in_force(connection: Connection) -> PolicyInForce | None:
    """The newest version; None before the first."""
    query = select(policies.c.version, policies.c.policy).order_by(policies.c.version.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else PolicyInForce(row.version, row.policy)

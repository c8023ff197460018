"""What acts look up before they write.

Invariant: what is not there is a 404 with the noun in its id; nothing here writes.
"""

from typing import Any

from sqlalchemy import Connection, Select, func, select

from sluiceway.errors import TenantFault
from sluiceway.tenants.model import Key, Tenant
from sluiceway.tenants.sql import tables
from sluiceway.tenants.sql.rows import AnyRow, key_of, tenant_of


def found(connection: Connection, query: Select[Any], noun: str, name: str) -> AnyRow:
    """The row of this name. Raises: TenantFault 404."""
    row = connection.execute(query.filter_by(name=name)).first()
    if row is None:
        raise TenantFault(404, f"sluiceway-{noun}-unknown", f"there is no {noun} {name}")
    return row


def found_tenant(connection: Connection, name: str) -> Tenant:
    """Without its keys and overrides. Raises: TenantFault 404."""
    return tenant_of(found(connection, select(tables.tenants), "tenant", name))


def deleting_tenant(connection: Connection, name: str) -> Tenant:
    """Raises: TenantFault, also where it is not `deleting`."""
    tenant = found_tenant(connection, name)
    if tenant.status != "deleting":
        words = f"tenant {name} is {tenant.status}"
        raise TenantFault(409, "sluiceway-tenant-status", words)
    return tenant


def usable_tenant(connection: Connection, name: str) -> None:
    """Raises: TenantFault 404; 409 for one that is being deleted."""
    if found_tenant(connection, name).status == "deleting":
        raise TenantFault(409, "sluiceway-tenant-deleting", f"tenant {name} is being deleted")


def found_key(connection: Connection, id: str) -> Key:
    """Raises: TenantFault 404."""
    row = connection.execute(select(tables.keys).where(tables.keys.c.id == id)).first()
    if row is None:
        raise TenantFault(404, "sluiceway-key-unknown", f"there is no key {id}")
    return key_of(row)


def check_room(connection: Connection, table: Any, rows_max: int, tenant: str = "") -> None:
    """Is there room for one row more, of `tenant` where it is named? Raises: TenantFault 409."""
    query = select(func.count()).select_from(table)
    if tenant:
        query = query.where(table.c.tenant == tenant)
    if connection.execute(query).scalar_one() >= rows_max:
        words = f"at most {rows_max} {table.name}{' a tenant' if tenant else ''}"
        raise TenantFault(409, f"sluiceway-{table.name}-max", words)

"""What a start waits for: the first ack comes after the imports, so they are few."""

import subprocess
import sys

READ_SIDE_ONLY = (
    "numpy",
    "sluiceway.query.promql.engine",
    "sluiceway.query.api.app",
    "grpc",
    "sqlalchemy",
    "sluiceway.admin",
    "sluiceway.tenants.publisher",
)


def test_the_write_side_imports_nothing_of_the_read_side() -> None:
    """numpy and the engine took a third of the time to the first ack."""
    program = f"""
import sys
import sluiceway.config, sluiceway.wiring
found = [name for name in {READ_SIDE_ONLY!r} if name in sys.modules]
assert not found, found
"""
    path = "import sys; sys.path[:0] = " + repr([p for p in sys.path if p])
    subprocess.run([sys.executable, "-c", path + program], check=True, timeout=60)


def test_the_read_side_starts_without_sql() -> None:
    """A server whose tenants nobody changes pays neither the time nor the memory."""
    program = """
import sys
import sluiceway.wiring_read, sluiceway.query.api.prometheus, sluiceway.query.promql.engine
import sluiceway.serve.child, sluiceway.serve.read_paths, sluiceway.tenants.publisher
found = [name for name in ("sqlalchemy", "alembic", "sluiceway.admin") if name in sys.modules]
assert not found, found
"""
    path = "import sys; sys.path[:0] = " + repr([p for p in sys.path if p])
    subprocess.run([sys.executable, "-c", path + program], check=True, timeout=60)

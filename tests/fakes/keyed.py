"""A real server with `--auth keys`, asked with the keys of several tenants."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fakes.server import Server, remote_write
from sluiceway.gateway.keys import new_key

T = 1_700_000_000


class Keyed:
    """A server whose every request shows a key."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.root, text = new_key("default", "root", ("admin", "read", "write"))
        (place / "keys.toml").write_text(text)
        self.server = Server(place, "--auth", "keys")

    def call(
        self, key: str, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.call(method, path, body, {"authorization": f"Bearer {key}", **named})

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        status, answer = self.call(self.root, method, f"/admin/v1{path}", data)
        told = json.loads(answer)
        assert status in (200, 201, 202), told
        return told["data"]

    def tenant(self, name: str, **body: Any) -> str:
        """A new tenant's key."""
        self.admin("POST", "/tenants", {"name": name, **body})
        return self.key(name, "write", "read")

    def key(self, tenant: str, *scopes: str, **more: Any) -> str:
        body = {"tenant": tenant, "name": f"{tenant}-agent", "scopes": scopes, **more}
        return str(self.admin("POST", "/keys", body)["key"])

    def write(
        self, key: str, name: str, count: int = 1, at_ms: int = T * 1000, **headers: str
    ) -> int:
        series = [
            ({"__name__": name, "i": str(i), "owner": name}, [(at_ms, float(i))])
            for i in range(count)
        ]
        return self.call(key, "POST", "/api/v1/write", remote_write(series), **headers)[0]

    def get(self, key: str, path: str, **parameters: Any) -> tuple[int, bytes]:
        return self.call(key, "GET", f"/api/v1/{path}?{urlencode(parameters, doseq=True)}")

    def metric(self, name: str) -> float:
        lines = self.call(self.root, "GET", "/metrics")[1].decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

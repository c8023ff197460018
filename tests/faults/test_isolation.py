"""Random probes across tenants: no answer holds a byte of somebody else's.

Every tenant has a canary, a word that is in its metric, a label name, a label value, its key's name
and its limits. Whatever a tenant asks, with whatever header, no other's canary may come back.
`SLUICEWAY_PROBES` sets how many (a million takes about ten minutes).
"""

import http.client
import json
import os
import random
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

from fakes.keyed import Keyed, T
from fakes.server import remote_write

pytestmark = pytest.mark.faults
PROBES = int(os.environ.get("SLUICEWAY_PROBES", "20000"))
TENANTS = 5
SEED = 7


class Prober:
    """One tenant's attempts to see the others' canaries, on one connection."""

    def __init__(self, port: int, keys: dict[str, str], seed: int) -> None:
        self.port, self.keys = port, keys
        self.chance = random.Random(seed)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.statuses: dict[int, int] = {}
        self.cut_off = 0

    def probe(self) -> tuple[str, bytes]:
        """(who asked, the whole answer with its headers; nothing where the connection was cut)."""
        try:
            return self._probe()
        except ConnectionError:
            self.connection.close()
            self.cut_off += 1
            return "", b""

    def _probe(self) -> tuple[str, bytes]:
        chance = self.chance
        own, other = chance.sample(sorted(self.keys), 2)
        method, path, body = self._request(own, other)
        headers = self._headers(own, other)
        self.connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (*headers, ("content-length", str(len(body)))):
            self.connection.putheader(name, value)
        self.connection.endheaders(body)
        answer = self.connection.getresponse()
        data = answer.read()
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.will_close:
            self.connection.close()
        return own, str(answer.getheaders()).encode() + data

    def _headers(self, own: str, other: str) -> list[tuple[str, str]]:
        chance = self.chance
        key = self.keys[own]
        if chance.random() < 0.05:  # the other's prefix with our secret
            key = f"slw_{self.keys[other].split('_')[1]}_{key.split('_', 2)[2]}"
        headers = [("authorization", f"Bearer {key}")]
        claims = [other, own, f"{own}|{other}", f"{other}|{own}", "", "*", f"{own},{other}"]
        names = ["x-scope-orgid", "X-Scope-OrgID", "x-sluiceway-tenant", "x-sluiceway-actor"]
        for _ in range(chance.choice((0, 0, 1, 2))):
            headers.append((chance.choice(names), chance.choice(claims)))
        chance.shuffle(headers)
        return headers

    def _request(self, own: str, other: str) -> tuple[str, str, bytes]:
        """Never the other's canary as it is: an answer may repeat what was asked."""
        chance = self.chance
        hint = other[:-2]
        texts = ['{__name__=~".+"}', f'{{__name__=~"{hint}.*"}}', "up", f'{{l=~"{hint}.+"}}']
        texts += [f'label_replace({{__name__=~".+"}}, "a", "$1", "l", "(.*)") or {own}', "1(("]
        query = {"query": chance.choice(texts), "time": T}
        match = {"match[]": chance.choice(texts[:4])}
        span = {**query, "start": T - 600, "end": T + 600, "step": 60}
        name = chance.choice(["l", "__name__", "tenant", "..%2f", f"{hint}x"])
        paths = [
            f"/api/v1/query?{urlencode(query)}",
            f"/api/v1/query_range?{urlencode(span)}",
            f"/api/v1/series?{urlencode(match)}",
            f"/api/v1/labels?{urlencode(match)}",
            f"/api/v1/label/{name}/values",
            "/api/v1/metadata",
            "/api/v1/cardinality?limit=1000",
            "/api/v1/status/tsdb",
            "/api/v1/ledger",
            "/api/v1/ledger?raw_scan=1",
            "/api/v1/status/config",
            "/api/v1/alerts",
            "/api/v1/rules",
            "/api/v1/query_log?limit=1000",
            f"/api/v1/query_log?tenant={hint}",
            "/api/v1/deadletters?limit=1000",
            f"/api/v1/deadletters?tenant={hint}",
            "/admin/v1/budgets",
            "/admin/v1/policies",
            "/metrics",
            "/admin/v1/status",
            "/admin/v1/tenants",
            "/admin/v1/keys",
            "/admin/v1/audit",
            "/api/v1/../../admin/v1/tenants",
            "/api/v1/%2e%2e/%2e%2e/admin/v1/keys",
        ]
        if chance.random() < 0.2:
            good = remote_write([({"__name__": own, "l": own}, [(T * 1000, 1.0)])])
            return "POST", "/api/v1/write", chance.choice([good, good[:-3], b"", b"nonsense"])
        if chance.random() < 0.2:
            return "POST", "/admin/v1/keys", json.dumps({"tenant": hint}).encode()
        return chance.choice(("GET", "GET", "GET", "POST", "DELETE")), chance.choice(paths), b""


def test_no_foreign_byte(tmp_path: Path) -> None:
    keyed = Keyed(tmp_path / "data")
    with keyed.server as server:
        canaries = [f"canary{n}{random.Random(n).randbytes(6).hex()}" for n in range(TENANTS)]
        keys = {name: keyed.tenant(name) for name in canaries}
        deadline_s = time.monotonic() + 10
        for name, key in keys.items():
            series = [({"__name__": name, "l": name, f"l_{name}": "v"}, [(T * 1000, 1.0)])]
            body = remote_write(series)
            while keyed.call(key, "POST", "/api/v1/write", body)[0] != 204:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
        prober = Prober(server.port, keys, SEED)
        for _ in range(PROBES):
            own, told = prober.probe()
            foreign = [name for name in canaries if name != own and name.encode() in told]
            assert not foreign, (own, foreign, told[:2_000])
        # It was worth asking: some were answered, some refused, and nothing failed.
        assert prober.statuses[200] > PROBES // 20
        assert prober.statuses[403] > PROBES // 20
        assert prober.cut_off <= PROBES // 10_000
        assert not {status for status in prober.statuses if status >= 500}, prober.statuses
        for name, key in keys.items():
            _, told = keyed.get(key, "label/__name__/values")
            assert json.loads(told)["data"] == [name]

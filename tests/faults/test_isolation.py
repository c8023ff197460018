"""Random probes across tenants: no answer holds a byte of somebody else's.

Every tenant has a canary, a word that is in its metrics, a label name, a label value, its key's
name and its limits; in budgets and rules that fold its series, in letters and orders to delete. One
more tenant was deleted with all it had, and a what-if has run over everybody's hours. Whatever a
tenant asks, with whatever header, no other's canary may come back.
`SLUICEWAY_PROBES` sets how many (a million takes about ten minutes).
"""

import http.client
import json
import os
import random
import time
from pathlib import Path
from typing import Any
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
        folded = '{folded_by=~".+"}'
        span = {**query, "start": T - 600, "end": T + 600, "step": 60}
        name = chance.choice(["l", "__name__", "tenant", "..%2f", f"{hint}x"])
        by = chance.choice(["tenant", "metric", "tier", "user", "plan", "tag", "tags", "part"])
        form = chance.choice(["json", "csv", "html", "focus"])
        cost = {"by": by, "label": "l", "format": form, "limit": 1000}
        paths = [
            f"/api/v1/cost?{urlencode(cost)}",
            f"/api/v1/cost?{urlencode({**cost, 'tenant': chance.choice([hint, '*'])})}",
            f"/api/v1/query?{urlencode(query)}",
            f"/api/v1/query_range?{urlencode(span)}",
            f"/api/v1/series?{urlencode(match)}",
            f"/api/v1/labels?{urlencode(match)}",
            f"/api/v1/label/{name}/values",
            "/api/v1/metadata",
            "/api/v1/cardinality?limit=1000",
            "/api/v1/cardinality?limit=1000&since=24h",
            f"/api/v1/cardinality?metric={hint}&limit=1000",
            f"/api/v1/cardinality?metric={own}_f&limit=1000",
            f"/api/v1/query?{urlencode({**query, 'query': folded})}",
            f"/api/v1/label/folded_by/values?{urlencode(match)}",
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
            f"/api/v1/deadletters/replay?tenant={hint}",
            "/admin/v1/deletions",
            f"/admin/v1/deletions?{urlencode({'tenant': hint, 'match': texts[0]})}",
            f"/admin/v1/deletions?{urlencode({**match, 'match': texts[3], 'dry_run': '1'})}",
            f"/admin/v1/tenants/{hint}",
            "/admin/v1/policies/1",
            "/admin/v1/policies/whatif?days=7&refused=1000",
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
            metric = own + chance.choice(["", "_f", "_s", "_d"])
            time_ms = int(time.time() * 1000) if metric != own else T * 1000
            labels = {"__name__": metric, "l": own}
            if metric != own:
                labels["i"] = str(chance.randrange(50))
            good = remote_write([(labels, [(time_ms, 1.0)])])
            return "POST", "/api/v1/write", chance.choice([good, good[:-3], b"", b"nonsense"])
        if chance.random() < 0.2:
            return "POST", "/admin/v1/keys", json.dumps({"tenant": hint}).encode()
        return chance.choice(("GET", "GET", "GET", "POST", "DELETE")), chance.choice(paths), b""


def write(
    keyed: Keyed, key: str, series: list[tuple[dict[str, str], list[tuple[int, float]]]]
) -> None:
    """Until it is taken: a tenant is known to the gateway within seconds."""
    deadline_s = time.monotonic() + 10
    while keyed.call(key, "POST", "/api/v1/write", remote_write(series))[0] != 204:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def budgets_of(name: str) -> list[dict[str, Any]]:
    """One that folds, one that drops, and a standing rule; their names are canaries, too."""
    fold = {"grid_ms": 1_000, "lateness_ms": 0}
    none = {"hard": 0}
    of = {"tenant": name, "action": "strip", "drop_labels": ["i"], "fold": fold}
    return [
        {**of, "name": f"{name}-f", "metric": f"{name}_f", "active_series": none},
        {**of, "name": f"{name}-s", "metric": f"{name}_s", "standing": True},
        {
            "tenant": name,
            "name": f"{name}-d",
            "metric": f"{name}_d",
            "active_series": none,
            "action": "drop",
        },
    ]


def fill(keyed: Keyed, keys: dict[str, str], gone: str) -> None:
    """Series that are stored, folded, refused and deleted; and a tenant that is deleted."""
    now_ms = int(time.time() * 1000)
    keys = {**keys, gone: keyed.tenant(gone)}
    for name, key in keys.items():
        known = {"__name__": f"{name}_s", "l": name, "i": "0"}
        deleted = {"__name__": f"{name}_gone", "l": name}
        of = {"__name__": name, "l": name, f"l_{name}": "v"}
        write(
            keyed,
            key,
            [(of, [(T * 1000, 1.0)]), (known, [(now_ms, 1.0)]), (deleted, [(now_ms, 1.0)])],
        )
    policy = {"stage": "enforce", "budgets": [b for name in keys for b in budgets_of(name)]}
    keyed.admin("POST", "/policies", policy)
    keyed.admin("POST", "/policies/whatif?days=2&refused=100", policy)
    deadline_s = time.monotonic() + 30
    while not keyed.metric("sluiceway_policy_version") or keyed.metric("sluiceway_policy_pending"):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    for second in range(2):
        for name, key in keys.items():
            at_ms = int(time.time() * 1000) + second
            kinds = [{"__name__": f"{name}_{kind}", "l": name, "i": "0"} for kind in "fsd"]
            write(keyed, key, [(labels, [(at_ms, 1.0)]) for labels in kinds])
        time.sleep(1.5)
    for name in keys:
        match = urlencode({"tenant": name, "match": f'{{__name__="{name}_gone"}}'})
        keyed.admin("POST", f"/deletions?{match}")
    keyed.admin("DELETE", f"/tenants/{gone}")


def test_no_foreign_byte(tmp_path: Path) -> None:
    keyed = Keyed(tmp_path / "data")
    with keyed.server as server:
        canaries = [f"canary{n}{random.Random(n).randbytes(6).hex()}" for n in range(TENANTS + 1)]
        keys = {name: keyed.tenant(name) for name in canaries[:TENANTS]}
        fill(keyed, keys, canaries[TENANTS])
        for name, key in keys.items():
            told = keyed.get(key, "label/folded_by/values")[1]
            assert json.loads(told)["data"] == [f"{name}-f", f"{name}-s"]
            letters = json.loads(keyed.get(key, "deadletters", limit=10)[1])["data"]
            assert f"{name}-d" in json.dumps(letters)
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
            assert json.loads(told)["data"] == [name, f"{name}_f", f"{name}_s"]

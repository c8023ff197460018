"""Paths of the read side: admin paths are an admin's, and cost nothing until they are asked."""

from typing import Any, cast

from sluiceway.admin.app import AdminAnswer, AdminApp
from sluiceway.query.api.app import Call, QueryApp, Reply
from sluiceway.serve.read_paths import ReadPaths


class Queries:
    def answer(self, call: Call) -> Reply:
        return Reply(200, call.path.encode())


class Admin:
    made = 0

    def __init__(self) -> None:
        Admin.made += 1

    def answer(self, *arguments: Any) -> AdminAnswer:
        return AdminAnswer(503, repr(arguments).encode())


def test_admin_paths_are_an_admins() -> None:
    paths = ReadPaths(cast(QueryApp, Queries()), lambda: cast(AdminApp, Admin()))
    for path in ("/api/v1/query", "/admin/v1", "/api/v1/../../admin/v1/keys", "//admin/v1/keys"):
        assert paths.answer(Call(path=path)).body == path.encode()
    assert paths.answer(Call(path="/admin/v1/keys")).status == 403
    assert Admin.made == 0
    for _ in range(2):
        call = Call(
            "POST", "/admin/v1/keys", b"a=1", {b"x-sluiceway-actor": "é (1)".encode()}, b"{}"
        )
        reply = paths.answer(call)
        assert (reply.status, reply.retry) == (503, True)
        assert reply.body == repr(("POST", "/admin/v1/keys", b"a=1", b"{}", "é (1)")).encode()
    assert Admin.made == 1

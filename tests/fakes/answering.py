"""A transport that answers from a list and remembers what was sent."""

from collections.abc import Mapping

from sluiceway.client.errors import Unavailable
from sluiceway.client.transport import Reply


class Answering:
    """Answers in order, the last one for ever. None: no answer."""

    def __init__(self, *replies: Reply | None) -> None:
        self.replies = list(replies)
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []

    def send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> Reply:
        self.bodies.append(body)
        self.headers.append(headers)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is None:
            raise Unavailable("nobody there")
        return reply

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


def answer(status: int, text: str = "", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, text.encode())

"""What a route of the admin API is, and how a request finds its own.

Invariant: a route's types are the ones that its body is checked by and that OpenAPI shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from sluiceway.errors import TenantFault

PREFIX = "/admin/v1"
QUERY_FIELDS_MAX = 32


@dataclass(frozen=True)
class Asked:
    """One request: who asks, the path's variables, the query's parameters, the checked body."""

    actor: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    def count(self, name: str, default: int, most: int) -> int:
        """A whole number out of the query. Raises: TenantFault 400."""
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:12]) <= most:
            words = f"{name}: a whole number from 1 to {most}"
            raise TenantFault(400, "sluiceway-admin-parameter", words)
        return int(text)


@dataclass(frozen=True)
class Route:
    """One method of one path. `path` has variables in braces; `query` names its parameters."""

    method: str
    path: str
    handler: Callable[[Asked], Any]
    summary: str
    answer: Any
    body: Any = None
    status: int = 200
    query: tuple[str, ...] = ()
    text: bool = False
    """The body is a document in YAML or JSON, which the handler reads itself."""


class Routes:
    """The table, looked up by method and path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.all = tuple(routes)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route and the path's variables. Raises: TenantFault 404, 405."""
        parts = path.removeprefix(PREFIX).strip("/").split("/")
        methods = []
        for route in self.all:
            variables = match(route.path.strip("/").split("/"), parts)
            if variables is None:
                continue
            if route.method == method:
                return route, variables
            methods.append(route.method)
        if methods:
            words = f"only {', '.join(sorted(methods))} is taken here"
            raise TenantFault(405, "sluiceway-method", words)
        raise TenantFault(404, "sluiceway-path", "nothing lives at this path")


def match(template: list[str], parts: list[str]) -> dict[str, str] | None:
    """The variables of a path that fits the template."""
    if len(template) != len(parts):
        return None
    variables = {}
    for wanted, part in zip(template, parts, strict=True):
        if wanted.startswith("{"):
            variables[wanted.strip("{}")] = part
        elif wanted != part:
            return None
    return variables


def parameters(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    """The query's parameters. Raises: TenantFault 400 for one that the route does not know."""
    try:
        pairs = parse_qs(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
        )
    except ValueError:
        raise TenantFault(400, "sluiceway-admin-parameter", "too many parameters") from None
    for name in pairs:
        if name not in known:
            words = f"no parameter is called {name[:100]!r} here"
            raise TenantFault(400, "sluiceway-admin-parameter", words)
    return {name: values[-1] for name, values in pairs.items()}

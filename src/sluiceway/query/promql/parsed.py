"""The cache of parsed texts: dashboards ask the same again and again.

Invariant: at most `cached_queries_max` trees are held; they are shared, and never changed.
"""

from collections import OrderedDict
from threading import Lock

from sluiceway.query.promql.parser import Parser, ParserLimits
from sluiceway.query.promql.syntax import Expression


class ParsedQueries:
    """A bounded cache of parsed texts, shared by threads."""

    def __init__(self, limits: ParserLimits | None = None) -> None:
        self.limits = limits or ParserLimits()
        self._trees: OrderedDict[str, Expression] = OrderedDict()
        self._lock = Lock()

    def parse(self, text: str) -> Expression:
        """The text's tree, which the caller must not change. Raises: ParseFault, QueryTooLarge."""
        with self._lock:
            found = self._trees.get(text)
            if found is not None:
                self._trees.move_to_end(text)
                return found
        tree = Parser(text, self.limits).parse()
        with self._lock:
            self._trees[text] = tree
            while len(self._trees) > self.limits.cached_queries_max:
                self._trees.popitem(last=False)
        return tree
